//! cancel_backfill(): nothing more is sent, nothing is paid for twice, changes go on, and nothing is left behind.

use std::time::Duration;

use postgres::Client;
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::processes::{SYNC_WORKER, kill9};
use support::source::{assert_equal, backfill, relation, synced_source, wait_synced};
use support::{Builder, Cluster, LONG, Shared};

use super::{create_source, one, status};

static SHARED: Shared = Shared::of(|| builder().set("max_worker_processes", "64"));

/// Clusters with few texts in flight, which may be stored after all.
fn builder() -> Builder {
    Cluster::builder()
        .never_polling()
        .set("embedd.batch_texts", "16")
        .set("embedd.texts_in_flight", "32")
}

fn fake() -> FakeProvider {
    FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start()
}

/// Cancels the backfill of `t`; comes back with its type when no request is under way any more. The worker has had a
/// turn since.
fn cancel(cluster: &Cluster, db: &str, client: &mut Client, fake: &FakeProvider) -> String {
    let kind = one(client, "SELECT task_type FROM embedd.cancel_backfill('t')");
    fake.wait_until(LONG, "the requests to end", |fake| fake.concurrent() == 0);
    // Another vector table has a change synced, and then another one.
    for text in ["once", "twice"] {
        client
            .batch_execute(&format!("UPDATE other SET title = '{text} ' || random() WHERE id = 1"))
            .unwrap();
        wait_synced(cluster, db, "other");
    }
    fake.wait_until(LONG, "the requests to end", |fake| fake.concurrent() == 0);
    kind
}

/// A first load is cancelled under writes, by one worker and by three that share the keys; then it goes on.
#[test]
fn a_first_load_goes_on_later_and_pays_for_nothing_twice() {
    let several = builder().set("embedd.workers_per_database", "3").start();
    for (cluster, db) in [(&*SHARED.cluster(), "first"), (&several, "shared")] {
        let mut client = cluster.database(db);
        let fake = fake();
        synced_source(cluster, db, &mut client, "other", 3);
        create_source(&mut client, &fake, 3000);
        let vectors = relation(&mut client, "t");
        fake.script(Rule::always().respond(Respond::delay(Duration::from_millis(20))));
        backfill(&mut client, "t");
        let mut change = 0;
        let write = |client: &mut Client, change: &mut i32| {
            *change += 1;
            let id = 1 + *change * 37 % 3000;
            client
                .batch_execute(&format!(
                    "UPDATE t SET body = 'change {change} ' || id WHERE id = {id};
                     DELETE FROM t WHERE id = {id} + 1; INSERT INTO t VALUES (10000 + {change}, 'new {change}')"
                ))
                .unwrap();
        };
        cluster.wait_until(LONG, "some hundred texts", || {
            write(&mut client, &mut change);
            fake.paid_total() > 300
        });
        assert_eq!(cancel(cluster, db, &mut client, &fake), "backfill");
        assert_eq!(status(&mut client), "pending");
        let (paid, stored) = (fake.paid_total(), format!("SELECT count(*) FROM {vectors}"));
        assert!(paid < 3000, "{paid} texts were paid for before it was cancelled");
        let kept: i64 = one(&mut client, &stored);
        assert!(kept > 0, "what is loaded stays");
        let refused = client.query("SELECT * FROM embedd.query('t', 'text')", &[]).unwrap_err();
        assert_eq!(refused.code().map(|code| code.code()), Some("55000"), "{refused:?}");

        // Changes wait for the next backfill, as before the first one; neither they nor a restart of the worker sends any.
        for _ in 0..20 {
            write(&mut client, &mut change);
        }
        cluster.wait_done(db);
        let worker = cluster.sync_worker(db);
        client.execute("SELECT pg_terminate_backend($1)", &[&worker]).unwrap();
        cluster.successor(SYNC_WORKER, worker);
        cluster.wait_done(db);
        assert_eq!((fake.paid_total(), one::<i64>(&mut client, &stored)), (paid, kept));
        assert_eq!(status(&mut client), "pending");

        fake.clear_script();
        assert_eq!(
            one::<String>(&mut client, "SELECT task_type FROM embedd.backfill('t')"),
            "rebackfill"
        );
        wait_synced(cluster, db, "t");
        let twice = fake.paid_more_than_once();
        assert!(twice.is_empty(), "paid for more than once: {twice:?}");
        assert_equal(&mut client, "t");
        let ended =
            "SELECT string_agg(task_type || ' ' || status, ', ' ORDER BY task_id) FROM embedd.tasks
                       JOIN embedd.vector_tables v ON v.id = target_id WHERE v.name = 't'";
        let ended: String = one(&mut client, ended);
        assert_eq!(ended, "backfill cancelled, rebackfill completed");
    }
}

/// A table that was filled stays in sync: what the rebackfill would have found is not sent, and changes are.
#[test]
fn a_rebackfill_is_cancelled_and_changes_go_on() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("again");
    let fake = fake();
    synced_source(&cluster, "again", &mut client, "other", 3);
    create_source(&mut client, &fake, 2500);
    backfill(&mut client, "t");
    wait_synced(&cluster, "again", "t");
    let paid = fake.paid_total();
    client
        .batch_execute(
            "SET session_replication_role = replica; UPDATE t SET body = 'silent ' || id; RESET session_replication_role",
        )
        .unwrap();
    let gate = fake.hold();
    let before = fake.request_count();
    backfill(&mut client, "t");
    fake.wait_for_requests(before + 1, LONG);
    assert_eq!(status(&mut client), "backfilling");
    client.batch_execute("SELECT * FROM embedd.cancel_backfill('t')").unwrap();
    gate.release();
    fake.wait_until(LONG, "the requests to end", |fake| fake.concurrent() == 0);
    client.batch_execute("INSERT INTO t VALUES (5000, 'after it')").unwrap();
    wait_status_synced(&cluster, "again");
    assert_eq!(fake.paid("after it"), 1);
    let more = fake.paid_total() - paid;
    assert!(more < 200, "{more} texts were sent after all");
    assert_eq!(status(&mut client), "synced");
    client.query("SELECT * FROM embedd.query('t', 'text')", &[]).unwrap();
    // The next one finds them.
    backfill(&mut client, "t");
    wait_synced(&cluster, "again", "t");
    let twice = fake.paid_more_than_once();
    assert!(twice.is_empty(), "paid for more than once: {twice:?}");
    assert_equal(&mut client, "t");
}

