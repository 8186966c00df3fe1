//! Requests tasks of the workers, and cancels them.

use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiTupleTable};

use super::{Kind, Price};
use crate::error::{Error, Result};

/// What a caller of backfill() gets to know.
pub struct TaskTicket {
    pub id: i64,
    pub kind: String,
    pub created_at: TimestampWithTimeZone,
}

/// The next number of a task. In a copy of the rows without the sequence, as logical replication makes one, the sequence
/// is behind them.
const NEXT_ID: &str = "(select case when n.id > m.id then n.id
                     else pg_catalog.setval('embedd.tasks_task_id_seq', m.id + 1) end
                from (select pg_catalog.nextval('embedd.tasks_task_id_seq') as id) n
               cross join (select coalesce(max(e.task_id), 0) as id from embedd.tasks e) m)";

/// What restarts the open task `t`: the worker that has begun it sees that by its attempts.
const RESTART: &str =
    "phase = 'orphans', last_processed_pk = null, processed_rows = 0, different_rows = 0, rows_total = null,
                   rate = null, attempts = t.attempts + 1, started_at = null";

/// Whether a vector table $1 was filled, completely or in part: what is there is compared by a rebackfill.
const IS_BEGUN: &str = "exists (select from embedd.tasks b
                                   where b.target_id = $1 and b.task_type <> 'reconcile'
                                     and (b.status = 'completed' or b.status in ('failed', 'cancelled') and b.started_at is not null))";

/// Asks for a backfill; one that is not ended yet is an error. A comparison under way becomes one.
pub fn ask(
    client: &mut SpiClient<'_>,
    table_id: i32,
    name: &str,
    price: Price,
) -> Result<TaskTicket> {
    let rows = client.update(
        &format!(
            "insert into embedd.tasks as t (task_id, task_type, target_id, price) overriding system value
         select {NEXT_ID}, case when {IS_BEGUN}
                                  or exists (select from embedd.vector_tables where id = $1 and replaces is not null)
                then 'rebackfill' else 'backfill' end, $1, $2
         on conflict (target_id) where status in ('pending', 'running')
         do update set task_type = excluded.task_type, price = excluded.price, owes_comparison = true, {RESTART}
             where t.task_type = 'reconcile'
         returning task_id, task_type, created_at"
        ),
        None,
        &[table_id.into(), price.as_str().into()],
    )?;
    asked(rows, name)
}

/// Asks for the swap of a shadow that is filled; an open comparison of it becomes the swap when it has ended.
pub fn ask_swap(client: &mut SpiClient<'_>, table_id: i32, name: &str) -> Result<TaskTicket> {
    let rows = client.update(
        &format!(
            "insert into embedd.tasks as t (task_id, task_type, target_id, phase) overriding system value
             values ({NEXT_ID}, 'rebackfill', $1, 'swap')
             on conflict (target_id) where status in ('pending', 'running')
             do update set task_type = excluded.task_type where t.task_type = 'reconcile'
             returning task_id, task_type, created_at"
        ),
        None,
        &[table_id.into()],
    )?;
    asked(rows, name)
}

/// Whether a backfill of a vector table has ended.
pub fn is_filled(client: &mut SpiClient<'_>, table_id: i32) -> Result<bool> {
    let rows = client.update(
        "select exists (select from embedd.tasks t
                         where t.target_id = $1 and t.status = 'completed' and t.task_type <> 'reconcile')",
        None,
        &[table_id.into()],
    )?;
    Ok(rows.first().get_one::<bool>()? == Some(true))
}

/// Whether a vector table has an open task at this price.
pub fn is_open_at(client: &mut SpiClient<'_>, table_id: i32, price: Price) -> Result<bool> {
    let rows = client.update(
        "select exists (select from embedd.tasks t
                         where t.target_id = $1 and t.status in ('pending', 'running') and t.price = $2)",
        None,
        &[table_id.into(), price.as_str().into()],
    )?;
    Ok(rows.first().get_one::<bool>()? == Some(true))
}

/// Asks for a comparison; a task that is not ended yet is an error.
pub fn ask_reconcile(client: &mut SpiClient<'_>, table_id: i32, name: &str) -> Result<TaskTicket> {
    let rows = client.update(
        &format!(
            "insert into embedd.tasks (task_id, task_type, target_id) overriding system value
             values ({NEXT_ID}, 'reconcile', $1)
             on conflict (target_id) where status in ('pending', 'running') do nothing
             returning task_id, task_type, created_at"
        ),
        None,
        &[table_id.into()],
    )?;
    asked(rows, name)
}

