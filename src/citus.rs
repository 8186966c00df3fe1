//! Support for Citus, where it is installed: which relations it shards, and settings for all of its nodes.

use std::ffi::CStr;

use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::relation;
use crate::rights::RoleSwitch;
use crate::settings::{Level, Others};

/// The catalog of the tables that Citus shards, by their oid (logicalrelid).
const TABLES: &CStr = c"pg_dist_partition";
/// The catalog of their shards, by number (shardid).
const SHARDS: &CStr = c"pg_dist_shard";

/// A condition that makes Citus run the statement in transactions on the other nodes, where the settings of
/// [`NodeSettings`] apply; without it a part that is planned separately would not have them.
pub const IN_TRANSACTIONS: &str = "(select true)";

/// A catalog of Citus by name; None without Citus, at the cost of a cache look-up.
fn catalog(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache look-up in a transaction, with a terminated name.
    let oid = unsafe {
        pg_sys::get_relname_relid(name.as_ptr(), pg_sys::Oid::from(pg_sys::PG_CATALOG_NAMESPACE))
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether Citus manages a relation: as a distributed table, a reference table, or a single shard on the coordinator.
pub fn is_table(relation: pg_sys::Oid) -> bool {
    catalog(TABLES).is_some_and(|tables| {
        let value = pg_sys::Datum::from(relation);
        let key = (c"logicalrelid", pg_sys::F_OIDEQ, value);
        find(tables, c"pg_dist_partition_logical_relid_index", key, c"logicalrelid").is_some()
    })
}

/// Whether a relation is a shard. Citus turns an ordinary table into a shard, which keeps the table's oid.
pub fn is_shard(relation: pg_sys::Oid) -> bool {
    let Some(shards) = catalog(SHARDS) else { return false };
    let Some(name) = relation::name_of(relation) else { return false };
    let Some((base, number)) = shard_number(&name) else { return false };
    let value = pg_sys::Datum::from(number);
    let key = (c"shardid", pg_sys::F_INT8EQ, value);
    find(shards, c"pg_dist_shard_shardid_index", key, c"logicalrelid")
        .filter(|table| *table != relation && relation::share_schema(*table, relation))
        .and_then(relation::name_of)
        .is_some_and(|table| is_name_of_shard(base, &table))
}

/// Whether reading a relation may run code on other nodes: a view may read any table.
pub fn reaches_nodes(relation: pg_sys::Oid) -> bool {
    catalog(TABLES).is_some() && (relation::is_view(relation) || is_table(relation))
}

/// Splits the name of a shard into the name of its table and the shard number.
fn shard_number(name: &str) -> Option<(&str, i64)> {
    let (base, number) = name.rsplit_once('_')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number.parse().ok()).flatten().map(|number| (base, number))
}

/// The least bytes of a table's name that a truncated shard name keeps.
const SHORTEST_CUT: usize = 30;

/// Whether a shard name belongs to a table. A long name is truncated and followed by a hash.
fn is_name_of_shard(base: &str, table: &str) -> bool {
    let is_cut = |(beginning, hash): (&str, &str)| {
        hash.len() == 8 && beginning.len() >= SHORTEST_CUT && table.starts_with(beginning)
    };
    base == table || base.rsplit_once('_').is_some_and(is_cut)
}

/// The oid in one column of the first catalog row whose other column has this value.
fn find(
    table: pg_sys::Oid,
    index: &CStr,
    (column, equals, value): (&CStr, u32, pg_sys::Datum),
    wanted: &CStr,
) -> Option<pg_sys::Oid> {
    // The index may have another name in some version: without it the scan is sequential.
    let index = catalog(index);
    // SAFETY: a scan inside a transaction, of columns that are looked up first. The row is read while the scan is open.
    unsafe {
        let (column, wanted) = (
            pg_sys::get_attnum(table, column.as_ptr()),
            pg_sys::get_attnum(table, wanted.as_ptr()),
        );
        if column <= 0 || wanted <= 0 {
            return None;
        }
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let open = pg_sys::table_open(table, lock);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            column,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::RegProcedure::from(equals),
            value,
        );
        let scan = pg_sys::systable_beginscan(
            open,
            index.unwrap_or(pg_sys::InvalidOid),
            index.is_some(),
            std::ptr::null_mut(),
            1,
            &mut key,
        );
        let row = pg_sys::systable_getnext(scan);
        let mut is_null = true;
        let found = match row.is_null() {
            true => pg_sys::Datum::null(),
            false => pg_sys::SPI_getbinval(row, (*open).rd_att, wanted.into(), &mut is_null),
        };
        let found = (!is_null).then(|| pg_sys::Oid::from(found.value() as u32));
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(open, lock);
        found
    }
}

/// Settings that apply on every node, for statements with [`IN_TRANSACTIONS`].
pub struct NodeSettings {
    names: Vec<String>,
}

impl NodeSettings {
    /// Applies settings until [`NodeSettings::reset`]. On this node they end at the latest with the caller's settings
    /// level (GUC nest level).
    ///
    /// Citus propagates SET LOCAL to the other nodes, but outside a transaction block only from within a DO block.
    pub fn set<'a>(settings: impl IntoIterator<Item = (&'a CStr, &'a CStr)>) -> Result<Self> {
        let mut names = Vec::new();
        let mut statements = Vec::new();
        for (name, value) in settings {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            statements.push(format!("set local {name} = '{value}'"));
            names.push(name.into_owned());
        }
        run(&statements)?;
        Ok(Self { names })
    }

    /// Resets the settings on the other nodes, for the rest of the caller's transaction.
    pub fn reset(self) -> Result<()> {
        let statements: Vec<String> =
            self.names.iter().map(|name| format!("set local {name} to default")).collect();
        run(&statements)
    }
}

/// Runs SET LOCAL statements on every node that takes part in the transaction, now or later.
fn run(statements: &[String]) -> Result<()> {
    let block = format!("do 'begin {}; end'", statements.join("; ").replace('\'', "''"));
    // The current role may lack the privilege to use plpgsql.
    let _rights = RoleSwitch::of_extension()?;
    let _propagated = Level::with(Others::Stay, &[(c"citus.propagate_set_commands", c"local")]);
    Spi::connect_mut(|client| client.update(&block, None, &[]).map(drop)).map_err(Error::Spi)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_shard_is_its_table_and_a_number() {
        assert_eq!(shard_number("items_102008"), Some(("items", 102_008)));
        assert_eq!(shard_number("a_b_1"), Some(("a_b", 1)));
        for other in ["items", "items_", "items_1a", "items_-1", "_", "items_99999999999999999999"]
        {
            assert_eq!(shard_number(other), None, "{other}");
        }
    }

    #[test]
    fn long_names_are_truncated_in_shards() {
        let long = "a".repeat(60);
        assert!(is_name_of_shard("items", "items"));
        assert!(!is_name_of_shard("item", "items"));
        assert!(!is_name_of_shard(&long, &"b".repeat(60)));
        assert!(is_name_of_shard(&format!("{}_0f1e2d3c", "a".repeat(45)), &long));
        assert!(!is_name_of_shard(&"ä".repeat(30), &long));
    }
}
