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
}

impl Field {
    /// Its value as text, NULL where it is missing.
    pub(super) fn text(&self) -> String {
        format!("(metadata->>{})", quote_literal(&self.name))
    }

    /// Its value in the form that gt, gte, lt and lte compare, which must not be that of a list.
    pub fn ordered(&self) -> String {
        match self.filter_type {
            FilterType::Keyword => format!("({} collate pg_catalog.\"C\")", self.text()),
            other => format!("{}{}", self.text(), cast(other, "")),
        }
    }

    /// The text of a value to compare it with, and the cast of that text.
    pub fn bound(&self, what: &str, value: &Value) -> Result<(String, String), FilterError> {
        Ok((scalar(self, what, value)?, cast(self.filter_type, "")))
    }
}

/// The cast from text to the type of a field's comparison, with `[]` for arrays.
pub(super) fn cast(filter_type: FilterType, array: &str) -> String {
    match filter_type {
        FilterType::Keyword => String::new(),
        FilterType::Integer | FilterType::Float => format!("::numeric{array}"),
        FilterType::Boolean => format!("::boolean{array}"),
        FilterType::Datetime => format!("::timestamptz{array}"),
    }
}
