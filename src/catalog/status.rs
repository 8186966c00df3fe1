//! The stored status of a vector table.

use pgrx::spi::SpiClient;

use super::Status;
use crate::error::Result;

/// Sets the status; an unchanged status is not written.
pub fn set_status(client: &mut SpiClient<'_>, id: i32, status: Status) -> Result<()> {
    client.update(
        "update embedd.vector_tables set sync_status = $2 where id = $1 and sync_status <> $2",
        None,
        &[id.into(), status.as_str().into()],
    )?;
    Ok(())
}

/// Sets the status according to the work done, for a table that is no longer paused or in error. After a task that has
/// failed it stays in error until another one has run: rows may be missing. False when it is so.
pub fn set_working_status(client: &mut SpiClient<'_>, id: i32) -> Result<bool> {
    let rows = client.update(
        "update embedd.vector_tables v
            set last_error = f.last_error, last_error_at = f.completed_at,
                error_kind = case when f.task_id is not null then 'table' end, error_since = f.completed_at,
                sync_status = case
                when exists (select from embedd.tasks t where t.target_id = v.id and t.status in ('pending', 'running')
                               and t.task_type <> 'reconcile')
                    then 'backfilling'
                when f.task_id is not null then 'error'
                when exists (select from embedd.tasks t where t.target_id = v.id and t.status = 'completed')
                    then case when exists (select from embedd.vector_tables s where s.replaces = v.id)
                              then 'pending_rebackfill' else 'synced' end
                else 'pending' end
           from (select $1::integer as id) w
           left join lateral (
                select l.* from (select l.* from embedd.tasks l where l.target_id = w.id order by l.task_id desc limit 1) l
                 where l.status = 'failed') f on true
          where v.id = w.id and v.sync_status <> 'paused'
         returning v.sync_status <> 'error'",
        None,
        &[id.into()],
    )?;
    Ok(rows.is_empty() || rows.first().get_one::<bool>()? == Some(true))
}

/// The cause of a status error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorSource {
    /// The embedder or the provider.
    Provider,
    /// The source, the vector table, or one of their rows.
    Table,
}

impl ErrorSource {
    fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Table => "table",
        }
    }
}

/// Records why a table cannot be kept in sync; a paused table stays paused. False if it was dropped.
pub fn set_error(
    client: &mut SpiClient<'_>,
    id: i32,
    culprit: ErrorSource,
    reason: &str,
    stuck: bool,
) -> Result<bool> {
    let rows = client.update(
        "update embedd.vector_tables
            set last_error = $2, last_error_at = pg_catalog.clock_timestamp(),
                error_since = case when error_kind = $4 then error_since else pg_catalog.clock_timestamp() end,
                error_kind = $4,
                sync_status = case when $3 and sync_status <> 'paused' then 'error' else sync_status end
          where id = $1",
        None,
        &[id.into(), reason.into(), stuck.into(), culprit.as_str().into()],
    )?;
    Ok(!rows.is_empty())
}
