//! The row counts of source and vector table: exact if small, estimated if large.

use pgrx::pg_sys;
use pgrx::spi::SpiClient;

use super::partitioned;
use crate::catalog::partitions::{self, lock_if_free};
use crate::catalog::{SyncMode, VectorTable, sight};
use crate::citus;
use crate::error::Result;
use crate::rights::RoleSwitch;

/// Relations with more rows are estimated.
const COUNTED: i64 = 10_000;
/// The most failed and truncated rows that are counted.
pub const MOST_NOTES: i64 = 100_000;
/// With this many rows in its statistics a relation is large for certain, however old they are.
const MANY: f64 = 100_000.0;

/// The counts.
#[derive(Default)]
pub struct Counted {
    /// The rows of the vector table; None if it does not exist.
    pub synced: Option<i64>,
    /// The rows of the source; None if it does not exist, or cannot be counted.
    pub total: Option<i64>,
    pub is_estimated: bool,
    /// Why an existing relation was not counted.
    pub reason: Option<String>,
}

/// Counts the rows of the vector table and of its source, as their owner sees them. Runs no user code: relations with
/// policies, and locked ones, are not counted.
pub fn rows(client: &SpiClient<'_>, table: &VectorTable) -> Result<Counted> {
    let _rights = RoleSwitch::of_owner(table.owner);
    let mut counted = Counted::default();
    if let Ok(relation) = table.relation_name()
        && may_count(table.relation, relation, table.owner, &mut counted)
    {
        counted.synced =
            count(client, table.relation, relation, relation, &mut counted.is_estimated)?;
    }
    of_source(client, table, &mut counted)?;
    Ok(counted)
}

/// How many rows the source of a vector table has; none where they cannot be counted.
pub fn source_rows(client: &SpiClient<'_>, table: &VectorTable) -> Result<Option<i64>> {
    let _rights = RoleSwitch::of_owner(table.owner);
    let mut counted = Counted::default();
    of_source(client, table, &mut counted)?;
    Ok(counted.total)
}

/// Counts the rows of the source with the rights of the owner, which the caller has taken.
fn of_source(client: &SpiClient<'_>, table: &VectorTable, counted: &mut Counted) -> Result<()> {
    if let (Ok(source), Some(name)) = (table.source_name(), &table.source_name)
        && table.stored.sync_mode == SyncMode::Trigger
        && may_count(table.source, name, table.owner, counted)
    {
        counted.total = match partitions::readable(client, table.source, table.owner)? {
            Some(leaves) => {
                let found = partitioned::rows(&leaves, table.owner, COUNTED)?;
                counted.is_estimated |= found.is_estimated;
                if let Some(partition) = found.locked {
                    counted.reason = Some(not_counted(&partition));
                }
                Some(found.rows).filter(|_| counted.reason.is_none())
            }
            None => count(client, table.source, &source, name, &mut counted.is_estimated)?,
        };
    }
    Ok(())
}

/// Whether the rows of a relation can be counted without waiting.
fn may_count(relation: pg_sys::Oid, name: &str, owner: pg_sys::Oid, counted: &mut Counted) -> bool {
    let is_free = lock_if_free(relation);
    if !is_free {
        counted.reason = Some(not_counted(name));
    }
    is_free && !sight::has_policies(relation, owner)
}

fn not_counted(name: &str) -> String {
    format!("{name} is locked, and was not counted")
}

/// Counts the rows of a readable relation that `from` selects.
fn count(
    client: &SpiClient<'_>,
    relation: pg_sys::Oid,
    from: &str,
    name: &str,
    is_estimated: &mut bool,
) -> Result<Option<i64>> {
    let rows = client.select(
        // A relation that was just dropped has no rows.
        "select pg_catalog.has_any_column_privilege(pg_catalog.to_regclass($1), 'SELECT')",
        None,
        &[name.into()],
    )?;
    if rows.first().get_one::<bool>()? != Some(true) {
        return Ok(None);
    }
    let rows = client.select(
        // The density at the last vacuum or analyze, times the current size.
        "select sum(c.reltuples::float8 / nullif(c.relpages, 0)
                    * (pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint))
           from (select $1::regclass::oid as relid union select t.relid from pg_catalog.pg_partition_tree($1::regclass) t) t
           join pg_catalog.pg_class c on c.oid = t.relid
          where c.reltuples > 0 and c.relpages > 0",
        None,
        &[name.into()],
    )?;
    let estimate = rows.first().get_one::<f64>()?;
    if let Some(estimate) = estimate.filter(|estimate| *estimate > MANY) {
        *is_estimated = true;
        return Ok(Some(estimate as i64));
    }
    let first = format!("select count(*) from (select 1 from {from} limit {}) r", COUNTED + 1);
    let many = client.select(&first, None, &[])?.first().get_one::<i64>()?.unwrap_or_default();
    if many <= COUNTED {
        return Ok(Some(many));
    }
    *is_estimated = true;
    if let Some(estimate) = estimate.filter(|estimate| *estimate >= COUNTED as f64) {
        return Ok(Some(estimate as i64));
    }
    // Without statistics: the density of its first rows. The size of a partitioned table is the sum of its partitions.
    let size = match citus::is_table(relation) {
        true => "pg_catalog.citus_relation_size",
        false => "pg_catalog.pg_relation_size",
    };
    let rows = client.select(
        &format!(
            "select {many} * (select {size}($1::regclass)
                                    + coalesce(sum({size}(t.relid)) filter (where t.isleaf and t.level > 0), 0)
                                from pg_catalog.pg_partition_tree($1::regclass) t)::float8
                    / nullif(sum(f.blocks) * pg_catalog.current_setting('block_size')::bigint, 0)
               from (select 1 + max((f.ctid::text::point)[0])::bigint as blocks
                       from (select tableoid, ctid from {from} limit {many}) f group by f.tableoid) f"
        ),
        None,
        &[name.into()],
    )?;
    Ok(Some(rows.first().get_one::<f64>()?.map_or(many, |rows| (rows as i64).max(many))))
}
