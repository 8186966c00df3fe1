//! Runs the actions of the core: each is at most one transaction.

pub mod apply;
pub mod batch;
pub mod load;
pub mod provider_batch;
pub mod run;
pub mod scan;
pub mod source_fix;
mod status;
mod swap;
mod tasks;

use pgrx::prelude::*;

pub use self::tasks::end_hopeless_task;
use super::core::{Action, Failure, Lookup, Outcome};
use super::table::Table;
use crate::name::quote_ident;
use crate::process::HelperKind;
use crate::rights;
use crate::transaction::{self, Timeout, TxError};
use crate::{index, shared};

/// Runs an action of a vector table, all but [`Action::Send`], which is no transaction.
pub fn run(table: &mut Table, action: &Action) -> Outcome {
    match action {
        Action::FixSource => fix_source(table),
        Action::Report(report) => status::report(table, report),
        Action::WriteProgress { complete_to, has_synced, rate } => {
            status::write_progress(table, *complete_to, *has_synced, *rate)
        }
        Action::TakeBulkChanges { rows, .. } => tasks::take_bulk_changes(table, rows),
        Action::Acknowledge { rows, keys } => tasks::acknowledge(table, rows, keys),
        Action::BeginTask(task) => tasks::begin(table, *task),
        Action::DeferIndexes => defer_indexes(table),
        Action::Scan(step) => scan::step(table, step),
        Action::BuildIndexes => build_indexes(table),
        Action::CheckIndexes { task, attempt } => tasks::check_indexes(table, *task, *attempt),
        Action::Swap { task, attempt, tries } => swap::swap(table, *task, *attempt, *tries),
        Action::DropOld => swap::drop_old(table),
        Action::Load(id) => batch::load(table, *id),
        Action::Store(id) => batch::store(table, *id),
        Action::Fail(id) => batch::fail(table, *id),
        Action::Send(_) => Outcome::Done,
    }
}

fn fix_source(table: &mut Table) -> Outcome {
    let Some(fix) = table.fix.clone() else { return Outcome::Done };
    let config = &table.config;
    let fixed = transaction::bounded(Timeout::Usual, || {
        Spi::connect_mut(|client| source_fix::fix(client, config, &fix))
    });
    match fixed {
        Ok(_) => {
            table.fix = None;
            if fix != source_fix::SourceFix::Provider {
                // The other workers may have something in flight that has to be loaded again.
                wake_workers();
            }
            Outcome::Done
        }
        Err(error) => Outcome::Failed(failure(table, error)),
    }
}

fn defer_indexes(table: &Table) -> Outcome {
    let config = &table.config;
    let deferred = transaction::bounded(Timeout::Usual, || {
        Spi::connect_mut(|client| index::defer(client, config))
    });
    if let Err(error) = deferred {
        // Where a long transaction holds the table, the load goes on with its indexes.
        debug1!("vector table \"{}\" keeps its indexes: {}", config.name, error.message);
    }
    Outcome::Done
}

fn build_indexes(table: &mut Table) -> Outcome {
    table.builder = HelperKind::IndexBuilder.start(table.config.id, &table.config.name);
    match &table.builder {
        Some(_) => Outcome::Done,
        None => Outcome::Failed(Failure {
            blame: super::core::Blame::Table,
            reason: "no slot for a process that builds its index: increase max_worker_processes"
                .to_string(),
            is_transient: true,
        }),
    }
}

/// A transaction of a vector table that was rolled back, as the core knows it.
pub fn failure(table: &Table, error: TxError) -> Failure {
    let mut reason = error.message.clone();
    if error.sqlstate == PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE
        && let Some(source) = &table.config.source_name
        && let Ok(role) = transaction::run(|| Ok(rights::role_name(table.config.owner)))
    {
        reason += &format!(
            ". Let the owner of the vector table read its source: GRANT SELECT ON {source} TO {}.",
            quote_ident(&role)
        );
    }
    Failure { reason, ..error.into() }
}

impl From<TxError> for Failure {
    fn from(error: TxError) -> Self {
        let (blame, is_transient) = (error.blame(), error.is_transient());
        Self { blame, reason: error.message, is_transient }
    }
}

/// Wakes the workers of this database.
fn wake_workers() {
    // SAFETY: a plain global of the process.
    shared::wake_worker(unsafe { pg_sys::MyDatabaseId });
}

/// The timeout of a transaction that looks rows up in this way.
pub fn timeout(lookup: Lookup) -> Timeout {
    match lookup {
        Lookup::Index => Timeout::Usual,
        Lookup::FullScan => Timeout::FullScan,
    }
}

/// The outcome of a transaction that brings nothing back.
fn outcome(table: &Table, ended: Result<Outcome, TxError>) -> Outcome {
    ended.unwrap_or_else(|error| Outcome::Failed(failure(table, error)))
}
