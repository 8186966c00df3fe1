//! Tells how the sync of a vector table stands, pauses it, takes it up again and asks for backfills.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::{self, Status, VectorTable};
use crate::error::{Error, Result};
use crate::server::{self, Rights};
use crate::table::{check_may_change, wake_at_commit};
use crate::task::{self, Asked};

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
}

/// How the sync of a vector table stands.
pub fn sync_status(name: &str) -> Result<SyncStatus> {
    Spi::connect(|client| {
        let rights = Rights::of_extension()?;
        let table = catalog::find(client, name)?;
        drop(rights);
        let shows_errors = check_may_change(&table).is_ok();
        let visible = client.select(
            "select embedd.may_see($1, $2)",
            None,
            &[table.owner.into(), table.relation.into()],
        )?;
        if visible.first().get_one::<bool>()? != Some(true) {
            return Err(Error::UnknownVectorTable { name: name.to_string() });
        }
        let (synced_rows, total_rows) = count_rows(client, &table)?;
        let _rights = Rights::of_extension()?;
        let rows = client.select(
            "select v.last_synced_at, q.keys, q.age, v.last_error, v.last_error_at,
                    (select count(*) from embedd.failed_rows f where f.table_id = v.id),
                    (select count(*) from embedd.truncated_rows f where f.table_id = v.id),
                    t.processed_rows,
                    t.processed_rows / nullif(extract(epoch from pg_catalog.clock_timestamp() - t.started_at), 0)::float8
               from embedd.vector_tables v
              cross join lateral (
                    select coalesce(sum(coalesce(pg_catalog.cardinality(q.keys), 1)), 0)::bigint as keys,
                           coalesce(extract(epoch from pg_catalog.clock_timestamp() - min(q.noted_at)), 0)::float8 as age
                      from embedd.queue q where q.table_id = v.id and q.system_id = $2) q
               left join embedd.tasks t on t.target_id = v.id and t.status in ('pending', 'running')
              where v.id = $1",
            None,
            &[table.id.into(), server::system_id().into()],
        )?;
        let row = rows.first();
        let processed = row.get::<i64>(8)?;
        let rate = row.get::<f64>(9)?.filter(|rate| *rate > 0.0);
        let left = match (processed, total_rows) {
            (Some(processed), Some(total)) => (total - processed).max(0),
            _ => 0,
        };
        Ok(SyncStatus {
            sync_status: table.status.as_str(),
            synced_rows,
            total_rows,
            last_synced_at: row.get(1)?,
            rows_pending: row.get::<i64>(2)?.map(|keys| keys + left),
            staleness_secs: row.get(3)?,
            // It can quote a value of the source.
            last_error: row.get::<String>(4)?.filter(|_| shows_errors),
            last_error_at: row.get(5)?,
            failed_rows: row.get(6)?,
            truncated_rows: row.get(7)?,
            rate,
            eta: rate.map(|rate| Interval::from_seconds(left as f64 / rate)),
        })
    })
}

/// Rows in the vector table and rows in the source, as its owner sees them; None where a table is gone.
fn count_rows(client: &SpiClient<'_>, table: &VectorTable) -> Result<(Option<i64>, Option<i64>)> {
    let _rights = Rights::of_owner(table.owner);
    let count = |relation: &Option<String>| -> Result<Option<i64>> {
        match relation {
            Some(relation) if may_count(client, relation)? => {
                let query = format!("select count(*) from {relation}");
                Ok(client.select(&query, None, &[])?.first().get_one()?)
            }
            _ => Ok(None),
        }
    };
    Ok((count(&table.relation_name)?, count(&table.source_name)?))
}

/// Whether the role in force may read anything of a relation.
fn may_count(client: &SpiClient<'_>, relation: &str) -> Result<bool> {
    let rows = client.select(
        "select pg_catalog.has_any_column_privilege($1, 'SELECT')",
        None,
        &[relation.into()],
    )?;
    Ok(rows.first().get_one::<bool>()? == Some(true))
}

/// Finds a vector table to be changed by the caller, with its row locked.
fn find_to_change(client: &mut SpiClient<'_>, name: &str) -> Result<VectorTable> {
    server::check_writable("change the sync of a vector table")?;
    let rights = Rights::of_extension()?;
    let table = catalog::find_for_update(client, name)?;
    drop(rights);
    check_may_change(&table)?;
    Ok(table)
}

/// Stops bringing changes in. They are noted meanwhile, and queries go on.
pub fn pause(name: &str) -> Result<()> {
    Spi::connect_mut(|client| {
        let table = find_to_change(client, name)?;
        if table.status == Status::Paused {
            return Err(Error::AlreadyPaused { name: table.name });
        }
        let _rights = Rights::of_extension()?;
        catalog::set_status(client, table.id, Status::Paused)?;
        wake_at_commit();
        Ok(())
    })
}

/// Takes a paused sync up again, with the changes made meanwhile.
pub fn resume(name: &str) -> Result<()> {
    Spi::connect_mut(|client| {
        let table = find_to_change(client, name)?;
        if table.status != Status::Paused {
            let status = table.status.as_str().to_string();
            return Err(Error::NotPaused { name: table.name, status });
        }
        let _rights = Rights::of_extension()?;
        catalog::set_status(client, table.id, Status::Pending)?;
        catalog::set_working_status(client, table.id)?;
        wake_at_commit();
        Ok(())
    })
}

/// Asks the sync worker for a backfill.
pub fn backfill(name: &str) -> Result<(i32, Asked)> {
    Spi::connect_mut(|client| {
        let table = find_to_change(client, name)?;
        let _rights = Rights::of_extension()?;
        let asked = task::ask(client, table.id, name)?;
        if table.status != Status::Paused {
            catalog::set_working_status(client, table.id)?;
        }
        wake_at_commit();
        Ok((table.id, asked))
    })
}
