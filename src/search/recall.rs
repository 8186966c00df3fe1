//! embedd.recall(): measures how many of the nearest rows query() finds, with stored vectors as questions.

use std::time::Instant;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::nearest::{Candidate, FIRST_PARAM, Wanted, exactly, extent, found_by, pin};
use super::plan::Plan;
use super::question::{LIMIT, Question, check_range};
use super::{condition_of, fields_of, find_answering};
use crate::catalog::VectorTable;
use crate::datum::VectorType;
use crate::error::Result;
use crate::filter::Values;
use crate::name::quote_literal;

/// The most questions of a measurement.
const MOST: i32 = 10_000;
/// From this many rows on not every row is read to choose some.
const LARGE: f64 = 20_000.0;
/// Distances that differ by less are those of rows that are equally near.
const EQUAL: f64 = 1e-9;

/// What was measured.
pub struct Measured {
    /// The part of the nearest rows that was found; None without a question.
    pub recall: Option<f64>,
    pub questions: i32,
    /// Milliseconds of a question, as query() answers it and exactly.
    pub query_ms: Option<f64>,
    pub exact_ms: Option<f64>,
    /// How the questions were answered, and the largest hnsw.ef_search of them.
    pub plan: &'static str,
    pub ef_search: Option<i32>,
    pub advice: String,
}

/// Asks for the k rows nearest to a sample of rows, without these rows themselves.
pub fn recall(question: &Question, sample: i32, k: i32) -> Result<Measured> {
    check_range("sample", sample, 1..=MOST)?;
    check_range("k", k, 1..=LIMIT)?;
    Spi::connect(|client| {
        let table = find_answering(client, &question.vector_table)?;
        let fields = fields_of(&table);
        let condition = condition_of(question, &fields, Values::From(FIRST_PARAM))?;
        let mut sums = Sums::default();
        for (id, vector) in sampled(client, &table, sample)? {
            check_for_interrupts!();
            // The row itself is one of them.
            let wanted =
                Wanted { limit: k + 1, is_served: condition.is_served, ..Wanted::default() };
            let begin = Instant::now();
            let (found, plan) = found_by(client, &table, &vector, &wanted, condition.clone())?;
            let query = begin.elapsed();
            let begin = Instant::now();
            let right = exactly(client, &table, &vector, k + 1, condition.clone())?;
            let exact = begin.elapsed();
            sums.add(&others(found, &id, k), &others(right, &id, k));
            sums.query_ms += query.as_secs_f64() * 1000.0;
            sums.exact_ms += exact.as_secs_f64() * 1000.0;
            match plan {
                Plan::Exact => sums.by_reading += 1,
                Plan::Index { ef_search } => {
                    sums.ef_search = sums.ef_search.max(Some(ef_search));
                }
            }
        }
        Ok(sums.measured(&table, k))
    })
}

/// The keys and vectors of random rows that the caller may see.
pub(super) fn sampled(
    client: &SpiClient<'_>,
    table: &VectorTable,
    sample: i32,
) -> Result<Vec<(String, Vec<f32>)>> {
    let rows = extent(client, table)?.rows;
    // Of a large table only some pages are read, with several times as many rows as are wanted. A policy may hide most.
    let percent = 100.0 * f64::from(sample) * 20.0 / rows.max(1.0);
    if rows >= LARGE && percent < 100.0 {
        let some = format!(" tablesample pg_catalog.system ({percent})");
        let found = read(client, table, &some, sample)?;
        if found.len() >= sample as usize {
            return Ok(found);
        }
    }
    read(client, table, "", sample)
}

fn read(
    client: &SpiClient<'_>,
    table: &VectorTable,
    some: &str,
    sample: i32,
) -> Result<Vec<(String, Vec<f32>)>> {
    let relation = pin(table)?;
    let schema = VectorType::find(client)?.schema;
    let rows = client.select(
        &format!(
            "select v.pk_value, v.embedding::{schema}.vector::real[] from {relation} v{some}
              where v.embedding is not null order by pg_catalog.random() limit $1"
        ),
        None,
        &[i64::from(sample).into()],
    )?;
    let mut found = Vec::new();
    for row in rows {
        if let (Some(id), Some(vector)) = (row.get::<String>(1)?, row.get::<Vec<f32>>(2)?) {
            found.push((id, vector));
        }
    }
    Ok(found)
}

