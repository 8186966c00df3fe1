//! The last committed state wins, in any order of events: late writers, old snapshots, rows changed or deleted while
//! they are embedded, pauses.

use std::sync::Arc;
use std::thread;

use postgres::Client;
use support::processes::EMBEDDER;
use support::source::{relation, stored_text, synced_source};
use support::{Cluster, Frozen, LONG, SHORT, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// A database of the shared cluster with a synced table `t` of 20 rows.
fn synced(db: &str) -> (Arc<Cluster>, Client) {
    let cluster = SHARED.cluster();
    let mut client = cluster.database(db);
    synced_source(&cluster, db, &mut client, "t", 20);
    (cluster, client)
}

#[test]
fn a_writer_that_commits_after_later_ones() {
    let (cluster, mut client) = synced("late");
    // Its queue row is written before its commit, so this trigger delays the commit after the low id was taken: keys
    // beyond the memory limit are written at once.
    let mut late = cluster.connect("late");
    late.batch_execute("BEGIN; UPDATE t SET title = 'late' WHERE id IN (1, 2)").unwrap();
    late.batch_execute(
        "INSERT INTO t SELECT i, NULL, '', 0 FROM generate_series(1000001, 1150000) i;
         DELETE FROM t WHERE id > 1000000",
    )
    .unwrap();
    let taken = "SELECT last_value FROM embedd.queue_id_seq";
    let low: i64 = client.query_one(taken, &[]).unwrap().get(0);
    for round in 0..30 {
        client
            .batch_execute(&format!(
                "UPDATE t SET title = 'round {round}' WHERE id BETWEEN 3 AND 20"
            ))
            .unwrap();
        if round % 10 == 9 {
            cluster.assert_synced("late", "t");
        }
    }
    let high: i64 = client.query_one(taken, &[]).unwrap().get(0);
    assert!(low > 50 && high > low, "ids of the queue: {low}, {high}");
    late.batch_execute("COMMIT").unwrap();
    cluster.assert_synced("late", "t");
    assert_eq!(stored_text(&mut client, "t", "1").unwrap(), "Title: late\nbody of 1");
    client.batch_execute("UPDATE t SET title = 'later' WHERE id = 1").unwrap();
    cluster.assert_synced("late", "t");
}

#[test]
fn many_writers_that_overlap() {
    let (cluster, mut client) = synced("overlap");
    // Each holds its transaction open across the commits of the others, so ids become visible in any order.
    let mut writers: Vec<Client> = (0..6).map(|_| cluster.connect("overlap")).collect();
    for writer in &mut writers {
        writer.batch_execute("SET synchronous_commit = off; BEGIN").unwrap();
    }
    for step in 0..120_i64 {
        let mine = step % 6;
        let writer = &mut writers[mine as usize];
        // A savepoint and a separate row for each writer, since there is no empty partition to TRUNCATE.
        writer
            .batch_execute(&format!(
                "INSERT INTO t VALUES ({0}, 'step {step}', '', 0);
                 SAVEPOINT a; UPDATE t SET body = 'of {step}' WHERE id = {0}; RELEASE a",
                1000 + step
            ))
            .unwrap();
        if step % 5 == 4 {
            writers[(step % 4) as usize].batch_execute("COMMIT; BEGIN").unwrap();
        }
    }
    for writer in writers.iter_mut().rev() {
        writer.batch_execute("COMMIT").unwrap();
    }
    cluster.assert_synced("overlap", "t");
    let count: i64 = client.query_one("SELECT count(*) FROM t", &[]).unwrap().get(0);
    assert_eq!(count, 140);
}

#[test]
fn a_burst_of_small_transactions_on_few_rows_is_processed_quickly() {
    let (cluster, mut client) = synced("burst");
    {
        let _worker = Frozen::new(cluster.sync_worker("burst"));
        for i in 0..100 {
            let id = 1 + i % 2;
            client
                .batch_execute(&format!("UPDATE t SET title = 'round {i}' WHERE id = {id}"))
                .unwrap();
        }
        for i in 0..30 {
            client.batch_execute(&format!("INSERT INTO t VALUES ({i} + 100, '', '', 0)")).unwrap();
            client.batch_execute(&format!("DELETE FROM t WHERE id = {i} + 100")).unwrap();
        }
    }
    cluster.assert_synced("burst", "t");
}

#[test]
fn writers_on_the_same_keys() {
    let (cluster, _client) = synced("race");
    let writers: Vec<_> = (0..3_i64)
        .map(|writer| {
            let mut client = cluster.connect("race");
            thread::spawn(move || {
                for i in 0..150_i64 {
                    let id = 1 + (i * 7 + writer) % 10;
                    let sql = match (i + writer) % 5 {
                        0 => format!("DELETE FROM t WHERE id = {id}"),
                        1 => format!("UPDATE t SET price = {i} WHERE id = {id}"),
                        _ => format!(
                            "INSERT INTO t VALUES ({id}, 'writer {writer}', 'round {i}', 0) ON CONFLICT (id)
                             DO UPDATE SET title = excluded.title, body = excluded.body"
                        ),
                    };
                    client.batch_execute(&sql).expect("a single statement cannot deadlock");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("the writer ends well");
    }
    cluster.assert_synced("race", "t");
}

#[test]
fn an_old_snapshot_changes_nothing() {
    let (cluster, mut client) = synced("snapshot");
    let mut old = cluster.connect("snapshot");
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    let before: i64 = old.query_one("SELECT count(*) FROM t", &[]).unwrap().get(0);
    for round in 0..400 {
        let id = 1 + round % 20;
        client
            .batch_execute(&format!("UPDATE t SET title = 'round {round}' WHERE id = {id}"))
            .unwrap();
        if round % 100 == 99 {
            cluster.assert_synced("snapshot", "t");
        }
    }
    // What the old snapshot still sees cannot be removed, and the worker has to skip it.
    let seen: i64 = old.query_one("SELECT count(*) FROM t", &[]).unwrap().get(0);
    assert_eq!(before, seen);
    old.batch_execute("COMMIT").unwrap();
    client.batch_execute("DELETE FROM t WHERE id < 5").unwrap();
    cluster.assert_synced("snapshot", "t");
}

#[test]
fn the_newer_text_wins_over_one_in_flight() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database("newer");
    synced_source(&cluster, "newer", &mut client, "t", 20);
    let frozen = Frozen::new(cluster.pid(EMBEDDER));
    client.batch_execute("UPDATE t SET title = 'older' WHERE id <= 10").unwrap();
    client.batch_execute("INSERT INTO t VALUES (30, 'a short life', '', 0)").unwrap();
    wait_idle(&cluster, "newer");
    client
        .batch_execute(
            "UPDATE t SET title = 'newest' WHERE id <= 5; UPDATE t SET price = -1 WHERE id = 6;
             UPDATE t SET title = 'title 7' WHERE id = 7; UPDATE t SET title = NULL, body = '' WHERE id = 8;
             DELETE FROM t WHERE id IN (9, 30); UPDATE t SET id = 110 WHERE id = 10",
        )
        .unwrap();
    wait_idle(&cluster, "newer");
    client
        .batch_execute("DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (9, 'back again', '', 1)")
        .unwrap();
    // Deletes need no provider, so they do not wait for it: a deleted row is gone while the embedder is frozen.
    client.batch_execute("DELETE FROM t WHERE id = 20").unwrap();
    let sql = format!(
        "SELECT NOT EXISTS (SELECT FROM {} WHERE pk_value = '20')",
        relation(&mut client, "t")
    );
    cluster.wait_for("newer", SHORT, "a deleted row to go while the embedder is frozen", &sql);
    drop(frozen);
    cluster.assert_synced("newer", "t");
    assert_eq!(stored_text(&mut client, "t", "1").unwrap(), "Title: newest\nbody of 1");
    assert_eq!(stored_text(&mut client, "t", "30"), None);
    assert_eq!(stored_text(&mut client, "t", "10"), None);
}

#[test]
fn changes_during_a_pause_are_synced_after_the_resume() {
    let (cluster, mut client) = synced("paused");
    client.batch_execute("SELECT embedd.pause_sync('t')").unwrap();
    client
        .batch_execute(
            "UPDATE t SET title = 'while paused' WHERE id = 1; DELETE FROM t WHERE id = 2;
             INSERT INTO t VALUES (40, 'new while paused', '', 1); UPDATE t SET id = 41 WHERE id = 40",
        )
        .unwrap();
    // Another table of the same database continues, which also shows that the worker has run since.
    synced_other(&cluster, &mut client);
    assert_eq!(stored_text(&mut client, "t", "1").unwrap(), "Title: title 1\nbody of 1");
    let status: String =
        client.query_one("SELECT sync_status FROM embedd.sync_status('t')", &[]).unwrap().get(0);
    assert_eq!(status, "paused");
    client.query("SELECT * FROM embedd.query('t', 'title 3')", &[]).unwrap();
    client.batch_execute("SELECT embedd.resume_sync('t')").unwrap();
    cluster.assert_synced("paused", "t");
    // A pause during a backfill, and one across a TRUNCATE.
    client
        .batch_execute(
            "SELECT embedd.pause_sync('t'); SELECT embedd.backfill('t'); TRUNCATE t;
             INSERT INTO t SELECT i, 'after', i::text, i FROM generate_series(10, 30) i",
        )
        .unwrap();
    synced_other(&cluster, &mut client);
    client.batch_execute("SELECT embedd.resume_sync('t')").unwrap();
    cluster.assert_synced("paused", "t");
    cluster.wait_for(
        "paused",
        SHORT,
        "the status to be synced",
        "SELECT sync_status = 'synced' FROM embedd.sync_status('t')",
    );
}

/// Syncs a row of a second vector table, while the first one is paused.
fn synced_other(cluster: &Cluster, client: &mut Client) {
    let known = client.query_one("SELECT to_regclass('other') IS NOT NULL", &[]).unwrap();
    if !known.get::<_, bool>(0) {
        support::source::create_source(client, "other", 3);
        support::source::backfill(client, "other");
    }
    client.batch_execute("INSERT INTO other SELECT max(id) + 1, 'more', '', 0 FROM other").unwrap();
    let sql = format!(
        "SELECT (SELECT count(*) FROM other) = (SELECT count(*) FROM {})",
        relation(client, "other")
    );
    cluster.wait_for("paused", LONG, "the other table to be synced", &sql);
}

/// Waits until the sync worker of a database has read everything and is idle.
fn wait_idle(cluster: &Cluster, db: &str) {
    let sql = format!(
        "SELECT state = 'idle' AND xact_start IS NULL AND wait_event IS NOT NULL FROM pg_stat_activity
          WHERE datname = '{db}' AND backend_type = '{}' AND state_change < clock_timestamp() - interval '100 ms'",
        support::processes::SYNC_WORKER
    );
    cluster.wait_for(db, SHORT, "the sync worker to be idle", &sql);
}
