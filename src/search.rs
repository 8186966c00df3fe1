//! embedd.query(): embeds the text and finds the nearest rows, with the privileges of the caller.

pub mod compare;

use std::ffi::{CStr, CString};

use embedd_wire::InputType;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::{self, Status, VectorTable};
use crate::citus;
use crate::datum::{RawJsonb, VectorType};
use crate::error::{Error, Result};
use crate::fdw::embed;
use crate::filter::{self, Condition, Field, Param};
use crate::relation;
use crate::rights::RoleSwitch;

/// The most rows of a query.
const LIMIT: i32 = 1000;
/// The default number of rows of a query.
pub const DEFAULT_LIMIT: i32 = 10;
/// The range of hnsw.ef_search (pgvector).
const EF_SEARCH: std::ops::RangeInclusive<i32> = 1..=1000;
/// pgvector's default of hnsw.ef_search, which is the least that this extension uses.
const DEFAULT_EF_SEARCH: i32 = 40;

/// The arguments of query().
pub struct Question<'a> {
    pub vector_table: &'a str,
    pub text: &'a str,
    pub limit: i32,
    pub filters: Option<serde_json::Value>,
    /// The lowest cosine similarity of a returned row.
    pub min_score: Option<f64>,
    pub ef_search: Option<i32>,
}

/// A row of the result.
pub struct Answer {
    pub id: Option<String>,
    pub score: Option<f64>,
    pub metadata: Option<RawJsonb>,
    pub text: Option<String>,
}

/// The rows nearest to a text, nearest first.
pub fn query(question: &Question<'_>) -> Result<Vec<Answer>> {
    check_range("limit", question.limit, 1..=LIMIT)?;
    if let Some(ef_search) = question.ef_search {
        check_range("ef_search", ef_search, EF_SEARCH)?;
    }
    if let Some(score) = question.min_score
        && !(0.0..=1.0).contains(&score)
    {
        return Err(Error::bad_argument(format!(
            "min_similarity_score {score} is outside the range 0.0 to 1.0"
        )));
    }
    Spi::connect(|client| {
        let table = find(client, question.vector_table)?;
        // Before anything is revealed, or the provider is paid, for a caller without the privilege to read the result.
        check_may_select(&table)?;
        if table.status == Status::Pending {
            return Err(Error::NotReady { name: table.name });
        }
        let fields: Vec<Field> = table
            .columns
            .iter()
            .filter_map(|c| Some(Field { name: c.name.clone(), filter_type: c.filter_type? }))
            .collect();
        let nothing = serde_json::Value::Null;
        let condition =
            filter::condition(question.filters.as_ref().unwrap_or(&nothing), &fields, FIRST_PARAM)?;
        let vector = embed::for_table(&table, question.text, InputType::Query)?;
        nearest(client, &table, &vector, question, condition)
    })
}