/// Waits until `t` is synced, without a comparison of its rows.
fn wait_status_synced(cluster: &Cluster, db: &str) {
    let sql = "SELECT sync_status = 'synced' AND rows_pending = 0 FROM embedd.sync_status('t')";
    cluster.wait_for(db, LONG, "the table to be synced", sql);
}

/// TRUNCATE restarts the rebackfill: the rows that have gone are removed also when it is cancelled.
#[test]
fn bulk_changes_are_not_forgotten_with_it() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("bulk");
    let fake = fake();
    create_source(&mut client, &fake, 1500);
    backfill(&mut client, "t");
    wait_synced(&cluster, "bulk", "t");
    let gate = fake.hold();
    let before = fake.request_count();
    client
        .batch_execute(
            "SET session_replication_role = replica; UPDATE t SET body = 'silent ' || id; RESET session_replication_role;
             SELECT embedd.backfill('t')",
        )
        .unwrap();
    fake.wait_for_requests(before + 1, LONG);
    client.batch_execute("TRUNCATE t; INSERT INTO t VALUES (1, 'after it')").unwrap();
    let owes = "SELECT owes_comparison FROM embedd.tasks WHERE status IN ('pending', 'running')";
    cluster.wait_for("bulk", LONG, "the backfill to be restarted", owes);
    client.batch_execute("SELECT embedd.cancel_backfill('t')").unwrap();
    gate.release();
    wait_synced(&cluster, "bulk", "t");
    assert_equal(&mut client, "t");
    let last = "SELECT task_type || ' ' || status FROM embedd.tasks ORDER BY task_id DESC LIMIT 1";
    assert_eq!(one::<String>(&mut client, last), "reconcile completed");
}

/// The vector index is dropped before a large load. A later backfill builds it, or the worker does at once where the
/// table was filled before.
#[test]
fn deferred_indexes_are_built() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("deferred");
    let fake = fake();
    synced_source(&cluster, "deferred", &mut client, "other", 3);
    create_source(&mut client, &fake, 6000);
    let indexes =
        "SELECT count(*) FROM pg_index i JOIN embedd.vector_tables v ON v.vector_table = i.indrelid
                    WHERE v.name = 't' AND NOT i.indisprimary AND i.indisvalid";
    let slow = fake.script(Rule::always().respond(Respond::delay(Duration::from_millis(20))));
    backfill(&mut client, "t");
    fake.wait_until(LONG, "some texts", |fake| fake.paid_total() > 100);
    assert_eq!(one::<i64>(&mut client, indexes), 0, "it is deferred");
    cancel(&cluster, "deferred", &mut client, &fake);
    assert_eq!(one::<i64>(&mut client, indexes), 0, "it waits for the next backfill");
    fake.unscript(&slow);
    backfill(&mut client, "t");
    wait_synced(&cluster, "deferred", "t");
    assert_eq!(one::<i64>(&mut client, indexes), 1);

    client
        .batch_execute(
            "SELECT embedd.pause_sync('t');
             UPDATE embedd.vector_tables SET held_indexes = ARRAY['t_later', ' USING hnsw (embedding vector_cosine_ops)'] WHERE name = 't'",
        )
        .unwrap();
    let dropped: String = one(
        &mut client,
        "SELECT 'DROP INDEX ' || i.indexrelid::regclass FROM pg_index i JOIN embedd.vector_tables v ON v.vector_table = i.indrelid
          WHERE v.name = 't' AND NOT i.indisprimary",
    );
    client.batch_execute(&dropped).unwrap();
    client
        .batch_execute("SELECT embedd.backfill('t'); SELECT embedd.cancel_backfill('t'); SELECT embedd.resume_sync('t')")
        .unwrap();
    let built = format!(
        "SELECT ({indexes}) = 1 AND held_indexes IS NULL FROM embedd.vector_tables WHERE name = 't'"
    );
    cluster.wait_for("deferred", LONG, "the index to be built", &built);
    wait_synced(&cluster, "deferred", "t");
}

/// The server crashes in the middle of what was cancelled.
#[test]
fn a_crash_brings_nothing_back() {
    let cluster = builder().start();
    let mut client = cluster.database("crash");
    let fake = fake();
    create_source(&mut client, &fake, 2500);
    let gate = fake.hold();
    backfill(&mut client, "t");
    fake.wait_for_requests(1, LONG);
    client.batch_execute("SELECT embedd.cancel_backfill('t')").unwrap();
    kill9(cluster.sync_worker("crash"));
    gate.release();
    cluster.wait_until(LONG, "the crash to be felt", || client.simple_query("SELECT 1").is_err());
    let mut client = cluster.connect("crash");
    cluster.sync_worker("crash");
    cluster.wait_done("crash");
    let paid = fake.paid_total();
    client.batch_execute("INSERT INTO t VALUES (5000, 'later')").unwrap();
    cluster.wait_done("crash");
    assert_eq!((status(&mut client).as_str(), fake.paid_total()), ("pending", paid));
    backfill(&mut client, "t");
    wait_synced(&cluster, "crash", "t");
    assert_equal(&mut client, "t");
}
