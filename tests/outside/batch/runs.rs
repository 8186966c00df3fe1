//! Runs that are slow, interrupted, or without a provider; runs on demand; pause and resume.

use super::{
    BATCH_WORKER, NEVER, SHARED, assert_arrives, create_batch, create_batch_of, wait_over,
    wait_well,
};
use support::fake_provider::{Dialect, FakeProvider};
use support::processes::kill9;
use support::source::{assert_equal, stored_text, synced_source};
use support::{Cluster, LONG, SHORT, Shutdown};

/// A view that takes this many seconds to read.
fn slow_view(seconds: u32) -> String {
    format!(
        "CREATE TABLE base (id integer PRIMARY KEY, title text, n integer);
         INSERT INTO base SELECT i, 'title ' || i, i FROM generate_series(1, 20) i;
         CREATE VIEW v AS SELECT id, title, n FROM base, (SELECT pg_sleep({seconds}) OFFSET 0) s"
    )
}

#[test]
fn a_slow_view_blocks_no_other_table() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("slow");
    client.batch_execute(&slow_view(5)).unwrap();
    synced_source(&cluster, "slow", &mut client, "t", 20);
    create_batch(&mut client, "v", NEVER);
    let running = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'slow' AND wait_event = 'PgSleep'";
    cluster.wait_for("slow", LONG, "the slow run", running);
    client
        .batch_execute("UPDATE t SET title = 'fast' WHERE id < 5; DELETE FROM t WHERE id = 7")
        .unwrap();
    // When the changes are there, only the slow run may be active.
    cluster.wait_for("slow", LONG, "the changes", "SELECT NOT EXISTS (SELECT FROM embedd.queue)");
    assert_equal(&mut client, "t");
    let still = "SELECT EXISTS (SELECT FROM embedd.tasks t JOIN embedd.vector_tables v ON v.id = t.target_id
        WHERE v.name = 'v' AND t.status = 'running')";
    assert!(client.query_one(still, &[]).unwrap().get::<_, bool>(0), "the slow run was over");
    wait_over(&cluster, "slow");
    assert_eq!(stored_text(&mut client, "v", "20").unwrap(), "title 20");
}

#[test]
fn a_run_without_a_worker_slot() {
    // The embedder, the two launchers and the sync worker take all worker slots.
    let cluster = Cluster::builder().set("max_worker_processes", "4").start();
    let mut client = cluster.database("crowded");
    client.batch_execute(&slow_view(0)).unwrap();
    create_batch(&mut client, "v", NEVER);
    let reason = "no place for a batch run: increase max_worker_processes";
    let told = format!("SELECT last_error = '{reason}' FROM embedd.sync_status('v')");
    cluster.wait_for("crowded", LONG, "the status to show it", &told);
    let told = format!("sync of vector table \"v\" failed: {reason}");
    assert_eq!(cluster.log().matches(&told).count(), 1);
    cluster.configure(&[("max_worker_processes", "8")]);
    cluster.restart(Shutdown::Fast);
    wait_well(&cluster, "crowded", "v");
    assert_equal(&mut cluster.connect("crowded"), "v");
    cluster.wait_until(LONG, "the log to report the end", || {
        cluster.log_contains("sync of vector table \"v\" works again")
    });
}

#[test]
fn a_run_on_demand() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("asked");
    client.batch_execute(&slow_view(0)).unwrap();
    create_batch(&mut client, "v", NEVER);
    wait_over(&cluster, "asked");
    assert_equal(&mut client, "v");
    client.batch_execute("UPDATE base SET title = 'changed' WHERE id = 1").unwrap();
    for call in ["reconcile", "backfill"] {
        client
            .batch_execute(&format!(
                "UPDATE base SET title = title || ' by {call}'; SELECT embedd.{call}('v')"
            ))
            .unwrap();
        wait_over(&cluster, "asked");
        assert_equal(&mut client, "v");
    }
    // A request during a run reports that one is active.
    client.batch_execute("CREATE OR REPLACE VIEW v AS SELECT id, title, n FROM base, (SELECT pg_sleep(2) OFFSET 0) s").unwrap();
    client.batch_execute("SELECT embedd.reconcile('v')").unwrap();
    let error = client.query("SELECT embedd.reconcile('v')", &[]).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55006");
    wait_over(&cluster, "asked");
}

