//! Pacing: rate limits, outages, services that hang, and priorities.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use embedd_wire::{FailureClass, LogLevel};

use super::*;
use support::fake_provider::{Dialect, Respond, Rule};

#[test]
fn a_transient_failure_is_retried() {
    for respond in [
        Respond::status(500),
        Respond::status(503),
        Respond::status(408),
        Respond::close(),
        Respond::half(),
        Respond::rate_limited().retry_after("0.2"),
        Respond::rate_limited().retry_after_ms(200),
        Respond::rate_limited(),
    ] {
        let fake = fake(Dialect::OpenAi);
        let rule = fake.script(Rule::always().times(2).respond(respond));
        let provider = provider(Kind::Openai, fake.base_url());
        let answer = ask(&documents(1, &provider, &["a", "b"])).unwrap();
        assert_eq!((answer.count(), answer.refused.len(), rule.hits()), (2, 0, 2));
    }
}

#[test]
fn retry_after_is_honoured() {
    let fake = fake(Dialect::Gemini);
    let wait = Duration::from_millis(1500);
    fake.script(Rule::always().once().respond(Respond::rate_limited().retry_in(wait)));
    let provider = provider(Kind::Gemini, fake.base_url());
    ask(&documents(1, &provider, &["a"])).unwrap();
    let seen = fake.requests();
    assert_eq!(seen.len(), 2);
    // Some services give whole seconds only.
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1), "{:?}", seen[1].at - seen[0].at);
}

#[test]
fn a_wait_beyond_the_timeout_of_the_request_fails_at_once() {
    let fake = fake(Dialect::OpenAi);
    fake.script(Rule::always().respond(Respond::rate_limited().retry_after("60")));
    let provider = provider(Kind::Openai, fake.base_url());
    let fixture = Fixture::new(|_| {});
    for request in [question(1, &provider, "a"), documents(2, &provider, &["a"])] {
        let begin = Instant::now();
        let failure = fixture.client().ask(&request).unwrap_err();
        assert_eq!(failure.class, FailureClass::RateLimited, "{failure:?}");
        assert!(failure.retry_after_ms.is_some_and(|wait| wait > 50_000), "{failure:?}");
        assert!(begin.elapsed() < SOON);
    }
    // The second request was not even sent.
    assert_eq!(fake.request_count(), 1);
}

#[test]
fn the_circuit_breaker_opens_for_a_service_that_is_down_and_closes_when_it_is_back() {
    let fake = fake(Dialect::OpenAi);
    let provider = provider(Kind::Openai, fake.base_url());
    let mut fixture = Fixture::new(|_| {});
    fake.down();
    let mut failures = 0;
    let begin = Instant::now();
    loop {
        let failure = fixture.client().ask(&documents(1, &provider, &["a"])).unwrap_err();
        assert_eq!(failure.class, FailureClass::Unavailable, "{failure:?}");
        failures += 1;
        if failures > 20 {
            break;
        }
    }
    // Most of them failed without a request to the service.
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    fixture.await_line(LogLevel::Warning, "provider \"fake\" does not answer");
    fake.up();
    let begin = Instant::now();
    while fixture.client().ask(&documents(1, &provider, &["a"])).is_err() {
        assert!(begin.elapsed() < SOON);
    }
    fixture.await_line(LogLevel::Log, "provider \"fake\" answers again");
    assert_eq!(fake.request_count(), 1);
}

#[test]
fn a_service_that_hangs_does_not_block_other_accounts() {
    let (hanging, good) = (fake(Dialect::OpenAi), fake(Dialect::OpenAi));
    hanging.script(Rule::always().respond(Respond::never()));
    let fixture = Fixture::new(|_| {});
    let mut client = fixture.client();
    let bad = provider(Kind::Openai, hanging.base_url());
    let fine = provider(Kind::Openai, good.base_url());
    let huge: Vec<String> = (0..100).map(|n| format!("{n} {}", "x".repeat(20_000))).collect();
    (0..20).for_each(|id| client.send(&documents(id, &bad, &huge)));
    (1000..6000).for_each(|id| client.send(&documents(id, &bad, &[id])));
    hanging.wait_for_requests(1, SOON);
    for id in 100..150 {
        assert!(client.ask(&documents(id, &fine, &[format!("text {id}")])).is_ok());
    }
    // Requests are cancelled when their client disconnects.
    drop(client);
    hanging.wait_until(SOON, "the requests to be aborted", |fake| fake.open_connections() == 0);
}

