//! Services with limits and peculiarities: learned once, logged, and counted as they were sent.

use std::time::Duration;

use postgres::Client;

use super::{KEY, MODEL, SHARED, create_provider, create_source, fake};
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::source::assert_equal;
use support::{Cluster, LONG, SHORT};

/// Waits until provider_usage equals the fake's counts.
fn assert_counted(cluster: &Cluster, db: &str, fake: &FakeProvider) {
    let refused = refused(fake);
    let sql = format!(
        "SELECT sum(requests) = {} AND sum(texts) = {} AND sum(errors) = {refused}
           FROM embedd.provider_usage WHERE provider = 'fake'",
        fake.request_count(),
        fake.text_count(),
    );
    cluster.wait_for(db, SHORT, "the counts to be those of the service", &sql);
}

/// Rejected requests.
fn refused(fake: &FakeProvider) -> usize {
    let requests = fake.requests();
    requests.iter().filter(|seen| seen.answered.is_some_and(|status| status != 200)).count()
}

/// Embeds this many rows with a fake, as provider "fake" of a new database.
fn embed_rows(cluster: &Cluster, db: &str, fake: &FakeProvider, rows: i64) -> Client {
    let mut client = cluster.database(db);
    create_provider(&mut client, "fake", Dialect::OpenAiCompatible, &fake.base_url(), "{}");
    create_source(&mut client, "t", "fake", rows);
    cluster.wait_until(LONG, "the backfill to end", || {
        super::status(&mut client, "t", "sync_status").as_deref() == Some("synced")
    });
    client
}

#[test]
fn an_unstated_limit_of_ten_texts_is_learned() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible)
        .key(KEY)
        .dimensions(8)
        .most_texts(10)
        .silent(400)
        .start();
    let cluster = SHARED.cluster();
    let mut client = embed_rows(&cluster, "ten", &fake, 3000);
    let failed: i64 =
        client.query_one("SELECT count(*) FROM embedd.failed_rows", &[]).unwrap().get(0);
    println!("{} requests, {} refused", fake.request_count(), refused(&fake));
    // The probe shows whether the service accepts anything.
    assert_eq!((failed, fake.paid_total() - fake.paid("embedd")), (0, 3000));
    assert!(fake.paid_more_than_once().is_empty());
    assert!(refused(&fake) <= 10 && fake.request_count() < 450, "{}", fake.request_count());
    assert_counted(&cluster, "ten", &fake);
    let said = "takes at most 8 texts of model \"fake-model\" a request";
    assert!(cluster.log_contains(said));
    assert_equal(&mut client, "t");
}

#[test]
fn a_service_that_omits_the_index_zero_costs_nothing() {
    let fake = fake(Dialect::OpenAiCompatible);
    fake.script(Rule::always().respond(Respond::without_zeros()));
    let cluster = SHARED.cluster();
    let mut client = embed_rows(&cluster, "zero", &fake, 300);
    println!("{} requests for {} texts", fake.request_count(), fake.text_count());
    assert_eq!((fake.text_count(), fake.paid_total()), (300, 300));
    assert_counted(&cluster, "zero", &fake);
    assert_equal(&mut client, "t");
    let row = client.query_one("SELECT status, dimensions FROM embedd.test_provider('fake')", &[]);
    let row = row.unwrap();
    assert_eq!((row.get::<_, String>(0).as_str(), row.get::<_, i32>(1)), ("ok", 8));
}

#[test]
fn a_test_of_a_provider_finds_failures_of_batches() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("probe");
    let fake = fake(Dialect::OpenAiCompatible);
    let url = fake.base_url();
    create_provider(&mut client, "fake", Dialect::OpenAiCompatible, &url, r#"{"timeout": "1s"}"#);
    let mut refusal = |respond: Respond| {
        fake.clear_script();
        fake.script(Rule::when(|asked| asked.texts.len() > 1).respond(respond));
        let error = client.query_one("SELECT embedd.test_provider('fake')", &[]).unwrap_err();
        let error = error.as_db_error().unwrap().clone();
        let hint = error.hint().unwrap_or_default().to_string();
        (error.code().code().to_string(), error.message().to_string(), hint)
    };
    for (respond, code, said) in [
        (Respond::aggregated(), "22000", "gave no usable answer"),
        (Respond::same_for_all(), "22000", "returned the same vector for two different texts"),
        (Respond::status(400).message("one at a time"), "38000", "refuses the request"),
    ] {
        let (found, message, hint) = refusal(respond);
        assert!(found == code && message.contains(said), "{found} {message}");
        assert!(hint.contains(r#"options => '{"texts_per_request": 1}'"#), "{hint}");
    }
    let (_, message, hint) = refusal(Respond::delay(Duration::from_secs(60)));
    assert!(message.contains("does not answer"), "{message}");
    assert!(hint.contains(r#"options => '{"timeout": "5min"}'"#), "{hint}");
    // Learned limits do not affect the test.
    fake.clear_script();
    fake.script(Rule::when(|asked| asked.texts.len() > 1).respond(Respond::aggregated()));
    create_source(&mut client, "t", "fake", 10);
    cluster.wait_done("probe");
    let error = client.query_one("SELECT embedd.test_provider('fake')", &[]).unwrap_err();
    let hint = error.as_db_error().unwrap().hint().unwrap_or_default();
    assert!(hint.contains(r#"options => '{"texts_per_request": 1}'"#), "{hint}");
    // With the option, the test passes.
    client
        .batch_execute(
            "SELECT embedd.update_provider('fake', options => '{\"texts_per_request\": 1}')",
        )
        .unwrap();
    let row = client.query_one("SELECT status, model FROM embedd.test_provider('fake')", &[]);
    assert_eq!(row.unwrap().get::<_, String>(1), MODEL);
}
