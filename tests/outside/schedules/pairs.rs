//! Two workers share a database: what one of them hands to the other is done once, and nothing is left over.

use std::sync::Arc;

use super::{LONG, Stage};
use support::processes::{SYNC_WORKER, is_alive, terminate};
use support::source::{backfill, create_source, synced_source};
use support::{Cluster, Frozen, SHORT};

/// The workers of a database, in order.
fn both(cluster: &Cluster, db: &str) -> [i32; 2] {
    let mut found = [0; 2];
    cluster.wait_until(LONG, "both workers", || {
        let processes = cluster.processes();
        found = ["1/2", "2/2"].map(|number| {
            let title = format!("{SYNC_WORKER} for {db} {number}");
            processes.iter().find(|(_, other)| *other == title).map_or(0, |(pid, _)| *pid)
        });
        !found.contains(&0)
    });
    found
}

/// Rows of the queue were written for one worker and are shared by two. Most need no provider and are done; the rest
/// is at the provider when the workers exit, so it is still in the queue.
#[test]
fn rows_shared_between_workers_stay_queued_until_they_are_done() {
    // The limit is so small that the queue is read again before all of it is loaded.
    let cluster = Cluster::builder().never_polling().set("embedd.batch_texts", "4").start();
    let mut stage = Stage::in_cluster(Arc::new(cluster), "shared_out");
    stage.run("INSERT INTO t SELECT i, 'first ' || i, NULL, i FROM generate_series(11, 400) i");
    stage.cluster.wait_done(&stage.db);
    let gate = stage.fake.hold();
    let frozen = Frozen::new(stage.cluster.sync_worker(&stage.db));
    stage.run(
        "UPDATE t SET price = -id, title = CASE WHEN id <= 10 THEN 'second ' || id ELSE title END",
    );
    stage.cluster.crash();
    drop(frozen);
    stage.cluster.configure(&[("embedd.workers_per_database", "2")]);
    let before = stage.fake.request_count();
    stage.cluster.start_again();
    let rest = format!(
        "SELECT count(*) = 390 FROM {} WHERE (metadata ->> 'price')::integer < 0",
        stage.vectors
    );
    stage.cluster.wait_for(&stage.db, LONG, "all that needs no provider", &rest);
    stage.fake.wait_for_requests(before + 1, LONG);
    let workers = both(&stage.cluster, &stage.db);
    workers.iter().for_each(|pid| terminate(*pid));
    stage.cluster.wait_until(SHORT, "the workers to go", || !workers.iter().any(|p| is_alive(*p)));
    gate.release();
    stage.assert_synced();
}

/// One slot for two workers: they take turns, each continues where it was, and the backfill ends.
#[test]
fn a_first_backfill_ends_though_two_workers_take_turns() {
    let cluster = Cluster::builder()
        .never_polling()
        .set("embedd.workers_per_database", "2")
        .set("embedd.max_sync_workers", "1")
        .start();
    let mut client = cluster.database("turns");
    create_source(&mut client, "t", 3000);
    backfill(&mut client, "t");
    cluster.assert_synced("turns", "t");
}

/// A scan for a TRUNCATE begins when the other worker has acknowledged it: what that worker has stored before is seen, and
/// what it has in flight is loaded again.
#[test]
fn a_scan_waits_until_the_other_worker_has_acknowledged() {
    let cluster =
        Cluster::builder().never_polling().set("embedd.workers_per_database", "2").start();
    let mut stage = Stage::in_cluster(Arc::new(cluster), "acknowledged");
    let workers = both(&stage.cluster, &stage.db);
    let sql = "SELECT id FROM embedd.vector_tables";
    let id: i32 = stage.client.query_one(sql, &[]).unwrap().get(0);
    let owner = id as usize % 2;
    let frozen = Frozen::new(workers[1 - owner]);
    stage.run("TRUNCATE t; INSERT INTO t VALUES (1, 'after', NULL, 1), (2, 'after', NULL, 2)");
    stage.wait_for(
        "the comparison to begin",
        "SELECT EXISTS (SELECT FROM embedd.tasks WHERE task_type = 'reconcile' AND status = 'running')",
    );
    stage.wait_for(
        "the owner to wait",
        &format!(
            "SELECT state = 'idle' AND wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = {}",
            workers[owner]
        ),
    );
    // Rows of the frozen worker's keys are there, and so is its row of the queue.
    let left = "SELECT phase = 'orphans' AND status = 'running' FROM embedd.tasks ORDER BY task_id DESC LIMIT 1";
    assert!(stage.client.query_one(left, &[]).unwrap().get::<_, bool>(0));
    drop(frozen);
    stage.assert_synced();
    assert_eq!(stage.title(1).as_deref(), Some("after"));
    assert!(!stage.has_vector(3));
}

/// A vector table is dropped while its scan is about to hand a page to the other worker, which would never do it.
#[test]
fn nothing_is_handed_over_for_a_dropped_vector_table() {
    let cluster =
        Cluster::builder().never_polling().set("embedd.workers_per_database", "2").start();
    let mut client = cluster.database("dropped");
    create_source(&mut client, "t", 200);
    let id: i32 = client.query_one("SELECT id FROM embedd.vector_tables", &[]).unwrap().get(0);
    // The worker with this number does the scan.
    let frozen = Frozen::new(both(&cluster, "dropped")[id as usize % 2]);
    backfill(&mut client, "t");
    client.batch_execute("BEGIN; LOCK t IN ACCESS EXCLUSIVE MODE").unwrap();
    drop(frozen);
    let at_lock = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'dropped' AND backend_type = '{SYNC_WORKER}'
                                                       AND wait_event_type = 'Lock')"
    );
    cluster.wait_for("dropped", LONG, "the worker to wait for a lock", &at_lock);
    client.batch_execute("SELECT embedd.drop_vector_table('t'); COMMIT").unwrap();
    // Both workers have a part in another table, so both have continued since; then the queue is empty.
    synced_source(&cluster, "dropped", &mut client, "u", 200);
}