#[test]
fn changes_made_during_a_pause() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("paused");
    client.batch_execute(&slow_view(0)).unwrap();
    create_batch(&mut client, "v", "1 second");
    assert_arrives(&cluster, "paused", "v");
    client.batch_execute("SELECT embedd.pause_sync('v')").unwrap();
    let runs = "SELECT count(*) FROM embedd.tasks";
    let idle = format!(
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'paused' AND backend_type = '{BATCH_WORKER}')"
    );
    cluster.wait_for("paused", LONG, "the run to end", &idle);
    let before: i64 = client.query_one(runs, &[]).unwrap().get(0);
    client
        .batch_execute(
            "UPDATE base SET title = 'in the pause' WHERE id = 1; DELETE FROM base WHERE id = 2",
        )
        .unwrap();
    // Runs of another table continue, so time passes for both.
    client.batch_execute("CREATE VIEW w AS SELECT * FROM base").unwrap();
    create_batch(&mut client, "w", "1 second");
    let passed =
        "SELECT count(*) >= 3 FROM embedd.tasks t JOIN embedd.vector_tables v ON v.id = t.target_id
        WHERE v.name = 'w' AND t.status = 'completed'";
    cluster.wait_for("paused", LONG, "three runs of the other", passed);
    let of_v = "SELECT count(*) FROM embedd.tasks t JOIN embedd.vector_tables v ON v.id = t.target_id WHERE v.name = 'v'";
    assert!(client.query_one(of_v, &[]).unwrap().get::<_, i64>(0) <= before);
    assert_eq!(stored_text(&mut client, "v", "1").unwrap(), "title 1");
    assert!(stored_text(&mut client, "v", "2").is_some());
    client.batch_execute("SELECT embedd.resume_sync('v')").unwrap();
    assert_arrives(&cluster, "paused", "v");
}

#[test]
fn a_run_is_killed_in_the_middle() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database("killed");
    client.batch_execute(&slow_view(2)).unwrap();
    create_batch(&mut client, "v", NEVER);
    for how in ["kill", "restart", "crash", "terminate"] {
        let mut pid = 0;
        cluster.wait_until(LONG, "a run", || {
            pid = cluster.pids(BATCH_WORKER).first().copied().unwrap_or(0);
            pid != 0
        });
        match how {
            "kill" => kill9(pid),
            "restart" => cluster.restart(Shutdown::Fast),
            "crash" => {
                cluster.crash();
                cluster.start_again();
            }
            _ => drop(client.query("SELECT pg_terminate_backend($1)", &[&pid]).unwrap()),
        }
        wait_over(&cluster, "killed");
        client = cluster.connect("killed");
        assert_equal(&mut client, "v");
        assert!(!cluster.pids(BATCH_WORKER).contains(&pid), "{how}");
        client
            .batch_execute(&format!(
                "UPDATE base SET title = 'after {how} ' || id; SELECT embedd.reconcile('v')"
            ))
            .unwrap();
    }
    wait_over(&cluster, "killed");
    assert_equal(&mut client, "v");
}

