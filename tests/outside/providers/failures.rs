//! Failures of a service and their effect on rows: nothing is lost, and no row fails because of them.

use super::{KEY, SHARED, create_provider, create_source, fake, status};
use support::fake_provider::{Dialect, Respond, Rule};
use support::source::{assert_equal, relation};
use support::{LONG, SHORT};

#[test]
fn an_outage_and_rate_limits_fail_no_row() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("outage");
    let fake = fake(Dialect::OpenAi);
    create_provider(
        &mut client,
        "fake",
        Dialect::OpenAi,
        &fake.base_url(),
        r#"{"texts_per_request": 20}"#,
    );
    create_source(&mut client, "t", "fake", 50);
    cluster.wait_done("outage");
    fake.down();
    client.batch_execute("UPDATE t SET title = title || ' changed'").unwrap();
    cluster.wait_until(SHORT, "the outage to be reported", || {
        status(&mut client, "t", "last_error")
            .is_some_and(|error| error.contains("does not answer"))
    });
    // What needs no provider continues meanwhile, however much is queued before it.
    client.batch_execute("DELETE FROM t WHERE id = 50").unwrap();
    let relation = relation(&mut client, "t");
    let gone = format!("SELECT NOT EXISTS (SELECT FROM {relation} WHERE pk_value = '50')");
    cluster.wait_for("outage", SHORT, "a deleted row to be gone", &gone);
    // The failure is transient, so no action is required.
    assert_eq!(status(&mut client, "t", "sync_status").as_deref(), Some("syncing"));
    assert_eq!(status(&mut client, "t", "failed_rows").as_deref(), Some("0"));
    fake.script(Rule::always().times(2).respond(Respond::rate_limited().retry_after_ms(100)));
    fake.script(Rule::always().times(2).respond(Respond::status(503)));
    fake.up();
    cluster.wait_done("outage");
    assert_equal(&mut client, "t");
    cluster.wait_until(SHORT, "the error to be over", || {
        status(&mut client, "t", "last_error").is_none()
    });
}

#[test]
fn a_rejected_text_is_isolated_with_the_services_reason() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("refused");
    let fake = fake(Dialect::OpenAi);
    create_provider(&mut client, "fake", Dialect::OpenAi, &fake.base_url(), "{}");
    fake.script(Rule::when_text("title 77").respond(Respond::status(400).message("not this text")));
    create_source(&mut client, "t", "fake", 200);
    cluster.wait_done("refused");
    let rows = client.query("SELECT pk_value, reason FROM embedd.failed_rows", &[]).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].get(0), rows[0].get(1)), ("77", "not this text"));
    assert_eq!(status(&mut client, "t", "sync_status").as_deref(), Some("synced"));
    let relation = relation(&mut client, "t");
    let missing: i64 = client
        .query_one(&format!("SELECT count(*) FROM {relation} WHERE embedding IS NULL"), &[])
        .unwrap()
        .get(0);
    assert_eq!(missing, 1);
    // An accepted text repairs the row.
    client.batch_execute("UPDATE t SET title = 'better' WHERE id = 77").unwrap();
    cluster.wait_done("refused");
    assert_equal(&mut client, "t");
    // A row whose new text is rejected is no longer found by its old one.
    client.batch_execute("UPDATE t SET title = 'title 77' WHERE id = 5").unwrap();
    cluster.wait_done("refused");
    let sql = format!("SELECT embedding IS NULL FROM {relation} WHERE pk_value = '5'");
    assert!(client.query_one(&sql, &[]).unwrap().get::<_, bool>(0));
}

#[test]
fn a_rejected_key_is_an_error_of_the_table_until_update_provider() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("key");
    let fake = fake(Dialect::OpenAi);
    create_provider(&mut client, "fake", Dialect::OpenAi, &fake.base_url(), "{}");
    fake.set_key("another-key-0123456789");
    create_source(&mut client, "t", "fake", 30);
    cluster.wait_until(SHORT, "the rejection to be reported", || {
        status(&mut client, "t", "sync_status").as_deref() == Some("error")
    });
    let error = status(&mut client, "t", "last_error").unwrap();
    assert!(error.contains("rejects the key") && !error.contains(KEY), "{error}");
    assert_eq!(status(&mut client, "t", "failed_rows").as_deref(), Some("0"));
    // After so many failures the next retry would be many seconds away.
    fake.wait_for_requests(5, LONG);
    let error = client.query("SELECT * FROM embedd.test_provider('fake')", &[]).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "28000");
    client
        .execute(
            "SELECT embedd.update_provider('fake', api_key => $1)",
            &[&"another-key-0123456789"],
        )
        .unwrap();
    cluster.wait_for(
        "key",
        SHORT,
        "the sync to go on at once",
        "SELECT sync_status = 'synced' FROM embedd.sync_status('t')",
    );
    cluster.wait_done("key");
    assert_equal(&mut client, "t");
}

