//! The progress of each sync worker for each vector table, in embedd.sync_state.

use pgrx::spi::SpiClient;

use super::missing;
use crate::datum::Texts;
use crate::error::Result;
use crate::queue;
use crate::shared::WorkerIndex;

/// What a worker records every few seconds.
pub struct Progress<'a> {
    /// The queue is processed up to this row,
    pub done: i64,
    /// except for rows of these transactions, which had not ended.
    pub open: &'a [u64],
    /// Whether changes were applied to the vector table.
    pub has_synced: bool,
    /// The recent rate in rows a second.
    pub rate: Option<f64>,
}

/// Up to where the queue of a table is processed for certain: the last row, and the transactions that may add earlier
/// ones.
pub fn position(
    client: &SpiClient<'_>,
    id: i32,
    portion: WorkerIndex,
) -> Result<Option<(i64, Vec<u64>)>> {
    let rows = client.select(
        "select s.done_id, s.open_transactions::text[] from embedd.sync_state s
          where s.table_id = $1 and s.portions = $2 and s.portion = $3",
        None,
        &[id.into(), (portion.count as i16).into(), (portion.index as i16).into()],
    )?;
    let Some(row) = rows.into_iter().next() else { return Ok(None) };
    let open = row.get::<Texts>(2)?.map(|texts| texts.0).unwrap_or_default();
    let open = open.iter().filter_map(|x| x.parse().ok()).collect();
    Ok(Some((row.get::<i64>(1)?.ok_or_else(missing)?, open)))
}

/// Records the progress of a worker for a table.
pub fn set_progress(
    client: &mut SpiClient<'_>,
    id: i32,
    portion: WorkerIndex,
    progress: &Progress<'_>,
) -> Result<()> {
    client.update(
        "insert into embedd.sync_state as s (table_id, portions, portion, done_id, open_transactions, last_synced_at, rate, rate_at)
         select v.id, $2, $3, $4, $5::text[]::xid8[], case when $6 then pg_catalog.clock_timestamp() end, $7,
                pg_catalog.clock_timestamp()
           from embedd.vector_tables v where v.id = $1
         on conflict (table_id, portions, portion) do update
            set done_id = excluded.done_id, open_transactions = excluded.open_transactions,
                last_synced_at = coalesce(excluded.last_synced_at, s.last_synced_at),
                rate = excluded.rate, rate_at = excluded.rate_at",
        None,
        &[
            id.into(),
            (portion.count as i16).into(),
            (portion.index as i16).into(),
            progress.done.into(),
            queue::texts(progress.open).into(),
            progress.has_synced.into(),
            progress.rate.into(),
        ],
    )?;
    Ok(())
}
