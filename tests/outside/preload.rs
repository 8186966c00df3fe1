//! Without its processes, for lack of preloading or of a worker slot, embedd still queues every change.

use support::processes::{EMBEDDER, SYNC_WORKER};
use support::source::{backfill, create_source, relation, synced_source};
use support::{Cluster, LONG, Shutdown};

#[test]
fn without_preload_changes_are_queued_and_synced_later() {
    let cluster = Cluster::builder().never_polling().not_preloaded().start();
    cluster.create_database("later");
    let mut psql = cluster.psql_command("later");
    let output = psql.args(["-c", "CREATE EXTENSION embedd CASCADE"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("WARNING:  embedd is not loaded through shared_preload_libraries"),
        "{said}"
    );
    assert!(said.contains("shared_preload_libraries = 'embedd'"), "{said}");

    let mut client = cluster.connect("later");
    create_source(&mut client, "t", 10);
    backfill(&mut client, "t");
    client
        .batch_execute(
            "UPDATE t SET title = 'noted' WHERE id = 1; DELETE FROM t WHERE id = 2; UPDATE t SET id = 30 WHERE id = 3",
        )
        .unwrap();
    client
        .batch_execute(
            "BEGIN; INSERT INTO t VALUES (11, 'undone', '', 0); ROLLBACK; INSERT INTO t VALUES (12, 'kept', '', 0)",
        )
        .unwrap();
    let keys = "SELECT string_agg(k, ' ' ORDER BY id, place) FROM embedd.queue, unnest(keys) WITH ORDINALITY u(k, place)";
    assert_eq!(client.query_one(keys, &[]).unwrap().get::<_, String>(0), "1 2 3 30 12");
    for refused in ["SELECT * FROM embedd.query('t', 'x')", "SELECT embedd.embed('t', 'x')"] {
        let error = client.query(refused, &[]).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "55000", "{refused}: {error:?}");
        assert!(error.hint().unwrap_or_default().contains("shared_preload_libraries"), "{error:?}");
    }
    assert!(cluster.pids(SYNC_WORKER).is_empty() && cluster.pids(EMBEDDER).is_empty());

    cluster.configure(&[("shared_preload_libraries", "embedd")]);
    cluster.restart(Shutdown::Fast);
    cluster.assert_synced("later", "t");

    // The same with a synced table.
    cluster.configure(&[("shared_preload_libraries", "")]);
    cluster.restart(Shutdown::Fast);
    let mut client = cluster.connect("later");
    client
        .batch_execute("UPDATE t SET title = 'again' WHERE id = 4; DELETE FROM t WHERE id = 5")
        .unwrap();
    cluster.configure(&[("shared_preload_libraries", "embedd")]);
    cluster.restart(Shutdown::Immediate);
    cluster.assert_synced("later", "t");
}

#[test]
fn without_a_worker_slot_changes_stay_queued() {
    // The embedder, the launcher and PostgreSQL's logical replication launcher take all worker slots.
    let cluster = Cluster::builder().never_polling().set("max_worker_processes", "3").start();
    let mut client = cluster.database("crowded");
    create_source(&mut client, "t", 10);
    backfill(&mut client, "t");
    client.batch_execute("UPDATE t SET title = 'waits' WHERE id = 1").unwrap();
    cluster.wait_until(LONG, "the log to report it", || {
        cluster
            .log_contains("no free background worker slot for the embedd sync worker of database")
    });
    assert!(cluster.log_contains("max_worker_processes"));
    assert!(cluster.pids(SYNC_WORKER).is_empty());
    let vectors = relation(&mut client, "t");
    let stored = client.query_one(&format!("SELECT count(*) FROM {vectors}"), &[]).unwrap();
    assert_eq!(stored.get::<_, i64>(0), 0);
    client.query_one("SELECT embedd.embed('t', 'the embedder is there')", &[]).unwrap();
    cluster.configure(&[("max_worker_processes", "8")]);
    cluster.restart(Shutdown::Fast);
    cluster.assert_synced("crowded", "t");
}

#[test]
fn two_databases_take_turns_in_the_only_slot() {
    let cluster = Cluster::builder().never_polling().set("max_worker_processes", "4").start();
    let mut first = cluster.database("first");
    synced_source(&cluster, "first", &mut first, "t", 5);
    let mut second = cluster.database("second");
    synced_source(&cluster, "second", &mut second, "t", 5);
    for round in 0..5 {
        for (db, client) in [("first", &mut first), ("second", &mut second)] {
            client.batch_execute(&format!("UPDATE t SET title = 'round {round}'")).unwrap();
            cluster.assert_synced(db, "t");
        }
    }
    assert_eq!(cluster.pids(SYNC_WORKER).len(), 1);
}
