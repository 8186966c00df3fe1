//! The current sync status of a vector table: what is stored, what waits, and what can be observed.

pub mod count;
mod partitioned;
mod shadow;
mod verdict;
pub mod wait;

use std::cell::RefCell;
use std::collections::HashSet;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use self::verdict::{Counts, Facts, is_doubtful, verdict};
use crate::catalog::{self, Found, Status, SyncMode, VectorTable, sight};
use crate::error::{Error, Result};
use crate::fdw;
use crate::queue;
use crate::rights::{RoleSwitch, is_monitor};
use crate::shared::monitor;
use crate::source;
use crate::table::check_may_change;
use crate::transaction;

/// The columns of sync_status(), in order.
#[derive(Default)]
pub struct SyncStatus {
    pub sync_status: &'static str,
    pub synced_rows: Option<i64>,
    pub total_rows: Option<i64>,
    pub last_synced_at: Option<TimestampWithTimeZone>,
    pub rows_pending: Option<i64>,
    pub staleness_secs: Option<f64>,
    pub last_error: Option<String>,
    pub last_error_at: Option<TimestampWithTimeZone>,
    pub failed_rows: Option<i64>,
    pub truncated_rows: Option<i64>,
    pub rate: Option<f64>,
    pub eta: Option<Interval>,
    pub oldest_pending_secs: Option<f64>,
    pub is_estimated: bool,
    pub worker_state: &'static str,
    pub worker_since: Option<TimestampWithTimeZone>,
    pub provider_state: &'static str,
    pub provider_since: Option<TimestampWithTimeZone>,
    /// Rows that the backfill has done, which is no column.
    pub done_rows: Option<i64>,
    /// Whether the vector index is being built, which is no column.
    pub builds_index: bool,
    /// Whether new texts are at the batch API of the provider, which is no column.
    pub awaits_batches: bool,
}

/// The columns of stat_vector_tables that sync_status() does not have.
pub struct Described {
    pub id: i32,
    pub name: String,
    pub source: Option<String>,
    pub relation: Option<String>,
    pub provider: String,
    pub model: String,
    pub sync_mode: &'static str,
}

/// How often the rows are counted if a difference may come from counting at two moments.
const LOOKS: usize = 3;

/// The status of a vector table. Its cost does not depend on any size: what is large is estimated.
pub fn of_one(name: &str) -> Result<SyncStatus> {
    let table = find(name)?;
    warn_of_retirement(&table);
    of_table(table)
}

/// The vector table with this name, if the current role may see it.
fn find(name: &str) -> Result<VectorTable> {
    Spi::connect(|client| {
        let rights = RoleSwitch::of_extension()?;
        let table = catalog::find(client, name)?;
        drop(rights);
        match may_see(client, &table)? {
            true => Ok(table),
            false => Err(Error::UnknownVectorTable { name: name.to_string() }),
        }
    })
}

/// Raises a WARNING if the model retires within a year: once in a session, because monitoring polls the status and
/// each WARNING is written to the server log.
fn warn_of_retirement(table: &VectorTable) {
    thread_local! {
        static WARNED: RefCell<HashSet<(i32, String)>> = RefCell::default();
    }
    if let Some(retirement) = fdw::retirement(table)
        && WARNED.with_borrow_mut(|warned| warned.insert((table.id, retirement.on.clone())))
    {
        retirement.warn(&table.model, Some(retirement.hint_for(&table.name)));
    }
}

/// The status of a vector table. An error becomes its last_error, except for a cancelled statement.
fn of_table(table: VectorTable) -> Result<SyncStatus> {
    let shows_errors = check_may_change(&table).is_ok();
    match transaction::nested_read(|| Spi::connect(|client| look(client, table))) {
        Ok(status) => Ok(status),
        Err(failure) if failure.is_canceled() => Err(failure.into()),
        Err(failure) => Ok(unknown(failure.message, shows_errors)),
    }
}

/// The vector tables that the current role may see, and the ids of rows that cannot be read, with the reason.
pub fn visible(client: &SpiClient<'_>) -> Result<Found> {
    let rights = RoleSwitch::of_extension()?;
    let mut found = catalog::all(client)?;
    drop(rights);
    found.tables.retain(|table| table.stored.replaces.is_none());
    if is_monitor() {
        return Ok(found);
    }
    found.damaged.clear();
    let mut tables = Vec::new();
    for table in found.tables {
        if may_see(client, &table)? {
            tables.push(table);
        }
    }
    Ok(Found { tables, ..found })
}

