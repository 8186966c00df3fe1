//! What is known of a vector table when a question is planned: its size, its indexes, and how many of its rows match.

use std::ffi::{CStr, c_char};

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::plan::{self, Known, Sample};
use crate::error::Result;

/// What the catalog tells of a table.
#[derive(Clone, Debug, Default)]
pub struct Extent {
    /// Rows, about.
    pub rows: f64,
    /// The access method of an index that can order its vectors.
    pub method: Option<String>,
    /// Whether policies may hide rows from the reader.
    pub has_policies: bool,
    /// The rows of the text that most rows have, about.
    pub equal: f64,
}

/// Looks into the catalog. The table must be locked.
pub fn extent(client: &SpiClient<'_>, table: pg_sys::Oid) -> Result<Extent> {
    // SAFETY: main thread, in a transaction that holds a lock on the table; what is opened is closed.
    let (mut extent, is_partitioned) = unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return Ok(Extent::default());
        }
        let form = (*relation).rd_rel;
        let is_partitioned = (*form).relkind == pg_sys::RELKIND_PARTITIONED_TABLE as c_char;
        let mut extent = Extent {
            method: ordering_index(relation),
            has_policies: (*form).relrowsecurity,
            ..Extent::default()
        };
        if (*form).relkind == pg_sys::RELKIND_RELATION as c_char {
            let (mut pages, mut visible) = (0, 0.0);
            pg_sys::estimate_rel_size(
                relation,
                std::ptr::null_mut(),
                &raw mut pages,
                &raw mut extent.rows,
                &raw mut visible,
            );
        }
        pg_sys::RelationClose(relation);
        (extent, is_partitioned)
    };
    if is_partitioned {
        let rows = client.select(
            "select coalesce(sum(greatest(c.reltuples, 0)), 0)::float8
               from pg_catalog.pg_partition_tree($1::oid::regclass) p
               join pg_catalog.pg_class c on c.oid = p.relid
              where p.isleaf",
            None,
            &[table.into()],
        )?;
        extent.rows = rows.first().get_one::<f64>()?.unwrap_or(0.0);
    }
    extent.equal = most_frequent(table, is_partitioned) * extent.rows;
    Ok(extent)
}

/// The access method of the first valid index whose leading column can order by the vectors.
///
/// # Safety
///
/// The relation must be open.
unsafe fn ordering_index(relation: pg_sys::Relation) -> Option<String> {
    // SAFETY: the relation is open; each index is locked, opened and closed.
    unsafe {
        let embedding = pg_sys::get_attnum((*relation).rd_id, c"embedding".as_ptr());
        let list = pg_sys::RelationGetIndexList(relation);
        let length = if list.is_null() { 0 } else { (*list).length as usize };
        for at in 0..length {
            let oid = (*(*list).elements.add(at)).oid_value;
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let form = (*index).rd_index;
            let first = *(*form).indkey.values.as_slice(1).first().unwrap_or(&0);
            // Partitioned indexes have no access method of their own that is loaded.
            let routine = (*index).rd_indam;
            let orders = match routine.is_null() {
                true => (*(*index).rd_rel).relam != pg_sys::BTREE_AM_OID,
                false => (*routine).amcanorderbyop,
            };
            let serves = (*form).indisvalid && orders && (first == embedding || first == 0);
            let method = pg_sys::get_am_name((*(*index).rd_rel).relam);
            pg_sys::index_close(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            if serves && !method.is_null() {
                return Some(CStr::from_ptr(method).to_string_lossy().into_owned());
            }
        }
        None
    }
}

/// The part of the rows that have the most frequent text, by the table's statistics. Rows without text have no vector.
fn most_frequent(table: pg_sys::Oid, inherits: bool) -> f64 {
    let mut most = 0.0_f64;
    // SAFETY: syscache look-ups in a transaction; the tuple and the slot are released after use, and as many values are
    // read as the slot has.
    unsafe {
        let number = pg_sys::get_attnum(table, c"embedded_text".as_ptr());
        let tuple = pg_sys::SearchSysCache3(
            pg_sys::SysCacheIdentifier::STATRELATTINH as i32,
            pg_sys::Datum::from(table),
            pg_sys::Datum::from(number),
            pg_sys::Datum::from(inherits),
        );
        if tuple.is_null() {
            return most;
        }
        let mut slot = pg_sys::AttStatsSlot::default();
        let flags = pg_sys::ATTSTATSSLOT_VALUES | pg_sys::ATTSTATSSLOT_NUMBERS;
        let kind = pg_sys::STATISTIC_KIND_MCV as i32;
        if pg_sys::get_attstatsslot(&raw mut slot, tuple, kind, pg_sys::InvalidOid, flags as i32) {
            for at in 0..slot.nvalues.min(slot.nnumbers) as usize {
                let text = (*slot.values.add(at)).cast_mut_ptr::<pg_sys::varlena>();
                if pgrx::varlena::varsize_any_exhdr(text) > 0 {
                    most = most.max(f64::from(*slot.numbers.add(at)));
                }
            }
            pg_sys::free_attstatsslot(&raw mut slot);
        }
        pg_sys::ReleaseSysCache(tuple);
    }
    most
}

/// What has to be known to plan a question, whose filter is this condition on `v.metadata`.
pub fn known(
    client: &SpiClient<'_>,
    extent: &Extent,
    relation: &str,
    (dimensions, target): (i32, f64),
    (condition, is_served): (&str, bool),
    arguments: &[DatumWithOid<'_>],
) -> Result<Known> {
    let mut known = Known {
        rows: extent.rows,
        dimensions: f64::from(dimensions),
        kept: None,
        is_served,
        has_index: extent.method.is_some(),
        equal: extent.equal,
        target,
    };
    // Without an index nothing has to be chosen.
    if !known.has_index || (condition == "true" && !extent.has_policies) {
        return Ok(known);
    }
    known.kept = Some(match plan::sample(extent.rows) {
        Sample::Assume(kept) => kept,
        Sample::Percent(percent) => {
            let rows = client.select(
                &format!(
                    "select count(*) from {relation} v tablesample pg_catalog.system ({percent})
                      where v.embedding is not null and ({condition})"
                ),
                None,
                arguments,
            )?;
            let matching = rows.first().get_one::<i64>()?.unwrap_or(0);
            plan::kept(matching, extent.rows * percent / 100.0)
        }
    });
    Ok(known)
}
