//! The formats of durations and of rate-limit headers.

use std::time::Duration;

use super::headers;
use crate::providers::pace::duration;
use crate::providers::{Pace, pace};

#[test]
fn durations_in_all_formats_are_parsed() {
    for (text, millis) in [
        ("1s", 1_000),
        ("6m0s", 360_000),
        ("20ms", 20),
        ("1h2m", 3_720_000),
        ("7.66s", 7_660),
        ("2m59.56s", 179_560),
        ("1d2h", 93_600_000),
        ("57.238747106s", 57_238),
        ("500us", 0),
        ("55", 55_000),
        (" 0.5 ", 500),
        ("0", 0),
        ("0s", 0),
    ] {
        assert_eq!(duration(text).map(|d| d.as_millis()), Some(millis), "{text}");
    }
    for text in [
        "",
        "s",
        "-1",
        "-1s",
        "inf",
        "nan",
        "1x",
        "1 s",
        "1..2s",
        "1s2",
        "1e400",
        "1782345600",
        "ü",
        "1ü",
    ] {
        assert_eq!(duration(text), None, "{text}");
    }
}

#[test]
fn openais_headers_are_parsed() {
    let read = pace(&headers(&[
        ("x-ratelimit-limit-requests", "5000"),
        ("x-ratelimit-remaining-requests", "4999"),
        ("x-ratelimit-reset-requests", "12ms"),
        ("x-ratelimit-remaining-tokens", "159976"),
        ("x-ratelimit-reset-tokens", "6m0s"),
    ]));
    let expected = Pace {
        remaining_requests: Some(4999),
        reset_requests: Some(Duration::from_millis(12)),
        remaining_tokens: Some(159_976),
        reset_tokens: Some(Duration::from_secs(360)),
    };
    assert_eq!(read, expected);
    assert_eq!(pace(&headers(&[])), Pace::default());
}

#[test]
fn headers_of_azure_and_mistral_are_parsed() {
    let azure = pace(&headers(&[
        ("x-ratelimit-remaining-requests", "79"),
        ("x-ratelimit-remaining-tokens", "-1"),
        ("x-ratelimit-reset-requests", "10"),
        ("x-rate-limit-reset-tokens", "55"),
    ]));
    assert_eq!((azure.remaining_requests, azure.remaining_tokens), (Some(79), None));
    assert_eq!(azure.reset_requests, Some(Duration::from_secs(10)));
    assert_eq!(azure.reset_tokens, Some(Duration::from_secs(55)));
    let mistral = pace(&headers(&[
        ("x-ratelimit-remaining-req-minute", "59"),
        ("x-ratelimit-remaining-tokens-minute", "47196"),
    ]));
    assert_eq!((mistral.remaining_requests, mistral.remaining_tokens), (Some(59), Some(47_196)));
}
