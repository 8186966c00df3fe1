//! Tells how the sync of a vector table stands.

mod count;

use pgrx::prelude::*;

use crate::catalog::{self, SyncMode};
use crate::error::{Error, Result};
use crate::queue;
use crate::rights::Rights;
use crate::table::check_may_change;

/// What sync_status() returns, in the order of its columns.
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
}

/// How the sync of a vector table stands. Its cost does not depend on the size of anything: what is large is estimated.
pub fn sync_status(name: &str) -> Result<SyncStatus> {
    Spi::connect(|client| {
        let rights = Rights::of_extension()?;
        let table = catalog::find(client, name)?;
        drop(rights);
        let shows_errors = check_may_change(&table).is_ok();
        let relation = table.relation_name.as_ref().map(|_| table.relation);
        let visible = client.select(
            "select embedd.may_see($1, $2)",
            None,
            &[table.owner.into(), relation.into()],
        )?;
        if visible.first().get_one::<bool>()? != Some(true) {
            return Err(Error::UnknownVectorTable { name: name.to_string() });
        }
        let is_batch = table.stored.sync_mode == SyncMode::Batch;
        let counted = count::rows(client, &table)?;
        let _rights = Rights::of_extension()?;
        let pending = queue::pending(client, table.id)?;
        let rows = client.select(
            "select s.last_synced_at, v.last_error, v.last_error_at,
                    (select count(*) from (select from embedd.failed_rows f where f.table_id = v.id limit $2) f),
                    (select count(*) from (select from embedd.truncated_rows f where f.table_id = v.id limit $2) f),
                    t.task_type, t.processed_rows,
                    t.processed_rows / nullif(extract(epoch from pg_catalog.clock_timestamp() - t.started_at), 0)::float8,
                    s.rate, r.processed_rows,
                    extract(epoch from pg_catalog.clock_timestamp() - r.started_at)::float8
               from embedd.vector_tables v
              cross join lateral (
                    select max(s.last_synced_at) as last_synced_at,
                           sum(s.rate) filter (where s.rate_at > pg_catalog.clock_timestamp() - interval '15 s') as rate
                      from embedd.sync_state s where s.table_id = v.id) s
               left join embedd.tasks t on t.target_id = v.id and t.status in ('pending', 'running')
               left join lateral (
                    select r.processed_rows, r.started_at from embedd.tasks r
                     where r.target_id = v.id and r.status = 'completed' order by r.task_id desc limit 1) r on true
              where v.id = $1",
            None,
            &[table.id.into(), (count::MOST_NOTES + 1).into()],
        )?;
        let row = rows.first();
        let is_backfill = row.get::<String>(6)?.is_some_and(|kind| kind != "reconcile");
        // Of a source that is not counted quickly, as many as the last comparison has found.
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
        let last_run: Option<f64> = row.get(11)?;
        Ok(SyncStatus {
            sync_status: table.status.as_str(),
            synced_rows: counted.synced,
            total_rows,
            last_synced_at: row.get(1)?,
            rows_pending: Some(pending.keys + left),
            staleness_secs: match is_batch {
                true => last_run,
                false => Some(pending.age.unwrap_or(0.0)),
            },
            // It can quote a value of the source.
            last_error: row.get::<String>(2)?.filter(|_| shows_errors),
            last_error_at: row.get(3)?,
            failed_rows,
            truncated_rows,
            rate: task_rate.or(row.get::<f64>(9)?.filter(|_| pending.keys > 0)),
            eta: task_rate.map(|rate| Interval::from_seconds(left as f64 / rate)),
            oldest_pending_secs: pending.age,
            is_estimated: counted.is_estimated
                || pending.is_estimated
                || many_failed
                || many_truncated,
        })
    })
}
