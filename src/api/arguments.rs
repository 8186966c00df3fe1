//! Conversion of arguments given in another type than the function's own.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::datum::RawJsonb;
use crate::error::{Error, Result};
use crate::fdw::hide;

/// Parses a whole number from the text of any numeric type.
fn whole_number(text: &str, name: &str) -> Result<i32> {
    let text = text.trim();
    let refused = |what: &str| Error::bad_argument(format!("{name} \"{text}\" is {what}"));
    if let Ok(number) = text.parse::<i64>() {
        return i32::try_from(number).map_err(|_| refused("out of range"));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number.fract() == 0.0 => {
            match f64::from(i32::MIN) <= number && number <= f64::from(i32::MAX) {
                true => Ok(number as i32),
                false => Err(refused("out of range")),
            }
        }
        _ => Err(refused("not a whole number")),
    }
}

#[pg_extern(immutable, parallel_safe)]
fn to_integer(value: &str, name: &str) -> std::result::Result<i32, ErrorReport> {
    Ok(whole_number(value, name)?)
}

// The options of a provider can hold a key, so an error about them must not quote them.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn to_options(value: &str) -> std::result::Result<RawJsonb, ErrorReport> {
    Ok(hide::during(|| RawJsonb::from_text(value))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_in_any_format_are_accepted_and_nothing_is_rounded() {
        for text in ["5", " 5 ", "5.0", "5.000", "5e0", "+5"] {
            assert_eq!(whole_number(text, "limit").ok(), Some(5), "{text}");
        }
        assert_eq!(whole_number("-2147483648", "limit").ok(), Some(i32::MIN));
        for text in ["", "2.5", "NaN", "Infinity", "five", "2147483648", "1e300", "0x5", "{5}"] {
            assert!(whole_number(text, "limit").is_err(), "{text}");
        }
    }
}
