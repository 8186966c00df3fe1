//! Reads and writes embedd.tasks: backfills and comparisons asked for, running and ended.

use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiTupleTable};

use crate::error::{Error, Result};

/// What a backfill goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Rows of the source, in order of their keys.
    Source,
    /// Rows of the vector table whose source row may be gone.
    Orphans,
    /// The vector indexes, which were taken away for the load.
    Index,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Orphans => "orphans",
            Self::Index => "index",
        }
    }
}

/// A task that is not ended.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: i64,
    pub phase: Phase,
    /// Every key up to this one is done in this phase.
    pub last_key: Option<String>,
    pub kind: Kind,
    /// How often it was begun, taken up again or asked for anew: who has begun it knows by that whether it is still his.
    pub attempt: i32,
    /// Nobody has begun it before, as it was asked for.
    pub is_new: bool,
}

impl Task {
    /// Whether it compares from the beginning: then older work may be under way than a change that nobody has noted.
    pub fn may_find_old_work(&self) -> bool {
        self.is_new && self.kind != Kind::Backfill
    }
}

/// What a task is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first load of a vector table.
    Backfill,
    /// Every row is looked at again, also those that have failed.
    Rebackfill,
    /// Source and vector table are compared, and what differs is put right.
    Reconcile,
}

impl Kind {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Rebackfill => "rebackfill",
            Self::Reconcile => "reconcile",
        }
    }
}