#[test]
fn an_unknown_model_and_wrong_dimensions_are_errors_of_the_table() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("model");
    let fake = fake(Dialect::Ollama);
    create_provider(&mut client, "fake", Dialect::Ollama, &fake.base_url(), "{}");
    client
        .batch_execute(
            "CREATE TABLE t (id integer PRIMARY KEY, body text); INSERT INTO t VALUES (1, 'a')",
        )
        .unwrap();
    for (name, arguments, said) in [
        (
            "unknown",
            "embedding_model => 'other', embedding_dimensions => 8",
            "has no model \"other\"",
        ),
        ("size", "embedding_dimensions => 16", "of 8 dimensions, not 16"),
    ] {
        fake.script(Rule::when_model("fake-model").respond(Respond::dimensions(8)));
        let sql = format!(
            "SELECT embedd.create_vector_table('{name}', 't', '[{{\"name\": \"body\", \"role\": \"embedding\"}}]',
                    embedding_provider => 'fake', {arguments}, start_backfill => true)"
        );
        client.batch_execute(&sql).unwrap();
        cluster.wait_until(SHORT, "the error to be reported", || {
            status(&mut client, name, "sync_status").as_deref() == Some("error")
        });
        let error = status(&mut client, name, "last_error").unwrap();
        assert!(error.contains(said), "{error}");
        assert_eq!(status(&mut client, name, "failed_rows").as_deref(), Some("0"));
    }
}

#[test]
fn without_usage_on_the_provider_nothing_is_sent() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("usage_right");
    let fake = fake(Dialect::OpenAi);
    create_provider(&mut client, "fake", Dialect::OpenAi, &fake.base_url(), "{}");
    client
        .batch_execute(
            "CREATE ROLE tenant LOGIN; GRANT CREATE ON SCHEMA public TO tenant;
             GRANT USAGE ON FOREIGN SERVER fake TO tenant",
        )
        .unwrap();
    let mut tenant = cluster.connect_as("usage_right", "tenant");
    create_source(&mut tenant, "t", "fake", 20);
    cluster.wait_done("usage_right");
    client.batch_execute("REVOKE USAGE ON FOREIGN SERVER fake FROM tenant").unwrap();
    let before = fake.request_count();
    tenant.batch_execute("UPDATE t SET title = 'changed' WHERE id = 1").unwrap();
    cluster.wait_until(SHORT, "the rejection to be reported", || {
        status(&mut client, "t", "last_error")
            .is_some_and(|error| error.contains("permission denied"))
    });
    let error = tenant.query("SELECT * FROM embedd.query('t', 'anything')", &[]).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501");
    // What needs no provider continues.
    tenant
        .batch_execute("DELETE FROM t WHERE id = 2; UPDATE t SET price = 99 WHERE id = 3")
        .unwrap();
    let relation = relation(&mut client, "t");
    let arrived = format!(
        "SELECT NOT EXISTS (SELECT FROM {relation} WHERE pk_value = '2')
            AND (SELECT metadata->>'price' = '99' FROM {relation} WHERE pk_value = '3')"
    );
    cluster.wait_for("usage_right", SHORT, "deletes and metadata to arrive", &arrived);
    assert_eq!(fake.request_count(), before);
    client.batch_execute("GRANT USAGE ON FOREIGN SERVER fake TO tenant").unwrap();
    client
        .execute("SELECT embedd.update_provider('fake', default_model => 'fake-model')", &[])
        .unwrap();
    cluster.wait_done("usage_right");
    assert_equal(&mut client, "t");
    client.batch_execute("DROP OWNED BY tenant CASCADE").unwrap();
}

#[test]
fn a_row_that_cannot_be_stored_is_isolated_and_nothing_is_paid_for_twice() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("unstorable");
    let fake = fake(Dialect::OpenAi);
    create_provider(&mut client, "fake", Dialect::OpenAi, &fake.base_url(), "{}");
    let gate = fake.hold();
    create_source(&mut client, "t", "fake", 300);
    fake.wait_for_requests(1, LONG);
    let relation = relation(&mut client, "t");
    let constraint = format!("ALTER TABLE {relation} ADD CHECK (embedded_text !~ 'title 42\\n')");
    client.batch_execute(&constraint).unwrap();
    gate.release();
    cluster.wait_done("unstorable");
    let failed = client.query("SELECT pk_value FROM embedd.failed_rows", &[]).unwrap();
    assert_eq!(failed.iter().map(|row| row.get(0)).collect::<Vec<&str>>(), ["42"]);
    let stored: i64 =
        client.query_one(&format!("SELECT count(*) FROM {relation}"), &[]).unwrap().get(0);
    assert_eq!(stored, 299);
    assert!(fake.paid_more_than_once().is_empty(), "{:?}", fake.paid_more_than_once());
}
