//! embedd.similar(): finds the rows that are nearest to a row of the same vector table, without a call of the provider.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::nearest::{nearest, pin};
use super::{Answer, Question, checked, condition_of, find_answering};
use crate::catalog::VectorTable;
use crate::datum::VectorType;
use crate::error::{Error, Result};

/// The rows nearest to the row with this key, without that row, nearest first. A row that has no text has no neighbours.
pub fn similar(
    vector_table: &str,
    id: &str,
    limit: i32,
    filters: Option<serde_json::Value>,
) -> Result<Vec<Answer>> {
    let question =
        Question { vector_table, text: "", limit, filters, min_score: None, ef_search: None };
    checked(&question)?;
    Spi::connect(|client| {
        let table = find_answering(client, vector_table)?;
        let condition = condition_of(&table, &question)?;
        let Some(vector) = stored_vector(client, &table, id)? else { return Ok(Vec::new()) };
        // One more, because the row itself is one of them.
        let question = Question { limit: limit + 1, ..question };
        let mut answers = nearest(client, &table, &vector, &question, condition)?;
        answers.retain(|answer| answer.id.as_deref() != Some(id));
        answers.truncate(limit as usize);
        Ok(answers)
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
