//! Services that need long to load their model: some say so, others let the request wait.

use embedd_wire::FailureClass;

use super::*;
use support::fake_provider::{Dialect, Respond, Rule};

#[test]
fn a_service_that_reports_loading_is_retried_without_bisecting() {
    let fake = fake(Dialect::OpenAiCompatible);
    let loading = fake.script(Rule::always().times(8).respond(Respond::loading(0.01)));
    let provider = provider(Kind::OpenaiCompatible, fake.base_url());
    let answer = ask(&documents(1, &provider, &["a", "b"])).unwrap();
    assert_eq!((answer.refused.len(), loading.hits()), (0, 8));
    // The batch is not bisected either.
    assert!(fake.requests().iter().all(|request| request.texts.len() == 2));
}

#[test]
fn a_service_that_loads_for_long_is_an_error_and_gets_no_requests() {
    let fake = fake(Dialect::OpenAiCompatible);
    fake.script(Rule::always().respond(Respond::loading(60.0)));
    let provider = provider(Kind::OpenaiCompatible, fake.base_url());
    let failure = ask(&documents(1, &provider, &["a"])).unwrap_err();
    assert_eq!(failure.class, FailureClass::Unavailable);
    assert_eq!(failure.message, "provider \"fake\" is loading its model");
    assert!(failure.retry_after_ms.is_some_and(|wait| wait > 50_000), "{failure:?}");
    assert_eq!(fake.request_count(), 1);
}

#[test]
fn a_service_that_abandons_its_load_with_the_request_gets_longer_timeouts_until_it_succeeds() {
    let fake = FakeProvider::builder(Dialect::Ollama).loads_in(Duration::from_secs(2)).start();
    let mut provider = provider(Kind::Ollama, fake.base_url());
    provider.limits.timeout_ms = 300;
    provider.limits.texts_per_request = Some(1);
    let fixture = Fixture::new(|_| {});
    let mut client = fixture.client();
    let mut answers = 0;
    for id in 0.. {
        match client.ask(&documents(id, &provider, &texts(4))) {
            Ok(answer) if answer.unanswered.is_empty() => {
                answers += 1;
                assert_eq!(answer.refused, []);
                break;
            }
            Ok(_) => {}
            Err(failure) => {
                assert_eq!(failure.class, FailureClass::Unavailable, "{failure:?}");
                let hint = failure.hint.unwrap_or_default();
                assert!(hint.contains("options => '{\"timeout\": \"5min\"}'"), "{hint}");
            }
        }
    }
    assert_eq!(answers, 1);
    // 300 ms for the first two side by side, then 600, 1200 and 2400 ms one at a time.
    assert!(fake.abandoned() <= 5, "{}", fake.abandoned());
}

#[test]
fn a_request_with_an_extended_timeout_does_not_block_questions() {
    let fake = fake(Dialect::OpenAi);
    let hanging = fake.script(Rule::when_text("document").respond(Respond::never()));
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.limits.timeout_ms = 100;
    let fixture = Fixture::new(|_| {});
    let mut worker = fixture.client();
    // Rounds of 100, 200, 400, 800 and 1600 ms; then the circuit breaker opens and lets one request through at a time.
    for id in 0.. {
        assert!(worker.ask(&documents(id, &provider, &["document"])).is_err());
        if hanging.hits() >= 5 {
            break;
        }
    }
    let before = hanging.hits();
    worker.send(&documents(100, &provider, &["document"]));
    fake.wait_until(SOON, "the next document request to be in flight", |_| {
        let question = question(fake.request_count(), &provider, "is it back?");
        hanging.hits() > before || fixture.client().ask(&question).is_ok()
    });
    let mut session = fixture.client();
    while session.ask(&question(101, &provider, "and now?")).is_err() {}
    // Other documents do not wait for the request that hangs.
    let answer = fixture.client().ask(&documents(102, &provider, &["another"]));
    assert_eq!(answer.unwrap().count(), 1);
}
