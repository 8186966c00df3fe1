//! The retirement of a model by its maker, and the warning from a year before.

use std::time::{SystemTime, UNIX_EPOCH};

use pgrx::PgLogLevel;

use super::Entry;
use crate::error::raise_message;
use crate::name::quote_literal;

/// How many days before the retirement the warning starts.
const WARNED: i64 = 365;

/// A model that retires within a year, or has retired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retirement {
    /// The day, as written in the catalog.
    pub on: String,
    /// Whether the day has passed.
    pub is_past: bool,
    /// The replacement that its maker names.
    pub replacement: Option<String>,
}

impl Retirement {
    /// The retirement of a model, if it is due.
    pub fn of(entry: &Entry) -> Option<Retirement> {
        Retirement::at(entry, today())
    }

    /// The same for a given day, in days since 1970.
    fn at(entry: &Entry, today: i64) -> Option<Retirement> {
        let on = entry.retires_on.as_deref()?;
        let left = days(on)? - today;
        (left <= WARNED).then(|| Retirement {
            on: on.to_string(),
            is_past: left <= 0,
            replacement: entry.replacement.clone(),
        })
    }

    /// Raises the warning about a model, with a hint.
    pub fn warn(&self, model: &str, hint: Option<String>) {
        let is = if self.is_past { "was" } else { "is" };
        let message =
            format!("embedding model \"{model}\" {is} retired by its maker on {}", self.on);
        let detail = match &self.replacement {
            Some(replacement) => format!("Its maker names \"{replacement}\" as the replacement."),
            None => "embedd.models names no replacement.".to_string(),
        };
        raise_message(PgLogLevel::WARNING, message, Some(detail), hint);
    }

    /// The hint for a vector table that is being created.
    pub fn hint_for_new(&self) -> Option<String> {
        let replacement = self.replacement.as_deref()?;
        Some(format!("Use embedding_model => {}.", quote_literal(replacement)))
    }

    /// The hint for an existing vector table.
    pub fn hint_for(&self, table: &str) -> String {
        let model = self.replacement.as_deref().map_or("...".to_string(), str::to_string);
        format!(
            "Create another vector table with embedding_model => {}, and drop this one: SELECT embedd.drop_vector_table({}).",
            quote_literal(&model),
            quote_literal(table)
        )
    }
}

/// The days since 1970-01-01 of a date in ISO 8601 format.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    // With years counted from March the leap day comes last.
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
    fn the_warning_starts_a_year_before_the_retirement() {
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
        assert_eq!(at(30_000).hint_for_new().as_deref(), Some("Use embedding_model => 'next'."));
        assert_eq!(Retirement::at(&Entry::default(), 30_000), None);
    }
}
