//! Caps of tokens: documents wait, questions go on, and counts are what is sent.

use embedd_wire::{CountRequest, FailureClass};

use super::*;
use support::fake_provider::{Dialect, Respond, Rule, tokens};

/// A text of so many tokens, as the fake and OpenAI's tokenizer count them; texts of two numbers differ.
fn text(number: usize, count: usize) -> String {
    const WORDS: [&str; 8] = [" cat", " dog", " you", " for", " not", " are", " but", " her"];
    let words = (1..count).map(|place| WORDS[number >> (3 * (place - 1).min(9)) & 7]);
    ["that"].into_iter().chain(words).collect()
}

#[test]
fn documents_stop_at_the_cap_and_questions_go_on() {
    let fake = fake(Dialect::OpenAi);
    let mut provider = provider(Kind::Openai, fake.base_url());
    (provider.limits.max_tokens_per_day, provider.limits.max_in_flight) = (Some(100), 4);
    let fixture = Fixture::new(|_| {});
    let mut client = fixture.client();
    let texts: Vec<String> = (0..30).map(|number| text(number, 10)).collect();
    let answer = client.ask(&documents(1, &provider, &texts)).unwrap();
    // What was paid for arrives; the other texts have no vector, and none has failed for itself.
    let failure = answer.failure.clone().unwrap();
    assert_eq!((answer.refused.len(), answer.unanswered.len()), (0, 20), "{failure:?}");
    assert_eq!((failure.class, failure.is_transient()), (FailureClass::RateLimited, true));
    assert_eq!(failure.message, "provider \"fake\" has reached max_tokens_per_day");
    let detail = failure.detail.unwrap();
    assert!(
        detail.starts_with("100 tokens are used of 100, and documents wait until "),
        "{detail}"
    );
    let statement =
        "SELECT embedd.update_provider('fake', options => '{\"max_tokens_per_day\": 200}').";
    assert!(detail.ends_with(statement), "{detail}");
    assert!(failure.retry_after_ms.is_some_and(|wait| wait <= 86_400_000));
    let sent = fake.request_count();
    client.ask(&documents(2, &provider, &["more"])).unwrap_err();
    assert_eq!(fake.request_count(), sent);
    // A question goes on, and counts.
    client.ask(&question(3, &provider, &text(1, 10))).unwrap();
    let failure = client.ask(&documents(4, &provider, &["more"])).unwrap_err();
    assert!(failure.detail.unwrap().starts_with("110 tokens are used of 100"));
    // With a higher cap documents go on at once.
    provider.limits.max_tokens_per_day = Some(1000);
    let rest: Vec<&String> = answer.unanswered.iter().map(|n| &texts[*n as usize]).collect();
    assert!(client.ask(&documents(5, &provider, &rest)).unwrap().unanswered.is_empty());
    assert_eq!((fake.paid_total(), fake.paid_more_than_once()), (31, vec![(text(1, 10), 2)]));
}

#[test]
fn documents_in_flight_arrive_although_a_cap_is_reached_meanwhile() {
    let fake = fake(Dialect::OpenAi);
    let slow = Rule::when(|asked| asked.texts.len() > 1);
    fake.script(slow.respond(Respond::delay(Duration::from_secs(2))));
    let mut provider = provider(Kind::Openai, fake.base_url());
    let fixture = Fixture::new(|_| {});
    let (mut worker, mut other) = (fixture.client(), fixture.client());
    let texts: Vec<String> = (0..10).map(|number| text(number, 10)).collect();
    worker.send(&documents(1, &provider, &texts));
    fake.wait_for_requests(1, SOON);
    // A question uses up a cap that is set now.
    provider.limits.max_tokens_per_day = Some(10);
    other.ask(&question(2, &provider, &text(20, 10))).unwrap();
    let failure = other.ask(&documents(3, &provider, &["more"])).unwrap_err();
    assert_eq!(failure.message, "provider \"fake\" has reached max_tokens_per_day");
    let answer = worker.receive().outcome.unwrap();
    assert_eq!((answer.count(), answer.failure, fake.request_count()), (10, None, 2));
}

