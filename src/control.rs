//! Controls the sync of a vector table: pause, resume, backfill, its cancelling, reconcile, and retry of failed rows.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::{self, Status, SyncMode, VectorTable};
use crate::cluster;
use crate::error::{Error, Result};
use crate::queue::{self, ChangedKeys};
use crate::rights::RoleSwitch;
use crate::table::{self, check_may_change};
use crate::task::{self, Cancelled, Kind, Price, TaskTicket};
use crate::trigger::touch_at_commit;
use crate::{fdw, index, source};

/// Finds a vector table that the caller may change, and locks its row.
pub fn find_to_change(client: &mut SpiClient<'_>, name: &str) -> Result<VectorTable> {
    cluster::check_writable("change the sync of a vector table")?;
    let rights = RoleSwitch::of_extension()?;
    let table = catalog::find_for_update(client, name)?;
    drop(rights);
    check_may_change(&table)?;
    Ok(table)
}

/// Pauses the sync. Changes are still queued, and queries still work.
pub fn pause(name: &str) -> Result<()> {
    Spi::connect_mut(|client| {
        let table = find_to_change(client, name)?;
        if table.status == Status::Paused {
            return Err(Error::AlreadyPaused { name: table.name });
        }
        let _rights = RoleSwitch::of_extension()?;
        catalog::set_status(client, table.id, Status::Paused)?;
        // A shadow that no backfill was asked for is at rest anyway.
        let shadow = catalog::shadow_of(client, table.id)?;
        if let Some(shadow) = shadow.filter(|shadow| shadow.status != Status::Pending) {
            catalog::set_status(client, shadow.id, Status::Paused)?;
        }
        touch_at_commit();
        Ok(())
    })
}

/// Resumes a paused sync, including the changes made meanwhile.
pub fn resume(name: &str) -> Result<()> {
    Spi::connect_mut(|client| {
        let table = find_to_change(client, name)?;
        if table.status != Status::Paused {
            let status = table.status.as_str().to_string();
            return Err(Error::NotPaused { name: table.name, status });
        }
        let _rights = RoleSwitch::of_extension()?;
        let shadow = catalog::shadow_of(client, table.id)?;
        let shadow = shadow.filter(|shadow| shadow.status == Status::Paused);
        for id in [Some(table.id), shadow.map(|shadow| shadow.id)].into_iter().flatten() {
            catalog::set_status(client, id, Status::Pending)?;
            catalog::set_working_status(client, id)?;
        }
        touch_at_commit();
        Ok(())
    })
}

/// Checks that a provider takes texts at the price of its batch API.
fn check_batch_price(table: &VectorTable) -> Result<()> {
    if table.stored.sync_mode == SyncMode::Batch {
        return Err(Error::NoBatchPrice {
            detail: format!("Vector table \"{}\" has sync_mode batch.", table.name),
            hint: "A vector table with sync_mode trigger can be filled at the batch price.",
        });
    }
    let provider = fdw::provider(table)?;
    if !provider.kind.has_batch_api() {
        return Err(Error::NoBatchPrice {
            detail: format!(
                "Provider \"{}\" is of kind {}, for which no batch API is known.",
                provider.name,
                provider.kind.as_str()
            ),
            hint: "Providers of the kinds openai, voyage and gemini have one.",
        });
    }
    Ok(())
}

/// Requests a backfill from the sync worker: of the shadow, where a change waits for one.
pub fn backfill(name: &str, auto_swap: bool, price: Price) -> Result<(i32, TaskTicket)> {
    Spi::connect_mut(|client| {
        let table = find_to_change(client, name)?;
        let shadow = {
            let _rights = RoleSwitch::of_extension()?;
            catalog::shadow_of(client, table.id)?
        };
        if let Some(shadow) = &shadow {
            // Before anything is paid for.
            shadow.clone().resolve()?;
            table::check_may_be_replaced(client, &table)?;
            let _rights = RoleSwitch::of_extension()?;
            catalog::set_auto_swap(client, shadow.id, auto_swap)?;
        }
        let target = shadow.as_ref().unwrap_or(&table);
        if price == Price::Batch {
            check_batch_price(target)?;
        }
        let _rights = RoleSwitch::of_extension()?;
        let asked = task::ask(client, target.id, name, price)?;
        if table.status == Status::Paused {
            catalog::set_status(client, target.id, Status::Paused)?;
        } else {
            catalog::set_working_status(client, target.id)?;
        }
        if let Some(shadow) = shadow.as_ref().filter(|shadow| shadow.status == Status::Pending)
            && shadow.stored.sync_mode == SyncMode::Trigger
        {
            catalog::await_writers(client, shadow)?;
        }
        touch_at_commit();
        Ok((target.id, asked))
    })
}

/// Finds the shadow of a vector table that the caller may change.
fn find_shadow(client: &mut SpiClient<'_>, name: &str) -> Result<(VectorTable, VectorTable)> {
    let table = find_to_change(client, name)?;
    let _rights = RoleSwitch::of_extension()?;
    match catalog::shadow_of(client, table.id)? {
        Some(shadow) => Ok((table, shadow)),
        None => Err(Error::NoShadow { name: name.to_string() }),
    }
}