/// The status of every visible vector table. An error in one of them does not affect the others.
pub fn of_all() -> Result<Vec<(Described, SyncStatus)>> {
    Spi::connect(|client| {
        let found = visible(client)?;
        let mut all = Vec::new();
        for table in found.tables {
            let described = Described {
                id: table.id,
                name: table.name.clone(),
                source: table.source_name.clone(),
                relation: table.relation_name.clone(),
                provider: table.provider.clone(),
                model: table.model.clone(),
                sync_mode: table.stored.sync_mode.as_str(),
            };
            all.push((described, of_table(table)?));
        }
        all.extend(found.damaged.into_iter().map(|(id, reason)| damaged(id, reason)));
        Ok(all)
    })
}

/// The status of a vector table that could not be read.
fn unknown(reason: String, shows_errors: bool) -> SyncStatus {
    SyncStatus {
        sync_status: Status::Error.as_str(),
        last_error: Some(reason).filter(|_| shows_errors),
        is_estimated: true,
        worker_state: monitor::worker().state,
        provider_state: "ok",
        ..SyncStatus::default()
    }
}

fn damaged(id: i32, reason: String) -> (Described, SyncStatus) {
    let described = Described {
        id,
        name: String::new(),
        source: None,
        relation: None,
        provider: String::new(),
        model: String::new(),
        sync_mode: "",
    };
    (described, unknown(reason, true))
}

fn may_see(client: &SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    let relation = table.relation_name.as_ref().map(|_| table.relation);
    let visible = client.select(
        "select embedd.may_see($1, $2)",
        None,
        &[table.owner.into(), relation.into()],
    )?;
    Ok(visible.first().get_one::<bool>()? == Some(true))
}

/// Why the source cannot be read, or the vectors cannot be written; also resolves the key columns.
pub fn out_of_sight(client: &SpiClient<'_>, table: &mut VectorTable) -> Result<Option<Error>> {
    let _rights = RoleSwitch::of_extension()?;
    // A copy of a database has other oids and triggers until a worker has adapted it.
    if !table.is_responsible() {
        return Ok(None);
    }
    if let Err(gone) = table.relation_name() {
        return Ok(Some(gone));
    }
    if table.source_name.is_none() {
        return Ok(Some(Error::RelationGone { what: "source", name: table.name.clone() }));
    }
    Ok(sight::check(client, table).and_then(|()| table.resolve()).err())
}

/// Why changes of the source may be missed.
pub fn missed_changes(client: &SpiClient<'_>, table: &VectorTable) -> Result<Option<Error>> {
    let _rights = RoleSwitch::of_extension()?;
    match &table.source_name {
        Some(name) if table.stored.sync_mode == SyncMode::Trigger && table.is_responsible() => {
            sight::missed_changes(client, table.origin_id, table.source, name)
        }
        _ => Ok(None),
    }
}

/// Why the source cannot be kept in sync at the moment, whether the worker has noticed it or not.
fn failure(client: &SpiClient<'_>, table: &mut VectorTable) -> Result<Option<String>> {
    let found = match out_of_sight(client, table)? {
        Some(error) => Some(error),
        None => missed_changes(client, table)?,
    };
    Ok(found.map(|error| error.with_remedy()))
}

/// The status of a vector table that the current role may see; an error is returned as an error.
pub fn look(client: &SpiClient<'_>, mut table: VectorTable) -> Result<SyncStatus> {
    let failure = failure(client, &mut table)?;
    let mut last = None;
    for _ in 0..LOOKS {
        let (status, facts) = look_once(client, &table, failure.clone())?;
        let is_doubtful = is_doubtful(table.status, &facts);
        last = Some(status);
        if !is_doubtful {
            break;
        }
    }
    last.ok_or(Error::Damaged { what: "no status".to_string() })
}

