//! Compiles tests of the elements of a field that holds lists: an array, or JSON that may be one.

use super::value::is_json;
use super::{FilterType, quote_literal};

/// Every element, of arrays of up to six dimensions (the most that PostgreSQL has), or the value itself where it is no array,
/// that is equal to one of the values.
const PATH: &str = "lax $[*][*][*][*][*][*] ? (@ == $v[*])";

/// A condition that some element of the field equals one of the values, which are bound as JSON by this parameter. NULL where
/// the field is missing.
pub(super) fn some_equals(field: &str, parameter: &str) -> String {
    format!(
        "jsonb_path_exists(metadata->{}, '{PATH}', {parameter}::text::jsonb)",
        quote_literal(field)
    )
}

/// The values to bind: the elements that are equal to one of these texts. An element of another type than text is equal to a
/// keyword that is its JSON form, as it is where the field is no list.
pub(super) fn values(filter_type: FilterType, texts: &[String]) -> String {
    let mut values = Vec::new();
    for text in texts {
        let is_keyword = filter_type == FilterType::Keyword;
        if is_keyword {
            values.push(serde_json::Value::from(text.as_str()).to_string());
        }
        if !is_keyword || is_json::<serde_json::Number>(text) || is_json::<bool>(text) {
            values.push(text.clone());
        }
    }
    format!("{{\"v\": [{}]}}", values.join(", "))
}
