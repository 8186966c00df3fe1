//! Swaps a shadow in, and drops the table that the last swap replaced.

use std::time::Duration;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::wake_workers;
use crate::catalog;
use crate::error::Result;
use crate::index;
use crate::relation;
use crate::sync::core::{Outcome, lock_wait};
use crate::sync::table::Table;
use crate::table::{self, Swapped};
use crate::task::{self, Phase};
use crate::transaction::{self, Timeout, TxError};

/// Ends a task whose rows and indexes are complete. A shadow that is to be swapped in is not at its end yet.
pub fn end(client: &mut SpiClient<'_>, table: &Table, task: i64) -> Result<Outcome> {
    let shadow = catalog::by_id(client, table.config.id)?;
    if let Some(shadow) = shadow.filter(|shadow| shadow.stored.auto_swap)
        && let Some(live) = shadow.stored.replaces
    {
        if catalog::newly_failed(client, shadow.id, live)? == 0 {
            task::set_phase(client, task, Phase::Swap)?;
            return Ok(Outcome::AwaitsSwap);
        }
        // Rows that queries find now would be lost: the owner decides.
        catalog::set_auto_swap(client, shadow.id, false)?;
        catalog::set_working_status(client, live)?;
    }
    task::complete(client, task)?;
    catalog::set_working_status(client, table.config.id)?;
    Ok(Outcome::Done)
}

/// Tries to swap a shadow in.
pub fn swap(table: &mut Table, task: i64, attempt: i32, tries: u32) -> Outcome {
    let mut renamed = None;
    let swapped = transaction::bounded(Timeout::Usual, || {
        let ended = Spi::connect_mut(|client| swap_in(client, table, task, attempt, tries))?;
        renamed = relation::qualified_name(table.config.relation);
        Ok(ended)
    });
    match swapped {
        Ok(Outcome::Done) => {
            table.config.relation_name = renamed.take();
            wake_workers();
            log!("vector table \"{}\" has its new configuration", table.config.name);
            Outcome::Done
        }
        Err(TxError { sqlstate: PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, message, .. }) => {
            debug1!("the swap of vector table \"{}\" waits: {message}", table.config.name);
            Outcome::NotYet
        }
        // Not a matter of the privilege to read the source, as for other failures.
        Err(error) => Outcome::Failed(error.into()),
        Ok(ended) => ended,
    }
}

fn swap_in(
    client: &mut SpiClient<'_>,
    table: &Table,
    task: i64,
    attempt: i32,
    tries: u32,
) -> Result<Outcome> {
    let id = table.config.id;
    // The shortest wait that PostgreSQL knows stands for none.
    let wait = lock_wait(tries).unwrap_or(Duration::from_millis(1));
    client.update(&format!("set local lock_timeout = {}", wait.as_millis()), None, &[])?;
    catalog::lock_before_tasks(client, id)?;
    if !task::is_current(client, task, attempt)? {
        return Ok(Outcome::Overtaken);
    }
    let Some(shadow) = catalog::by_id(client, id)? else { return Ok(Outcome::Overtaken) };
    let Some(replaced) = shadow.stored.replaces else {
        task::complete(client, task)?;
        return Ok(Outcome::Done);
    };
    let Some(live) = catalog::by_id(client, replaced)? else { return Ok(Outcome::Overtaken) };
    match table::swap(client, &live, &shadow)? {
        Swapped::TooFarBehind => Ok(Outcome::IsBehind),
        Swapped::LacksIndexes => {
            task::set_phase(client, task, Phase::Index)?;
            Ok(Outcome::AwaitsIndexes)
        }
        Swapped::Done => {
            task::complete(client, task)?;
            catalog::set_working_status(client, id)?;
            Ok(Outcome::Done)
        }
    }
}

/// Looks whether the index builder has built all indexes of a table, and then ends its task.
pub fn after_indexes(
    client: &mut SpiClient<'_>,
    table: &Table,
    task: i64,
    attempt: i32,
) -> Result<Outcome> {
    let has_deferred = index::has_deferred(client, table.config.id)?;
    if !has_deferred {
        catalog::lock_before_tasks(client, table.config.id)?;
    }
    Ok(match (task::is_current(client, task, attempt)?, has_deferred) {
        (true, true) => Outcome::AwaitsIndexes,
        (true, false) => end(client, table, task)?,
        (false, true) => Outcome::Overtaken,
        // The builder has ended the task with the last index.
        (false, false) => Outcome::Done,
    })
}

/// Drops the table that the last swap replaced, if no session can read it any more.
pub fn drop_old(table: &Table) -> Outcome {
    let dropped = transaction::bounded(Timeout::Usual, || {
        Spi::connect_mut(|client| {
            client.update("set local lock_timeout = '100ms'", None, &[])?;
            table::drop_old(client, &table.config)
        })
    });
    match dropped {
        Ok(true) => Outcome::Done,
        Ok(false) => Outcome::NotYet,
        Err(error) => {
            let name = &table.config.name;
            debug1!("replaced tables of \"{name}\" are not dropped yet: {}", error.message);
            Outcome::NotYet
        }
    }
}
