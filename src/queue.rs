//! Reads and writes embedd.queue: keys of changed rows, packed many to a queue row, each for one sync worker.

mod bulk_change;
mod pending;
mod write;

use std::ffi::CStr;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use self::write::{NewRow, insert};
use crate::cluster;
use crate::datum::Texts;
use crate::error::Result;
use crate::relation;
use crate::shared::WorkerIndex;

pub use bulk_change::BulkChange;
pub use pending::pending;
#[cfg(feature = "pg_test")]
pub use write::KEYS_PER_ROW;
pub use write::{
    ChangedKeys, worker_of, worker_of_table, write, write_for_others, write_keys, write_paged,
};

/// What a row of the queue says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Keys(Vec<String>),
    Bulk(BulkChange),
}

/// A row of the queue.
pub struct Row {
    pub table_id: i32,
    pub id: i64,
    pub change: Change,
    /// Changes overtake its keys.
    pub is_paged: bool,
    /// The transaction that wrote it.
    pub transaction: u64,
}

/// What a reading of the queue has found.
#[derive(Default)]
pub struct Reading {
    pub rows: Vec<Row>,
    /// The transactions that had not ended then, whose rows may have lower ids than those that were found.
    pub open: Vec<u64>,
}

fn row_of(row: &pgrx::spi::SpiHeapTupleData<'_>) -> Result<Option<Row>> {
    let Some(id) = row.get::<i64>(2)? else { return Ok(None) };
    let is_paged = row.get(4)?.unwrap_or_default();
    let change = match row.get::<Texts>(3)? {
        None => Change::Bulk(BulkChange::Changed),
        Some(keys) if keys.0.is_empty() && is_paged => Change::Bulk(BulkChange::Recheck),
        Some(keys) if keys.0.is_empty() => Change::Bulk(BulkChange::Gone),
        Some(keys) => Change::Keys(keys.0),
    };
    Ok(Some(Row {
        table_id: row.get(1)?.unwrap_or_default(),
        id,
        change,
        is_paged,
        transaction: row.get::<String>(5)?.and_then(|x| x.parse().ok()).unwrap_or_default(),
    }))
}

/// The rows that were found.
fn rows_of(found: pgrx::spi::SpiTupleTable<'_>) -> Result<Vec<Row>> {
    found.into_iter().filter_map(|row| row_of(&row).transpose()).collect()
}

/// Up to `limit` rows of each table in `after` above the id given with it, oldest first.
pub fn read(
    client: &SpiClient<'_>,
    portion: WorkerIndex,
    after: &[(i32, i64)],
    limit: i64,
) -> Result<Reading> {
    let mut reading = Reading::default();
    if after.is_empty() {
        return Ok(reading);
    }
    let (tables, ids): (Vec<i32>, Vec<i64>) = after.iter().copied().unzip();
    let found = client.select(
        // One statement, so that rows and open transactions are of the same snapshot.
        "select t.table_id, q.id, q.keys, q.is_paged, q.transaction::text,
                case when t.n = 1 then pg_catalog.pg_current_snapshot()::text end
           from unnest($1, $2) with ordinality t(table_id, after, n)
           left join lateral (
                select q.id, q.keys, q.is_paged, q.transaction from embedd.queue q
                 where q.table_id = t.table_id and q.portions = $3 and q.portion = $4 and q.id > t.after
                   and q.system_id = $5
                 order by q.id limit $6) q on true
          order by t.n, q.id",
        None,
        &[
            tables.into(),
            ids.into(),
            (portion.count as i16).into(),
            (portion.index as i16).into(),
            cluster::system_id().into(),
            limit.into(),
        ],
    )?;
    for row in found {
        reading.rows.extend(row_of(&row)?);
        if let Some(snapshot) = row.get::<String>(6)? {
            reading.open = open_transactions(&snapshot);
        }
    }
    Ok(reading)
}

/// The transactions that a snapshot, as pg_current_snapshot() shows it, does not see and that may have taken ids before it.
///
/// A snapshot lists those that run up to the last one that has ended; those begun since then are in none of its lists.
fn open_transactions(snapshot: &str) -> Vec<u64> {
    // xmin:xmax:xip,xip,..
    let mut parts = snapshot.split(':').skip(1);
    let xmax: Option<u64> = parts.next().and_then(|xmax| xmax.parse().ok());
    let running = parts.next().unwrap_or_default();
    let mut open: Vec<u64> = running.split(',').filter_map(|x| x.parse().ok()).collect();
    // SAFETY: reads shared memory under its own lock.
    let next = unsafe { pg_sys::ReadNextFullTransactionId() }.value;
    open.extend(xmax.into_iter().flat_map(|xmax| xmax..next));
    // What this very transaction has written it reads itself.
    // SAFETY: inside a transaction.
    let own = unsafe { pg_sys::GetTopFullTransactionIdIfAny() }.value;
    open.retain(|x| *x != own);
    open
}

