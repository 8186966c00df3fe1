//! Writes what the status of a vector table has to say, and how far a worker is with it.

use pgrx::prelude::*;

use super::outcome;
use crate::catalog::{self, ErrorSource, Progress};
use crate::extension;
use crate::sync::core::{Outcome, Report};
use crate::sync::table::Table;
use crate::task;
use crate::transaction;

/// Writes a report into the catalog, and a line into the log when it is worth one.
pub fn report(table: &Table, report: &Report) -> Outcome {
    let (id, name) = (table.config.id, &table.config.name);
    let written = transaction::run(|| {
        if extension::oid().is_none() {
            return Ok(false);
        }
        Spi::connect_mut(|client| match report {
            Report::Failed { reason, is_of_provider, is_stuck, is_unseen, .. } => {
                if *is_unseen {
                    catalog::record_missed_changes(client, id)?;
                }
                let culprit =
                    if *is_of_provider { ErrorSource::Provider } else { ErrorSource::Table };
                let is_known = catalog::set_error(client, id, culprit, reason, *is_stuck)?;
                task::set_error(client, id, reason)?;
                Ok(is_known)
            }
            Report::Works { .. } => catalog::set_working_status(client, id),
        })
    });
    match (&written, report) {
        (Ok(true), Report::Failed { reason, is_news: true, .. }) => ereport!(
            PgLogLevel::LOG,
            PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
            format!("sync of vector table \"{name}\" failed: {reason}")
        ),
        (Ok(true), Report::Works { is_news: true }) => ereport!(
            PgLogLevel::LOG,
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("sync of vector table \"{name}\" works again")
        ),
        (Err(error), _) => {
            log!("could not write the status of vector table \"{name}\": {}", error.message);
        }
        // Dropped in the middle of the work, or nothing new.
        _ => {}
    }
    outcome(table, written.map(|_| Outcome::Done))
}

/// Writes how far the table is.
pub fn write_progress(
    table: &Table,
    complete_to: i64,
    has_synced: bool,
    rate: Option<f64>,
) -> Outcome {
    let progress = Progress { done: complete_to, open: &table.sync.cursor.open, has_synced, rate };
    let (id, portion) = (table.config.id, table.portion);
    let written = transaction::run(|| {
        Spi::connect_mut(|client| catalog::set_progress(client, id, portion, &progress))
    });
    if let Err(error) = &written {
        debug1!("could not write how far vector table {id} is: {}", error.message);
    }
    Outcome::Done
}
