//! One bad text, one failing table, one dead provider or one huge backfill does not noticeably delay the others.

use std::time::Duration;

use super::{KEY, MODEL, SHARED, create_provider, create_source, fake, status};
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::source::{relation, stored_text};
use support::{Cluster, LONG, SHORT};

/// Texts in a request, if a test says so.
const TEXTS: usize = 128;

#[test]
fn bisecting_for_one_bad_text_among_ten_thousand_is_logarithmic() {
    let cluster = SHARED.cluster();
    let fake = fake(Dialect::OpenAiCompatible);
    let refused = fake.script(Rule::when_text("poison").respond(Respond::status(400)));
    let mut client = cluster.database("poison");
    let options = format!("{{\"texts_per_request\": {TEXTS}}}");
    create_provider(&mut client, "fake", Dialect::OpenAiCompatible, &fake.base_url(), &options);
    client
        .batch_execute(&format!(
            "CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, price integer);
             INSERT INTO t SELECT i, CASE i WHEN 7321 THEN 'poison' ELSE 'title ' || i END, '', i
               FROM generate_series(1, 10000) i;
             SELECT embedd.create_vector_table('t', 't', '{}', embedding_provider => 'fake', embedding_dimensions => 8,
                start_backfill => true)",
            super::COLUMNS
        ))
        .unwrap();
    cluster.wait_done("poison");
    let sql = "SELECT pk_value, attempts FROM embedd.failed_rows";
    let failed = client.query(sql, &[]).unwrap();
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].get::<_, String>(0).as_str(), failed[0].get::<_, i32>(1)), ("7321", 1));
    // The rejected request, and of each pair of halves the one with the text in it.
    let halvings = u64::from(TEXTS.next_power_of_two().ilog2());
    assert!(refused.hits() <= 1 + halvings, "{} requests were refused", refused.hits());
    assert_eq!(fake.paid_total(), 9999, "each good text is paid for once");
    assert_eq!(status(&mut client, "t", "sync_status").unwrap(), "synced");

    // A retry of the same text is rejected again, and succeeds once the service accepts it.
    assert_eq!(retry(&mut client, "SELECT embedd.retry_failed('t', '7321')"), 1);
    let again = "SELECT attempts = 2 FROM embedd.failed_rows";
    cluster.wait_for("poison", SHORT, "another try", again);
    fake.clear_script();
    assert_eq!(retry(&mut client, "SELECT embedd.retry_failed('t')"), 1);
    let gone = "SELECT NOT EXISTS (SELECT FROM embedd.failed_rows)";
    cluster.wait_for("poison", SHORT, "the row to go well", gone);
    cluster.assert_synced("poison", "t");
}

fn retry(client: &mut postgres::Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn a_huge_backfill_and_failing_tables_delay_no_other_table() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database("fair");
    // So slow that the backfill lasts as long as the test.
    let slow = FakeProvider::builder(Dialect::OpenAiCompatible)
        .key(KEY)
        .model(MODEL)
        .latency(Duration::from_millis(200))
        .start();
    let options = "{\"max_in_flight\": 2, \"texts_per_request\": 16}";
    create_provider(&mut client, "slow", Dialect::OpenAiCompatible, &slow.base_url(), options);
    create_provider(&mut client, "dead", Dialect::OpenAiCompatible, "http://127.0.0.1:9/v1", "{}");
    for (name, provider) in [("small", "local"), ("same", "slow"), ("unlucky", "dead")] {
        create_source(&mut client, name, provider, 3);
    }
    for name in ["small", "same"] {
        let done = format!(
            "SELECT synced_rows = 3 AND rows_pending = 0 FROM embedd.sync_status('{name}')"
        );
        cluster.wait_for("fair", LONG, "the small tables to be synced", &done);
    }
    client
        .batch_execute("INSERT INTO unlucky SELECT i, 'x', '', 0 FROM generate_series(4, 20000) i")
        .unwrap();
    // A table with status error, too.
    create_source(&mut client, "broken", "local", 3);
    client.batch_execute("ALTER TABLE broken DROP COLUMN title").unwrap();
    create_source(&mut client, "huge", "slow", 20_000);
    let relation = relation(&mut client, "huge");
    let begun = format!("SELECT count(*) > 50 FROM {relation}");
    cluster.wait_for("fair", LONG, "the backfill to be under way", &begun);
    for round in 0..5 {
        for table in ["small", "same", "huge"] {
            let id = 20_000 + round * 10;
            let sql = format!(
                "INSERT INTO {table} VALUES ({id}, 'fresh {round}', '', 0) ON CONFLICT (id) DO UPDATE SET title = excluded.title"
            );
            client.batch_execute(&sql).unwrap();
            cluster.wait_until(LONG, "a fresh change to arrive", || {
                stored_text(&mut client, table, &id.to_string())
                    .is_some_and(|text| text.starts_with(&format!("Title: fresh {round}")))
            });
        }
        client.batch_execute(&format!("DELETE FROM huge WHERE id = {}", 10 + round)).unwrap();
    }
    // Fifteen changes were synced one after the other before a tenth of the backfill was done.
    let sql = "SELECT t.status, v.rows < 2500 FROM embedd.tasks t JOIN embedd.vector_tables h ON h.id = t.target_id,
                      (SELECT count(*) AS rows FROM huge_rows) v WHERE h.name = 'huge'";
    let row = client.query_one(&sql.replace("huge_rows", &relation), &[]).unwrap();
    assert_eq!((row.get::<_, String>(0).as_str(), row.get::<_, bool>(1)), ("running", true));
    assert_eq!(status(&mut client, "broken", "sync_status").unwrap(), "error");
    assert!(status(&mut client, "unlucky", "last_error").is_some());
    // One log line for each failure, not a flood.
    let lines = cluster.log().matches("of vector table \"unlucky\" failed").count();
    assert!((1..=3).contains(&lines), "{lines} lines about one dead provider");
}
