//! Finds the rows of a vector table that are nearest to a vector, through an index or exactly.

use std::ffi::CString;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::Answer;
use super::measure::{self, Extent};
use super::plan::{self, Known, Plan};
use super::seen::seen;
use super::statement::Statement;
use crate::catalog::VectorTable;
use crate::citus;
use crate::datum::VectorType;
use crate::error::{Error, Result};
use crate::filter::{Condition, Param};
use crate::relation;
use crate::settings::{Level, Others};
use crate::vector_column::IndexKey;

/// The number of the first parameter of a filter; before it come the vector and the limit.
pub const FIRST_PARAM: usize = 3;

/// How many rows are wanted, and how they are searched for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub limit: i32,
    /// An hnsw.ef_search that the caller has given.
    pub ef_search: Option<i32>,
    /// Expressions of type double precision that are read too, separated by commas.
    pub values: String,
    /// Whether an index on a field finds the rows of the filter.
    pub is_served: bool,
    /// The part of all rows that the policies and the filter keep, where it is known without a look at the table.
    pub kept: Option<f64>,
}

/// A row that was found, with its distance from the vector and the values that were wanted too.
pub struct Candidate {
    pub answer: Answer,
    pub distance: f64,
    pub values: Vec<Option<f64>>,
}

/// The rows of a vector table nearest to a vector, nearest first: as many as match, up to the limit. Rows at the same
/// distance are in the order of their keys.
pub fn nearest(
    client: &SpiClient<'_>,
    table: &VectorTable,
    vector: &[f32],
    wanted: &Wanted,
    condition: Condition,
) -> Result<Vec<Candidate>> {
    found_by(client, table, vector, wanted, condition).map(|(found, _)| found)
}

/// The same with how the rows were found in the end.
pub fn found_by(
    client: &SpiClient<'_>,
    table: &VectorTable,
    vector: &[f32],
    wanted: &Wanted,
    condition: Condition,
) -> Result<(Vec<Candidate>, Plan)> {
    let seen = seen(client, table, wanted)?;
    let wanted = &wanted.seeing(seen.as_ref(), &condition);
    let extent = extent(client, table)?;
    let key = extent.key(table);
    let (statement, arguments) = prepared(client, table, key, vector, wanted, condition.clone())?;
    let planned = Planned::of(client, table, extent, &statement, &arguments, wanted)?;
    if let Plan::Index { ef_search } = planned.plan {
        let (found, visited) = planned.through_index(client, &statement, &arguments, ef_search)?;
        if planned.known.is_checked && visited == 0 {
            // PostgreSQL has chosen another way, and any other one is exact.
            return Ok((found, Plan::Exact));
        }
        let distances: Vec<f64> = found.iter().map(|candidate| candidate.distance).collect();
        let is_doubtful = plan::has_hidden(&distances)
            || (planned.known.is_checked && !plan::is_reliable(visited, ef_search));
        let may_miss_rows =
            is_doubtful && wanted.ef_search.is_none() && plan::is_exact_affordable(&planned.known);
        if found.len() >= wanted.limit as usize && !may_miss_rows {
            return Ok((found, planned.plan));
        }
    }
    let Some(seen) = seen else {
        return Ok((run(client, &statement.exactly(), &arguments)?, Plan::Exact));
    };
    let keys = seen.keys(client)?;
    // They stay in force for the policy until the rows are found.
    let _held = seen.hold(&keys);
    if !seen.is_little() {
        return Ok((run(client, &statement.exactly(), &arguments)?, Plan::Exact));
    }
    let condition = condition.with_keys(keys, FIRST_PARAM);
    let (statement, arguments) = prepared(client, table, key, vector, wanted, condition)?;
    Ok((run(client, &statement.exactly(), &arguments)?, Plan::Exact))
}

/// The rows of a vector table nearest to a vector by reading every row that matches.
pub fn exactly(
    client: &SpiClient<'_>,
    table: &VectorTable,
    vector: &[f32],
    limit: i32,
    condition: Condition,
) -> Result<Vec<Candidate>> {
    let wanted = Wanted { limit, ..Wanted::default() };
    // No index orders the rows.
    let key = IndexKey::Column;
    let (statement, arguments) = prepared(client, table, key, vector, &wanted, condition)?;
    run(client, &statement.exactly(), &arguments)
}

/// The statements of a search and their arguments.
fn prepared<'a>(
    client: &SpiClient<'_>,
    table: &VectorTable,
    key: IndexKey,
    vector: &[f32],
    wanted: &Wanted,
    condition: Condition,
) -> Result<(Statement, Vec<DatumWithOid<'a>>)> {
    let kind = VectorType::find(client)?;
    let mut arguments = vec![kind.argument(vector), i64::from(wanted.limit).into()];
    arguments.extend(bound(condition.params));
    let sql = ("$1", "$2".to_string(), condition.sql);
    let statement = statement(table, &kind, wanted, key, sql)?;
    Ok((statement, arguments))
}

/// The values of a filter as arguments of a statement.
pub fn bound<'a>(params: Vec<Param>) -> impl Iterator<Item = DatumWithOid<'a>> {
    params.into_iter().map(|param| match param {
        Param::Text(text) => DatumWithOid::from(text),
        Param::TextArray(texts) => DatumWithOid::from(texts),
    })
}