/// Rows of these transactions, oldest first: up to `limit` of each table in `between`, with ids above the first number
/// given with it and up to the second.
pub fn read_of(
    client: &SpiClient<'_>,
    portion: WorkerIndex,
    transactions: &[u64],
    between: &[(i32, i64, i64)],
    limit: i64,
) -> Result<Vec<Row>> {
    if transactions.is_empty() {
        return Ok(Vec::new());
    }
    let found = client.select(
        // Mostly there is none, and that is found out without a look for each table.
        "with late as (
            select distinct t.table_id, t.above, t.upto from unnest($1, $2, $3) t(table_id, above, upto)
              join embedd.queue q on q.table_id = t.table_id and q.id > t.above and q.id <= t.upto
             where q.transaction = any ($4::text[]::xid8[]) and q.portions = $5 and q.portion = $6 and q.system_id = $7)
         select q.table_id, q.id, q.keys, q.is_paged, q.transaction::text
           from late l cross join lateral (
                select * from embedd.queue q
                 where q.table_id = l.table_id and q.id > l.above and q.id <= l.upto
                   and q.transaction = any ($4::text[]::xid8[]) and q.portions = $5 and q.portion = $6 and q.system_id = $7
                 order by q.id limit $8) q
          order by q.id",
        None,
        &[
            between.iter().map(|(table, _, _)| *table).collect::<Vec<i32>>().into(),
            between.iter().map(|(_, above, _)| *above).collect::<Vec<i64>>().into(),
            between.iter().map(|(_, _, upto)| *upto).collect::<Vec<i64>>().into(),
            texts(transactions).into(),
            (portion.count as i16).into(),
            (portion.index as i16).into(),
            cluster::system_id().into(),
            limit.into(),
        ],
    )?;
    rows_of(found)
}

/// Numbers of transactions as an argument, to be cast to xid8[].
pub fn texts(transactions: &[u64]) -> Vec<String> {
    transactions.iter().map(u64::to_string).collect()
}

/// Rewrites rows that were written for another number of workers, and removes those of vector tables that are no
/// more. Called by the first of them; true when there were any for others.
///
/// Rows that a session has locked, as one does that drops their vector table, are left for the next time.
pub fn share_out(client: &mut SpiClient<'_>, portions: u16) -> Result<bool> {
    let found = client.select(
        "with recursive pairs(table_id, portions) as (
            (select q.table_id, q.portions from embedd.queue q order by 1, 2 limit 1)
             union all
            select n.table_id, n.portions from pairs p
             cross join lateral (select q.table_id, q.portions from embedd.queue q
                                  where (q.table_id, q.portions) > (p.table_id, p.portions) order by 1, 2 limit 1) n)
         select p.table_id, p.portions, v.id is not null from pairs p
           left join embedd.vector_tables v on v.id = p.table_id
          where p.portions <> $1 or v.id is null",
        None,
        &[(portions as i16).into()],
    )?;
    let mut strays = Vec::new();
    for row in found {
        strays.extend(row.get::<i32>(1)?.zip(row.get::<i16>(2)?).zip(row.get::<bool>(3)?));
    }
    let mut has_moved = false;
    for ((table_id, from), is_there) in strays {
        while move_some(client, table_id, from, is_there.then_some(portions))? {
            has_moved |= is_there;
        }
    }
    Ok(has_moved)
}

/// Rewrites some rows of one table and number of workers for another number, or removes them; false when none was left.
fn move_some(
    client: &mut SpiClient<'_>,
    table_id: i32,
    from: i16,
    to: Option<u16>,
) -> Result<bool> {
    let found = client.update(
        "select q.table_id, q.id, q.keys, q.is_paged, q.transaction::text from embedd.queue q
          where q.table_id = $1 and q.portions = $2 and q.system_id = $3
          order by q.portion, q.id limit 1000 for update skip locked",
        None,
        &[table_id.into(), from.into(), cluster::system_id().into()],
    )?;
    let rows = rows_of(found)?;
    if let Some(portions) = to {
        for row in &rows {
            match &row.change {
                Change::Bulk(change) => {
                    insert(table_id, &NewRow::of_bulk_change(portions, *change));
                }
                Change::Keys(keys) => {
                    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
                    insert(table_id, &NewRow::of_keys(portions, &keys, row.is_paged));
                }
            }
        }
    }
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    client.update(
        "delete from embedd.queue where table_id = $1 and portions = $2 and id = any($3) and system_id = $4",
        None,
        &[table_id.into(), from.into(), ids.into(), cluster::system_id().into()],
    )?;
    // SAFETY: in a transaction; lets the next statement see what was written.
    unsafe { pg_sys::CommandCounterIncrement() };
    Ok(!rows.is_empty())
}

