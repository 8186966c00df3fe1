//! The checks of embedd.doctor(): what is wrong with embedd in a database and its server, each with a remedy.

mod bookkeeping;
mod embedder;
mod finding;
mod indexes;
mod orphans;
mod providers;
mod remedy;
mod report;
mod server;
mod sources;
mod statistics;
mod sync;
mod version;

use pgrx::prelude::*;

pub use self::finding::Finding;
use self::report::Report;
use crate::catalog::{self, VectorTable};
use crate::error::Result;
use crate::rights::is_monitor;
use crate::shared;
use crate::status::{self, SyncStatus};
use crate::table::check_may_change;

/// What the checks examine, and for which role.
pub struct Scope {
    /// The vector tables that the current role may see.
    tables: Vec<Seen>,
    /// Whether the role may see findings about the whole server.
    sees_server: bool,
    is_preloaded: bool,
    is_standby: bool,
}

/// A vector table with its status.
pub struct Seen {
    table: VectorTable,
    status: SyncStatus,
}

/// All findings, problems first, and a line for each check without a finding. A check that fails is a warning with the
/// reason; only a cancelled statement is an error.
pub fn examine(calls_providers: bool) -> Result<Vec<Finding>> {
    let mut report = Report::default();
    let mut listed = None;
    report.check("vector_table", "", |client| {
        listed = Some(status::visible(client)?);
        Ok(Vec::new())
    })?;
    let is_listed = listed.is_some();
    let found = listed.unwrap_or_default();
    let mut tables = Vec::new();
    for table in found.tables {
        let status = status_of(&mut report, &table)?;
        tables.push(Seen { table, status });
    }
    let scope = Scope {
        tables,
        sees_server: is_monitor(),
        is_preloaded: shared::is_preloaded(),
        // SAFETY: reads shared memory.
        is_standby: unsafe { pg_sys::RecoveryInProgress() },
    };
    server::examine(&mut report, &scope)?;
    embedder::examine(&mut report, &scope)?;
    providers::examine(&mut report, &scope, calls_providers)?;
    sources::examine(&mut report, &scope)?;
    sync::examine(&mut report, &scope, &found.damaged);
    indexes::examine(&mut report, &scope)?;
    statistics::examine(&mut report, &scope)?;
    orphans::examine(&mut report, &scope)?;
    bookkeeping::examine(&mut report, &scope)?;
    // If the tables could not be listed, nothing is known to be fine.
    Ok(finding::in_order(report.findings, is_listed))
}

/// The status of a vector table; if it cannot be read, an empty one, and a finding with the reason for roles that may
/// see errors.
fn status_of(report: &mut Report, table: &VectorTable) -> Result<SyncStatus> {
    let failure = match report::bounded(|client| status::look(client, table.clone())) {
        Ok(status) => return Ok(status),
        Err(failure) if failure.is_canceled() => return Err(failure.into()),
        Err(failure) => failure,
    };
    let mut meaning =
        "its status could not be read, so its queue and its rows were not checked".to_string();
    if check_may_change(table).is_ok() {
        meaning += &format!(": {}", failure.message);
    }
    report.add(Finding::warning("sync", &table.name, meaning));
    Ok(SyncStatus::default())
}

impl Scope {
    /// Whether a vector table uses the local model.
    fn uses_local(&self) -> bool {
        self.tables.iter().any(|seen| seen.table.provider == catalog::LOCAL_PROVIDER)
    }
}
