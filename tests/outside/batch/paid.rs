//! What a run has paid for is stored, and failed rows are retried on request.

use postgres::Client;

use super::{BATCH_WORKER, NEVER, SHARED, assert_arrives, create_batch_of, wait_over};
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::source::relation;
use support::{Cluster, LONG};

/// A view of 20 rows with vectors of the fake, filled once and not run again without a request.
fn paid_for(cluster: &Cluster, db: &str, fake: &FakeProvider) -> Client {
    let mut client = cluster.database(db);
    client
        .batch_execute(&format!(
            "CREATE TABLE base (id integer PRIMARY KEY, title text, n integer);
             INSERT INTO base SELECT i, CASE i WHEN 7 THEN 'unlucky' ELSE 'title ' || i END, i FROM generate_series(1, 20) i;
             CREATE VIEW v AS SELECT * FROM base;
             SELECT embedd.create_provider('fake', 'openai', 'sk-test', 'fake-model', '{}')",
            fake.base_url()
        ))
        .unwrap();
    let provider = ", embedding_provider => 'fake', embedding_dimensions => 8";
    create_batch_of(&mut client, "v", NEVER, provider);
    wait_over(cluster, db);
    client
}

/// The vector table is locked while an index is built on it. The answers that arrive meanwhile are paid for.
#[test]
fn a_locked_vector_table_is_paid_for_once() {
    let fake = FakeProvider::start(Dialect::OpenAi);
    let cluster = SHARED.cluster();
    let mut client = paid_for(&cluster, "batch_locked", &fake);
    let vectors = relation(&mut client, "v");
    let mut other = cluster.connect("batch_locked");
    other.batch_execute(&format!("BEGIN; LOCK {vectors} IN SHARE MODE")).unwrap();
    client
        .batch_execute("UPDATE base SET title = 'changed ' || id; SELECT embedd.reconcile('v')")
        .unwrap();
    let at_lock = format!(
        "EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'batch_locked' AND backend_type = '{BATCH_WORKER}'
                                                AND wait_event_type = 'Lock')"
    );
    for _ in 0..3 {
        let (waits, rests) = (format!("SELECT {at_lock}"), format!("SELECT NOT {at_lock}"));
        cluster.wait_for("batch_locked", LONG, "a run to wait for the lock", &waits);
        cluster.wait_for("batch_locked", LONG, "the run to give up", &rests);
    }
    other.batch_execute("COMMIT").unwrap();
    wait_over(&cluster, "batch_locked");
    assert_eq!(fake.paid_more_than_once(), []);
    assert_arrives(&cluster, "batch_locked", "v");
}

/// A run that skips failed rows is active when a retry is requested.
#[test]
fn failed_rows_are_retried_although_a_run_is_under_way() {
    let fake = FakeProvider::start(Dialect::OpenAi);
    let refused = fake.script(Rule::when_text("unlucky").respond(Respond::status(400)));
    let cluster = SHARED.cluster();
    let mut client = paid_for(&cluster, "batch_retry", &fake);
    let failed = "SELECT failed_rows = 1 FROM embedd.sync_status('v')";
    cluster.wait_for("batch_retry", LONG, "a row to fail", failed);
    fake.unscript(&refused);
    let gate = fake.hold();
    let before = fake.request_count();
    client
        .batch_execute(
            "UPDATE base SET title = 'changed' WHERE id = 1; SELECT embedd.reconcile('v')",
        )
        .unwrap();
    fake.wait_for_requests(before + 1, LONG);
    let retried = client.query_one("SELECT embedd.retry_failed('v')", &[]).unwrap();
    assert_eq!(retried.get::<_, i64>(0), 1);
    gate.release();
    let none = "SELECT failed_rows = 0 FROM embedd.sync_status('v')";
    cluster.wait_for("batch_retry", LONG, "no failed row to be left", none);
    wait_over(&cluster, "batch_retry");
    assert_eq!(fake.paid("unlucky"), 1);
    assert_arrives(&cluster, "batch_retry", "v");
}
