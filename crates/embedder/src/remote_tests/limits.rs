//! The limits of a batch are learned from what a service rejects, with or without the reason, and are kept.

use embedd_wire::LogLevel;

use super::*;
use crate::usage;
use support::fake_provider::{Builder, Dialect, Respond, Rule};

fn compatible() -> Builder {
    FakeProvider::builder(Dialect::OpenAiCompatible).key(KEY).dimensions(DIMENSIONS as usize)
}

/// Embeds this many texts of different lengths in requests of 64, and returns how many batches the service rejected.
fn refused(fake: &FakeProvider, fixture: &Fixture, count: usize) -> usize {
    let provider = provider(Kind::OpenaiCompatible, fake.base_url());
    let mut client = fixture.client();
    let all: Vec<String> =
        (0..count).map(|n| format!("text {n} {}", "word ".repeat(n % 40))).collect();
    let requests = (0..).zip(all.chunks(64));
    let last = count.div_ceil(64) as u64;
    for (id, some) in requests {
        client.send(&Request { more: id + 1 < last, ..documents(id, &provider, some) });
    }
    for answer in replies(&mut client, last) {
        assert_eq!(answer.unwrap().refused, []);
    }
    fake.requests()
        .iter()
        .filter(|request| request.answered.is_some_and(|status| status != 200))
        .count()
}

#[test]
fn a_limit_the_service_names_costs_only_the_batches_in_flight() {
    for fake in
        [compatible().most_texts(10), compatible().most_tokens(300), compatible().most_bytes(1500)]
    {
        let fake = fake.start();
        let fixture = Fixture::new(|_| {});
        let refused = refused(&fake, &fixture, 3000);
        println!("{refused} of {} requests were refused", fake.request_count());
        assert!(refused <= 8, "{refused} of {}", fake.request_count());
        assert!(fake.paid_more_than_once().is_empty());
    }
}

#[test]
fn a_limit_the_service_does_not_name_is_found_by_bisecting_once() {
    for fake in [
        compatible().most_texts(10).silent(400),
        compatible().most_texts(10).silent(422),
        compatible().most_tokens(300).silent(400),
        compatible().most_bytes(1500).silent(413),
    ] {
        let fake = fake.start();
        let fixture = Fixture::new(|_| {});
        let refused = refused(&fake, &fixture, 3000);
        println!("{refused} of {} requests were refused", fake.request_count());
        assert!(refused <= 10, "{refused} of {}", fake.request_count());
    }
}

#[test]
fn a_limit_is_logged_once_and_known_after_a_restart() {
    let fake = compatible().most_texts(10).start();
    let mut path = None;
    let mut fixture = Fixture::new(|config| {
        let kept = config.local_model_path.with_file_name("usage.json");
        (config.usage_path, path) = (Some(kept.clone()), Some(kept));
    });
    assert!(refused(&fake, &fixture, 200) > 0);
    fixture.await_line(
        LogLevel::Log,
        "takes at most 10 texts of model \"text-embedding-3-small\" a request; set texts_per_request",
    );
    fixture.handle.save_usage();
    let before = fake
        .requests()
        .iter()
        .filter(|request| request.answered.is_some_and(|status| status != 200))
        .count();
    let again = Fixture::new(|config| config.usage_path = path.clone());
    assert_eq!(refused(&fake, &again, 200), before);
}

#[test]
fn invalid_replies_to_batches_are_logged_counted_and_then_avoided() {
    let fake = compatible().start();
    fake.script(Rule::when(|asked| asked.texts.len() > 1).respond(Respond::aggregated()));
    let mut path = None;
    let mut fixture = Fixture::new(|config| {
        let kept = config.local_model_path.with_file_name("usage.json");
        (config.usage_path, path) = (Some(kept.clone()), Some(kept));
    });
    let provider = provider(Kind::OpenaiCompatible, fake.base_url());
    let answer = fixture.client().ask(&documents(1, &provider, &texts(300))).unwrap();
    assert_eq!((answer.count(), answer.refused.len()), (300, 0));
    fixture.await_line(
        LogLevel::Warning,
        "gave no usable answer to a request of 32 texts: provider returned 1 vector",
    );
    fixture.await_line(LogLevel::Log, "takes at most 1 texts of model");
    println!("{} requests for {} texts", fake.request_count(), fake.text_count());
    assert!(fake.text_count() < 600, "{}", fake.text_count());
    fixture.handle.save_usage();
    let rows = usage::read(&path.unwrap()).unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((row.requests, row.texts), (fake.request_count(), fake.text_count()));
    let bad = fake.requests().iter().filter(|request| request.texts.len() > 1).count();
    assert_eq!(row.bad_reply, bad as u64);
}

#[test]
fn a_server_that_omits_the_index_zero_is_supported() {
    let fake = compatible().start();
    fake.script(Rule::always().respond(Respond::without_zeros()));
    let provider = provider(Kind::OpenaiCompatible, fake.base_url());
    let answer = ask(&documents(1, &provider, &texts(320))).unwrap();
    assert_eq!((answer.count(), answer.refused.len()), (320, 0));
    assert_eq!((fake.request_count(), fake.text_count()), (10, 320));
}