#[test]
fn a_request_that_takes_too_long_times_out() {
    let fake = fake(Dialect::OpenAi);
    fake.script(Rule::always().respond(Respond::never()));
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.limits.timeout_ms = 200;
    let failure = ask(&question(1, &provider, "a")).unwrap_err();
    assert_eq!(failure.class, FailureClass::Unavailable);
    let detail = failure.detail.unwrap();
    assert!(detail.contains("no answer within 200 ms"), "{detail}");
}

#[test]
fn the_window_adapts_to_what_the_service_accepts() {
    let fake = FakeProvider::builder(Dialect::OpenAi)
        .key(KEY)
        .dimensions(DIMENSIONS as usize)
        .latency(Duration::from_millis(20))
        .start();
    let mut provider = provider(Kind::Openai, fake.base_url());
    (provider.limits.max_in_flight, provider.limits.texts_per_request) = (6, Some(1));
    let fixture = Fixture::new(|_| {});
    let mut client = fixture.client();
    client.ask(&documents(1, &provider, &texts(100))).unwrap();
    assert_eq!(fake.max_concurrent(), 6);
    assert_eq!(fake.request_count(), 100);
}

#[test]
fn a_limit_of_requests_a_minute_is_kept() {
    let fake = fake(Dialect::OpenAi);
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.limits.texts_per_request = Some(1);
    provider.limits.requests_per_minute = Some(60);
    let begin = Instant::now();
    ask(&documents(1, &provider, &texts(8))).unwrap();
    // The burst goes at once; the others wait for the refill.
    assert!(begin.elapsed() >= Duration::from_millis(1500), "{:?}", begin.elapsed());
}

#[test]
fn questions_overtake_documents_and_share_batches() {
    let fake = fake(Dialect::OpenAi);
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.limits.texts_per_request = Some(10);
    let fixture = Fixture::new(|_| {});
    let gate = fake.hold();
    let mut worker = fixture.client();
    worker.send(&documents(1, &provider, &texts(500)));
    fake.wait_for_requests(2, SOON);
    let mut sessions: Vec<BlockingClient> = (0..40).map(|_| fixture.client()).collect();
    for (id, session) in (0..).zip(&mut sessions) {
        session.send(&question(id, &provider, &format!("question {id}")));
    }
    // Two may exceed the window of two; the others wait and share a batch.
    fake.wait_for_requests(4, SOON);
    gate.release();
    for session in &mut sessions {
        assert!(session.receive().outcome.is_ok());
    }
    let seen = fake.requests();
    let questions: Vec<usize> =
        seen.iter().filter(|r| r.texts[0].starts_with("question")).map(|r| r.texts.len()).collect();
    assert!(questions.len() <= 12, "{questions:?}");
    assert_eq!(questions.iter().sum::<usize>(), 40);
    worker.receive().outcome.unwrap();
}

#[test]
fn a_retry_after_of_zero_is_ignored() {
    for respond in [
        Respond::rate_limited().retry_after("0"),
        Respond::rate_limited().retry_after_ms(1),
        Respond::status(503).retry_after("0"),
    ] {
        let fake = fake(Dialect::OpenAi);
        fake.script(Rule::always().respond(respond));
        let provider = provider(Kind::Openai, fake.base_url());
        let fixture = Fixture::new(|_| {});
        let mut client = fixture.client();
        client.send(&documents(1, &provider, &["a"]));
        client.stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let _ = std::io::Read::read(&mut client.stream, &mut [0; 64]);
        assert!(fake.request_count() <= 20, "{}", fake.request_count());
    }
}

