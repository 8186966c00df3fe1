//! The statements that find the nearest rows, and those that list rows. Pure.
//!
//! Each returns pk_value, distance, metadata, embedded_text and an array of the values that change the score.

use crate::citus;

/// The statements of one question.
pub struct Statement {
    /// The qualified name of the vector table.
    pub relation: String,
    /// The distance of a row `v`, in the form that an index serves.
    pub distance: String,
    /// The distance that an index over bits or rounded vectors serves, and how many rows nearest by it are compared exactly; None
    /// where the index serves `distance`.
    pub candidates: Option<(String, i32)>,
    /// The condition on `metadata`.
    pub condition: String,
    /// Expressions of type double precision, separated by commas.
    pub values: String,
    /// How many rows are wanted: a parameter or a number.
    pub limit: String,
    /// Whether Citus has the rows in shards.
    pub is_spread: bool,
}

impl Statement {
    /// Lets the index order the rows. It may return rows a little out of order, and fewer than there are.
    pub fn through_index(&self) -> String {
        let Statement { relation, distance, candidates, condition, values, limit, is_spread } =
            self;
        let everywhere = if *is_spread { citus::IN_TRANSACTIONS } else { "true" };
        if let Some((served, candidates)) = candidates {
            return format!(
                "select v.pk_value, {distance} as distance, v.metadata, v.embedded_text, array[{values}]::float8[] as values
  from (select v.*
          from {relation} v
         where v.embedding is not null and ({condition}) and {everywhere}
         order by {served} limit {candidates}) v
 order by ({distance}) + 0.0::float8, v.pk_value collate \"C\" limit {limit}"
            );
        }
        format!(
            "select r.pk_value, r.distance, r.metadata, r.embedded_text, r.values
  from (select v.pk_value, {distance} as distance, v.metadata, v.embedded_text, array[{values}]::float8[] as values
          from {relation} v
         where v.embedding is not null and ({condition}) and {everywhere}
         order by {distance} limit {limit}) r
 order by r.distance, r.pk_value collate \"C\""
        )
    }

    /// Reads every row that matches. An index on the condition may serve it, but none that orders by distance does: no
    /// index is on a sum.
    pub fn exactly(&self) -> String {
        let Statement { relation, distance, condition, values, limit, .. } = self;
        format!(
            "select v.pk_value, {distance} as distance, v.metadata, v.embedded_text, array[{values}]::float8[] as values
  from {relation} v
 where v.embedding is not null and ({condition})
 order by ({distance}) + 0.0::float8, v.pk_value collate \"C\" limit {limit}"
        )
    }
}

/// The statement that lists rows in an order, those without text too.
pub fn listed(relation: &str, condition: &str, order: &str, limit: &str, offset: &str) -> String {
    format!(
        "select v.pk_value, null::float8 as distance, v.metadata, v.embedded_text, null::float8[] as values
  from {relation} v
 where {condition}
 order by {order} limit {limit} offset {offset}"
    )
}
