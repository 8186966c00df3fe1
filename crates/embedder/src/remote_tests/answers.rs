//! Valid and invalid replies: the order of vectors, full batches, and replies that cannot be used.

use embedd_wire::FailureClass;

use super::*;
use crate::usage;
use support::fake_provider::{Dialect, Respond, Rule, typed_vector, vector};

const DIALECTS: [(Dialect, Kind); 5] = [
    (Dialect::OpenAi, Kind::Openai),
    (Dialect::OpenAiCompatible, Kind::OpenaiCompatible),
    (Dialect::Gemini, Kind::Gemini),
    (Dialect::Voyage, Kind::Voyage),
    (Dialect::Ollama, Kind::Ollama),
];

fn near(one: &[f32], other: &[f32]) -> bool {
    let dot: f32 = one.iter().zip(other).map(|(a, b)| a * b).sum();
    one.len() == other.len() && dot > 0.9999
}

#[test]
fn each_text_gets_its_vector_from_every_service() {
    let fixture = Fixture::new(|_| {});
    for (dialect, kind) in DIALECTS {
        let fake = fake(dialect);
        let provider = provider(kind, fake.base_url());
        let texts = ["one", "two \"quoted\" \u{1f418}", "one", "three\n"];
        let answer = fixture.client().ask(&documents(1, &provider, &texts)).unwrap();
        assert_eq!(answer.count(), 4, "{dialect:?}");
        let types = match kind {
            Kind::Gemini => [Some("RETRIEVAL_DOCUMENT"), Some("RETRIEVAL_QUERY")],
            Kind::Voyage => [Some("document"), Some("query")],
            _ => [None, None],
        };
        let expected = |text: &str, input_type| {
            typed_vector("text-embedding-3-small", text, input_type, DIMENSIONS as usize)
        };
        for (number, text) in texts.iter().enumerate() {
            assert!(near(answer.vector(number), &expected(text, types[0])), "{dialect:?} {text}");
        }
        // Duplicates are paid for once.
        assert_eq!((fake.paid("one"), fake.request_count()), (1, 1));
        let answer = fixture.client().ask(&question(2, &provider, "one")).unwrap();
        assert!(near(answer.vector(0), &expected("one", types[1])), "{dialect:?}");
        // The second time the question comes from the cache.
        fixture.client().ask(&question(3, &provider, "one")).unwrap();
        assert_eq!(fake.request_count(), 2);
    }
}

#[test]
fn small_requests_are_combined_into_full_batches() {
    let fake = fake(Dialect::OpenAi);
    let fixture = Fixture::new(|_| {});
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.limits.texts_per_request = Some(50);
    let mut client = fixture.client();
    let all = texts(400);
    for (id, some) in (0..).zip(all.chunks(10)) {
        let more = id != 39;
        client.send(&Request { more, ..documents(id, &provider, some) });
    }
    for (id, answer) in replies(&mut client, 40).into_iter().enumerate() {
        let expected = vector("text-embedding-3-small", &all[id * 10 + 3], DIMENSIONS as usize);
        assert!(near(answer.unwrap().vector(3), &expected));
    }
    assert_eq!((fake.request_count(), fake.paid_total()), (8, 400));
}

#[test]
fn tokens_limit_a_batch_and_a_text_too_long_for_openai_is_truncated() {
    let fake = fake(Dialect::OpenAi);
    let fixture = Fixture::new(|_| {});
    let mut request = documents(1, &provider(Kind::Openai, fake.base_url()), &texts(100));
    request.model.tokens_per_request = Some(60);
    request.model.tokens_per_text = Some(8);
    request.texts.push("word ".repeat(100));
    let answer = fixture.client().ask(&request).unwrap();
    assert!(answer.truncated[100] && !answer.truncated[99]);
    for seen in fake.requests() {
        // "text 12" has three tokens.
        assert!(seen.texts.len() <= 20, "{}", seen.texts.len());
        assert!(seen.texts.iter().all(|text| text.len() < 50));
    }
}

#[test]
fn vectors_are_ordered_by_their_index() {
    let fake = fake(Dialect::OpenAi);
    let provider = provider(Kind::Openai, fake.base_url());
    fake.script(Rule::always().respond(Respond::shuffled()));
    let answer = ask(&documents(1, &provider, &["a", "b", "c"])).unwrap();
    assert!(near(answer.vector(0), &vector("text-embedding-3-small", "a", 8)));
    assert!(near(answer.vector(2), &vector("text-embedding-3-small", "c", 8)));
}

#[test]
fn an_invalid_vector_rejects_only_its_text() {
    let fake = fake(Dialect::OpenAi);
    let provider = provider(Kind::Openai, fake.base_url());
    for (respond, reason) in [
        (Respond::nan_for("b"), "no number"),
        (Respond::infinite_for("b"), "no number"),
        (Respond::zero_for("b"), "zeros"),
        (Respond::dimensions_of("b", 5), "vector of 5 dimensions"),
    ] {
        fake.clear_script();
        fake.script(Rule::always().respond(respond));
        let answer = ask(&documents(1, &provider, &["a", "b", "c", "b"])).unwrap();
        let numbers: Vec<u32> = answer.refused.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 3]);
        assert!(answer.refused[0].1.contains(reason), "{:?}", answer.refused);
        assert!(answer.vector(1).iter().all(|number| *number == 0.0));
        assert!(near(answer.vector(2), &vector("text-embedding-3-small", "c", 8)));
    }
}

#[test]
fn an_invalid_reply_is_an_error() {
    let fake = fake(Dialect::OpenAi);
    let provider = provider(Kind::Openai, fake.base_url());
    for (respond, said) in [
        (Respond::broken_json(), "usable"),
        (Respond::one_less(), "usable"),
        (Respond::one_more(), "usable"),
        (Respond::dimensions(5), "of 5 dimensions, not 8"),
        (Respond::endless(), "usable"),
    ] {
        fake.clear_script();
        fake.script(Rule::always().respond(respond));
        let failure = ask(&documents(1, &provider, &["a", "b"])).unwrap_err();
        assert_eq!(failure.class, FailureClass::BadReply, "{failure:?}");
        assert!(failure.message.contains(said), "{failure:?}");
    }
    assert!(fake.bytes_sent() < 64 << 20, "{}", fake.bytes_sent());
}

#[test]
fn any_dimensions_are_accepted_if_the_request_names_none() {
    let fake = fake(Dialect::OpenAi);
    let mut request = documents(1, &provider(Kind::Openai, fake.base_url()), &["a"]);
    request.model.dimensions = 0;
    assert_eq!(ask(&request).unwrap().dimensions, DIMENSIONS as usize);
}

#[test]
fn usage_is_counted_and_survives_a_restart() {
    let fake = fake(Dialect::OpenAi);
    let provider = provider(Kind::Openai, fake.base_url());
    let mut path = None;
    let fixture = Fixture::new(|config| {
        let kept = config.local_model_path.with_file_name("usage.json");
        (config.usage_path, path) = (Some(kept.clone()), Some(kept));
    });
    let path = path.unwrap();
    fake.script(Rule::always().once().respond(Respond::status(500)));
    fixture.client().ask(&documents(1, &provider, &["a", "b"])).unwrap();
    fixture.handle.save_usage();
    let rows = usage::read(&path).unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((row.database, row.server), (7, 8));
    assert_eq!((row.requests, row.texts), (fake.request_count(), fake.text_count()));
    assert_eq!((row.unavailable, row.tokens > 0, row.latency_ms > 0.0), (1, true, true));
}
