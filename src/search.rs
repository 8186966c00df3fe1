//! Answers questions with the privileges of the caller: `embedd.query()` and the functions beside it.

pub mod calibrate;
pub mod compare;
mod direction;
pub mod explain;
mod listing;
mod measure;
mod nearest;
mod order;
mod plan;
mod question;
mod rank;
pub mod recall;
mod remembered;
mod seen;
mod serving;
pub mod several;
pub mod similar;
mod statement;
mod visits;

use embedd_wire::InputType;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use self::nearest::{Candidate, FIRST_PARAM, Wanted, nearest};
use self::question::Kind;
pub use self::question::{DEFAULT_LIMIT, Question};
use self::rank::Ranking;
use crate::catalog::{self, Status, VectorTable};
use crate::datum::RawJsonb;
use crate::document::Column;
use crate::error::{Error, Result};
use crate::fdw::embed;
use crate::filter::{self, Condition, Field, Values};
use crate::relation;
use crate::rights::RoleSwitch;

/// A row of the result.
pub struct Answer {
    pub id: Option<String>,
    pub score: Option<f64>,
    pub metadata: Option<RawJsonb>,
    pub text: Option<String>,
}

impl Answer {
    /// The score for sorting: that of a vector without a direction, NaN, is the lowest.
    fn order(&self) -> f64 {
        self.score.filter(|score| !score.is_nan()).unwrap_or(f64::NEG_INFINITY)
    }
}

/// The rows that answer a question, best first.
pub fn query(question: &Question) -> Result<Vec<Answer>> {
    let kind = question.check()?;
    Spi::connect(|client| {
        let table = find_answering(client, &question.vector_table)?;
        let fields = fields_of(&table);
        match kind {
            Kind::Nothing => Ok(Vec::new()),
            Kind::Listed => listing::list(client, &table, question, &fields),
            Kind::Nearest => {
                // Before the provider is paid, whatever can be refused is refused.
                let condition = condition_of(question, &fields, Values::From(FIRST_PARAM))?;
                let ranking = ranking_of(client, question, &fields)?;
                let vector = vector_of(&table, question)?;
                answer(client, &table, question, &vector, condition, &ranking)
            }
        }
    })
}

/// The rows of one vector table that answer a question whose vector is known.
fn answer(
    client: &SpiClient<'_>,
    table: &VectorTable,
    question: &Question,
    vector: &[f32],
    condition: Condition,
    ranking: &Ranking,
) -> Result<Vec<Answer>> {
    let wanted = wanted(question, ranking, &condition);
    let mut found = nearest(client, table, vector, &wanted, condition)?;
    if let Some(least) = question.min_score {
        found.retain(|candidate| candidate.answer.score.is_none_or(|score| score >= least));
    }
    let ranked = ranked(found, ranking).into_iter();
    Ok(ranked.skip(question.offset as usize).take(question.limit as usize).collect())
}

/// The candidates that a question needs.
fn wanted(question: &Question, ranking: &Ranking, condition: &Condition) -> Wanted {
    Wanted {
        limit: ranking.candidates(question.limit + question.offset),
        ef_search: question.ef_search,
        values: ranking.expressions(),
        is_served: condition.is_served,
        kept: None,
    }
}

/// The candidates in the order of their scores; equal ones stay in the order of their distances and keys.
fn ranked(found: Vec<Candidate>, ranking: &Ranking) -> Vec<Answer> {
    if ranking.is_empty() {
        return found.into_iter().map(|candidate| candidate.answer).collect();
    }
    let similarity = |candidate: &Candidate| candidate.answer.score.unwrap_or(f64::NAN);
    let valued: Vec<(f64, &[Option<f64>])> = found
        .iter()
        .map(|candidate| (similarity(candidate), candidate.values.as_slice()))
        .collect();
    let scores = ranking.scores(&valued);
    let mut answers: Vec<Answer> = found
        .into_iter()
        .zip(scores)
        .map(|(candidate, score)| Answer { score: Some(score), ..candidate.answer })
        .collect();
    answers.sort_by(|one, other| other.order().total_cmp(&one.order()));
    answers
}

/// The vector of a question.
fn vector_of(table: &VectorTable, question: &Question) -> Result<Vec<f32>> {
    match (&question.text, &question.vector) {
        (Some(text), _) => embed::for_table(table, text, InputType::Query),
        (None, Some(vector)) => {
            check_dimensions(table, vector)?;
            Ok(vector.clone())
        }
        (None, None) => Err(Error::NullArgument { argument: "query" }),
    }
}

/// Checks that a vector given by the caller is one of the table's.
fn check_dimensions(table: &VectorTable, vector: &[f32]) -> Result<()> {
    if vector.len() == table.dimensions as usize {
        return Ok(());
    }
    Err(Error::BadArgument {
        message: format!("query_vector has {} dimensions", vector.len()),
        detail: Some(format!(
            "The vectors of vector table \"{}\" have {} dimensions.",
            table.name, table.dimensions
        )),
        hint: None,
    })
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

/// The fields that filters can use.
fn fields_of(table: &VectorTable) -> Vec<Field> {
    let field = |column: &Column| {
        let base = relation::base_type(table.source, column.source());
        Some(Field {
            name: column.name.clone(),
            filter_type: column.filter_type?,
            is_list: base.is_some_and(relation::may_hold_lists),
            is_indexed: column.index,
            has_zone: base.is_none_or(relation::has_zone),
        })
    };
    table.columns.iter().filter_map(field).collect()
}

/// The filters of a question as a condition.
fn condition_of(question: &Question, fields: &[Field], values: Values) -> Result<Condition> {
    let nothing = serde_json::Value::Null;
    Ok(filter::condition(question.filters.as_ref().unwrap_or(&nothing), fields, values)?)
}

/// The boosts and decays of a question.
fn ranking_of(client: &SpiClient<'_>, question: &Question, fields: &[Field]) -> Result<Ranking> {
    let seconds = |interval: &str| {
        let sql = "select extract(epoch from $1::interval)::float8";
        let rows = client.select(sql, None, &[interval.into()])?;
        Ok(rows.first().get_one::<f64>()?.unwrap_or(f64::NAN))
    };
    Ranking::parse(question.boosts.as_ref(), question.decays.as_ref(), fields, seconds)
}

/// The vector of a text by a vector table's model, computed once in a statement.
pub fn embed(vector_table: &str, text: &str) -> Result<Vec<f32>> {
    remembered::or_else(vector_table, text, || {
        Spi::connect(|client| {
            let table = find(client, vector_table)?;
            check_may_select(&table)?;
            embed::for_table(&table, text, InputType::Query)
        })
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