fn look_once(
    client: &SpiClient<'_>,
    table: &VectorTable,
    failure: Option<String>,
) -> Result<(SyncStatus, Facts)> {
    let shows_errors = check_may_change(table).is_ok();
    let is_batch = table.stored.sync_mode == SyncMode::Batch;
    let counted = count::rows(client, table)?;
    let _rights = RoleSwitch::of_extension()?;
    let pending = queue::pending(client, table.id)?;
    let rows = client.select(
        "select s.last_synced_at, v.last_error, v.last_error_at,
                (select count(*) from (select from embedd.failed_rows f where f.table_id = v.id limit $2) f),
                (select count(*) from (select from embedd.truncated_rows f where f.table_id = v.id limit $2) f),
                t.task_type, t.rows_done, p.rate, s.rate, r.rows_total,
                extract(epoch from pg_catalog.clock_timestamp() - r.started_at)::float8,
                v.sync_status, v.error_kind, v.error_since, t.phase
           from embedd.vector_tables v
          cross join lateral (
                select max(s.last_synced_at) as last_synced_at,
                       sum(s.rate) filter (where s.rate_at > pg_catalog.clock_timestamp() - interval '15 s') as rate
                  from embedd.sync_state s where s.table_id = v.id) s
           left join embedd.tasks t on t.target_id = v.id and t.status in ('pending', 'running')
           left join embedd.stat_progress_backfill p on p.task_id = t.task_id
           left join lateral (
                select r.rows_total, r.started_at from embedd.tasks r
                 where r.target_id = v.id and r.status = 'completed' order by r.task_id desc limit 1) r on true
          where v.id = $1",
        None,
        &[table.id.into(), (count::MOST_NOTES + 1).into()],
    )?;
    if rows.is_empty() {
        return Err(Error::UnknownVectorTable { name: table.name.clone() });
    }
    let row = rows.first();
    let task: Option<String> = row.get(6)?;
    let is_backfill = task.as_ref().is_some_and(|kind| kind != "reconcile");
    // The row count of the last comparison, if the source cannot be counted quickly.
    let total_rows = if is_batch { row.get(10)? } else { counted.total };
    let processed = row.get::<i64>(7)?.filter(|_| is_backfill && !is_batch);
    let left = match (processed, total_rows) {
        (Some(processed), Some(total)) => (total - processed).max(0),
        _ => 0,
    };
    let task_rate = row.get::<f64>(8)?.filter(|rate| processed.is_some() && *rate > 0.0);
    let notes = |n: usize| -> Result<(Option<i64>, bool)> {
        let many: Option<i64> = row.get(n)?;
        Ok((many, many.is_some_and(|many| many > count::MOST_NOTES)))
    };
    let ((failed_rows, many_failed), (truncated_rows, many_truncated)) = (notes(4)?, notes(5)?);
    let counts = match (counted.total, counted.synced, failed_rows) {
        (Some(source), Some(stored), Some(failed)) if !counted.is_estimated && !is_batch => {
            Some(Counts { source, stored, failed })
        }
        _ => None,
    };
    let has_lost_key = counts.is_some_and(|counts| counts.stored < counts.source - counts.failed)
        && failure.is_none()
        && !source::has_unique_key(client, table)?;
    let facts = Facts {
        failure,
        has_lost_key,
        is_foreign: !table.is_responsible(),
        pending: pending.keys,
        is_compared: task.is_some(),
        counts,
    };
    let stored = Status::parse(&row.get::<String>(12)?.unwrap_or_default())?;
    let said = verdict(stored, &table.name, &facts);
    let provider_failing = row.get::<String>(13)?.as_deref() == Some("provider");
    let last_run: Option<f64> = row.get(11)?;
    let noted: Option<String> = row.get(2)?;
    let worker = monitor::worker();
    let mut status = SyncStatus {
        sync_status: said.word,
        synced_rows: counted.synced,
        total_rows,
        last_synced_at: row.get(1)?,
        rows_pending: Some(pending.keys + left),
        staleness_secs: match is_batch {
            true => last_run,
            false => Some(pending.age.unwrap_or(0.0)),
        },
        // It may quote a value of the source.
        // The worker knows more about an error that it has met itself.
        last_error: match stored {
            Status::Error => noted.or(said.reason),
            _ => said.reason.or(noted),
        }
        .or(counted.reason)
        .filter(|_| shows_errors),
        last_error_at: row.get(3)?,
        failed_rows,
        truncated_rows,
        rate: task_rate.or(row.get::<f64>(9)?.filter(|_| pending.keys > 0)),
        eta: task_rate.map(|rate| Interval::from_seconds(left as f64 / rate)),
        oldest_pending_secs: pending.age,
        is_estimated: counted.is_estimated || pending.is_estimated || many_failed || many_truncated,
        worker_state: worker.state,
        worker_since: worker.since(),
        provider_state: if provider_failing { "failing" } else { "ok" },
        provider_since: if provider_failing { row.get(14)? } else { None },
        done_rows: processed,
        builds_index: row.get::<String>(15)?.as_deref() == Some("index"),
        awaits_batches: row.get::<String>(15)?.as_deref() == Some("provider_batch"),
    };
    shadow::show(client, table.id, shows_errors, &mut status)?;
    Ok((status, facts))
}
