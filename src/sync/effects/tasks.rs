//! Begins tasks, makes bulk changes tasks, and looks what has become of indexes that are built.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::{outcome, swap, wake_workers};
use crate::error::Result;
use crate::name::quote_literal;
use crate::status::count;
use crate::sync::core::{HandedOut, Outcome};
use crate::sync::table::Table;
use crate::task::{self, Task};
use crate::transaction::{self, Timeout};
use crate::{catalog, queue};

/// Makes bulk changes a comparison, or restarts the open task, and removes their queue rows in the same transaction.
pub fn take_bulk_changes(table: &Table, rows: &[i64]) -> Outcome {
    let (id, portion) = (table.config.id, table.portion);
    let taken = transaction::bounded(Timeout::Usual, || {
        Spi::connect_mut(|client| {
            let task = task::compare_again(client, id)?;
            queue::remove(client, portion, id, rows)?;
            match task {
                Some(task) => begin_in(client, table, task),
                None => Ok(None),
            }
        })
    });
    wake_others(table);
    outcome(table, taken.map(Outcome::Task))
}

/// Begins or resumes a task.
pub fn begin(table: &Table, task: i64) -> Outcome {
    let begun = transaction::bounded(Timeout::Usual, || {
        Spi::connect_mut(|client| {
            if let Some(processes) = catalog::awaited_writers(client, &table.config)? {
                task::set_error(client, table.config.id, &awaits(&processes))?;
                return Ok(Outcome::NotYet);
            }
            Ok(Outcome::Task(begin_in(client, table, task)?))
        })
    });
    wake_others(table);
    outcome(table, begun)
}

/// What a task says that waits for writers.
fn awaits(processes: &[String]) -> String {
    format!(
        "waits for the end of transactions that write to the source and began before the change (pg_stat_activity.pid: {})",
        processes.join(", ")
    )
}

/// Begins a task: comes back with it, and with the queue rows that the other workers have to acknowledge first.
fn begin_in(
    client: &mut SpiClient<'_>,
    table: &Table,
    task: i64,
) -> Result<Option<(Task, Vec<HandedOut>)>> {
    let Some((task, is_new)) = task::begin(client, task)? else { return Ok(None) };
    if is_new && !table.config.reads_run {
        // It tells how far the task is, and nothing depends on it.
        let counted = transaction::nested_read(|| {
            Spi::connect(|client| count::source_rows(client, &table.config))
        });
        task::set_total(client, task.id, counted.unwrap_or_default())?;
    }
    let (id, portion) = (table.config.id, table.portion);
    if portion.count < 2 {
        return Ok(Some((task, Vec::new())));
    }
    if is_new && !task.is_first_load() {
        queue::write_for_others(id, portion, queue::BulkChange::Recheck);
        // SAFETY: in a transaction; lets the next statement see what was written.
        unsafe { pg_sys::CommandCounterIncrement() };
    }
    Ok(Some((task, queue::bulk_changes_of_others(client, portion, id)?)))
}

fn wake_others(table: &Table) {
    if table.portion.count > 1 {
        wake_workers();
    }
}

/// Removes bulk changes that the owner of the table waits for, and has what is in flight loaded again.
pub fn acknowledge(table: &Table, rows: &[i64], keys: &[String]) -> Outcome {
    let (id, portion) = (table.config.id, table.portion);
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let acknowledged = transaction::bounded(Timeout::Usual, || {
        Spi::connect_mut(|client| {
            queue::remove(client, portion, id, rows)?;
            queue::write_keys(id, portion.count, &keys);
            Ok(Outcome::Done)
        })
    });
    wake_others(table);
    outcome(table, acknowledged)
}

/// Looks whether the indexes are all built, which ends the task.
pub fn check_indexes(table: &Table, task: i64, attempt: i32) -> Outcome {
    let looked = transaction::bounded(Timeout::Usual, || {
        Spi::connect_mut(|client| swap::after_indexes(client, table, task, attempt))
    });
    outcome(table, looked)
}

/// Fails the open task of a vector table in whose step the process has ended so often in a row, if that is as often as the
/// task allows. False when it goes on.
pub fn end_hopeless_task(table_id: i32, ends: u32) -> bool {
    let ended = transaction::run(|| {
        Spi::connect_mut(|client| {
            let Some(table) = catalog::by_id(client, table_id)? else { return Ok(None) };
            catalog::lock_before_tasks(client, table_id)?;
            let name = quote_literal(&table.name);
            let reason = format!(
                "the worker process ended {ends} times in a row in the same step of this task; the server log has the reason. When it is removed: SELECT embedd.backfill({name})."
            );
            if !task::fail_after(client, table_id, ends, &reason)? {
                return Ok(None);
            }
            queue::remove_paged(client, table_id)?;
            catalog::set_working_status(client, table_id)?;
            Ok(Some(table.name))
        })
    });
    match ended {
        Ok(Some(name)) => {
            log!(
                "the task of vector table \"{name}\" has failed: the worker process ended {ends} times in a row in the same step of it"
            );
            wake_workers();
            true
        }
        Ok(None) => false,
        Err(failure) => {
            log!("could not end the task of vector table {table_id}: {}", failure.message);
            false
        }
    }
}