#[test]
fn the_provider_fails_during_a_run() {
    let fake = FakeProvider::start(Dialect::OpenAi);
    let cluster = SHARED.cluster();
    let mut client = cluster.database("provider");
    client.batch_execute(&slow_view(0)).unwrap();
    client
        .execute(
            "SELECT embedd.create_provider('fake', 'openai', 'sk-test', 'fake-model', $1)",
            &[&fake.base_url()],
        )
        .unwrap();
    create_batch_of(
        &mut client,
        "v",
        "1 second",
        ", embedding_provider => 'fake', embedding_dimensions => 8",
    );
    wait_well(&cluster, "provider", "v");
    wait_over(&cluster, "provider");
    assert_eq!(fake.paid_total(), 20);
    fake.down();
    client
        .batch_execute(
            "UPDATE base SET title = 'changed ' || id WHERE id < 4; UPDATE base SET n = 100 WHERE id = 5; DELETE FROM base WHERE id = 6",
        )
        .unwrap();
    synced_source(&cluster, "provider_other", &mut cluster.database("provider_other"), "t", 5);
    // Changes that need no provider arrive, and the status shows why the others do not.
    let sql = "SELECT last_error IS NOT NULL FROM embedd.sync_status('v')";
    cluster.wait_for("provider", LONG, "the error", sql);
    cluster
        .wait_until(LONG, "the row to be deleted", || stored_text(&mut client, "v", "6").is_none());
    assert_eq!(stored_text(&mut client, "v", "1").unwrap(), "title 1");
    fake.up();
    wait_well(&cluster, "provider", "v");
    let arrived = "SELECT NOT EXISTS (SELECT FROM embedd.verify('v'))";
    cluster.wait_for("provider", LONG, "the changes", arrived);
    assert_eq!(fake.paid_total(), 23, "{:?}", fake.paid_more_than_once());
    assert_equal(&mut client, "v");
    // A text that the provider rejects fails only its row.
    let refused = fake.script(
        support::fake_provider::Rule::when_text("bad")
            .respond(support::fake_provider::Respond::status(400)),
    );
    client.batch_execute("UPDATE base SET title = 'bad' WHERE id = 7; UPDATE base SET title = 'good' WHERE id = 8").unwrap();
    cluster.wait_until(SHORT, "the good one", || {
        stored_text(&mut client, "v", "8").unwrap() == "good"
    });
    cluster.wait_for(
        "provider",
        LONG,
        "the bad one",
        "SELECT failed_rows = 1 FROM embedd.sync_status('v')",
    );
    let hits = refused.hits();
    let passed = "SELECT count(*) >= 3 FROM embedd.tasks WHERE status = 'completed' AND started_at > (SELECT max(failed_at) FROM embedd.failed_rows)";
    cluster.wait_for("provider", LONG, "three more runs", passed);
    assert_eq!(
        refused.hits(),
        hits,
        "a row that has failed is tried again when it changes, or on request"
    );
    fake.clear_script();
    assert_eq!(
        client.query_one("SELECT embedd.retry_failed('v', '7')", &[]).unwrap().get::<_, i64>(0),
        1
    );
    cluster.wait_for(
        "provider",
        LONG,
        "no failures",
        "SELECT failed_rows = 0 FROM embedd.sync_status('v')",
    );
    assert_arrives(&cluster, "provider", "v");
}

#[test]
fn more_rows_than_a_page_and_an_index_built_after_them() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("many");
    client
        .batch_execute(
            "CREATE TABLE base (id text, title text, n integer);
             INSERT INTO base SELECT 'key ' || i, 'title ' || i % 50, i FROM generate_series(1, 6000) i;
             CREATE VIEW v AS SELECT * FROM base",
        )
        .unwrap();
    create_batch(&mut client, "v", "1 second");
    assert_arrives(&cluster, "many", "v");
    wait_over(&cluster, "many");
    let indexes = "SELECT count(*) FROM pg_index i JOIN embedd.vector_tables v ON v.vector_table = i.indrelid WHERE v.name = 'v'";
    assert_eq!(client.query_one(indexes, &[]).unwrap().get::<_, i64>(0), 2);
    client.batch_execute("UPDATE base SET n = n + 1; DELETE FROM base WHERE n % 3 = 0").unwrap();
    assert_arrives(&cluster, "many", "v");
}