/// The rows of other workers that stand for a bulk change of a vector table: portion and id of each.
pub fn bulk_changes_of_others(
    client: &SpiClient<'_>,
    portion: WorkerIndex,
    table_id: i32,
) -> Result<Vec<(u16, i64)>> {
    let found = client.select(
        "select q.portion, q.id from embedd.queue q
          where q.table_id = $1 and q.portions = $2 and q.portion <> $3 and q.system_id = $4
            and (q.keys is null or q.keys = '{}')",
        None,
        &[
            table_id.into(),
            (portion.count as i16).into(),
            (portion.index as i16).into(),
            cluster::system_id().into(),
        ],
    )?;
    workers_and_ids(found)
}

fn workers_and_ids(found: pgrx::spi::SpiTupleTable<'_>) -> Result<Vec<(u16, i64)>> {
    let mut rows = Vec::new();
    for row in found {
        if let (Some(portion), Some(id)) = (row.get::<i16>(1)?, row.get::<i64>(2)?) {
            rows.push((portion as u16, id));
        }
    }
    Ok(rows)
}

/// Which of these rows of other workers are not done yet.
pub fn still_there(
    client: &SpiClient<'_>,
    table_id: i32,
    portions: u16,
    rows: &[(u16, i64)],
) -> Result<Vec<(u16, i64)>> {
    let (portion, ids): (Vec<i16>, Vec<i64>) = rows.iter().map(|(p, id)| (*p as i16, *id)).unzip();
    let found = client.select(
        "select q.portion, q.id from unnest($3, $4) w(portion, id)
           join embedd.queue q on q.table_id = $1 and q.portions = $2 and q.portion = w.portion and q.id = w.id
            and q.system_id = $5",
        None,
        &[
            table_id.into(),
            (portions as i16).into(),
            portion.into(),
            ids.into(),
            cluster::system_id().into(),
        ],
    )?;
    workers_and_ids(found)
}

/// Removes finished rows of one table.
pub fn remove(
    client: &mut SpiClient<'_>,
    portion: WorkerIndex,
    table_id: i32,
    ids: &[i64],
) -> Result<()> {
    if !ids.is_empty() {
        client.update(
            "delete from embedd.queue where table_id = $1 and portions = $2 and portion = $3 and id = any($4)
                and system_id = $5",
            None,
            &[
                table_id.into(),
                (portion.count as i16).into(),
                (portion.index as i16).into(),
                ids.to_vec().into(),
                cluster::system_id().into(),
            ],
        )?;
    }
    Ok(())
}

/// Removes rows of a table that was never filled: the backfill reads every row as it is then. False when some are left:
/// the backfill was requested meanwhile and may have read the rows that these are about, or a session has locked them.
pub fn remove_unneeded(
    client: &mut SpiClient<'_>,
    portion: WorkerIndex,
    table_id: i32,
    ids: &[i64],
) -> Result<bool> {
    let removed = client.update(
        // A scan that begins later sees all that this snapshot sees of a table without a backfill.
        "delete from embedd.queue q
          where (q.table_id, q.portions, q.portion, q.system_id, q.id) in (
                select u.table_id, u.portions, u.portion, u.system_id, u.id from embedd.queue u
                  join embedd.vector_tables v on v.id = u.table_id
                 where v.id = $1 and v.sync_status = 'pending' and u.portions = $2 and u.portion = $3 and u.id = any($4)
                    and u.system_id = $5
                   for update of u skip locked)",
        None,
        &[
            table_id.into(),
            (portion.count as i16).into(),
            (portion.index as i16).into(),
            ids.to_vec().into(),
            cluster::system_id().into(),
        ],
    )?;
    Ok(removed.len() == ids.len())
}

/// Removes rows of one table that another cluster wrote.
pub fn remove_foreign(client: &mut SpiClient<'_>, table_id: i32) -> Result<()> {
    client.update(
        "delete from embedd.queue where table_id = $1 and system_id <> $2",
        None,
        &[table_id.into(), cluster::system_id().into()],
    )?;
    Ok(())
}

/// Removes rows with the keys that the scan of a table has found for other workers.
pub fn remove_paged(client: &mut SpiClient<'_>, table_id: i32) -> Result<()> {
    client.update(
        "delete from embedd.queue where table_id = $1 and is_paged and pg_catalog.cardinality(keys) > 0",
        None,
        &[table_id.into()],
    )?;
    Ok(())
}

/// Removes every row of one table, whichever cluster wrote it.
pub fn remove_all(client: &mut SpiClient<'_>, table_id: i32) -> Result<()> {
    client.update("delete from embedd.queue where table_id = $1", None, &[table_id.into()])?;
    Ok(())
}

/// Name of the queue's relation inside schema embedd.
pub const RELATION: &CStr = c"queue";
/// Name of the sequence that numbers queue rows.
pub const SEQUENCE: &CStr = c"queue_id_seq";

/// Oids of the queue and of its sequence; None when the extension is gone.
pub fn relations() -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    Some((relation::own(RELATION)?, relation::own(SEQUENCE)?))
}
