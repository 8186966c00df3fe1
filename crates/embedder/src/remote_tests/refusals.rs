//! What a service refuses: one text, every text, the key, the model; and what does not count against a text.

use embedd_wire::FailureClass;

use super::*;
use support::fake_provider::{Dialect, Respond, Rule};

#[test]
fn one_bad_text_among_many_costs_a_logarithm_of_requests() {
    let fake = fake(Dialect::OpenAi);
    let provider = provider(Kind::Openai, fake.base_url());
    fake.script(Rule::when_text("bad").respond(Respond::status(400).message("it is bad")));
    let mut all = texts(2048);
    all[1234] = "a bad one".to_string();
    let answer = ask(&documents(1, &provider, &all)).unwrap();
    assert_eq!(answer.refused, [(1234, "it is bad".to_string())]);
    // The first, one that shows that the service takes something, and two for each halving.
    assert!(fake.request_count() <= 2 + 2 * 11, "{}", fake.request_count());
    assert!(fake.paid_more_than_once().is_empty());
}

#[test]
fn a_text_alone_is_refused_only_by_a_service_that_takes_others() {
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
    // The texts once, and the one that nothing is wrong with.
    assert_eq!(fake.request_count() - before, 2);
}

#[test]
fn a_question_that_is_refused_says_so() {
    let fake = fake(Dialect::Voyage);
    let provider = provider(Kind::Voyage, fake.base_url());
    fake.script(Rule::when_text("bad").respond(Respond::status(400).message("it is bad")));
    let answer = ask(&question(1, &provider, "bad")).unwrap();
    assert_eq!(answer.refused, [(0, "it is bad".to_string())]);
}

#[test]
fn what_no_text_is_to_blame_for_fails_at_once_and_in_words() {
    for (dialect, kind) in [(Dialect::OpenAi, Kind::Openai), (Dialect::Gemini, Kind::Gemini)] {
        let fake = fake(dialect);
        let provider = provider(kind, fake.base_url());
        for (respond, class, message) in [
            (Respond::key_rejected(), FailureClass::KeyRejected, "rejects the key"),
            (Respond::no_such_model(), FailureClass::Refused, "has no model"),
            (Respond::insufficient_quota(), FailureClass::Refused, "no quota left"),
        ] {
            // Only OpenAI tells a quota from a rate.
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
fn keys_are_read_where_the_administrator_keeps_them() {
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
fn headers_of_the_provider_are_sent() {
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
fn a_text_that_the_service_falls_over_is_found_too() {
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
        // Nobody takes the service for broken because of it.
        fixture.client().ask(&question(2, &provider, "still there?")).unwrap();
    }
}

#[test]
fn what_is_no_number_in_json_is_the_fault_of_its_text_alone() {
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
fn a_service_that_refuses_texts_and_speaks_nonsense_otherwise_is_not_asked_for_ever() {
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