/// The statements of a question for an index with this key, with this SQL for the vector, for the limit and for the condition.
pub fn statement(
    table: &VectorTable,
    kind: &VectorType,
    wanted: &Wanted,
    key: IndexKey,
    (vector, limit, condition): (&str, String, String),
) -> Result<Statement> {
    let column = table.vector_column();
    let own = column.index_key();
    Ok(Statement {
        relation: pin(table)?,
        distance: column.distance(own, &kind.schema, vector),
        candidates: match key {
            IndexKey::Bits => {
                let hamming = column.hamming(&kind.schema, vector);
                Some((hamming, plan::candidates_by_bits(wanted.limit)))
            }
            // What an index of rounded vectors brings is compared by the vectors themselves.
            IndexKey::Halfvec if own == IndexKey::Column => {
                let rounded = column.distance(key, &kind.schema, vector);
                Some((rounded, plan::candidates_by_halfvec(wanted.limit)))
            }
            IndexKey::Halfvec | IndexKey::Column => None,
        },
        condition,
        values: wanted.values.clone(),
        limit,
        is_spread: citus::is_table(table.relation),
    })
}

/// What the catalog tells of a vector table, which is locked from now on.
pub fn extent(client: &SpiClient<'_>, table: &VectorTable) -> Result<Extent> {
    lock(table);
    // The vectors may be in shards on other nodes: there is nothing to sample here, and the nodes need the settings too.
    match citus::is_table(table.relation) {
        true => Ok(Extent::spread(table)),
        false => measure::extent(client, table),
    }
}

/// How a question is answered, and why.
pub struct Planned {
    pub plan: Plan,
    pub known: Known,
    pub extent: Extent,
}

impl Planned {
    /// Looks at the vector table, which must be locked, and chooses.
    pub fn of(
        client: &SpiClient<'_>,
        table: &VectorTable,
        extent: Extent,
        statement: &Statement,
        arguments: &[DatumWithOid<'_>],
        wanted: &Wanted,
    ) -> Result<Planned> {
        let target = table.stored.question_settings.target();
        let measured = extent.measured(table);
        let mut known = measure::known(
            client,
            &extent,
            &statement.relation,
            (table.dimensions, target, measured),
            (&statement.condition, wanted.is_served, wanted.kept),
            arguments,
        )?;
        known.is_checked = known.kept.is_some()
            && wanted.ef_search.is_none()
            && extent.is_counted()
            && statement.candidates.is_none()
            && plan::is_exact_affordable(&known);
        let limit =
            statement.candidates.as_ref().map_or(wanted.limit, |(_, candidates)| *candidates);
        let plan = plan::choose(&known, limit, wanted.ef_search);
        Ok(Planned { plan, known, extent })
    }

    /// The settings of a search through the index.
    pub fn settings(&self, ef_search: i32) -> [(&'static str, String); 2] {
        let iterative = if self.known.is_checked { "off" } else { "relaxed_order" }.to_string();
        match self.extent.method() {
            Some("ivfflat") => [
                ("ivfflat.iterative_scan", iterative),
                ("ivfflat.probes", probes(self.extent.rows).to_string()),
            ],
            _ => [("hnsw.iterative_scan", iterative), ("hnsw.ef_search", ef_search.to_string())],
        }
    }

    /// The rows that an index brings, and how many it has visited for them.
    fn through_index(
        &self,
        client: &SpiClient<'_>,
        statement: &Statement,
        arguments: &[DatumWithOid<'_>],
        ef_search: i32,
    ) -> Result<(Vec<Candidate>, i64)> {
        let values = self.settings(ef_search).map(|(name, value)| {
            (CString::new(name).unwrap_or_default(), CString::new(value).unwrap_or_default())
        });
        let values = [
            (values[0].0.as_c_str(), values[0].1.as_c_str()),
            (values[1].0.as_c_str(), values[1].1.as_c_str()),
        ];
        load_pgvector();
        let _settings = Level::with(Others::Stay, &values);
        let spread = statement.is_spread.then(|| citus::NodeSettings::set(values)).transpose()?;
        let before = self.extent.visited();
        let found = run(client, &statement.through_index(), arguments)?;
        if let Some(spread) = spread {
            spread.reset()?;
        }
        Ok((found, self.extent.visited() - before))
    }
}

/// The rows that a statement returns.
pub fn run(
    client: &SpiClient<'_>,
    statement: &str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for row in client.select(statement, None, arguments)? {
        let distance: Option<f64> = row.get(2)?;
        let answer = Answer {
            id: row.get(1)?,
            score: distance.map(|distance| 1.0 - distance),
            metadata: row.get(3)?,
            text: row.get(4)?,
        };
        let values = row.get::<Vec<Option<f64>>>(5)?.unwrap_or_default();
        found.push(Candidate { answer, distance: distance.unwrap_or(f64::NAN), values });
    }
    Ok(found)
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
    lock(table);
    relation::qualified_name(table.relation)
        .ok_or_else(|| Error::RelationGone { what: "table", name: table.name.clone() })
}

fn lock(table: &VectorTable) {
    // SAFETY: inside a transaction; writes do not conflict with this lock.
    unsafe { pg_sys::LockRelationOid(table.relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE) }
}
