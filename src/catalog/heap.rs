//! Reads embedd.vector_tables directly from its heap, so that a role that writes to a source needs no privilege on
//! embedd's tables.

use std::ffi::CStr;

use pgrx::prelude::*;

use crate::cluster;
use crate::extension;

/// The part of a vector table's configuration that the triggers of its source need.
pub struct Config {
    pub table_id: i32,
    pub source: pg_sys::Oid,
    /// Whether the column numbers are valid: in a copy restored from a dump they are not.
    pub is_responsible: bool,
    /// None in an installation that has not been updated yet.
    pub key_numbers: Option<Vec<i16>>,
    pub column_numbers: Option<Vec<i16>>,
    /// The stored types of the key columns, with which the vector table's keys were made.
    pub key_types: Vec<pg_sys::Oid>,
}

/// A vector table that uses a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub table_id: i32,
    /// Whether its changes are captured by triggers.
    pub has_triggers: bool,
    pub source: pg_sys::Oid,
    pub vectors: pg_sys::Oid,
}

unsafe extern "C-unwind" {
    /// The ancestors of a partition, nearest first (catalog/partition.h).
    fn get_partition_ancestors(relation: pg_sys::Oid) -> *mut pg_sys::List;
}

/// Whether a relation is this source, or a partition of it at any level.
pub fn belongs_to(relation: pg_sys::Oid, source: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups in a transaction.
    unsafe {
        relation == source
            || (pg_sys::get_rel_relispartition(relation)
                && pg_sys::list_member_oid(
                    pg_sys::ffi::pg_guard_ffi_boundary(|| get_partition_ancestors(relation)),
                    source,
                ))
    }
}

/// The configurations that the triggers with this number note changes for, if a relation is their source or a partition
/// of it: that of the vector table, and that of its shadow once this is filled.
pub fn configs(origin_id: i32, relation: pg_sys::Oid) -> Vec<Config> {
    let mut found = Vec::new();
    scan(|row| {
        if row.origin_id() == origin_id && !row.is_unused_shadow() {
            found.push(Config {
                table_id: row.integer(c"id"),
                source: row.oid(c"source_table"),
                is_responsible: row.is_responsible(),
                key_numbers: row.numbers(c"key_numbers"),
                column_numbers: row.numbers(c"column_numbers"),
                key_types: row.oids(c"key_types"),
            });
        }
        true
    });
    found.retain(|config| belongs_to(relation, config.source));
    found
}

/// Whether this database has any vector table.
pub fn is_used() -> bool {
    let mut is_there = false;
    scan(|_| {
        is_there = true;
        false
    });
    is_there
}

/// The vector tables whose source or table of vectors is this relation; for a partition, those of its ancestors.
pub fn uses(relation: pg_sys::Oid) -> Vec<Use> {
    let all = all_uses().into_iter().map(|(used, _)| used);
    all.filter(|u| u.vectors == relation || belongs_to(relation, u.source)).collect()
}

/// Every vector table, with the numbers of the source columns that it uses.
pub fn all_uses() -> Vec<(Use, Vec<i16>)> {
    let mut all = Vec::new();
    scan(|row| {
        let used = Use {
            table_id: row.integer(c"id"),
            has_triggers: row.text_is(c"sync_mode", b"trigger"),
            source: row.oid(c"source_table"),
            vectors: row.oid(c"vector_table"),
        };
        let mut columns = row.numbers(c"key_numbers").unwrap_or_default();
        columns.extend(row.numbers(c"column_numbers").unwrap_or_default());
        all.push((used, columns));
        true
    });
    all
}

/// A row of the heap.
struct Row {
    tuple: pg_sys::HeapTuple,
    relation: pg_sys::Relation,
}

impl Row {
    /// The value of a column; None if it is null, or does not exist in this installation.
    fn value(&self, column: &CStr) -> Option<pg_sys::Datum> {
        // SAFETY: the tuple and its relation are those of a scan that is open; SPI_getbinval requires an existing column number.
        unsafe {
            let number = pg_sys::get_attnum((*self.relation).rd_id, column.as_ptr());
            let mut is_null = true;
            if number <= 0 {
                return None;
            }
            let descriptor = (*self.relation).rd_att;
            let value = pg_sys::SPI_getbinval(self.tuple, descriptor, number.into(), &mut is_null);
            (!is_null).then_some(value)
        }
    }

    fn integer(&self, column: &CStr) -> i32 {
        self.value(column).map_or(0, |value| value.value() as i32)
    }

    /// The number that the triggers carry. In an installation that has not been updated yet it is the id.
    fn origin_id(&self) -> i32 {
        self.value(c"origin_id").map_or_else(|| self.integer(c"id"), |v| v.value() as i32)
    }

    /// Whether it is a shadow that no backfill was asked for yet, which needs no changes.
    fn is_unused_shadow(&self) -> bool {
        self.value(c"replaces").is_some() && self.text_is(c"sync_status", b"pending")
    }

    fn oid(&self, column: &CStr) -> pg_sys::Oid {
        self.value(column)
            .map_or(pg_sys::InvalidOid, |value| pg_sys::Oid::from(value.value() as u32))
    }

    fn numbers(&self, column: &CStr) -> Option<Vec<i16>> {
        // SAFETY: the columns asked for are of type smallint[].
        unsafe { Vec::<i16>::from_datum(self.value(column)?, false) }
    }

    fn oids(&self, column: &CStr) -> Vec<pg_sys::Oid> {
        // SAFETY: the columns asked for are of type regtype[], whose elements are stored as those of oid[] are.
        let found =
            self.value(column).and_then(|v| unsafe { Vec::<pg_sys::Oid>::from_datum(v, false) });
        found.unwrap_or_default()
    }

    fn text_is(&self, column: &CStr, word: &[u8]) -> bool {
        // SAFETY: the columns asked for are of type text, and short.
        let text = self.value(column).and_then(|v| unsafe { String::from_datum(v, false) });
        text.is_some_and(|text| text.as_bytes() == word)
    }

    /// An installation that was not updated yet has not recorded its cluster.
    fn is_responsible(&self) -> bool {
        let cluster = self.value(c"system_id").map(|v| v.value() as i64);
        cluster == Some(cluster::system_id())
            && self
                .value(c"extension_id")
                .is_none_or(|v| Some(pg_sys::Oid::from(v.value() as u32)) == extension::oid())
    }
}

/// Passes each vector table to `look` until it returns false.
fn scan(mut look: impl FnMut(&Row) -> bool) {
    // SAFETY: a scan inside a transaction; rows are looked at while it is open.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"embedd".as_ptr(), true);
        let tables = pg_sys::get_relname_relid(c"vector_tables".as_ptr(), schema);
        if schema == pg_sys::InvalidOid || tables == pg_sys::InvalidOid {
            return;
        }
        let relation = pg_sys::table_open(tables, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() || !look(&Row { tuple, relation }) {
                break;
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
    }
}
