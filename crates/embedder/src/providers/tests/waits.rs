//! How long a refusal asks to wait, in all formats.

use std::time::Duration;

use embedd_wire::Kind;

use super::headers;
use crate::providers::refusal;

#[test]
fn waits_are_parsed_from_headers_and_bodies() {
    let wait = |list: &[(&str, &str)], body: &str| {
        refusal(Kind::Gemini, 429, &headers(list), body.as_bytes()).retry_after
    };
    let millis = |millis| Some(Duration::from_millis(millis));
    assert_eq!(wait(&[("retry-after", "20")], ""), millis(20_000));
    assert_eq!(wait(&[("retry-after", " 0.5")], ""), millis(500));
    assert_eq!(wait(&[("retry-after", "0")], ""), millis(0));
    assert_eq!(wait(&[("retry-after-ms", "1500"), ("retry-after", "2")], ""), millis(1_500));
    assert_eq!(wait(&[("retry-after-ms", "x"), ("retry-after", "2")], ""), millis(2_000));
    assert_eq!(wait(&[("retry-after", "86400")], ""), millis(3_600_000));
    for odd in ["-1", "soon", "", "nan", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        assert_eq!(wait(&[("retry-after", odd)], ""), None, "{odd}");
    }
    let body = r#"{"error":{"code":429,"message":"m","details":[{"@type":"type.googleapis.com/google.rpc.Help","links":[]},
        {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37s"}]}}"#;
    assert_eq!(wait(&[], body), millis(37_000));
    assert_eq!(wait(&[], &body.replace("37s", "57.238747106s")).unwrap().as_secs(), 57);
    assert_eq!(wait(&[("retry-after", "5")], body), millis(5_000));
    assert_eq!(wait(&[], ""), None);
}

#[test]
fn a_date_is_relative_to_the_date_of_the_reply() {
    let wait = |until: &str, date: &str| {
        let list = [("retry-after", until), ("date", date)];
        refusal(Kind::Openai, 503, &headers(&list), b"").retry_after.map(|wait| wait.as_secs())
    };
    let until = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(wait(until, "Sun, 06 Nov 1994 08:49:07 GMT"), Some(30));
    assert_eq!(wait(until, "Sun Nov  6 08:48:37 1994"), Some(60));
    assert_eq!(wait(until, "Sun, 06 Nov 1994 09:00:00 GMT"), Some(0));
    assert_eq!(wait(until, "Fri, 04 Nov 1994 08:49:37 GMT"), Some(3600));
    assert_eq!(wait("Friday, 06-Nov-26 08:49:37 GMT", "Fri, 06 Nov 2026 08:49:30 GMT"), Some(7));
    // Across the end of a day, a month, a leap day and a year.
    assert_eq!(wait("Fri, 01 Mar 2024 00:00:10 GMT", "Thu, 29 Feb 2024 23:59:50 GMT"), Some(20));
    assert_eq!(wait("Sat, 01 Mar 2025 00:00:10 GMT", "Fri, 28 Feb 2025 23:59:50 GMT"), Some(20));
    assert_eq!(wait("Fri, 01 Jan 2027 00:00:10 GMT", "Thu, 31 Dec 2026 23:59:50 GMT"), Some(20));
    for odd in
        ["", "yesterday", "Sun, 06 Nov 1994 99:99:99 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "1:2"]
    {
        assert_eq!(wait(until, odd), None, "{odd}");
        assert_eq!(wait(odd, until), None, "{odd}");
    }
}