/// The rows of a vector table nearest to a vector, with the limit and the settings of a question.
fn nearest(
    client: &SpiClient<'_>,
    table: &VectorTable,
    vector: &[f32],
    question: &Question<'_>,
    condition: Condition,
) -> Result<Vec<Answer>> {
    let kind = VectorType::find(client)?;
    let relation = pin(table)?;
    let (schema, sql) = (&kind.schema, &condition.sql);
    let distance = table.vector_column().distance(schema, "$1");
    // The vectors may be in shards on other nodes, which need the settings too.
    let is_spread = citus::is_table(table.relation);
    let everywhere = if is_spread { citus::IN_TRANSACTIONS } else { "true" };
    let statement = format!(
        "select r.pk_value, r.score, r.metadata, r.embedded_text
           from (select v.pk_value, 1 - ({distance}) as score, v.metadata, v.embedded_text
                   from {relation} v
                  where v.embedding is not null and ({sql}) and {everywhere}
                  order by {distance} limit $2) r
          where $3::float8 is null or r.score >= $3::float8"
    );
    let mut arguments: Vec<DatumWithOid<'_>> =
        vec![kind.argument(vector), i64::from(question.limit).into(), question.min_score.into()];
    arguments.extend(condition.params.into_iter().map(|param| match param {
        Param::Text(text) => DatumWithOid::from(text),
        Param::TextArray(texts) => DatumWithOid::from(texts),
    }));
    let ef_search = question
        .ef_search
        .unwrap_or_else(|| (question.limit * 2).clamp(DEFAULT_EF_SEARCH, *EF_SEARCH.end()));
    let ef_search = CString::new(ef_search.to_string()).unwrap_or_default();
    let values =
        [(c"hnsw.iterative_scan", c"strict_order"), (c"hnsw.ef_search", ef_search.as_c_str())];
    let _settings = HnswSettings::set(&values);
    let spread = is_spread.then(|| citus::NodeSettings::set(values)).transpose()?;
    let mut answers = Vec::new();
    for row in client.select(&statement, None, &arguments)? {
        answers.push(Answer {
            id: row.get(1)?,
            score: row.get(2)?,
            metadata: row.get(3)?,
            text: row.get(4)?,
        });
    }
    if let Some(spread) = spread {
        spread.reset()?;
    }
    Ok(answers)
}

/// The name of a vector table, which is locked until the end of the transaction. A swap may have given it another name
/// while the question was embedded: the statement's snapshot is from before, and so are the rows that it sees.
fn pin(table: &VectorTable) -> Result<String> {
    // SAFETY: inside a transaction; writes do not conflict with this lock.
    unsafe { pg_sys::LockRelationOid(table.relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE) }
    relation::qualified_name(table.relation)
        .ok_or_else(|| Error::RelationGone { what: "table", name: table.name.clone() })
}

/// The number of the first parameter of a filter.
const FIRST_PARAM: usize = 4;

/// The vector of a text by a vector table's model.
pub fn embed(vector_table: &str, text: &str) -> Result<Vec<f32>> {
    Spi::connect(|client| {
        let table = find(client, vector_table)?;
        check_may_select(&table)?;
        embed::for_table(&table, text, InputType::Query)
    })
}

fn find(client: &SpiClient<'_>, name: &str) -> Result<VectorTable> {
    let _rights = RoleSwitch::of_extension()?;
    catalog::find(client, name)
}

/// A role that cannot read the vectors may neither embed with that model nor query.
fn check_may_select(table: &VectorTable) -> Result<()> {
    let relation = table.relation_name()?;
    // SAFETY: a catalog look-up in a transaction.
    let allowed = unsafe {
        pg_sys::pg_class_aclcheck(
            table.relation,
            pg_sys::GetUserId(),
            pg_sys::ACL_SELECT as pg_sys::AclMode,
        ) == pg_sys::AclResult::ACLCHECK_OK
    };
    if allowed {
        return Ok(());
    }
    Err(Error::NotAllowed {
        object: format!("vector table \"{}\"", table.name),
        hint: format!("Ask its owner for: GRANT SELECT ON {relation} TO your role."),
    })
}

fn check_range(what: &str, value: i32, range: std::ops::RangeInclusive<i32>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::bad_argument(format!(
        "{what} {value} is outside the range {} to {}",
        range.start(),
        range.end()
    )))
}

/// Settings of pgvector for one statement; dropping the value restores the previous ones.
struct HnswSettings {
    level: i32,
}

impl HnswSettings {
    fn set(values: &[(&CStr, &CStr)]) -> Self {
        // SAFETY: main thread, inside a transaction. The settings exist once pgvector's library is loaded; after an
        // error the nest level ends with the transaction.
        unsafe {
            pg_sys::load_external_function(
                c"$libdir/vector".as_ptr(),
                c"vector_in".as_ptr(),
                true,
                std::ptr::null_mut(),
            );
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in values {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            Self { level }
        }
    }
}

impl Drop for HnswSettings {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: ends the level that set() began, in the same transaction.
            unsafe { pg_sys::AtEOXact_GUC(true, self.level) }
        }
    }
}
