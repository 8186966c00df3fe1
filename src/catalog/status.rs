//! The status of a vector table as it is stored: what has been done, and what keeps it from being in sync.

use pgrx::spi::SpiClient;

use super::Status;
use crate::error::Result;

/// Sets the status; a change that is none writes nothing.
pub fn set_status(client: &mut SpiClient<'_>, id: i32, status: Status) -> Result<()> {
    client.update(
        "update embedd.vector_tables set sync_status = $2 where id = $1 and sync_status <> $2",
        None,
        &[id.into(), status.as_str().into()],
    )?;
    Ok(())
}

/// The status that follows from what has been done, for a table that is neither paused nor in error any more.
pub fn set_working_status(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables v
            set last_error = null, last_error_at = null, error_kind = null, error_since = null, sync_status = case
                when exists (select from embedd.tasks t where t.target_id = v.id and t.status in ('pending', 'running')
                               and t.task_type <> 'reconcile')
                    then 'backfilling'
                when exists (select from embedd.tasks t where t.target_id = v.id and t.status = 'completed')
                    then 'synced'
                else 'pending' end
          where v.id = $1 and v.sync_status <> 'paused'",
        None,
        &[id.into()],
    )?;
    Ok(())
}

/// What keeps a table from being in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// The embedder or the provider.
    Provider,
    /// The source, the vector table, or a row of them.
    Table,
}

impl Culprit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Table => "table",
        }
    }
}

/// Notes why a table cannot be kept in sync just now; a paused table stays paused. False when it was dropped.
pub fn set_error(
    client: &mut SpiClient<'_>,
    id: i32,
    culprit: Culprit,
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