fn asked(rows: SpiTupleTable<'_>, name: &str) -> Result<TaskTicket> {
    if rows.is_empty() {
        return Err(Error::BackfillInProgress { name: name.to_string() });
    }
    let (id, kind, created_at) = rows.first().get_three::<i64, String, TimestampWithTimeZone>()?;
    match (id, kind, created_at) {
        (Some(id), Some(kind), Some(created_at)) => Ok(TaskTicket { id, kind, created_at }),
        _ => Err(Error::Damaged { what: "task without a number".to_string() }),
    }
}

/// Has a vector table scanned from the beginning, by the task that is open or by a new one of this kind; comes back with
/// that task, none when the vector table was dropped. An open comparison becomes a task of this kind.
pub fn restart_or_ask(
    client: &mut SpiClient<'_>,
    table_id: i32,
    kind: Kind,
) -> Result<Option<i64>> {
    let rows = client.update(
        &format!(
            "insert into embedd.tasks as t (task_id, task_type, target_id, owes_comparison) overriding system value
             select {NEXT_ID}, $2, v.id, true from embedd.vector_tables v where v.id = $1 for key share
             on conflict (target_id) where status in ('pending', 'running')
             do update set {RESTART}, owes_comparison = true,
                   task_type = case when t.task_type = 'reconcile' then excluded.task_type else t.task_type end
             returning task_id"
        ),
        None,
        &[table_id.into(), kind.as_str().into()],
    )?;
    match rows.into_iter().next() {
        Some(row) => Ok(row.get::<i64>(1)?),
        None => Ok(None),
    }
}

/// Has a vector table compared that may have missed changes, by its first load where that has never ended; comes back with
/// that task. A vector table that was never asked to be filled has none, and neither has one whose first load was cancelled.
pub fn compare_again(client: &mut SpiClient<'_>, table_id: i32) -> Result<Option<i64>> {
    let rows = client.select(
        "select pg_catalog.bool_or(t.status = 'completed'),
                (pg_catalog.array_agg(t.status order by t.task_id desc))[1] = 'cancelled'
           from embedd.tasks t
          where t.target_id = $1 and t.task_type <> 'reconcile' having pg_catalog.count(*) > 0",
        None,
        &[table_id.into()],
    )?;
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let kind = match (row.get::<bool>(1)?, row.get::<bool>(2)?) {
        (Some(true), _) => Kind::Reconcile,
        (_, Some(true)) => return Ok(None),
        _ => Kind::Backfill,
    };
    restart_or_ask(client, table_id, kind)
}

/// What was cancelled.
pub struct Cancelled {
    pub ticket: TaskTicket,
    /// Whether it was also to find changes that no row trigger saw.
    pub owes_comparison: bool,
    /// Whether the vector table was filled before.
    pub is_filled: bool,
}

/// Cancels the open backfill of a vector table; none when there is none.
pub fn cancel(client: &mut SpiClient<'_>, table_id: i32) -> Result<Option<Cancelled>> {
    let rows = client.update(
        "update embedd.tasks t set status = 'cancelled', completed_at = pg_catalog.clock_timestamp()
          where t.target_id = $1 and t.status in ('pending', 'running') and t.task_type <> 'reconcile'
         returning t.task_id, t.task_type, t.created_at, t.owes_comparison,
                   exists (select from embedd.tasks c where c.target_id = $1 and c.status = 'completed')",
        None,
        &[table_id.into()],
    )?;
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let (Some(id), Some(kind), Some(created_at)) = (row.get(1)?, row.get(2)?, row.get(3)?) else {
        return Err(Error::Damaged { what: "task with nulls".to_string() });
    };
    Ok(Some(Cancelled {
        ticket: TaskTicket { id, kind, created_at },
        owes_comparison: row.get::<bool>(4)? == Some(true),
        is_filled: row.get::<bool>(5)? == Some(true),
    }))
}

/// Has the deferred indexes of a vector table built, and nothing else done.
pub fn ask_for_indexes(client: &mut SpiClient<'_>, table_id: i32) -> Result<()> {
    client.update(
        &format!(
            "insert into embedd.tasks (task_id, task_type, target_id, phase) overriding system value
             values ({NEXT_ID}, 'reconcile', $1, 'index')
             on conflict (target_id) where status in ('pending', 'running') do nothing"
        ),
        None,
        &[table_id.into()],
    )?;
    Ok(())
}
