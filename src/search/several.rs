//! embedd.search(): asks one question of several vector tables and merges the answers.

use std::collections::BTreeMap;

use embedd_wire::InputType;
use pgrx::prelude::*;

use super::nearest::FIRST_PARAM;
use super::question::{Kind, Question};
use super::rank::Ranking;
use super::{Answer, answer, condition_of, fields_of, find_answering};
use crate::error::{Error, Result};
use crate::fdw::embed;
use crate::filter::Values;

/// The most vector tables of a search.
const MOST: usize = 100;

/// The rows of these vector tables nearest to a text, best first, each with the name of its vector table. The text is
/// embedded once for each model.
pub fn search(vector_tables: &[String], question: &Question) -> Result<Vec<(String, Answer)>> {
    let kind = question.check()?;
    let mut names: Vec<&String> = Vec::new();
    for name in vector_tables {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() || names.len() > MOST {
        return Err(Error::bad_argument(format!(
            "vector_tables must name 1 to {MOST} vector tables"
        )));
    }
    Spi::connect(|client| {
        // Before the provider is paid, whatever can be refused is refused.
        let mut tables = Vec::new();
        for name in names {
            let table = find_answering(client, name)?;
            let fields = fields_of(&table);
            let condition = condition_of(question, &fields, Values::From(FIRST_PARAM))?;
            tables.push((table, condition));
        }
        let Some(text) = question.text.as_deref().filter(|_| kind == Kind::Nearest) else {
            return Ok(Vec::new());
        };
        // From each table the rows that are skipped too: all of them may come from one table.
        let each =
            Question { limit: question.limit + question.offset, offset: 0, ..question.clone() };
        let mut vectors: BTreeMap<_, Vec<f32>> = BTreeMap::new();
        let mut found = Vec::new();
        for (table, condition) in tables {
            let model = (
                table.provider.clone(),
                table.model.clone(),
                table.dimensions,
                table.stored.query_prefix.clone(),
                u32::from(table.owner),
            );
            let vector = match vectors.get(&model) {
                Some(vector) => vector.clone(),
                None => {
                    let vector = embed::for_table(&table, text, InputType::Query)?;
                    vectors.insert(model, vector.clone());
                    vector
                }
            };
            let answers = answer(client, &table, &each, &vector, condition, &Ranking::default())?;
            found.extend(answers.into_iter().map(|answer| (table.name.clone(), answer)));
        }
        // Stable: equal scores stay in the order of the tables and of their keys.
        found.sort_by(|(_, one), (_, other)| other.order().total_cmp(&one.order()));
        let (offset, limit) = (question.offset as usize, question.limit as usize);
        Ok(found.into_iter().skip(offset).take(limit).collect())
    })
}
