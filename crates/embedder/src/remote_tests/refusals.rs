//! What a service rejects: one text, every text, the key, the model; and failures that do not count against a text.

use embedd_wire::FailureClass;

use super::*;
use support::fake_provider::{Dialect, Respond, Rule};

#[test]
fn bisecting_for_one_bad_text_takes_logarithmically_many_requests() {
    let fake = fake(Dialect::OpenAi);
    let provider = provider(Kind::Openai, fake.base_url());
    fake.script(Rule::when_text("bad").respond(Respond::status(400).message("it is bad")));
    let mut all = texts(2048);
    all[1234] = "a bad one".to_string();
    let answer = ask(&documents(1, &provider, &all)).unwrap();
    assert_eq!(answer.refused, [(1234, "it is bad".to_string())]);
    // The first, a probe, and two for each bisection.
    assert!(fake.request_count() <= 2 + 2 * 11, "{}", fake.request_count());
    assert!(fake.paid_more_than_once().is_empty());
}

#[test]
fn a_text_counts_as_bad_only_if_the_service_accepts_another() {
    let fake = fake(Dialect::OpenAi);
    let provider = provider(Kind::Openai, fake.base_url());
    let bad = fake.script(Rule::when_text("bad").respond(Respond::status(422)));
    let answer = ask(&documents(1, &provider, &["bad"])).unwrap();
    assert_eq!((answer.refused.len(), bad.hits()), (1, 1));

    fake.clear_script();
    fake.script(Rule::always().respond(Respond::status(400).message("no such thing")));
    let before = fake.request_count();
    let failure = ask(&documents(1, &provider, &texts(100))).unwrap_err();
    assert_eq!(failure.class, FailureClass::Refused);
    assert_eq!(failure.message, "provider \"fake\" refuses the request");
    assert_eq!(failure.detail.as_deref(), Some("It says: no such thing."));
    // The texts once, and the probe.
    assert_eq!(fake.request_count() - before, 2);
}

#[test]
fn a_rejected_question_is_reported() {
    let fake = fake(Dialect::Voyage);
    let provider = provider(Kind::Voyage, fake.base_url());
    fake.script(Rule::when_text("bad").respond(Respond::status(400).message("it is bad")));
    let answer = ask(&question(1, &provider, "bad")).unwrap();
    assert_eq!(answer.refused, [(0, "it is bad".to_string())]);
}

#[test]
fn a_failure_that_no_text_causes_is_an_error_at_once() {
    for (dialect, kind) in [(Dialect::OpenAi, Kind::Openai), (Dialect::Gemini, Kind::Gemini)] {
        let fake = fake(dialect);
        let provider = provider(kind, fake.base_url());
        for (respond, class, message) in [
            (Respond::key_rejected(), FailureClass::KeyRejected, "rejects the key"),
            (Respond::no_such_model(), FailureClass::Refused, "has no model"),
            (Respond::insufficient_quota(), FailureClass::Refused, "no quota left"),
        ] {
            // Only OpenAI distinguishes a quota from a rate limit.
            if kind == Kind::Gemini && message == "no quota left" {
                continue;
            }
            fake.clear_script();
            fake.script(Rule::always().respond(respond));
            let before = fake.request_count();
            let failure = ask(&documents(1, &provider, &texts(10))).unwrap_err();
            assert_eq!(failure.class, class, "{failure:?}");
            assert!(failure.message.contains(message), "{failure:?}");
            assert!(failure.hint.is_some());
            assert_eq!(fake.request_count() - before, 1);
        }
    }
}

#[test]
fn a_wrong_key_is_never_repeated() {
    let fake = fake(Dialect::OpenAi);
    let mut provider = provider(Kind::Openai, fake.base_url());
    let wrong = "sk-wrong-abcdefghijklmnop";
    provider.api_key = Some(Secret::new(wrong));
    let echo = Respond::key_rejected().message(&format!("Incorrect API key provided: {wrong}"));
    fake.script(Rule::always().respond(echo));
    let failure = ask(&documents(1, &provider, &["a"])).unwrap_err();
    assert_eq!(failure.class, FailureClass::KeyRejected);
    assert!(!format!("{failure:?}").contains(wrong), "{failure:?}");
}

#[test]
fn a_redirect_is_not_followed() {
    let fake = fake(Dialect::OpenAi);
    let elsewhere = self::fake(Dialect::OpenAi);
    let url = format!("{}/embeddings", elsewhere.base_url());
    fake.script(Rule::always().respond(Respond::redirect(&url)));
    let provider = provider(Kind::Openai, fake.base_url());
    let failure = ask(&documents(1, &provider, &["a"])).unwrap_err();
    assert_eq!(failure.class, FailureClass::Refused, "{failure:?}");
    assert_eq!(elsewhere.request_count(), 0);
}

