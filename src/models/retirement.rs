//! When a model is retired by its maker, and what is said of it from a year before.

use std::time::{SystemTime, UNIX_EPOCH};

use pgrx::PgLogLevel;

use super::Entry;
use crate::error::tell;
use crate::name::quote_literal;

/// Days before the end of a model from which on it is told.
const WARNED: i64 = 365;

/// A model that its maker retires within a year, or has retired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retirement {
    /// The day, as it is written in the catalog.
    pub on: String,
    /// Whether the day has come.
    pub is_past: bool,
    /// The model that its maker names in its place.
    pub replacement: Option<String>,
}

impl Retirement {
    /// Whether a model is about to be retired.
    pub fn of(entry: &Entry) -> Option<Retirement> {
        Retirement::at(entry, today())
    }

    /// The same on a day since 1970.
    fn at(entry: &Entry, today: i64) -> Option<Retirement> {
        let on = entry.retires_on.as_deref()?;
        let left = days(on)? - today;
        (left <= WARNED).then(|| Retirement {
            on: on.to_string(),
            is_past: left <= 0,
            replacement: entry.replacement.clone(),
        })
    }

    /// Says so, of a model, with what to do about it.
    pub fn warn(&self, model: &str, hint: Option<String>) {
        let is = if self.is_past { "was" } else { "is" };
        let message =
            format!("embedding model \"{model}\" {is} retired by its maker on {}", self.on);
        let detail = match &self.replacement {
            Some(replacement) => format!("Its maker names \"{replacement}\" in its place."),
            None => "embedd.models names no model in its place.".to_string(),
        };
        tell(PgLogLevel::WARNING, message, Some(detail), hint);
    }

    /// What to do about a vector table that is about to be created.
    pub fn hint_for_new(&self) -> Option<String> {
        let replacement = self.replacement.as_deref()?;
        Some(format!("Give embedding_model => {}.", quote_literal(replacement)))
    }

    /// What to do about a vector table that is there.
    pub fn hint_for(&self, table: &str) -> String {
        let model = self.replacement.as_deref().map_or("...".to_string(), str::to_string);
        format!(
            "Create another vector table with embedding_model => {}, and drop this one: SELECT embedd.drop_vector_table({}).",
            quote_literal(&model),
            quote_literal(table)
        )
    }
}

/// Days since 1970-01-01 of a date in the form of ISO 8601.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    // Counting years from March puts the leap day last.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let before = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(before + (month * 153 + 2) / 5 + day - 719_469)
}

fn today() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs() / 86_400).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_warned_about_from_a_year_before_its_end() {
        assert_eq!(days("1970-01-01"), Some(0));
        assert_eq!(days("2000-02-29"), Some(11_016));
        assert_eq!(days("2026-11-29"), Some(20_786));
        assert_eq!((days("soon"), days("2026-11")), (None, None));
        let entry = Entry {
            retires_on: Some("2026-11-29".to_string()),
            replacement: Some("next".to_string()),
            ..Entry::default()
        };
        assert_eq!(Retirement::at(&entry, 20_786 - 366), None);
        let at = |day| Retirement::at(&entry, day).unwrap();
        assert!(!at(20_786 - 365).is_past && !at(20_785).is_past && at(20_786).is_past);
        assert_eq!(at(30_000).hint_for_new().as_deref(), Some("Give embedding_model => 'next'."));
        assert_eq!(Retirement::at(&Entry::default(), 30_000), None);
    }
}
