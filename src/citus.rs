//! What embedd asks of Citus where it is there: which relations it keeps in shards, and settings for all of its nodes.

use std::ffi::CStr;

use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::relation;
use crate::rights::Rights;

/// The tables that Citus keeps in shards, by their oid (logicalrelid).
const TABLES: &CStr = c"pg_dist_partition";
/// Their shards, by number (shardid).
const SHARDS: &CStr = c"pg_dist_shard";

/// Has the statement whose condition it is part of run in transactions of the other nodes, where the settings for all of
/// them are in force: a part that is planned apart needs them.
pub const IN_TRANSACTIONS: &str = "(select true)";

/// The catalog of Citus of this name; none where there is no Citus, which costs a look into a cache.
fn catalog(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache look-up in a transaction, with a terminated name.
    let oid = unsafe {
        pg_sys::get_relname_relid(name.as_ptr(), pg_sys::Oid::from(pg_sys::PG_CATALOG_NAMESPACE))
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether Citus keeps a relation in shards: distributed, the same on every node, or in one shard on the coordinator.
pub fn is_table(relation: pg_sys::Oid) -> bool {
    catalog(TABLES).is_some_and(|tables| {
        let value = pg_sys::Datum::from(relation);
        let key = (c"logicalrelid", pg_sys::F_OIDEQ, value);
        find(tables, c"pg_dist_partition_logical_relid_index", key, c"logicalrelid").is_some()
    })
}

/// Whether a relation is a shard of a table: Citus gives the oid of an ordinary table to a shard when it takes it over.
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

/// Whether reading a relation may compute on other nodes: a view may read any table.
pub fn reaches_nodes(relation: pg_sys::Oid) -> bool {
    catalog(TABLES).is_some() && (relation::is_view(relation) || is_table(relation))
}

/// The name of a table and the number of the shard, of which a shard's name is made.
fn shard_number(name: &str) -> Option<(&str, i64)> {
    let (base, number) = name.rsplit_once('_')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number.parse().ok()).flatten().map(|number| (base, number))
}

/// Bytes of a table's name that are left in that of a shard, when it does not fit as a whole.
const SHORTEST_CUT: usize = 30;

/// Whether the first part of a shard's name is that of a table. Of a long name it is the beginning, and a hash.
fn is_name_of_shard(base: &str, table: &str) -> bool {
    let is_cut = |(beginning, hash): (&str, &str)| {
        hash.len() == 8 && beginning.len() >= SHORTEST_CUT && table.starts_with(beginning)
    };
    base == table || base.rsplit_once('_').is_some_and(is_cut)
}

/// The oid in a column of the first row of a catalog that has a value in another one, by an operator of its type.
fn find(
    table: pg_sys::Oid,
    index: &CStr,
    (column, equals, value): (&CStr, u32, pg_sys::Datum),
    wanted: &CStr,
) -> Option<pg_sys::Oid> {
    // Whatever it is called in some version: without it all rows are read.
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

/// Settings that are in force on every node, for statements with [`IN_TRANSACTIONS`].
pub struct Everywhere {
    names: Vec<String>,
}

impl Everywhere {
    /// Puts settings in force until [`Everywhere::reset`], on this node at the longest until the level of settings ends
    /// that the caller has opened.
    ///
    /// Citus sends a SET LOCAL to the other nodes, but outside of a transaction block only one from within a DO block.
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

    /// Has the other nodes take their own values again, for what else the caller's transaction does there.
    pub fn reset(self) -> Result<()> {
        let statements: Vec<String> =
            self.names.iter().map(|name| format!("set local {name} to default")).collect();
        run(&statements)
    }
}

/// Runs SET LOCAL statements on every node that takes part in the transaction, or will.
fn run(statements: &[String]) -> Result<()> {
    let block = format!("do 'begin {}; end'", statements.join("; ").replace('\'', "''"));
    // A role need not have the right to use plpgsql.
    let _rights = Rights::of_extension()?;
    let name = c"citus.propagate_set_commands";
    // SAFETY: the main thread, inside a transaction and the level of settings that is closed here.
    let level = unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            name.as_ptr(),
            c"local".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        level
    };
    Spi::connect_mut(|client| client.update(&block, None, &[]).map(drop)).map_err(Error::Spi)?;
    // SAFETY: the level opened above; what was set inside it for longer stays.
    unsafe { pg_sys::AtEOXact_GUC(true, level) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_has_the_name_of_its_table_and_a_number() {
        assert_eq!(shard_number("items_102008"), Some(("items", 102_008)));
        assert_eq!(shard_number("a_b_1"), Some(("a_b", 1)));
        for other in ["items", "items_", "items_1a", "items_-1", "_", "items_99999999999999999999"]
        {
            assert_eq!(shard_number(other), None, "{other}");
        }
    }

    #[test]
    fn long_names_are_cut_in_shards() {
        let long = "a".repeat(60);
        assert!(is_name_of_shard("items", "items"));
        assert!(!is_name_of_shard("item", "items"));
        assert!(!is_name_of_shard(&long, &"b".repeat(60)));
        assert!(is_name_of_shard(&format!("{}_0f1e2d3c", "a".repeat(45)), &long));
        assert!(!is_name_of_shard(&"ä".repeat(30), &long));
    }
}
