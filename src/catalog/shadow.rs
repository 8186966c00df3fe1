//! The shadow of a vector table: the row that a re-backfill fills, until it takes the place of the other one.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::partitions::TREE;
use super::vector_table::{self, VectorTable};
use super::{forget_readers, missing};
use crate::datum::Texts;
use crate::error::Result;

/// The shadow of a vector table, if it has one.
pub fn shadow_of(client: &mut SpiClient<'_>, id: i32) -> Result<Option<VectorTable>> {
    let rows = client.update(
        "select id from embedd.vector_tables where replaces = $1",
        None,
        &[id.into()],
    )?;
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let shadow = row.get::<i32>(1)?.ok_or_else(missing)?;
    vector_table::by_id(client, shadow)
}

/// The same for a caller that changes nothing, as of its own snapshot.
pub fn visible_shadow(client: &SpiClient<'_>, id: i32) -> Result<Option<VectorTable>> {
    let rows = client.select(
        "select id from embedd.vector_tables where replaces = $1",
        None,
        &[id.into()],
    )?;
    match rows.into_iter().next() {
        Some(row) => vector_table::by_id(client, row.get::<i32>(1)?.ok_or_else(missing)?),
        None => Ok(None),
    }
}

/// Has the next task of a vector table wait until every transaction has ended that writes to the source now: it may not
/// know yet what is captured from now on.
pub fn await_writers(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    // Held until after the invalidation messages of this transaction are sent: the worker lists the writers under it.
    lock_for_writers(table.relation);
    client.update(
        "update embedd.vector_tables set awaits_transactions = '{}' where id = $1",
        None,
        &[table.id.into()],
    )?;
    forget_readers(table.source);
    Ok(())
}

fn lock_for_writers(relation: pg_sys::Oid) {
    // SAFETY: inside a transaction; queries and the workers' own writes do not conflict with this lock.
    unsafe {
        pg_sys::LockRelationOid(relation, pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE)
    }
}

/// Transactions with a lock that a write to the source takes.
const WRITERS: &str = "
    select l.virtualtransaction, l.pid from pg_catalog.pg_locks l
     where l.locktype = 'relation' and l.granted
       and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
       and l.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       and l.pid is distinct from pg_catalog.pg_backend_pid()
       and l.relation in (select tree.relid from tree)";

/// The processes that a task waits for, `prepared` for prepared transactions; none when it may begin.
pub fn awaited_writers(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
) -> Result<Option<Vec<String>>> {
    let rows = client.update(
        "select awaits_transactions from embedd.vector_tables where id = $1",
        None,
        &[table.id.into()],
    )?;
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let Some(Texts(awaited)) = row.get::<Texts>(1)? else { return Ok(None) };
    let is_new = awaited.is_empty();
    if is_new {
        lock_for_writers(table.relation);
    }
    let rows = client.update(
        &format!(
            "{TREE}, writers as ({WRITERS})
             select distinct w.virtualtransaction, coalesce(w.pid::text, 'prepared') from writers w
              where $2 or w.virtualtransaction = any($3)"
        ),
        None,
        &[table.source.into(), is_new.into(), awaited.into()],
    )?;
    let (mut transactions, mut processes) = (Vec::new(), Vec::new());
    for row in rows {
        transactions.extend(row.get::<String>(1)?);
        processes.extend(row.get::<String>(2)?);
    }
    let is_over = transactions.is_empty();
    if is_new || is_over {
        client.update(
            "update embedd.vector_tables set awaits_transactions = case when $2 then null else $3 end where id = $1",
            None,
            &[table.id.into(), is_over.into(), transactions.into()],
        )?;
    }
    Ok((!is_over).then_some(processes))
}

/// Says whether the worker swaps a shadow in as soon as it is ready.
pub fn set_auto_swap(client: &mut SpiClient<'_>, id: i32, auto_swap: bool) -> Result<()> {
    client.update(
        "update embedd.vector_tables set auto_swap = $2 where id = $1",
        None,
        &[id.into(), auto_swap.into()],
    )?;
    Ok(())
}

/// Stores indexes that a shadow needs after its load, as pairs of name and definition.
pub fn defer_indexes(client: &mut SpiClient<'_>, id: i32, definitions: Vec<String>) -> Result<()> {
    client.update(
        "update embedd.vector_tables
            set held_indexes = nullif(coalesce(held_indexes, '{}') || $2::text[], '{}') where id = $1",
        None,
        &[id.into(), definitions.into()],
    )?;
    Ok(())
}

/// Puts a shadow in the place of the vector table that it replaces: with its tasks, without its queue. The replaced table
/// stays under its new name until no session can read it.
pub fn replace(client: &mut SpiClient<'_>, live: &VectorTable, shadow: i32) -> Result<()> {
    client.update(
        "update embedd.tasks set target_id = $2 where target_id = $1 and status not in ('pending', 'running')",
        None,
        &[live.id.into(), shadow.into()],
    )?;
    super::delete(client, live.id)?;
    let mut old_tables = live.stored.old_tables.clone();
    old_tables.push(live.relation.to_u32().to_string());
    client.update(
        "update embedd.vector_tables
            set replaces = null, auto_swap = true, old_tables = $2::text[]::oid[], vectors_name = $3, created_at = $4::timestamptz,
                mirrored_readers = $5::text[]::oid[]
          where id = $1",
        None,
        &[
            shadow.into(),
            old_tables.into(),
            live.relation_name.clone().into(),
            live.stored.created_at.as_str().into(),
            live.stored.mirrored_readers.clone().into(),
        ],
    )?;
    forget_readers(live.source);
    Ok(())
}

/// Notes which of the tables that swaps have replaced are still there.
pub fn set_old_tables(
    client: &mut SpiClient<'_>,
    id: i32,
    old_tables: Vec<pg_sys::Oid>,
) -> Result<()> {
    client.update(
        "update embedd.vector_tables set old_tables = $2 where id = $1",
        None,
        &[id.into(), old_tables.into()],
    )?;
    Ok(())
}
