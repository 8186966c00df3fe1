//! Finds the rows of a vector table that are nearest to a vector, through an index or exactly.

use std::ffi::CString;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::measure::{self, Extent};
use super::plan::{self, Plan};
use super::{Answer, Question};
use crate::catalog::VectorTable;
use crate::citus;
use crate::datum::VectorType;
use crate::error::{Error, Result};
use crate::filter::{Condition, Param};
use crate::relation;
use crate::settings::{Level, Others};

/// The number of the first parameter of a filter; before it come the vector and the limit.
pub const FIRST_PARAM: usize = 3;

/// The rows of a vector table nearest to a vector, nearest first, with the limit and the settings of a question: as many as
/// match, up to the limit. Rows at the same distance are in the order of their keys.
pub fn nearest(
    client: &SpiClient<'_>,
    table: &VectorTable,
    vector: &[f32],
    question: &Question<'_>,
    condition: Condition,
) -> Result<Vec<Answer>> {
    let kind = VectorType::find(client)?;
    let relation = pin(table)?;
    let distance = table.vector_column().distance(&kind.schema, "$1");
    let mut arguments: Vec<DatumWithOid<'_>> =
        vec![kind.argument(vector), i64::from(question.limit).into()];
    arguments.extend(condition.params.into_iter().map(|param| match param {
        Param::Text(text) => DatumWithOid::from(text),
        Param::TextArray(texts) => DatumWithOid::from(texts),
    }));
    // The vectors may be in shards on other nodes: there is nothing to sample here, and the nodes need the settings too.
    let is_spread = citus::is_table(table.relation);
    let search =
        Search { client, relation, distance, condition: condition.sql, arguments, is_spread };
    let extent = match is_spread {
        true => {
            Extent { rows: f64::INFINITY, method: Some("hnsw".to_string()), ..Extent::default() }
        }
        false => measure::extent(client, table.relation)?,
    };
    let known = measure::known(
        client,
        &extent,
        &search.relation,
        table.dimensions,
        &search.condition,
        &search.arguments,
    )?;
    if let Plan::Index { ef_search } = plan::choose(&known, question.limit, question.ef_search) {
        let found = search.through_index(&extent, ef_search)?;
        let distances: Vec<f64> = found.iter().map(|(_, distance)| *distance).collect();
        let may_miss_rows = question.ef_search.is_none()
            && plan::has_hidden(&distances)
            && plan::is_exact_affordable(&known);
        if found.len() >= question.limit as usize && !may_miss_rows {
            return Ok(answers(found, question.min_score));
        }
    }
    Ok(answers(search.exactly()?, question.min_score))
}

/// The rows that are similar enough.
fn answers(found: Vec<(Answer, f64)>, min_score: Option<f64>) -> Vec<Answer> {
    let is_similar = |answer: &Answer| match (min_score, answer.score) {
        (Some(least), Some(score)) => score >= least,
        _ => true,
    };
    found.into_iter().map(|(answer, _)| answer).filter(is_similar).collect()
}

/// One search of one vector table.
struct Search<'c, 'a> {
    client: &'c SpiClient<'c>,
    relation: String,
    /// The distance from the vector, in the form that an index serves.
    distance: String,
    condition: String,
    arguments: Vec<DatumWithOid<'a>>,
    is_spread: bool,
}

impl Search<'_, '_> {
    /// Lets the index order the rows. It may return rows a little out of order, and fewer than there are.
    fn through_index(&self, extent: &Extent, ef_search: i32) -> Result<Vec<(Answer, f64)>> {
        let everywhere = if self.is_spread { citus::IN_TRANSACTIONS } else { "true" };
        let (relation, distance, condition) = (&self.relation, &self.distance, &self.condition);
        let statement = format!(
            "select r.pk_value, r.distance, r.metadata, r.embedded_text
               from (select v.pk_value, {distance} as distance, v.metadata, v.embedded_text
                       from {relation} v
                      where v.embedding is not null and ({condition}) and {everywhere}
                      order by {distance} limit $2) r
              order by r.distance, r.pk_value collate \"C\""
        );
        let ef_search = CString::new(ef_search.to_string()).unwrap_or_default();
        let probes = CString::new(probes(extent.rows).to_string()).unwrap_or_default();
        let hnsw =
            [(c"hnsw.iterative_scan", c"relaxed_order"), (c"hnsw.ef_search", ef_search.as_c_str())];
        let ivfflat =
            [(c"ivfflat.iterative_scan", c"relaxed_order"), (c"ivfflat.probes", probes.as_c_str())];
        let values = if extent.method.as_deref() == Some("ivfflat") { ivfflat } else { hnsw };
        load_pgvector();
        let _settings = Level::with(Others::Stay, &values);
        let spread = self.is_spread.then(|| citus::NodeSettings::set(values)).transpose()?;
        let found = self.run(&statement)?;
        if let Some(spread) = spread {
            spread.reset()?;
        }
        Ok(found)
    }

    /// Reads every row that matches. An index on the condition may serve it, but none that orders by distance does: no
    /// index is on a sum.
    fn exactly(&self) -> Result<Vec<(Answer, f64)>> {
        let (relation, distance, condition) = (&self.relation, &self.distance, &self.condition);
        let statement = format!(
            "select v.pk_value, {distance} as distance, v.metadata, v.embedded_text
               from {relation} v
              where v.embedding is not null and ({condition})
              order by ({distance}) + 0.0::float8, v.pk_value collate \"C\" limit $2"
        );
        self.run(&statement)
    }

    fn run(&self, statement: &str) -> Result<Vec<(Answer, f64)>> {
        let mut found = Vec::new();
        for row in self.client.select(statement, None, &self.arguments)? {
            let distance: Option<f64> = row.get(2)?;
            let answer = Answer {
                id: row.get(1)?,
                score: distance.map(|distance| 1.0 - distance),
                metadata: row.get(3)?,
                text: row.get(4)?,
            };
            found.push((answer, distance.unwrap_or(f64::NAN)));
        }
        Ok(found)
    }
}

/// Loads the library of pgvector, which defines its settings.
fn load_pgvector() {
    // SAFETY: the main thread in a transaction, with terminated names; a library that is loaded already stays.
    unsafe {
        pg_sys::load_external_function(
            c"$libdir/vector".as_ptr(),
            c"vector_in".as_ptr(),
            true,
            std::ptr::null_mut(),
        );
    }
}

/// How many lists of an ivfflat index are read at first, by the number of lists that pgvector recommends.
fn probes(rows: f64) -> i32 {
    let lists = if rows > 1e6 { rows.sqrt() } else { rows / 1000.0 };
    (2.0 * lists.max(1.0).sqrt()).ceil().clamp(4.0, 1000.0) as i32
}

/// The name of a vector table, which is locked until the end of the transaction. A swap may have given it another name
/// while the question was embedded: the statement's snapshot is from before, and so are the rows that it sees.
pub fn pin(table: &VectorTable) -> Result<String> {
    // SAFETY: inside a transaction; writes do not conflict with this lock.
    unsafe { pg_sys::LockRelationOid(table.relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE) }
    relation::qualified_name(table.relation)
        .ok_or_else(|| Error::RelationGone { what: "table", name: table.name.clone() })
}