/// How many of the right distances were found. Of rows that are equally near any will do.
pub(super) fn right_of(found: &[f64], right: &[f64]) -> usize {
    let farthest = right.last().copied().unwrap_or(f64::NEG_INFINITY);
    let near = found.iter().filter(|distance| **distance <= farthest + EQUAL).count();
    near.min(right.len())
}

/// The distances of the k rows nearest to a row that is a question itself, without that row.
fn others(rows: Vec<Candidate>, id: &str, k: i32) -> Vec<f64> {
    let rows = rows.into_iter().filter(|row| row.answer.id.as_deref() != Some(id));
    rows.map(|row| row.distance).take(k as usize).collect()
}

/// What the questions have come to.
#[derive(Default)]
struct Sums {
    questions: i32,
    found: usize,
    wanted: usize,
    query_ms: f64,
    exact_ms: f64,
    by_reading: i32,
    ef_search: Option<i32>,
}

impl Sums {
    /// Counts the distances of one question that are among the right ones.
    fn add(&mut self, found: &[f64], right: &[f64]) {
        self.found += right_of(found, right);
        self.wanted += right.len();
        self.questions += 1;
    }

    fn recall(&self) -> Option<f64> {
        (self.wanted > 0).then(|| self.found as f64 / self.wanted as f64)
    }

    fn measured(&self, table: &VectorTable, k: i32) -> Measured {
        let target = table.stored.question_settings.target();
        let mean = |sum: f64| (self.questions > 0).then(|| sum / f64::from(self.questions));
        Measured {
            recall: self.recall(),
            questions: self.questions,
            query_ms: mean(self.query_ms),
            exact_ms: mean(self.exact_ms),
            plan: match self.by_reading {
                all if all == self.questions => "exact",
                0 => "index",
                _ => "both",
            },
            ef_search: self.ef_search,
            advice: self.advice(&table.name, target, k),
        }
    }

    /// What can be done.
    fn advice(&self, name: &str, target: f64, k: i32) -> String {
        let Some(recall) = self.recall() else {
            return "No row was found to ask with: the vector table has no vector, the filter keeps no row, or a policy hides them.".to_string();
        };
        if recall >= target {
            return format!("The recall is at or above the target of {target}.");
        }
        let missed = (1.0 - recall) / (1.0 - target).max(1e-6);
        let higher = (1.0 - (1.0 - target) / missed.max(1.1) * 0.9).min(0.9999);
        format!(
            "The recall of the {k} nearest rows is below the target of {target}. To visit more of the index: SELECT embedd.update_vector_table({}, recall_target => {higher:.4}). \
             If that does not help, build a larger index, with the argument index => '{{\"m\": 32, \"ef_construction\": 128}}' and backfill().",
            quote_literal(name)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Sums;

    #[test]
    fn rows_that_are_equally_near_count() {
        let mut sums = Sums::default();
        assert_eq!(sums.recall(), None);
        sums.add(&[0.1, 0.2, 0.3], &[0.1, 0.2, 0.3]);
        sums.add(&[0.1, 0.4], &[0.1, 0.2]);
        sums.add(&[0.2, 0.2 + 1e-12, 0.2], &[0.2, 0.2]);
        sums.add(&[], &[0.5]);
        assert_eq!((sums.found, sums.wanted, sums.questions), (6, 8, 4));
        assert_eq!(sums.recall(), Some(0.75));
    }

    #[test]
    fn advice_says_what_to_do_where_the_target_is_missed() {
        let mut sums = Sums::default();
        assert!(sums.advice("t", 0.98, 10).contains("No row"));
        sums.add(&[0.1; 98], &[0.1; 100]);
        assert!(sums.advice("t", 0.98, 10).contains("at or above the target of 0.98"));
        let advice = sums.advice("t's", 0.99, 10);
        assert!(advice.contains("update_vector_table('t''s', recall_target => 0.99"), "{advice}");
    }
}
