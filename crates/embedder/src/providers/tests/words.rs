//! Which parts of a service's message are shown.

use crate::providers::blank::tidy;
use crate::providers::reason::Said;
use crate::providers::without;

fn message(body: &str) -> Option<String> {
    Said::anywhere(body.as_bytes()).message
}

#[test]
fn all_common_forms_of_explanation_are_found() {
    for (body, expected) in [
        (r#"{"error":{"message":"Bad","type":"t","param":null,"code":null}}"#, "Bad"),
        (r#"[{"error":{"code":400,"message":"Bad","status":"INVALID_ARGUMENT"}}]"#, "Bad"),
        (r#"{"detail":"Bad"}"#, "Bad"),
        (r#"{"error":"Bad"}"#, "Bad"),
        (r#"{"error":["Bad","Worse"]}"#, "Bad"),
        (r#"{"error":"Bad","error_type":"Validation"}"#, "Bad"),
        (r#"{"message":"Bad","code":422,"type":"Validation"}"#, "Bad"),
        (r#"{"object":"error","message":"Bad","type":"BadRequestError","code":400}"#, "Bad"),
        (r#"{"errors":[{"code":1,"message":"Bad"}],"success":false}"#, "Bad"),
        (r#"{"error":{"error":{"message":"Bad"}}}"#, "Bad"),
        (
            r#"{"detail":[{"type":"missing","loc":["body","input",0],"msg":"Field required","input":{"model":"the user's text"}}]}"#,
            "body.input.0: Field required",
        ),
        (r#"{"error":"","message":"Bad"}"#, "Bad"),
        (r#""Bad""#, "Bad"),
        ("Bad\r\n  gateway", "Bad gateway"),
        ("<html><head><title>502 Bad\nGateway</title></head><body>x</body>", "502 Bad Gateway"),
        ("<h1>Bad</h1><p>day</p>", "Bad day"),
    ] {
        assert_eq!(message(body).as_deref(), Some(expected), "{body}");
    }
    for body in ["", "  ", "{}", "null", "[]", "7", r#"{"error":null}"#, r#"{"error":{}}"#, "<br>"]
    {
        assert_eq!(message(body), None, "{body}");
    }
}

#[test]
fn no_body_causes_a_panic() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!("{}\"x\"{}", r#"{"error":"#.repeat(100), "}".repeat(100));
    for body in
        [deep.as_bytes(), nested.as_bytes(), b"\xff\x00\xfe", b"<title>", b"<title></title>"]
    {
        Said::anywhere(body);
    }
    let long = vec![b'x'; 3 << 20];
    assert_eq!(Said::anywhere(&long).message.unwrap().len(), 300);
    Said::anywhere("<title>İ</title>".as_bytes());
}

#[test]
fn messages_are_one_short_line() {
    assert_eq!(tidy(" a\n\tb\u{0}\u{1b}[31mc\u{202e}d\u{200b} "), "a b [31mc d");
    let long = tidy(&"äöü ".repeat(500));
    assert!(long.chars().count() == 300 && long.ends_with("ä..."), "{long}");
    assert_eq!(tidy(&"x".repeat(300)).len(), 300);
    assert_eq!(tidy(&"x".repeat(301)).len(), 300);
    assert_eq!(tidy(&"漢".repeat(100_000)).chars().count(), 300);
}

#[test]
fn everything_that_looks_like_a_key_is_blanked() {
    for (text, expected) in [
        (
            "Incorrect API key provided: sk-ab***yz. You can find",
            "Incorrect API key provided: ***. You can find",
        ),
        ("Incorrect API key provided: my-se*ret.", "Incorrect API key provided: ***."),
        ("key sk-proj-AbC123_x-yZ is bad", "key *** is bad"),
        ("key=AIzaSyA1234567890-abcdefghijklmnopqrstu, no", "key=***, no"),
        ("token 'pa-Xyz0123456789abc'", "token '***'"),
        ("Authorization: Bearer abc123def", "Authorization: Bearer ***"),
        ("hf_AbCdEfGhIj", "***"),
        ("0123456789abcdef0123456789abcdef", "***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.sig", "***"),
        ("AQ.Ab8RN6JxYz", "***"),
    ] {
        assert_eq!(tidy(text), expected);
    }
    for text in [
        "The model `text-embedding-3-large` does not exist or you do not have access to it.",
        "Model voyage-9 is not supported. Supported models are ['voyage-3.5', 'voyage-3.5-lite'].",
        "* Quota exceeded for metric: generativelanguage.googleapis.com/embed_content_free_tier_requests, limit: 0",
        "quota GenerateRequestsPerDayPerProjectPerModel-FreeTier",
        "request 01234567-89ab-cdef-0123-456789abcdef failed, see https://platform.openai.com/docs/api-keys",
        "You must provide a Bearer token in the header",
        "BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch",
        "par-boiled pa-rt al-so sk-ip",
    ] {
        assert_eq!(tidy(text), text);
    }
}

#[test]
fn a_known_secret_is_blanked_even_if_truncated() {
    assert_eq!(without("key abc-secret is bad, abc-secret!", "abc-secret"), "key *** is bad, ***!");
    assert_eq!(without("nothing here", "abc-secret"), "nothing here");
    assert_eq!(without("nothing here", ""), "nothing here");
    assert_eq!(without("key abc-secret", " abc-secret\n"), "key ***");
    assert_eq!(without("the key is abc-sec...", "abc-secret"), "the key is ***...");
    assert_eq!(without("the key is abc-secre", "abc-secret"), "the key is ***");
    assert_eq!(without("it was the abc", "abc-secret"), "it was the abc");
    assert_eq!(without("schlüsselchen: schlüs...", "schlüssel"), "***chen: ***...");
}

#[test]
fn long_quotations_are_shortened() {
    let text = "the quick brown fox jumps over the lazy dog ".repeat(4);
    for quote in ['"', '\'', '`'] {
        assert_eq!(
            tidy(&format!("input {quote}{text}{quote} is too long")),
            format!("input {quote}the quick brown fox ...{quote} is too long")
        );
    }
    for text in
        ["it's the dog's bone, isn't it", "a 'short' one and \"another\" `one`", "an open \" quote"]
    {
        assert_eq!(tidy(text), text);
    }
}
