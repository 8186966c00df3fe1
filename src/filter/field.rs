//! A field of the metadata, and the SQL expressions that compare it.

use serde_json::Value;

use super::value::scalar;
use super::{FilterError, FilterType, quote_literal};

/// A metadata field for filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its key in the metadata.
    pub name: String,
    /// How it is compared.
    pub filter_type: FilterType,
    /// Whether its values may be arrays, whose elements are compared.
    pub is_list: bool,
    /// Whether an index of the vector table is on [`Field::key`].
    pub is_indexed: bool,
    /// Whether its timestamps have a time zone.
    pub has_zone: bool,
}

impl Field {
    /// Its value as text, NULL where it is missing.
    pub(super) fn text(&self) -> String {
        format!("(metadata->>{})", quote_literal(&self.name))
    }

    /// Its value in the type of its comparisons.
    pub fn typed(&self) -> String {
        format!("{}{}", self.text(), cast(self.filter_type, ""))
    }

    /// The key of an index that serves its comparisons: an expression, for CREATE INDEX in parentheses. Timestamps without a
    /// time zone count as UTC there, because a cast to timestamptz depends on TimeZone, and no index can hold it.
    pub fn key(&self) -> String {
        match self.filter_type {
            FilterType::Datetime => format!("embedd.utc_datetime({})", self.text()),
            _ => self.ordered_without_index(),
        }
    }

    /// Its value in the form that gt, gte, lt and lte compare, which must not be that of a list.
    pub fn ordered(&self) -> String {
        if self.is_indexed { self.key() } else { self.ordered_without_index() }
    }

    fn ordered_without_index(&self) -> String {
        match self.filter_type {
            FilterType::Keyword => format!("({} collate pg_catalog.\"C\")", self.text()),
            _ => self.typed(),
        }
    }

    /// Its value in the form that eq and in compare.
    pub(super) fn equated(&self) -> String {
        if self.is_indexed { self.key() } else { self.typed() }
    }

    /// A parameter of type text, or a literal, in the form of [`Field::ordered`] and [`Field::equated`].
    pub fn compared(&self, param: &str) -> String {
        let typed = format!("{param}::text{}", cast(self.filter_type, ""));
        match self.is_indexed && self.filter_type == FilterType::Datetime && !self.has_zone {
            true => format!("(({typed})::timestamp at time zone 'UTC')"),
            false => typed,
        }
    }

    /// The same for a parameter of type text[]; None where an index cannot be used for it.
    pub(super) fn compared_array(&self, param: &str) -> Option<String> {
        let is_local = self.filter_type == FilterType::Datetime && !self.has_zone;
        (!(self.is_indexed && is_local)).then(|| self.typed_array(param))
    }

    pub(super) fn typed_array(&self, param: &str) -> String {
        format!("{param}::text[]{}", cast(self.filter_type, "[]"))
    }

    /// The text of a value to compare it with.
    pub fn value(&self, what: &str, value: &Value) -> Result<String, FilterError> {
        scalar(self, what, value)
    }
}

/// The cast from text to the type of a field's comparison, with `[]` for arrays.
fn cast(filter_type: FilterType, array: &str) -> String {
    match filter_type {
        FilterType::Keyword => String::new(),
        FilterType::Integer | FilterType::Float => format!("::numeric{array}"),
        FilterType::Boolean => format!("::boolean{array}"),
        FilterType::Datetime => format!("::timestamptz{array}"),
    }
}