#[test]
fn a_restart_does_not_forget_what_was_used_in_the_month() {
    let fake = fake(Dialect::OpenAi);
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.limits.max_tokens_per_month = Some(50);
    let fixture = Fixture::new(|_| {});
    let path = fixture.directory.join("usage.json");
    let first = Fixture::new(|config| config.usage_path = Some(path.clone()));
    first.client().ask(&documents(1, &provider, &[text(1, 50)])).unwrap();
    first.handle.save_usage();
    drop(first);
    let second = Fixture::new(|config| config.usage_path = Some(path));
    let failure = second.client().ask(&documents(1, &provider, &["more"])).unwrap_err();
    assert_eq!(failure.message, "provider \"fake\" has reached max_tokens_per_month");
    // Another provider with the same key has its own counts.
    provider.server += 1;
    second.client().ask(&documents(2, &provider, &["more"])).unwrap();
}

#[test]
fn counts_are_what_is_sent() {
    let fake = fake(Dialect::OpenAi);
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.limits.texts_per_request = Some(7);
    let mut model = Model::of_unknown_limits("text-embedding-3-small", DIMENSIONS);
    (model.tokens_per_text, model.document_prefix) = (Some(40), "that her".to_string());
    let texts: Vec<String> =
        (0..24).map(|number| text(number, 2 * number + 1)[4..].into()).collect();
    let fixture = Fixture::new(|_| {});
    let request = CountRequest {
        provider: Provider { api_key: None, ..provider.clone() },
        model: model.clone(),
        texts: texts.clone(),
    };
    let counts = fixture.client().count(&request).unwrap();
    assert!(counts.are_exact && counts.most.is_some_and(|most| most.texts == 7));
    assert_eq!(fake.request_count(), 0);
    let request = Request { model, ..documents(1, &provider, &texts) };
    let answer = fixture.client().ask(&request).unwrap();
    let truncated: Vec<bool> = counts.texts.iter().map(|count| count.is_truncated).collect();
    assert_eq!(truncated, answer.truncated);
    let sent: Vec<String> = fake.requests().into_iter().flat_map(|seen| seen.texts).collect();
    let of_sent = |of: fn(&String) -> u64| sent.iter().map(of).sum::<u64>();
    let counted = |of: fn(&embedd_wire::Count) -> u32| {
        counts.texts.iter().map(|count| u64::from(of(count))).sum::<u64>()
    };
    assert_eq!(counted(|count| count.tokens), of_sent(|text| tokens(text)));
    assert_eq!(counted(|count| count.bytes), of_sent(|text| text.len() as u64));
}

#[test]
fn the_local_model_counts_its_own_tokens() {
    let fixture = Fixture::new(|_| {});
    let request = CountRequest {
        provider: Provider::local(),
        model: Model::of_unknown_limits(embedd_wire::LOCAL_MODEL, 32),
        texts: vec![String::new(), "a ".repeat(1000)],
    };
    let counts = fixture.client().count(&request).unwrap();
    assert!(counts.are_exact && counts.most.is_none());
    assert_eq!((counts.texts[0].tokens, counts.texts[0].is_truncated), (2, false));
    assert!(counts.texts[1].tokens > 2 && counts.texts[1].is_truncated);
    fixture.reconfigure(|config| config.local_model_path = "/nowhere".into());
    let begin = std::time::Instant::now();
    while fixture.client().count(&request).is_ok() {
        assert!(begin.elapsed() < SOON);
    }
    let failure = fixture.client().count(&request).unwrap_err();
    assert_eq!(
        (failure.class, failure.message.as_str()),
        (FailureClass::BadSetting, "local model is missing")
    );
}
