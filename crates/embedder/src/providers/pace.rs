//! Parses the rate-limit headers of a reply.

use std::time::Duration;

/// A longer wait is rather a point in time, which some servers send instead.
const LONGEST: f64 = 7.0 * 24.0 * 3600.0;

/// The remaining rate limits and when they reset, as far as the service reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Requests that may be sent now.
    pub remaining_requests: Option<u64>,
    /// Time until the full number of requests may be sent.
    pub reset_requests: Option<Duration>,
    /// Tokens that may be sent now.
    pub remaining_tokens: Option<u64>,
    /// Time until the full number of tokens may be sent.
    pub reset_tokens: Option<Duration>,
}

/// Parses the headers of a reply, whatever its status; header names are looked up in lower case.
pub fn pace(header: &dyn Fn(&str) -> Option<String>) -> Pace {
    // The first name is OpenAI's; the second is Azure's older one (for a reset) or Mistral's (for a remainder).
    // Azure sends -1 for "unknown", which is rejected here.
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

/// Parses a duration: plain seconds (Azure) or numbers with units (OpenAI: 20ms, 7.66s, 6m0s, 1h2m).
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    // It must begin with a digit, because Rust parses "inf" and "nan" as floats.
    if !text.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let seconds = match text.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => with_units(text)?,
    };
    (0.0..=LONGEST).contains(&seconds).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

/// The sum of numbers with units, in seconds.
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

/// The seconds of a unit.
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