/// What a caller of backfill() gets to know.
pub struct Asked {
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

/// What makes the open task `t` begin anew, and whoever has it in work stop.
const ANEW: &str =
    "phase = 'source', last_processed_pk = null, processed_rows = 0, different_rows = 0,
                   attempts = t.attempts + 1, started_at = null";

/// Asks for a backfill; one that is not ended yet is an error. A comparison under way becomes one.
pub fn ask(client: &mut SpiClient<'_>, table_id: i32, name: &str) -> Result<Asked> {
    let rows = client.update(
        &format!(
            "insert into embedd.tasks as t (task_id, task_type, target_id) overriding system value
         select {NEXT_ID}, case when exists (select from embedd.tasks
                                   where target_id = $1 and status = 'completed' and task_type <> 'reconcile')
                then 'rebackfill' else 'backfill' end, $1
         on conflict (target_id) where status in ('pending', 'running')
         do update set task_type = excluded.task_type, {ANEW}
             where t.task_type = 'reconcile'
         returning task_id, task_type, created_at"
        ),
        None,
        &[table_id.into()],
    )?;
    asked(rows, name)
}

/// Asks for a comparison; a task that is not ended yet is an error.
pub fn ask_reconcile(client: &mut SpiClient<'_>, table_id: i32, name: &str) -> Result<Asked> {
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

fn asked(rows: SpiTupleTable<'_>, name: &str) -> Result<Asked> {
    if rows.is_empty() {
        return Err(Error::BackfillInProgress { name: name.to_string() });
    }
    let (id, kind, created_at) = rows.first().get_three::<i64, String, TimestampWithTimeZone>()?;
    match (id, kind, created_at) {
        (Some(id), Some(kind), Some(created_at)) => Ok(Asked { id, kind, created_at }),
        _ => Err(Error::Damaged { what: "task without a number".to_string() }),
    }
}

/// Has a vector table gone over from its beginning, by the task that is open or by a new one of this kind. An open
/// comparison takes up rows that have failed where this kind does.
pub fn restart_or_ask(client: &mut SpiClient<'_>, table_id: i32, kind: Kind) -> Result<()> {
    client.update(
        &format!(
            "insert into embedd.tasks as t (task_id, task_type, target_id) overriding system value
             select {NEXT_ID}, $2, v.id from embedd.vector_tables v where v.id = $1 for key share
             on conflict (target_id) where status in ('pending', 'running')
             do update set {ANEW},
                   task_type = case when t.task_type = 'reconcile' then excluded.task_type else t.task_type end"
        ),
        None,
        &[table_id.into(), kind.as_str().into()],
    )?;
    Ok(())
}

/// Has a vector table compared that may have missed changes; by its first load, where that has never ended. One that
/// nobody has asked to fill is left alone.
pub fn compare_again(client: &mut SpiClient<'_>, table_id: i32) -> Result<()> {
    let rows = client.select(
        "select pg_catalog.bool_or(t.status = 'completed') from embedd.tasks t
          where t.target_id = $1 and t.task_type <> 'reconcile' having pg_catalog.count(*) > 0",
        None,
        &[table_id.into()],
    )?;
    let Some(row) = rows.into_iter().next() else { return Ok(()) };
    let is_filled = row.get::<bool>(1)? == Some(true);
    restart_or_ask(client, table_id, if is_filled { Kind::Reconcile } else { Kind::Backfill })
}

/// Every task that is not ended, with its vector table, in the order they are worked on.
pub fn open(client: &SpiClient<'_>) -> Result<Vec<(i64, i32)>> {
    let rows = client.select(
        "select task_id, target_id from embedd.tasks where status in ('pending', 'running') order by priority, task_id",
        None,
        &[],
    )?;
    let mut tasks = Vec::new();
    for row in rows {
        match row.get::<i64>(1)?.zip(row.get::<i32>(2)?) {
            Some(task) => tasks.push(task),
            None => return Err(Error::Damaged { what: "task with nulls".to_string() }),
        }
    }
    Ok(tasks)
}

/// Begins a task or takes it up again; none when it has ended.
pub fn begin(client: &mut SpiClient<'_>, id: i64) -> Result<Option<Task>> {
    let rows = client.update(
        "update embedd.tasks
            set status = 'running', attempts = attempts + 1, started_at = coalesce(started_at, pg_catalog.now())
          where task_id = $1 and status in ('pending', 'running')
         returning phase, last_processed_pk, task_type, attempts, started_at = pg_catalog.now()",
        None,
        &[id.into()],
    )?;
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let (Some(phase), Some(kind), Some(attempt)) =
        (row.get::<String>(1)?, row.get::<String>(3)?, row.get::<i32>(4)?)
    else {
        return Err(Error::Damaged { what: "task with nulls".to_string() });
    };
    let phase = match phase.as_str() {
        "index" => Phase::Index,
        "orphans" => Phase::Orphans,
        _ => Phase::Source,
    };
    let kind = match kind.as_str() {
        "backfill" => Kind::Backfill,
        "rebackfill" => Kind::Rebackfill,
        _ => Kind::Reconcile,
    };
    let is_new = row.get::<bool>(5)? == Some(true);
    Ok(Some(Task { id, phase, last_key: row.get(2)?, kind, attempt, is_new }))
}

/// Whether a task is still as it was begun, and was not asked for anew since. It stays so until the transaction ends.
pub fn is_current(client: &mut SpiClient<'_>, id: i64, attempt: i32) -> Result<bool> {
    let rows = client.update(
        "select 1 from embedd.tasks
          where task_id = $1 and attempts = $2 and status in ('pending', 'running') for update",
        None,
        &[id.into(), attempt.into()],
    )?;
    Ok(!rows.is_empty())
}

/// Notes how far a task is.
pub fn checkpoint(
    client: &mut SpiClient<'_>,
    id: i64,
    phase: Phase,
    last_key: Option<&str>,
    more_rows: i64,
    more_different: i64,
) -> Result<()> {
    client.update(
        "update embedd.tasks
            set phase = $2, last_processed_pk = $3, processed_rows = processed_rows + $4,
                different_rows = different_rows + $5
          where task_id = $1",
        None,
        &[
            id.into(),
            phase.as_str().into(),
            last_key.into(),
            more_rows.into(),
            more_different.into(),
        ],
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

/// Ends the task of a vector table that waits for its indexes, which are there now.
pub fn complete_index(client: &mut SpiClient<'_>, table_id: i32) -> Result<()> {
    client.update(
        "update embedd.tasks
            set status = 'completed', completed_at = pg_catalog.clock_timestamp(), last_error = null
          where target_id = $1 and status in ('pending', 'running') and phase = 'index'",
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

/// Notes how many rows the source of a batch run has.
pub fn begin_count(client: &mut SpiClient<'_>, id: i64, rows: i64) -> Result<()> {
    client.update(
        "update embedd.tasks set processed_rows = $2, different_rows = 0 where task_id = $1",
        None,
        &[id.into(), rows.into()],
    )?;
    Ok(())
}

/// Whether a task of a vector table is open, and how many seconds ago the last one was begun that has ended.
pub fn last_run(client: &SpiClient<'_>, table_id: i32) -> Result<(bool, Option<f64>)> {
    let rows = client.select(
        "select exists (select from embedd.tasks t where t.target_id = $1 and t.status in ('pending', 'running')),
                (select extract(epoch from pg_catalog.clock_timestamp() - max(t.started_at))::float8
                   from embedd.tasks t where t.target_id = $1 and t.status not in ('pending', 'running'))",
        None,
        &[table_id.into()],
    )?;
    let (is_open, ago) = rows.first().get_two::<bool, f64>()?;
    Ok((is_open == Some(true), ago))
}
