//! Valid and invalid values of every option.

use serde_json::json;

use super::*;

fn pairs(given: &[(&str, &str)]) -> Pairs {
    given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// A server of Ollama with one more option.
fn with(name: &str, value: &str) -> Result<ServerOptions, OptionError> {
    ServerOptions::parse(&pairs(&[("provider", "ollama"), (name, value)]))
}

fn mapping(name: &str, value: &str) -> Result<MappingOptions, OptionError> {
    MappingOptions::parse(&pairs(&[(name, value)]))
}

#[test]
fn a_server_with_all_options_is_parsed() {
    let options = ServerOptions::parse(&pairs(&[
        ("provider", "openai_compatible"),
        ("default_model", "BAAI/bge-m3"),
        ("base_url", "http://[::1]:8080/v1?api-version=1"),
        ("key_header", "api-key"),
        ("encoding", "base64"),
        ("requests_per_minute", "500"),
        ("tokens_per_minute", "1000000"),
        ("max_in_flight", "64"),
        ("timeout", "2min"),
        ("texts_per_request", "32"),
        ("max_tokens_per_day", "5000000000"),
        ("max_tokens_per_month", "1000000000000000"),
        ("query_prefix", "query: "),
        ("document_prefix", ""),
        ("created_at", "2024-02-29T23:59:59.123456Z"),
    ]))
    .unwrap();
    assert_eq!(
        options,
        ServerOptions {
            kind: Kind::OpenaiCompatible,
            default_model: Some("BAAI/bge-m3".to_string()),
            base_url: Some("http://[::1]:8080/v1?api-version=1".to_string()),
            key_header: Some("api-key".to_string()),
            encoding: Encoding::Base64,
            limits: Limits {
                requests_per_minute: Some(500),
                tokens_per_minute: Some(1_000_000),
                max_in_flight: 64,
                timeout_ms: 120_000,
                texts_per_request: Some(32),
                max_tokens_per_day: Some(5_000_000_000),
                max_tokens_per_month: Some(1_000_000_000_000_000),
            },
            query_prefix: Some("query: ".to_string()),
            document_prefix: Some(String::new()),
        }
    );
}

#[test]
fn a_server_requires_a_service_and_an_address() {
    let missing = |given: &[(&str, &str)]| match ServerOptions::parse(&pairs(given)) {
        Err(OptionError::Missing { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(&[]), "provider");
    assert_eq!(missing(&[("provider", "openai_compatible")]), "base_url");
    for kind in ["openai", "gemini", "voyage", "ollama", "test"] {
        let options = ServerOptions::parse(&pairs(&[("provider", kind)])).unwrap();
        assert_eq!(options.limits, Limits::DEFAULT);
    }
    for kind in ["local", "OpenAI", "", "openai "] {
        assert!(ServerOptions::parse(&pairs(&[("provider", kind)])).is_err(), "{kind}");
    }
}

#[test]
fn unknown_options_are_errors_that_list_the_valid_ones() {
    for (name, value) in [("api_key", "sk-secret"), ("Timeout", "1"), ("", ""), ("headers", "{}")] {
        match with(name, value) {
            Err(OptionError::Unknown { valid, .. }) => {
                assert!(valid.contains("base_url"), "{valid}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    match mapping("base_url", "http://x") {
        Err(OptionError::Unknown { valid, .. }) => assert_eq!(valid, "api_key, headers"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn addresses_cannot_hold_secrets() {
    for good in
        ["http://localhost", "https://h:1/p/", "HTTPS://EXAMPLE.com/v1", "http://10.0.0.1:11434"]
    {
        assert_eq!(with("base_url", good).unwrap().base_url.as_deref(), Some(good));
    }
    for bad in [
        "",
        "localhost:8080",
        "ftp://h/",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http:/h/",
        "http:h",
        "http:\\\\h\\",
        "http://h\\@secret/",
        "http://user@h/",
        "http://user:secret@h/",
        "http://:secret@h/",
        "http://h/#secret",
        "http://h/?key=secret",
        "http://h/?a=1&API_KEY=secret",
        "http://h/ secret",
        "http://h/\nsecret",
        "\thttp://h/",
        "http://ü/",
        "http://h:99999/",
    ] {
        let error = with("base_url", bad).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret\""), "{error:?}");
        assert!(matches!(error, OptionError::Invalid { shown: None, .. }), "{bad}: {error:?}");
    }
}

#[test]
fn numbers_have_ranges() {
    assert_eq!(with("max_in_flight", "1").unwrap().limits.max_in_flight, 1);
    for bad in ["0", "65", "", "-1", "+1", "1.5", " 1", "x", "99999999999999999999"] {
        assert!(with("max_in_flight", bad).is_err(), "{bad}");
    }
    for name in ["requests_per_minute", "tokens_per_minute", "texts_per_request"] {
        assert!(with(name, "1").is_ok() && with(name, "2000000000").is_ok(), "{name}");
        assert!(with(name, "0").is_err() && with(name, "2000000001").is_err(), "{name}");
    }
}

#[test]
fn durations_have_the_format_of_settings() {
    let good = [
        ("100", 100),
        ("100ms", 100),
        ("30s", 30_000),
        ("30 s", 30_000),
        ("60min", 3_600_000),
        (" 1s ", 1000),
    ];
    for (text, ms) in good {
        assert_eq!(with("timeout", text).unwrap().limits.timeout_ms, ms, "{text}");
    }
    for bad in
        ["", "99", "0", "1h", "61min", "s", "1.5s", "-1s", "30S", "9999999999min", "4294967295s"]
    {
        assert!(with("timeout", bad).is_err(), "{bad}");
    }
}

#[test]
fn creation_times_have_one_format() {
    for good in ["2025-11-21T10:30:00Z", "2000-02-29T00:00:00.1Z", "0001-12-31T23:59:59.999999Z"] {
        assert!(with("created_at", good).is_ok(), "{good}");
    }
    for bad in [
        "now",
        "2025-11-21",
        "2025-11-21 10:30:00Z",
        "2025-11-21T10:30:00",
        "2025-11-21T10:30:00+00:00",
        "2025-02-29T10:30:00Z",
        "1900-02-29T10:30:00Z",
        "2025-13-01T10:30:00Z",
        "2025-00-01T10:30:00Z",
        "2025-01-00T10:30:00Z",
        "2025-04-31T10:30:00Z",
        "0000-01-01T10:30:00Z",
        "2025-01-01T24:00:00Z",
        "2025-01-01T23:60:00Z",
        "2025-01-01T23:59:60Z",
        "2025-01-01T23:59:59.Z",
        "2025-01-01T23:59:59.1234567Z",
        "25-01-01T23:59:59Z",
        "2025-1-01T23:59:59Z",
        "2025-01-01-01T23:59:59Z",
        "12025-01-01T23:59:59Z",
    ] {
        assert!(with("created_at", bad).is_err(), "{bad}");
    }
}

#[test]
fn keys_are_header_values_or_references() {
    for good in
        ["sk-1", "a:b", "ENV:X", "env:OPENAI_API_KEY", "env:_x9", "file:/run/secrets/open ai.key"]
    {
        let options = mapping("api_key", good).unwrap();
        assert_eq!(options.api_key.as_ref().map(Secret::expose), Some(good));
        assert_eq!(options.is_reference(), good.starts_with("env:") || good.starts_with("file:"));
    }
    for bad in [
        "",
        "two words",
        "line\n",
        "schlüssel",
        "env:",
        "env:9X",
        "env:A B",
        "env:A=B",
        "file:",
        "file:key",
        "file:/a\nb",
    ] {
        let error = mapping("api_key", bad).unwrap_err();
        assert!(matches!(error, OptionError::Invalid { shown: None, .. }), "{bad}: {error:?}");
    }
    assert!(mapping("api_key", &"k".repeat(8192)).is_ok());
    assert!(mapping("api_key", &"k".repeat(8193)).is_err());
}

#[test]
fn only_superusers_may_set_references() {
    for key in ["env:HOME", "file:/etc/passwd"] {
        let given = pairs(&[("api_key", key)]);
        assert_eq!(MappingOptions::check(&given, false), Err(OptionError::Reference));
        assert!(MappingOptions::check(&given, true).is_ok());
    }
    assert!(MappingOptions::check(&pairs(&[("api_key", "sk")]), false).is_ok());
    assert!(MappingOptions::check(&pairs(&[("headers", "{}")]), false).unwrap().has_nothing());
}

#[test]
fn headers_are_names_and_strings() {
    let options = mapping("headers", r#"{"X-Team": "a b", "x.y": ""}"#).unwrap();
    let headers: Vec<(&str, &str)> =
        options.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("X-Team", "a b"), ("x.y", "")]);
    for bad in [
        "",
        "secret",
        "[]",
        "\"secret\"",
        r#"{"a": 1}"#,
        r#"{"a": null}"#,
        r#"{"a": {"b": "secret"}}"#,
        r#"{"": "secret"}"#,
        r#"{"a b": "secret"}"#,
        r#"{"a:": "secret"}"#,
        r#"{"a\r\nb": "secret"}"#,
        r#"{"a": "secret\r\nb: c"}"#,
        r#"{"a": "secret\n"}"#,
        r#"{"a": "secret\u0000"}"#,
        r#"{"a": "geheimß secret"}"#,
        r#"{"Host": "secret"}"#,
        r#"{"content-LENGTH": "0"}"#,
        r#"{"a": "1", "A": "2"}"#,
    ] {
        let error = mapping("headers", bad).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
    let many: Vec<String> = (0..33).map(|n| format!("\"h{n}\": \"\"")).collect();
    assert!(mapping("headers", &format!("{{{}}}", many.join(","))).is_err());
}

#[test]
fn key_header_is_a_header_name() {
    assert!(with("key_header", "api-key").is_ok());
    for bad in ["", "a b", "a:", "a\r\n", "Host", "TE"] {
        assert!(with("key_header", bad).is_err(), "{bad}");
    }
}

#[test]
fn options_of_a_call_are_split_into_server_and_mapping() {
    let given =
        json!({"timeout": "30s", "max_in_flight": 4, "headers": {"a": "b"}, "encoding": null});
    let wanted = |name: &str, value: Option<&str>| (name.to_string(), value.map(str::to_string));
    assert_eq!(
        requested_options(&given, false).unwrap(),
        RequestedOptions {
            server: vec![
                wanted("timeout", Some("30s")),
                wanted("max_in_flight", Some("4")),
                wanted("encoding", None)
            ],
            mapping: vec![wanted("headers", Some(r#"{"a":"b"}"#))],
        }
    );
    let removed = requested_options(&json!({"api_key": null, "base_url": null}), true).unwrap();
    assert_eq!(removed.mapping, [wanted("api_key", None)]);
    assert_eq!(removed.server, [wanted("base_url", None)]);
}

#[test]
fn errors_about_options_do_not_quote_secrets() {
    for bad in [
        json!("secret"),
        json!(["secret"]),
        json!(null),
        json!({"headers": "secret"}),
        json!({"headers": ["secret"]}),
        json!({"api_key": "secret"}),
        json!({"apikey": "secret"}),
        json!({"base_url": "secret"}),
        json!({"provider": "secret"}),
        json!({"created_at": "secret"}),
        json!({"timeout": ["secret"]}),
        json!({"timeout": true}),
    ] {
        for is_update in [false, true] {
            let error = requested_options(&bad, is_update).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }
    assert!(requested_options(&json!({"api_key": null}), false).is_err());
    assert!(requested_options(&json!({"provider": null}), true).is_err());
}