#[test]
fn a_batch_that_is_rate_limited_again_and_again_is_bisected() {
    let fake = fake(Dialect::OpenAi);
    let too_many = Rule::when(|asked| asked.texts.len() > 10);
    fake.script(too_many.respond(Respond::rate_limited().retry_after_ms(10)));
    let provider = provider(Kind::Openai, fake.base_url());
    let fixture = Fixture::new(|_| {});
    let answer = fixture.client().ask(&documents(1, &provider, &texts(40))).unwrap();
    assert_eq!((answer.count(), answer.refused.len()), (40, 0));
    // Only after a single text passed several times meanwhile: most services with this message mean the rate.
    assert!(fake.requests().iter().filter(|request| request.texts == ["embedd"]).count() >= 3);
    let before = fake.request_count();
    fixture.client().ask(&documents(2, &provider, &texts(20))).unwrap();
    // The limit is remembered.
    assert_eq!(fake.request_count() - before, 2);
}

#[test]
fn embedders_that_share_a_rate_limited_key_keep_their_batches_full() {
    let fake = fake(Dialect::OpenAi);
    let seen = AtomicU64::new(0);
    let every_second = Rule::when(move |_| seen.fetch_add(1, Ordering::Relaxed) % 2 == 1);
    let refused = fake.script(every_second.times(10).respond(Respond::rate_limited()));
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.limits.texts_per_request = Some(10);
    let embedders = [Fixture::new(|_| {}), Fixture::new(|_| {})];
    let mut clients: Vec<BlockingClient> = embedders.iter().map(Fixture::client).collect();
    for (id, client) in (0..).zip(&mut clients) {
        let texts: Vec<String> = (0..200).map(|n| format!("text {n} of {id}")).collect();
        client.send(&documents(id, &provider, &texts));
    }
    for client in &mut clients {
        assert_eq!(client.receive().outcome.unwrap().count(), 200);
    }
    assert!(fake.requests().iter().all(|request| request.texts.len() == 10));
    assert_eq!((fake.request_count() - refused.hits(), refused.hits()), (40, 10));
}

#[test]
fn a_service_that_accepts_only_half_batches_gets_no_full_ones_again() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible)
        .key(KEY)
        .dimensions(DIMENSIONS as usize)
        .most_texts(10)
        .start();
    let mut provider = provider(Kind::OpenaiCompatible, fake.base_url());
    provider.limits.texts_per_request = Some(40);
    let fixture = Fixture::new(|_| {});
    let mut client = fixture.client();
    assert_eq!(client.ask(&documents(1, &provider, &texts(40))).unwrap().refused, []);
    let before = fake.request_count();
    assert_eq!(client.ask(&documents(2, &provider, &texts(100))).unwrap().count(), 100);
    assert_eq!(fake.request_count() - before, 10);
}

#[test]
fn a_question_does_not_wait_for_the_token_refill_of_a_backfill() {
    let fake = fake(Dialect::OpenAi);
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.limits.tokens_per_minute = Some(600);
    let fixture = Fixture::new(|_| {});
    let mut worker = fixture.client();
    let long: Vec<String> = (0..20).map(|n| format!("{n} {}", "word ".repeat(90))).collect();
    worker.send(&documents(1, &provider, &long));
    fake.wait_for_requests(1, SOON);
    fixture.client().ask(&question(1, &provider, "quick?")).unwrap();
    assert!(fake.request_count() < 20);
}

#[test]
fn a_question_does_not_wait_for_the_request_refill_of_a_backfill() {
    for (kind, dialect) in [(Kind::Openai, Dialect::OpenAi), (Kind::Gemini, Dialect::Gemini)] {
        let fake = fake(dialect);
        let mut provider = provider(kind, fake.base_url());
        // The next request is refilled after five seconds, and the burst is two.
        provider.limits.requests_per_minute = Some(12);
        provider.limits.texts_per_request = Some(10);
        let fixture = Fixture::new(|_| {});
        let mut worker = fixture.client();
        worker.send(&documents(1, &provider, &texts(100)));
        fake.wait_for_requests(1, SOON);
        fixture.client().ask(&question(1, &provider, "quick?")).unwrap();
        assert_eq!(fake.requests()[1].texts, ["quick?"]);
    }
}
