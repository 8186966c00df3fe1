//! What is known of a vector table when a question is planned: its size, its indexes, and how many of its rows match.

use std::ffi::c_char;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::plan::{self, Known, Sample};
use super::serving::{self, Serving};
use crate::catalog::{RecallCurve, VectorTable, sight};
use crate::datum::VectorType;
use crate::error::Result;
use crate::vector_column::IndexKey;

/// What the catalog tells of a table.
#[derive(Clone, Debug, Default)]
pub struct Extent {
    /// Rows, about.
    pub rows: f64,
    /// The index that can order its vectors.
    pub index: Option<Serving>,
    /// All indexes that may order them; none of a partitioned table, whose partitions have them.
    pub serving: Vec<pg_sys::Oid>,
    /// Whether policies may hide rows from the reader.
    pub has_policies: bool,
    /// The rows of the text that most rows have, about.
    pub equal: f64,
}

impl Extent {
    /// That of a table whose rows and indexes are in shards.
    pub fn spread(table: &VectorTable) -> Extent {
        let key = table.vector_column().index_key();
        let method = "hnsw".to_string();
        let index = Some(Serving { oid: pg_sys::InvalidOid, method, key });
        Extent { rows: f64::INFINITY, index, ..Extent::default() }
    }

    /// The access method of the index.
    pub fn method(&self) -> Option<&str> {
        self.index.as_ref().map(|index| index.method.as_str())
    }

    /// The key of the index; without one, that of the index that embedd makes.
    pub fn key(&self, table: &VectorTable) -> IndexKey {
        self.index.as_ref().map_or_else(|| table.vector_column().index_key(), |index| index.key)
    }

    /// What was measured of this index.
    pub fn measured<'a>(&self, table: &'a VectorTable) -> Option<&'a RecallCurve> {
        let index = self.index.as_ref()?.oid.to_u32();
        table.stored.measured_recall.as_ref().filter(|curve| curve.index == index)
    }
}

/// Looks into the catalog. The vector table must be locked.
pub fn extent(client: &SpiClient<'_>, vector_table: &VectorTable) -> Result<Extent> {
    let table = vector_table.relation;
    let pgvector = VectorType::find(client)?;
    // SAFETY: main thread, in a transaction that holds a lock on the table; what is opened is closed.
    let (mut extent, indexes, is_partitioned) = unsafe {
        let relation = pg_sys::RelationIdGetRelation(table);
        if relation.is_null() {
            return Ok(Extent::default());
        }
        let form = (*relation).rd_rel;
        let is_partitioned = (*form).relkind == pg_sys::RELKIND_PARTITIONED_TABLE as c_char;
        let mut extent = Extent {
            has_policies: sight::has_policies(table, pg_sys::GetUserId()),
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
        let indexes = serving::indexes(relation, &pgvector);
        pg_sys::RelationClose(relation);
        (extent, indexes, is_partitioned)
    };
    if !is_partitioned {
        extent.serving = indexes.iter().map(|index| index.oid).collect();
    }
    extent.index = serving::choose(client, vector_table, &pgvector.schema, indexes)?;
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
    (dimensions, target, measured): (i32, f64, Option<&RecallCurve>),
    (condition, is_served, kept): (&str, bool, Option<f64>),
    arguments: &[DatumWithOid<'_>],
) -> Result<Known> {
    let mut known = Known {
        rows: extent.rows,
        dimensions: f64::from(dimensions),
        kept,
        is_served,
        has_index: extent.index.is_some(),
        is_checked: false,
        equal: extent.equal,
        target,
        ef_search: measured.map_or(0.0, |curve| curve.ef_search(target)),
    };
    // Without an index nothing has to be chosen.
    let keeps_all = condition == "true" && !extent.has_policies;
    if !known.has_index || kept.is_some() || keeps_all {
        return Ok(known);
    }
    known.kept = Some(match plan::sample(extent.rows, extent.has_policies) {
        Sample::Assume(kept) => kept,
        Sample::Percent(percent) => {
            let keeps = format!("v.embedding is not null and ({condition})");
            matching(client, relation, (&keeps, arguments), extent.rows, percent)?
        }
    });
    Ok(known)
}

/// The part of a relation's rows that match a condition on `v`, by a sample of this percentage of its pages.
pub fn matching(
    client: &SpiClient<'_>,
    relation: &str,
    (condition, arguments): (&str, &[DatumWithOid<'_>]),
    rows: f64,
    percent: f64,
) -> Result<f64> {
    let sql = format!(
        "select count(*) from {relation} v tablesample pg_catalog.system ({percent}) where {condition}"
    );
    let found = client.select(&sql, None, arguments)?;
    let matching = found.first().get_one::<i64>()?.unwrap_or(0);
    Ok(plan::kept(matching, rows * percent / 100.0))
}
