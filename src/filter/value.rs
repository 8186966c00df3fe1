//! Validates the values of a filter, and converts them to the text to bind.

use serde_json::Value;

use super::{Field, FilterError, FilterType, MAX_SHOWN, datetime, json_type};

/// The text to bind for a value that fits the field.
pub(super) fn scalar(field: &Field, what: &str, value: &Value) -> Result<String, FilterError> {
    let expected = match (field.filter_type, value) {
        (FilterType::Keyword, Value::String(text)) => return Ok(text.clone()),
        (FilterType::Integer, Value::Number(number)) if number.is_i64() => {
            return Ok(number.to_string());
        }
        (FilterType::Float, Value::Number(number)) => return Ok(number.to_string()),
        (FilterType::Boolean, Value::Bool(boolean)) => return Ok(boolean.to_string()),
        // Forms and query strings send everything as text, so a text that is exactly a value of the type is accepted.
        (FilterType::Integer, Value::String(text)) if is_json::<i64>(text) => {
            return Ok(text.clone());
        }
        (FilterType::Float, Value::String(text)) if is_number(text) => {
            return Ok(text.clone());
        }
        (FilterType::Boolean, Value::String(text)) if is_json::<bool>(text) => {
            return Ok(text.clone());
        }
        (FilterType::Datetime, Value::String(text)) if datetime::is_valid(text) => {
            return Ok(text.clone());
        }
        (FilterType::Keyword, _) => "a string",
        (FilterType::Integer, _) => {
            "an integer from -9223372036854775808 to 9223372036854775807, without a decimal point"
        }
        (FilterType::Float, _) => "a number",
        (FilterType::Boolean, _) => "true or false",
        (FilterType::Datetime, _) => {
            "a string with an ISO 8601 date or time such as \"2024-05-31T12:00:00Z\""
        }
    };
    let error = bad_value(field, what, expected, value);
    Err(match value {
        Value::Array(_) => {
            error.hint("To match any of several values, write {\"in\": [value, value]}.")
        }
        Value::Null => error.hint(
            "To test whether the field exists, use {\"exists\": true} or {\"exists\": false}.",
        ),
        _ => error,
    })
}

/// Whether a text is exactly a JSON value of this type, without surrounding spaces.
pub(super) fn is_json<T: serde::de::DeserializeOwned>(text: &str) -> bool {
    text.trim() == text && serde_json::from_str::<T>(text).is_ok()
}

/// Whether a text is exactly a JSON number that PostgreSQL's numeric can hold: 131072 digits before the decimal point, and
/// 16383 after it.
fn is_number(text: &str) -> bool {
    const BEFORE: i64 = 131_072;
    const AFTER: i64 = 16_383;
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    let Ok(exponent) = exponent.parse::<i32>().map(i64::from) else { return false };
    before.len() as i64 + exponent <= BEFORE
        && after.len() as i64 - exponent <= AFTER
        && is_json::<serde_json::Number>(text)
}

/// The error for a value: the field, its type, what was expected and what was given.
pub(super) fn bad_value(field: &Field, what: &str, expected: &str, value: &Value) -> FilterError {
    let whole = value.to_string();
    let mut shown: String = whole.chars().take(MAX_SHOWN).collect();
    if shown.len() < whole.len() {
        shown.push_str("...");
    }
    let (filter_type, given) = (field.filter_type.as_str(), json_type(value));
    FilterError::new(
        format!("invalid value for filter field \"{}\": {shown}", field.name),
        format!(
            "Its filter_type is {filter_type}: {what} must be {expected}, and {given} was given."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::is_number;

    #[test]
    fn a_text_is_a_number_where_numeric_can_hold_it() {
        for text in ["0", "-1.5", "1e400", "123456789012345678901234567890.5", "1e-16383", "1E+10"]
        {
            assert!(is_number(text), "{text}");
        }
        for text in [
            "",
            "1e400000",
            "1e-16384",
            "1e99999999999",
            "NaN",
            "Infinity",
            "+1",
            ".5",
            "1.",
            "0x1",
            " 1",
            "1e",
        ] {
            assert!(!is_number(text), "{text}");
        }
    }
}
