//! embedd.similar(): finds the rows that are nearest to rows of the same vector table, without a call of the provider.

use std::collections::BTreeSet;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::direction::mean;
use super::nearest::{FIRST_PARAM, Wanted, nearest, pin};
use super::question::Question;
use super::{Answer, condition_of, fields_of, find_answering};
use crate::catalog::VectorTable;
use crate::datum::VectorType;
use crate::error::{Error, Result};
use crate::filter::Values;

/// The most rows that a question may be about.
const MOST: usize = 1000;

/// The rows nearest to the rows with these keys, without those, nearest first. What several rows have in common is the mean
/// of their vectors, each with length 1. Rows without a text have no vector; where none has one, no row is near.
pub fn similar(
    vector_table: &str,
    ids: &[String],
    limit: i32,
    filters: Option<serde_json::Value>,
) -> Result<Vec<Answer>> {
    let question =
        Question { vector_table: vector_table.to_string(), limit, filters, ..Question::default() };
    question.check()?;
    let ids: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    if ids.len() > MOST {
        return Err(Error::bad_argument(format!("ids must name at most {MOST} rows")));
    }
    Spi::connect(|client| {
        let table = find_answering(client, vector_table)?;
        let condition = condition_of(&question, &fields_of(&table), Values::From(FIRST_PARAM))?;
        let mut vectors = Vec::new();
        for id in &ids {
            vectors.extend(stored_vector(client, &table, id)?);
        }
        let Some(vector) = mean(&vectors) else { return Ok(Vec::new()) };
        // As many more as there are rows asked about, because these are among the nearest.
        let is_served = condition.is_served;
        let wanted = Wanted { limit: limit + ids.len() as i32, is_served, ..Wanted::default() };
        let found = nearest(client, &table, &vector, &wanted, condition)?;
        let answers = found.into_iter().map(|candidate| candidate.answer);
        let is_asked = |answer: &Answer| answer.id.as_deref().is_some_and(|id| ids.contains(id));
        Ok(answers.filter(|answer| !is_asked(answer)).take(limit as usize).collect())
    })
}

/// The stored vector of a row that the caller may see; None if it has no text.
fn stored_vector(
    client: &SpiClient<'_>,
    table: &VectorTable,
    id: &str,
) -> Result<Option<Vec<f32>>> {
    let schema = VectorType::find(client)?.schema;
    let relation = pin(table)?;
    let rows = client.select(
        &format!(
            "select v.embedding::{schema}.vector::real[] from {relation} v where v.pk_value = $1"
        ),
        None,
        &[id.into()],
    )?;
    if rows.is_empty() {
        return Err(Error::BadArgument {
            message: format!("vector table \"{}\" has no row with key \"{id}\"", table.name),
            detail: Some(
                "It may not be synced yet, or a policy hides it from your role.".to_string(),
            ),
            hint: None,
        });
    }
    Ok(rows.first().get_one::<Vec<f32>>()?)
}