/// Has the worker swap in a shadow that is ready.
pub fn swap(name: &str) -> Result<(i32, TaskTicket)> {
    Spi::connect_mut(|client| {
        let (table, shadow) = find_shadow(client, name)?;
        shadow.clone().resolve()?;
        table::check_may_be_replaced(client, &table)?;
        let _rights = RoleSwitch::of_extension()?;
        if !task::is_filled(client, shadow.id)? {
            return Err(Error::ShadowNotReady { name: name.to_string() });
        }
        catalog::set_auto_swap(client, shadow.id, true)?;
        let asked = task::ask_swap(client, shadow.id, name)?;
        catalog::set_working_status(client, shadow.id)?;
        touch_at_commit();
        Ok((shadow.id, asked))
    })
}

/// Drops a shadow: the vector table keeps its configuration.
pub fn discard(name: &str) -> Result<()> {
    Spi::connect_mut(|client| {
        let (_, shadow) = find_shadow(client, name)?;
        table::discard(client, &shadow)?;
        touch_at_commit();
        Ok(())
    })
}

/// Cancels the backfill that is requested or running.
pub fn cancel_backfill(name: &str) -> Result<(i32, TaskTicket)> {
    Spi::connect_mut(|client| {
        let table = find_to_change(client, name)?;
        let _rights = RoleSwitch::of_extension()?;
        touch_at_commit();
        if let Some(shadow) = catalog::shadow_of(client, table.id)?
            && let Some(ticket) = cancel(client, &shadow)?
        {
            // It keeps what it has, and captures no changes until the next backfill.
            catalog::forget_readers(table.source);
            return Ok((shadow.id, ticket));
        }
        let ticket = cancel(client, &table)?.ok_or(Error::NoBackfill { name: table.name })?;
        Ok((table.id, ticket))
    })
}

/// Cancels the open backfill of a vector table whose row is locked, with the rights of the extension; none when there is
/// none. What is stored stays, and what has not reached the embedder is dropped by the workers when they see it.
///
/// A table that was filled before stays in sync: changes that no row trigger saw are found by a comparison instead, and
/// deferred indexes are built. Another one is pending: its changes are in the next backfill.
pub fn cancel(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<Option<TaskTicket>> {
    let Some(Cancelled { ticket, owes_comparison, is_filled }) = task::cancel(client, table.id)?
    else {
        return Ok(None);
    };
    queue::remove_paged(client, table.id)?;
    if is_filled && owes_comparison {
        task::compare_again(client, table.id)?;
    } else if is_filled && index::has_deferred(client, table.id)? {
        task::ask_for_indexes(client, table.id)?;
    }
    catalog::set_working_status(client, table.id)?;
    Ok(Some(ticket))
}

/// Requests a reconciliation, after which the vector table equals its source. It also accepts a changed type of the
/// key.
pub fn reconcile(name: &str) -> Result<(i32, TaskTicket)> {
    Spi::connect_mut(|client| {
        let mut table = find_to_change(client, name)?;
        if table.status == Status::Pending {
            return Err(Error::NotReady { name: table.name });
        }
        let new_types = match table.resolve() {
            Ok(_) => None,
            Err(Error::KeyTypeChanged { .. }) => Some(new_key_types(client, &table)?),
            Err(error) => return Err(error),
        };
        let _rights = RoleSwitch::of_extension()?;
        if let Some(types) = new_types {
            for id in catalog::same_origin(client, table.origin_id)? {
                catalog::set_key_types(client, id, &types)?;
            }
            catalog::forget_readers(table.source);
        }
        let asked = task::ask_reconcile(client, table.id, name)?;
        touch_at_commit();
        Ok((table.id, asked))
    })
}

/// The current types of the key columns, if they can be a key.
fn new_key_types(client: &SpiClient<'_>, table: &VectorTable) -> Result<Vec<pg_sys::Oid>> {
    let available = source::columns(client, table.source)?;
    let names: Vec<String> = table
        .stored
        .key_numbers
        .iter()
        .filter_map(|n| available.iter().find(|c| c.number == *n))
        .map(|c| c.name.clone())
        .collect();
    let columns = source::check_key_types(&available, &names, table.stored.sync_mode)?;
    Ok(columns.iter().map(|c| c.base).collect())
}

/// Retries failed rows: one, or all. Returns how many.
pub fn retry_failed(name: &str, key: Option<&str>) -> Result<i64> {
    Spi::connect_mut(|client| {
        let table = find_to_change(client, name)?;
        let _rights = RoleSwitch::of_extension()?;
        let wanted = key.map(|key| vec![key.to_string()]);
        let keys = catalog::failed_keys(client, table.id, wanted.as_deref())?;
        if let Some(key) = key.filter(|_| keys.is_empty()) {
            return Err(Error::NotFailed { key: key.to_string(), name: table.name });
        }
        match table.stored.sync_mode {
            _ if keys.is_empty() => {}
            SyncMode::Trigger => {
                let mut noted = ChangedKeys::default();
                keys.iter().for_each(|key| noted.push(key.as_bytes()));
                queue::write(table.id, &noted, 0);
            }
            // A running comparison covers these rows anyway.
            SyncMode::Batch => drop(task::restart_or_ask(client, table.id, Kind::Rebackfill)?),
        }
        touch_at_commit();
        Ok(keys.len() as i64)
    })
}
