//! Checks of the sync of each vector table: errors, waiting changes, failed rows.

use super::finding::Finding;
use super::report::Report;
use super::{Scope, Seen, remedy};
use crate::name::quote_literal;
use crate::table::check_may_change;

/// A change that waits longer is a problem, in seconds.
const TOO_LONG: f64 = 300.0;

/// Checks the status of each vector table, and reports rows of embedd.vector_tables that cannot be read.
pub fn examine(report: &mut Report, scope: &Scope, damaged: &[(i32, String)]) {
    for (id, reason) in damaged {
        let meaning = format!("row {id} of embedd.vector_tables cannot be read: {reason}");
        let remedy = format!("SELECT * FROM embedd.vector_tables WHERE id = {id};");
        report.add(Finding::problem("vector_table", &id.to_string(), meaning).with(remedy));
    }
    for seen in &scope.tables {
        let is_explained = report.explains(&seen.table.name, &seen.table.provider);
        one(seen, is_explained).into_iter().for_each(|finding| report.add(finding));
    }
}

/// The findings of a status; a status error may already be explained by another finding.
fn one(seen: &Seen, is_explained: bool) -> Vec<Finding> {
    let (table, status) = (&seen.table, &seen.status);
    let name = table.name.as_str();
    let mut found = Vec::new();
    match status.sync_status {
        "error" if !is_explained => {
            let reason = status.last_error.clone().unwrap_or_else(|| {
                "it has status error; the reason is visible to roles with the rights of its owner"
                    .to_string()
            });
            let remedy = status.last_error.as_deref().and_then(remedy::statement_in);
            found.push(Finding::problem("sync", name, reason).with(remedy));
        }
        "pending" if !is_explained => {
            let meaning = "it is not backfilled: no row is embedded, and queries are refused";
            found.push(
                Finding::warning("backfill", name, meaning).with(remedy::call("backfill", name)),
            );
        }
        "paused" => {
            let meaning = "its sync is paused: changes are queued but not embedded";
            found.push(
                Finding::warning("paused", name, meaning).with(remedy::call("resume_sync", name)),
            );
        }
        _ => {}
    }
    let age = status.oldest_pending_secs.filter(|age| *age > TOO_LONG);
    if let Some(age) = age
        && status.sync_status != "paused"
    {
        found.push(waiting(seen, age));
    }
    found.extend(rows(seen));
    found
}

/// A change that has waited too long.
fn waiting(seen: &Seen, age: f64) -> Finding {
    let table = &seen.table;
    let mut meaning = format!("its oldest change has waited for {age:.0} seconds");
    if let Some(error) = &seen.status.last_error {
        meaning += &format!(": {error}");
    }
    let remedy = match (seen.status.provider_state, seen.status.worker_state) {
        ("failing", _) => {
            format!("SELECT * FROM embedd.test_provider({});", quote_literal(&table.provider))
        }
        // The launcher restarts it at once.
        (_, "busy" | "idle" | "starting") => "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'embedd sync worker' AND datname = pg_catalog.current_database();".to_string(),
        (_, state) => {
            meaning += &format!("; the sync worker is {state}");
            format!("SELECT * FROM embedd.sync_status({});", quote_literal(&table.name))
        }
    };
    Finding::problem("queue", &table.name, meaning).with(remedy)
}

/// Failed rows, and truncated texts.
fn rows(seen: &Seen) -> Vec<Finding> {
    let (name, id) = (seen.table.name.as_str(), seen.table.id);
    let mut found = Vec::new();
    if let Some(many) = seen.status.failed_rows.filter(|many| *many > 0) {
        let meaning = match check_may_change(&seen.table) {
            Ok(()) => format!(
                "failed rows without a vector: {many}; embedd.failed_rows has the reasons (table_id = {id})"
            ),
            Err(_) => format!("failed rows without a vector: {many}"),
        };
        found.push(
            Finding::warning("failed_rows", name, meaning).with(remedy::call("retry_failed", name)),
        );
    }
    if let Some(many) = seen.status.truncated_rows.filter(|many| *many > 0) {
        let meaning = format!(
            "rows whose text exceeds the model's limit, so that only its beginning is embedded: {many}"
        );
        let remedy =
            format!("SELECT pk_value FROM embedd.truncated_rows WHERE table_id = {id} LIMIT 100;");
        found.push(Finding::warning("truncated_rows", name, meaning).with(remedy));
    }
    found
}
