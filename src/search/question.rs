//! What is asked of a vector table: the arguments of `embedd.query()`, and which of them go together.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::plan::EF_SEARCH;
use crate::error::{Error, Result};

/// The most rows of a query, and the most that are skipped.
pub const LIMIT: i32 = 1000;
/// The default number of rows of a query.
pub const DEFAULT_LIMIT: i32 = 10;

/// The arguments of `embedd.query()`.
#[derive(Clone, Debug, Default)]
pub struct Question {
    pub vector_table: String,
    /// What the nearest rows are wanted of: a text or a vector. Without either the rows are listed.
    pub text: Option<String>,
    pub vector: Option<Vec<f32>>,
    pub limit: i32,
    /// How many rows are skipped.
    pub offset: i32,
    pub filters: Option<Value>,
    /// The lowest cosine similarity of a returned row.
    pub min_score: Option<f64>,
    pub ef_search: Option<i32>,
    /// The order of a list, and the row after which it begins.
    pub order_by: Option<String>,
    pub after: Option<Value>,
    pub boosts: Option<Value>,
    pub decays: Option<Value>,
}

/// What kind of answer a question has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The rows nearest to a text or a vector.
    Nearest,
    /// The rows in the order of a field.
    Listed,
    /// None: the question is NULL.
    Nothing,
}

impl Question {
    /// Checks the arguments that need no look into the database.
    pub fn check(&self) -> Result<Kind> {
        check_range("limit", self.limit, 1..=LIMIT)?;
        check_range("offset", self.offset, 0..=LIMIT)?;
        if let Some(ef_search) = self.ef_search {
            check_range("ef_search", ef_search, EF_SEARCH)?;
        }
        if let Some(score) = self.min_score.filter(|score| !(0.0..=1.0).contains(score)) {
            return Err(Error::bad_argument(format!(
                "min_similarity_score {score} is outside the range 0.0 to 1.0"
            )));
        }
        let is_listed = self.order_by.is_some() || self.after.is_some();
        match (&self.text, &self.vector) {
            (Some(_), Some(_)) => Err(refused(
                "query and query_vector cannot be used together",
                "A question is a text or a vector.",
            )),
            (None, None) if is_listed => self.check_list(),
            (None, None) => Ok(Kind::Nothing),
            _ if is_listed => Err(refused(
                "order_by and after cannot be used with a question",
                "The nearest rows have the order of their scores. The argument offset skips rows, and boosts and decays change the scores.",
            )),
            (None, Some(vector)) if vector.iter().all(|element| *element == 0.0) => Err(refused(
                "query_vector has no direction",
                "Every element is zero, so no row is nearer than another.",
            )),
            _ => Ok(Kind::Nearest),
        }
    }

    fn check_list(&self) -> Result<Kind> {
        if self.order_by.is_none() {
            return Err(refused("after needs order_by", "It continues a list in that order."));
        }
        let given = [
            ("min_similarity_score", self.min_score.is_some()),
            ("ef_search", self.ef_search.is_some()),
            ("boosts", self.boosts.is_some()),
            ("decays", self.decays.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => Err(refused(
                &format!("{name} needs a question"),
                "Without query or query_vector the rows have no score.",
            )),
            None => Ok(Kind::Listed),
        }
    }
}

fn refused(message: &str, detail: &str) -> Error {
    Error::BadArgument {
        message: message.to_string(),
        detail: Some(detail.to_string()),
        hint: None,
    }
}

/// Checks that a number is in a range.
pub fn check_range(what: &str, value: i32, range: RangeInclusive<i32>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::bad_argument(format!(
        "{what} {value} is outside the range {} to {}",
        range.start(),
        range.end()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question { limit: 10, text: Some("x".to_string()), ..Question::default() }
    }

    fn message(question: Question) -> String {
        question.check().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_question_has_a_kind() {
        assert_eq!(question().check().ok(), Some(Kind::Nearest));
        let nothing = Question { text: None, ..question() };
        assert_eq!(nothing.check().ok(), Some(Kind::Nothing));
        let by_vector = Question { vector: Some(vec![0.0, 1.0]), ..nothing.clone() };
        assert_eq!(by_vector.check().ok(), Some(Kind::Nearest));
        let listed = Question { order_by: Some("n".to_string()), ..nothing };
        assert_eq!(listed.check().ok(), Some(Kind::Listed));
    }

    #[test]
    fn arguments_that_do_not_go_together_are_refused() {
        let order_by = Some("n".to_string());
        let none = Question { text: None, ..question() };
        let listed = Question { order_by: order_by.clone(), ..none.clone() };
        let some = Some(Value::Array(Vec::new()));
        for (question, part) in [
            (Question { limit: 0, ..question() }, "limit 0 is outside the range 1 to 1000"),
            (Question { offset: -1, ..question() }, "offset -1 is outside the range 0 to 1000"),
            (Question { ef_search: Some(0), ..question() }, "ef_search 0 is outside"),
            (Question { min_score: Some(f64::NAN), ..question() }, "min_similarity_score NaN"),
            (Question { vector: Some(vec![1.0]), ..question() }, "cannot be used together"),
            (Question { vector: Some(vec![0.0]), ..none.clone() }, "no direction"),
            (Question { order_by, ..question() }, "cannot be used with a question"),
            (Question { after: some.clone(), ..none }, "after needs order_by"),
            (Question { boosts: some, ..listed.clone() }, "boosts needs a question"),
            (Question { min_score: Some(0.5), ..listed }, "min_similarity_score needs"),
        ] {
            let message = message(question);
            assert!(message.contains(part), "{message}");
        }
    }
}
