//! What the status of a vector table says of its shadow.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::SyncStatus;
use crate::error::Result;
use crate::name::quote_literal;

/// Shows a re-backfill in the status of the vector table that it replaces: its progress, and what is wrong with it.
pub fn show(
    client: &SpiClient<'_>,
    id: i32,
    shows_errors: bool,
    status: &mut SyncStatus,
) -> Result<()> {
    let rows = client.select(
        "select t.processed_rows,
                t.processed_rows / nullif(extract(epoch from pg_catalog.clock_timestamp() - t.started_at), 0)::float8,
                s.sync_status, coalesce(s.last_error, t.last_error), s.last_error_at, s.error_kind = 'provider', s.error_since,
                t.task_id is not null,
                (select count(*) from embedd.failed_rows f where f.table_id = s.id and not exists (
                    select from embedd.failed_rows l where l.table_id = $1 and l.pk_value = f.pk_value)),
                s.name
           from embedd.vector_tables s
           left join embedd.tasks t on t.target_id = s.id and t.status in ('pending', 'running')
          where s.replaces = $1",
        None,
        &[id.into()],
    )?;
    if rows.is_empty() {
        return Ok(());
    }
    let row = rows.first();
    let is_running = row.get::<bool>(8)? == Some(true);
    // What is wrong with the vector table itself comes first.
    let is_well = match status.sync_status {
        "synced" | "syncing" | "pending_rebackfill" => true,
        // The vector table was never filled, and its shadow is now.
        "pending" => is_running,
        _ => false,
    };
    if !is_well {
        return Ok(());
    }
    let has_failed = row.get::<String>(3)?.as_deref() == Some("error");
    status.sync_status = match (has_failed, is_running) {
        (true, _) => "error",
        (false, true) => "backfilling",
        (false, false) => "pending_rebackfill",
    };
    if let Some(reason) = row.get::<String>(4)? {
        status.last_error = Some(format!("re-backfill: {reason}")).filter(|_| shows_errors);
        status.last_error_at = row.get(5)?;
    }
    if let (false, Some(failed @ 1..), Some(name)) =
        (is_running, row.get::<i64>(9)?, row.get::<String>(10)?)
    {
        let name = quote_literal(&name);
        let reason = format!(
            "re-backfill: {failed} rows failed that the vector table has (embedd.failed_rows), so it is not swapped in. Swap it in without them: SELECT embedd.swap({name}); or give it up: SELECT embedd.discard({name})."
        );
        status.last_error = Some(reason).filter(|_| shows_errors);
    }
    if row.get::<bool>(6)? == Some(true) {
        status.provider_state = "failing";
        status.provider_since = row.get(7)?;
    }
    if let (true, Some(processed)) = (is_running, row.get::<i64>(1)?) {
        let left = status.total_rows.map_or(0, |total| (total - processed).max(0));
        status.rows_pending = status.rows_pending.map(|pending| pending + left);
        status.rate = row.get::<f64>(2)?.filter(|rate| *rate > 0.0);
        status.eta = status.rate.map(|rate| Interval::from_seconds(left as f64 / rate));
    }
    Ok(())
}
