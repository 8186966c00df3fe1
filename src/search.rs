//! embedd.query(): embeds the text and finds the nearest rows, with the privileges of the caller.

pub mod compare;
mod measure;
mod nearest;
mod plan;
pub mod similar;

use embedd_wire::InputType;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use self::nearest::{FIRST_PARAM, nearest};
use self::plan::EF_SEARCH;
use crate::catalog::{self, Status, VectorTable};
use crate::datum::RawJsonb;
use crate::error::{Error, Result};
use crate::fdw::embed;
use crate::filter::{self, Condition, Field};
use crate::relation;
use crate::rights::RoleSwitch;

/// The most rows of a query.
const LIMIT: i32 = 1000;
/// The default number of rows of a query.
pub const DEFAULT_LIMIT: i32 = 10;
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
    checked(question)?;
    Spi::connect(|client| {
        let table = find_answering(client, question.vector_table)?;
        let condition = condition_of(&table, question)?;
        let vector = embed::for_table(&table, question.text, InputType::Query)?;
        nearest(client, &table, &vector, question, condition)
    })
}

/// Checks the numbers of a question.
fn checked(question: &Question<'_>) -> Result<()> {
    check_range("limit", question.limit, 1..=LIMIT)?;
    if let Some(ef_search) = question.ef_search {
        check_range("ef_search", ef_search, EF_SEARCH)?;
    }
    match question.min_score {
        Some(score) if !(0.0..=1.0).contains(&score) => Err(Error::bad_argument(format!(
            "min_similarity_score {score} is outside the range 0.0 to 1.0"
        ))),
        _ => Ok(()),
    }
}

/// A vector table that the caller may read and that was filled.
fn find_answering(client: &SpiClient<'_>, name: &str) -> Result<VectorTable> {
    let table = find(client, name)?;
    // Before anything is revealed, or the provider is paid, for a caller without the privilege to read the result.
    check_may_select(&table)?;
    if table.status == Status::Pending {
        return Err(Error::NotReady { name: table.name });
    }
    Ok(table)
}

/// The filters of a question as a condition.
fn condition_of(table: &VectorTable, question: &Question<'_>) -> Result<Condition> {
    let fields: Vec<Field> = table
        .columns
        .iter()
        .filter_map(|column| {
            Some(Field {
                name: column.name.clone(),
                filter_type: column.filter_type?,
                is_list: relation::may_hold_lists(table.source, column.source()),
            })
        })
        .collect();
    let nothing = serde_json::Value::Null;
    Ok(filter::condition(question.filters.as_ref().unwrap_or(&nothing), &fields, FIRST_PARAM)?)
}

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
