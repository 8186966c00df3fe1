//! The function in the keys of indexes on datetimes.

use std::ffi::CString;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::Error;

/// A timestamp as metadata has it, without a zone that it lacks; None if it has another form, which could mean another
/// time under another DateStyle.
fn in_utc(text: &str) -> Option<String> {
    if matches!(text, "infinity" | "-infinity") {
        return Some(text.to_string());
    }
    let (text, era) = match text.strip_suffix(" BC") {
        Some(text) => (text, " BC"),
        None => (text, ""),
    };
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, ""));
    let mut parts = date.splitn(3, '-');
    let is_number = |part: Option<&str>, least: usize| {
        part.is_some_and(|part| part.len() >= least && part.bytes().all(|b| b.is_ascii_digit()))
    };
    let is_date = is_number(parts.next(), 4)
        && is_number(parts.next(), 2)
        && is_number(parts.next(), 2)
        && date.len() <= 12;
    let is_time = time.bytes().all(|b| b.is_ascii_digit() || b":.+-Z".contains(&b));
    if !is_date || !is_time {
        return None;
    }
    let zone = if time.contains(['+', '-', 'Z']) { "" } else { "+00" };
    let time = if time.is_empty() { "00:00:00" } else { time };
    Some(format!("{date} {time}{zone}{era}"))
}

// Immutable: what it is given depends on no setting, because it names year, month and day in this order and has a zone.
#[pg_extern(immutable, parallel_safe)]
fn utc_datetime(value: &str) -> Result<TimestampWithTimeZone, ErrorReport> {
    let refused = || Error::BadArgument {
        message: format!("\"{value}\" is not a timestamp of metadata"),
        detail: Some("It has the form of to_jsonb(timestamp with time zone).".to_string()),
        hint: None,
    };
    let text = in_utc(value).and_then(|text| CString::new(text).ok()).ok_or_else(refused)?;
    // SAFETY: the input function takes a C string, an oid and a typmod. A text that is no timestamp raises an error.
    let found = unsafe {
        pgrx::direct_function_call::<TimestampWithTimeZone>(
            pg_sys::timestamptz_in,
            &[
                Some(pg_sys::Datum::from(text.as_ptr())),
                pg_sys::InvalidOid.into_datum(),
                (-1_i32).into_datum(),
            ],
        )
    };
    Ok(found.ok_or_else(refused)?)
}

#[cfg(test)]
mod tests {
    use super::in_utc;

    #[test]
    fn a_missing_zone_is_utc_and_other_forms_are_refused() {
        for (text, expected) in [
            ("2024-05-31T12:00:00+05:30", "2024-05-31 12:00:00+05:30"),
            ("2024-05-31T12:00:00.5", "2024-05-31 12:00:00.5+00"),
            ("2024-05-31", "2024-05-31 00:00:00+00"),
            ("0044-03-15T00:00:00+00:00 BC", "0044-03-15 00:00:00+00:00 BC"),
            ("12024-01-01T00:00:00Z", "12024-01-01 00:00:00Z"),
            ("infinity", "infinity"),
        ] {
            assert_eq!(in_utc(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "now", "01/02/2024", "31-05-2024", "2024-05-31 12:00 CET", "tomorrow"] {
            assert_eq!(in_utc(text), None, "{text}");
        }
    }
}
