//! Reads and writes embedd.tasks: backfills and comparisons asked for, running and ended.

mod kind;

use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiTupleTable};

pub use self::kind::{Checkpoint, Kind, Phase, Task};

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
pub fn ask(client: &mut SpiClient<'_>, table_id: i32, name: &str) -> Result<TaskTicket> {
    let rows = client.update(
        &format!(
            "insert into embedd.tasks as t (task_id, task_type, target_id) overriding system value
         select {NEXT_ID}, case when {IS_BEGUN}
                                  or exists (select from embedd.vector_tables where id = $1 and replaces is not null)
                then 'rebackfill' else 'backfill' end, $1
         on conflict (target_id) where status in ('pending', 'running')
         do update set task_type = excluded.task_type, owes_comparison = true, {RESTART}
             where t.task_type = 'reconcile'
         returning task_id, task_type, created_at"
        ),
        None,
        &[table_id.into()],
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

/// A task that is not ended.
#[derive(Clone, Copy, Debug)]
pub struct OpenTask {
    pub id: i64,
    pub table_id: i32,
    /// How often it was begun, resumed or restarted.
    pub attempts: i32,
}

/// Every task that is not ended, in the order they are worked on.
pub fn open(client: &SpiClient<'_>) -> Result<Vec<OpenTask>> {
    let rows = client.select(
        "select task_id, target_id, attempts from embedd.tasks where status in ('pending', 'running')
          order by priority, task_id",
        None,
        &[],
    )?;
    let mut tasks = Vec::new();
    for row in rows {
        match (row.get::<i64>(1)?, row.get::<i32>(2)?, row.get::<i32>(3)?) {
            (Some(id), Some(table_id), Some(attempts)) => {
                tasks.push(OpenTask { id, table_id, attempts });
            }
            _ => return Err(Error::Damaged { what: "task with nulls".to_string() }),
        }
    }
    Ok(tasks)
}

/// Begins or resumes a task, and tells whether it was not begun before since it was asked for or restarted; none when it
/// has ended.
pub fn begin(client: &mut SpiClient<'_>, id: i64) -> Result<Option<(Task, bool)>> {
    let rows = client.update(
        "update embedd.tasks
            set status = 'running', attempts = attempts + 1, started_at = coalesce(started_at, pg_catalog.now()),
                checkpoint_at = pg_catalog.now(), stalled_attempts = stalled_attempts + 1
          where task_id = $1 and status in ('pending', 'running')
         returning phase, last_processed_pk, task_type, attempts, started_at = pg_catalog.now(),
                task_type = 'backfill'
                or exists (select from embedd.vector_tables v where v.id = target_id and v.replaces is not null)
                   and not exists (select from embedd.tasks e where e.target_id = tasks.target_id and e.task_id <> tasks.task_id
                                      and e.started_at is not null)",
        None,
        &[id.into()],
    )?;
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let (Some(phase), Some(kind), Some(attempt)) =
        (row.get::<String>(1)?, row.get::<String>(3)?, row.get::<i32>(4)?)
    else {
        return Err(Error::Damaged { what: "task with nulls".to_string() });
    };
    let is_new = row.get::<bool>(5)? == Some(true);
    let (phase, kind) = (Phase::of(&phase), Kind::of(&kind));
    let fills = row.get::<bool>(6)? == Some(true);
    Ok(Some((Task { id, kind, phase, last_key: row.get(2)?, attempt, fills }, is_new)))
}

/// Whether a task is still as it was begun, and was not restarted since. It stays so until the transaction ends.
pub fn is_current(client: &mut SpiClient<'_>, id: i64, attempt: i32) -> Result<bool> {
    let rows = client.update(
        "select 1 from embedd.tasks
          where task_id = $1 and attempts = $2 and status in ('pending', 'running') for update",
        None,
        &[id.into(), attempt.into()],
    )?;
    Ok(!rows.is_empty())
}

/// Writes how far a task is: every key up to the last one is complete in this phase, and so many rows more were read and
/// differed. Its rate is a moving average over about half a minute.
pub fn checkpoint(client: &mut SpiClient<'_>, id: i64, checkpoint: &Checkpoint) -> Result<()> {
    let Checkpoint { phase, last_key, rows, different } = checkpoint;
    client.update(
        "update embedd.tasks u
            set phase = $2, last_processed_pk = $3, processed_rows = u.processed_rows + $4,
                different_rows = u.different_rows + $5, stalled_attempts = 0,
                rate = case when $4 > 0 then p.rows / p.seconds + (coalesce(u.rate, p.rows / p.seconds) - p.rows / p.seconds)
                       * pg_catalog.exp(- p.seconds / 30) else u.rate end,
                checkpoint_at = case when $4 > 0 then pg_catalog.clock_timestamp() else u.checkpoint_at end
           from (select t.task_id, $4::float8 as rows,
                        least(greatest(extract(epoch from pg_catalog.clock_timestamp()
                              - coalesce(t.checkpoint_at, t.started_at)), 0.001), 1000)::float8 as seconds
                   from embedd.tasks t where t.task_id = $1) p
          where u.task_id = p.task_id",
        None,
        &[
            id.into(),
            phase.as_str().into(),
            last_key.as_deref().into(),
            (*rows).into(),
            (*different).into(),
        ],
    )?;
    Ok(())
}

/// Notes that a task has advanced since it was begun.
pub fn has_advanced(client: &mut SpiClient<'_>, table_id: i32) -> Result<()> {
    client.update(
        "update embedd.tasks set stalled_attempts = 0
          where target_id = $1 and status in ('pending', 'running') and stalled_attempts > 0",
        None,
        &[table_id.into()],
    )?;
    Ok(())
}

/// Notes how many rows the source has.
pub fn set_total(client: &mut SpiClient<'_>, id: i64, rows: Option<i64>) -> Result<()> {
    client.update(
        "update embedd.tasks set rows_total = $2 where task_id = $1",
        None,
        &[id.into(), rows.into()],
    )?;
    Ok(())
}

/// Begins another phase of a task.
pub fn set_phase(client: &mut SpiClient<'_>, id: i64, phase: Phase) -> Result<()> {
    client.update(
        "update embedd.tasks set phase = $2, last_processed_pk = null where task_id = $1",
        None,
        &[id.into(), phase.as_str().into()],
    )?;
    Ok(())
}

/// Notes why the last attempt failed.
pub fn set_error(client: &mut SpiClient<'_>, table_id: i32, reason: &str) -> Result<()> {
    client.update(
        "update embedd.tasks set last_error = $2 where target_id = $1 and status in ('pending', 'running')",
        None,
        &[table_id.into(), reason.into()],
    )?;
    Ok(())
}

/// Ends the task of a vector table that waits for its indexes, which are there now. A shadow that is to be swapped in is
/// not at its end yet.
pub fn complete_index(client: &mut SpiClient<'_>, table_id: i32) -> Result<()> {
    client.update(
        "update embedd.tasks
            set status = 'completed', completed_at = pg_catalog.clock_timestamp(), last_error = null
          where target_id = $1 and status in ('pending', 'running') and phase = 'index'
            and not exists (select from embedd.vector_tables v where v.id = $1 and v.replaces is not null and v.auto_swap)",
        None,
        &[table_id.into()],
    )?;
    Ok(())
}

/// Comparisons that have ended well and are kept for each vector table.
const KEPT: i64 = 20;

/// Ends a task well.
pub fn complete(client: &mut SpiClient<'_>, id: i64) -> Result<()> {
    client.update(
        "update embedd.tasks
            set status = 'completed', completed_at = pg_catalog.clock_timestamp(), last_error = null
          where task_id = $1",
        None,
        &[id.into()],
    )?;
    client.update(
        "delete from embedd.tasks t using embedd.tasks d
          where d.task_id = $1 and t.target_id = d.target_id and t.task_type = 'reconcile' and t.status = 'completed'
            and t.task_id < (select k.task_id from embedd.tasks k
                              where k.target_id = d.target_id and k.task_type = 'reconcile' and k.status = 'completed'
                              order by k.task_id desc offset $2 limit 1)",
        None,
        &[id.into(), KEPT.into()],
    )?;
    Ok(())
}

/// Ends the open task of a vector table that can never be done.
pub fn fail(client: &mut SpiClient<'_>, table_id: i32, reason: &str) -> Result<()> {
    client.update(
        "update embedd.tasks
            set status = 'failed', completed_at = pg_catalog.clock_timestamp(), last_error = $2
          where target_id = $1 and status in ('pending', 'running')",
        None,
        &[table_id.into(), reason.into()],
    )?;
    Ok(())
}

/// Ends the open task of a vector table over which the worker process has ended so often in a row, where that is as often
/// as the task allows; false when it goes on.
pub fn fail_after(
    client: &mut SpiClient<'_>,
    table_id: i32,
    ends: u32,
    reason: &str,
) -> Result<bool> {
    let rows = client.update(
        "update embedd.tasks
            set status = 'failed', completed_at = pg_catalog.clock_timestamp(), last_error = $3
          where target_id = $1 and status in ('pending', 'running') and max_attempts <= $2
         returning 1",
        None,
        &[table_id.into(), i64::from(ends).into(), reason.into()],
    )?;
    Ok(!rows.is_empty())
}

/// Notes how many rows the source of a batch run has, and how many of them are as they should be.
pub fn begin_count(client: &mut SpiClient<'_>, id: i64, rows: i64, equal: i64) -> Result<()> {
    client.update(
        "update embedd.tasks
            set rows_total = $2, processed_rows = $3, different_rows = 0, checkpoint_at = pg_catalog.clock_timestamp()
          where task_id = $1",
        None,
        &[id.into(), rows.into(), equal.into()],
    )?;
    Ok(())
}

/// Whether a task of a vector table is open, how many seconds ago the last one was begun that has ended, and whether the
/// last one has failed.
pub fn last_run(client: &SpiClient<'_>, table_id: i32) -> Result<(bool, Option<f64>, bool)> {
    let rows = client.select(
        "select exists (select from embedd.tasks t where t.target_id = $1 and t.status in ('pending', 'running')),
                (select extract(epoch from pg_catalog.clock_timestamp() - max(t.started_at))::float8
                   from embedd.tasks t where t.target_id = $1 and t.status not in ('pending', 'running')),
                (select t.status = 'failed' from embedd.tasks t where t.target_id = $1 order by t.task_id desc limit 1)",
        None,
        &[table_id.into()],
    )?;
    let (is_open, ago, has_failed) = rows.first().get_three::<bool, f64, bool>()?;
    Ok((is_open == Some(true), ago, has_failed == Some(true)))
}
