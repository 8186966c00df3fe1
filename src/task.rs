//! Reads and writes embedd.tasks: backfills and comparisons that are requested, running and ended.

mod kind;
mod request;

use pgrx::spi::SpiClient;

pub use self::kind::{Checkpoint, Kind, Phase, Price, Task};
pub use self::request::{
    Cancelled, TaskTicket, ask, ask_for_indexes, ask_reconcile, ask_swap, cancel, compare_again,
    is_filled, is_open_at, restart_or_ask,
};

use crate::error::{Error, Result};

/// A task that is not ended.
#[derive(Clone, Copy, Debug)]
pub struct OpenTask {
    pub id: i64,
    pub table_id: i32,
    /// How often it was begun, resumed or restarted.
    pub attempts: i32,
    /// Whether new texts go to the batch API of the provider.
    pub is_batch_price: bool,
}

/// Every task that is not ended, in the order they are worked on.
pub fn open(client: &SpiClient<'_>) -> Result<Vec<OpenTask>> {
    let rows = client.select(
        "select task_id, target_id, attempts, price = 'batch' from embedd.tasks where status in ('pending', 'running')
          order by priority, task_id",
        None,
        &[],
    )?;
    let mut tasks = Vec::new();
    for row in rows {
        match (row.get::<i64>(1)?, row.get::<i32>(2)?, row.get::<i32>(3)?) {
            (Some(id), Some(table_id), Some(attempts)) => {
                let is_batch_price = row.get::<bool>(4)? == Some(true);
                tasks.push(OpenTask { id, table_id, attempts, is_batch_price });
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
                                      and e.started_at is not null),
                price = 'batch'",
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
    let is_batch_price = row.get::<bool>(7)? == Some(true);
    let last_key = row.get(2)?;
    Ok(Some((Task { id, kind, phase, last_key, attempt, fills, is_batch_price }, is_new)))
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