#[test]
fn keys_are_read_from_files_and_environment_variables() {
    let fake = fake(Dialect::OpenAi);
    let fixture = Fixture::new(|_| {});
    let path = fixture.directory.join("key");
    std::fs::write(&path, format!("{KEY}\n")).unwrap();
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.api_key = Some(Secret::new(format!("file:{}", path.display())));
    let failure = fixture.client().ask(&documents(1, &provider, &["a"])).unwrap_err();
    assert_eq!(failure.class, FailureClass::BadSetting);
    provider.may_refer = true;
    fixture.client().ask(&documents(1, &provider, &["a"])).unwrap();

    for (key, detail) in [
        ("file:/nowhere/at/all", "No such file"),
        ("file:/dev/zero", "not a regular file"),
        ("env:EMBEDD_NO_SUCH_VARIABLE", "no variable \"EMBEDD_NO_SUCH_VARIABLE\""),
    ] {
        provider.api_key = Some(Secret::new(key));
        let failure = fixture.client().ask(&documents(1, &provider, &["a"])).unwrap_err();
        assert_eq!(failure.class, FailureClass::BadSetting);
        assert!(failure.detail.as_deref().unwrap_or_default().contains(detail), "{failure:?}");
    }
    assert_eq!(fake.request_count(), 1);
}

#[test]
fn the_headers_of_the_provider_are_sent() {
    let fake = FakeProvider::builder(Dialect::OpenAi).key(KEY).key_header("api-key").start();
    let mut provider = provider(Kind::OpenaiCompatible, fake.base_url());
    provider.key_header = Some("api-key".to_string());
    provider.headers = vec![("X-Team".to_string(), Secret::new("search"))];
    ask(&documents(1, &provider, &["a"])).unwrap();
    assert_eq!(fake.requests()[0].header("x-team"), Some("search"));
    provider.headers = vec![("X-Team".to_string(), Secret::new("two\nlines"))];
    let failure = ask(&documents(1, &provider, &["a"])).unwrap_err();
    assert_eq!(failure.class, FailureClass::BadSetting);
}

#[test]
fn a_poison_text_is_found_and_isolated() {
    for (dialect, kind, respond) in [
        (Dialect::Ollama, Kind::Ollama, Respond::status(500).message("unsupported value: NaN")),
        (Dialect::OpenAi, Kind::Openai, Respond::broken_json()),
    ] {
        let fake = fake(dialect);
        let provider = provider(kind, fake.base_url());
        fake.script(Rule::when_text("bad").respond(respond));
        let mut all = texts(8);
        all[5] = "a bad one".to_string();
        let fixture = Fixture::new(|_| {});
        let answer = fixture.client().ask(&documents(1, &provider, &all)).unwrap();
        let numbers: Vec<u32> = answer.refused.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [5], "{dialect:?}");
        // The circuit breaker does not open because of it.
        fixture.client().ask(&question(2, &provider, "still there?")).unwrap();
    }
}

#[test]
fn a_null_in_a_vector_rejects_only_its_text() {
    for (dialect, kind) in [
        (Dialect::OpenAiCompatible, Kind::OpenaiCompatible),
        (Dialect::Gemini, Kind::Gemini),
        (Dialect::Ollama, Kind::Ollama),
    ] {
        let fake = fake(dialect);
        let provider = provider(kind, fake.base_url());
        fake.script(Rule::always().respond(Respond::nan_for("b")));
        let answer = ask(&documents(1, &provider, &["a", "b", "c"])).unwrap();
        let numbers: Vec<u32> = answer.refused.iter().map(|(number, _)| *number).collect();
        assert_eq!((numbers.as_slice(), fake.request_count()), (&[1][..], 1), "{dialect:?}");
    }
}

#[test]
fn a_service_that_rejects_texts_and_sends_invalid_replies_is_not_retried_forever() {
    let fake = fake(Dialect::OpenAi);
    let provider = provider(Kind::Openai, fake.base_url());
    fake.script(Rule::when_text("text").respond(Respond::status(400)));
    fake.script(Rule::always().respond(Respond::broken_json()));
    let failure = ask(&documents(1, &provider, &texts(5))).unwrap_err();
    assert_eq!(failure.class, FailureClass::BadReply, "{failure:?}");
    assert!(fake.request_count() <= 6, "{}", fake.request_count());
}

#[test]
fn secret_headers_are_never_repeated() {
    let fake = fake(Dialect::OpenAi);
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.headers = vec![
        ("X-Team".to_string(), Secret::new("hunter2pass")),
        ("X-Basic".to_string(), Secret::new("Basic dXNlcjpwdwxyz")),
    ];
    let echo = Respond::key_rejected().message("you sent hunter2pass and dXNlcjpwdwxyz");
    fake.script(Rule::always().respond(echo));
    let failure = ask(&documents(1, &provider, &["a"])).unwrap_err();
    let shown = format!("{failure:?}");
    assert!(!shown.contains("hunter2pass") && !shown.contains("dXNlcjpwdwxyz"), "{shown}");
}
