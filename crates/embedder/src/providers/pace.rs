//! What a service says, in the headers of its replies, about how much more may be asked of it.

use std::time::Duration;

/// Longer waits than this are not waits but points in time, which some servers send instead.
const LONGEST: f64 = 7.0 * 24.0 * 3600.0;

/// How much may still be asked, and when the full amount may be asked again; as far as the service says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Requests that may be sent at once.
    pub remaining_requests: Option<u64>,
    /// Time until all requests may be sent again.
    pub reset_requests: Option<Duration>,
    /// Tokens that may be sent at once.
    pub remaining_tokens: Option<u64>,
    /// Time until all tokens may be sent again.
    pub reset_tokens: Option<Duration>,
}

/// Reads the pace out of a reply's headers, good or bad; header names are looked up in lower case.
pub fn pace(header: &dyn Fn(&str) -> Option<String>) -> Pace {
    // The first name is OpenAI's, the second Azure's older one (for a reset) or Mistral's (for a rest).
    // Azure sends -1 for "unknown", which is no number here.
    let remaining = |names: [&str; 2]| {
        names.iter().find_map(|name| header(name)).and_then(|value| value.trim().parse().ok())
    };
    let reset = |names: [&str; 2]| {
        names.iter().find_map(|name| header(name)).and_then(|value| duration(&value))
    };
    Pace {
        remaining_requests: remaining([
            "x-ratelimit-remaining-requests",
            "x-ratelimit-remaining-req-minute",
        ]),
        reset_requests: reset(["x-ratelimit-reset-requests", "x-rate-limit-reset-requests"]),
        remaining_tokens: remaining([
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-remaining-tokens-minute",
        ]),
        reset_tokens: reset(["x-ratelimit-reset-tokens", "x-rate-limit-reset-tokens"]),
    }
}

/// Reads a length of time: plain seconds (Azure) or numbers with units (OpenAI: 20ms, 7.66s, 6m0s, 1h2m).
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    // A number has to begin like one: "inf" and "nan" are floats to Rust.
    if !text.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let seconds = match text.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => with_units(text)?,
    };
    (0.0..=LONGEST).contains(&seconds).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

/// Adds up numbers with units to seconds.
fn with_units(text: &str) -> Option<f64> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(unit_at);
        let next_at = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, next) = behind.split_at(next_at);
        seconds += number.parse::<f64>().ok()? * seconds_in(unit)?;
        rest = next;
    }
    Some(seconds)
}

/// Seconds in a unit.
fn seconds_in(unit: &str) -> Option<f64> {
    Some(match unit {
        "d" => 86_400.0,
        "h" => 3_600.0,
        "m" => 60.0,
        "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" | "μs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    })
}
