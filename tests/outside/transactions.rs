//! A transaction queues exactly what it commits: savepoints, exception blocks, deferred triggers, two-phase commit,
//! size.

use support::source::{backfill, create_source, drop_vector_index, synced_source};
use support::{Cluster, Frozen, LONG, Shared, Shutdown};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

#[test]
fn released_and_rolled_back_savepoints() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("savepoints");
    synced_source(&cluster, "savepoints", &mut client, "t", 20);
    client
        .batch_execute(
            "BEGIN;
             UPDATE t SET title = 'before' WHERE id = 1;
             SAVEPOINT a;
               UPDATE t SET title = 'undone' WHERE id IN (1, 2);
               INSERT INTO t VALUES (100, 'never', 'was', 0);
               SAVEPOINT b;
                 DELETE FROM t WHERE id = 3;
               RELEASE b;
             ROLLBACK TO a;
             UPDATE t SET title = 'again' WHERE id = 4;
             RELEASE a;
             SAVEPOINT c;
               SAVEPOINT d;
                 UPDATE t SET title = 'nested' WHERE id = 5;
                 SAVEPOINT e;
                   TRUNCATE t;
                 ROLLBACK TO e;
                 UPDATE t SET title = 'after the truncate' WHERE id = 6;
               RELEASE d;
               DELETE FROM t WHERE id = 7;
             RELEASE c;
             SAVEPOINT f;
               INSERT INTO t VALUES (101, 'gone too', '', 0);
             ROLLBACK TO f;
             COMMIT",
        )
        .unwrap();
    cluster.assert_synced("savepoints", "t");
}

#[test]
fn rolled_back_changes_are_not_queued() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("rollback");
    synced_source(&cluster, "rollback", &mut client, "t", 5);
    let _worker = Frozen::new(cluster.sync_worker("rollback"));
    client
        .batch_execute(
            "BEGIN; UPDATE t SET title = 'x'; ROLLBACK;
             BEGIN; SAVEPOINT a; UPDATE t SET title = 'x' WHERE id = 1; ROLLBACK TO a;
                    UPDATE t SET title = 'kept' WHERE id = 2; COMMIT;
             DO $$ BEGIN
                 BEGIN
                     UPDATE t SET title = 'x' WHERE id = 3;
                     RAISE EXCEPTION 'no';
                 EXCEPTION WHEN raise_exception THEN
                     UPDATE t SET title = 'kept too' WHERE id = 4;
                 END;
             END $$;
             UPDATE t SET price = price;
             UPDATE t SET id = id WHERE id = 5",
        )
        .unwrap();
    assert!(client.batch_execute("UPDATE t SET price = 1 / (price - 5)").is_err());
    let noted: Vec<Vec<String>> = client
        .query("SELECT keys FROM embedd.queue ORDER BY id", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(noted, [["2"], ["4"]]);
}

#[test]
fn exception_blocks_in_a_loop() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("exceptions");
    synced_source(&cluster, "exceptions", &mut client, "t", 200);
    client
        .batch_execute(
            "DO $$ BEGIN
                 FOR i IN 1 .. 200 LOOP
                     BEGIN
                         UPDATE t SET title = 'round ' || i WHERE id = i;
                         BEGIN
                             IF i % 7 = 0 THEN DELETE FROM t WHERE id = i; END IF;
                             IF i % 14 = 0 THEN RAISE EXCEPTION 'inner'; END IF;
                         EXCEPTION WHEN raise_exception THEN
                             INSERT INTO t VALUES (1000 + i, 'instead of', i::text, i);
                         END;
                         IF i % 3 = 0 THEN PERFORM 1 / 0; END IF;
                     EXCEPTION WHEN division_by_zero THEN
                         INSERT INTO t VALUES (2000 + i, 'caught', i::text, i);
                     END;
                 END LOOP;
             END $$",
        )
        .unwrap();
    cluster.assert_synced("exceptions", "t");
}

#[test]
fn deferred_triggers_and_cascades_are_queued() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("deferred");
    synced_source(&cluster, "deferred", &mut client, "t", 30);
    client
        .batch_execute(
            "CREATE TABLE parent (id bigint PRIMARY KEY);
             INSERT INTO parent SELECT generate_series(1, 30);
             ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE
                 DEFERRABLE INITIALLY DEFERRED;
             CREATE FUNCTION at_the_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 UPDATE t SET body = 'the parent was born' WHERE id = new.id - 100;
                 RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON parent DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION at_the_end()",
        )
        .unwrap();
    client
        .batch_execute(
            "DELETE FROM parent WHERE id <= 10;
             UPDATE parent SET id = id + 1000 WHERE id > 25;
             BEGIN; INSERT INTO t VALUES (120, 'early child', '', 1); INSERT INTO parent VALUES (120); COMMIT",
        )
        .unwrap();
    cluster.assert_synced("deferred", "t");
    let late = client.query_one("SELECT body FROM t WHERE id = 20", &[]).unwrap();
    assert_eq!(late.get::<_, String>(0), "the parent was born");
}

#[test]
fn prepared_transactions_arrive_when_they_are_committed() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database("prepared");
    synced_source(&cluster, "prepared", &mut client, "t", 10);
    client
        .batch_execute(
            "BEGIN; UPDATE t SET title = 'first' WHERE id = 1; PREPARE TRANSACTION 'kept';
             BEGIN; UPDATE t SET title = 'never' WHERE id = 2; PREPARE TRANSACTION 'undone';
             BEGIN; SAVEPOINT a; DELETE FROM t WHERE id = 3; ROLLBACK TO a;
                    INSERT INTO t VALUES (11, 'over a restart', '', 1); PREPARE TRANSACTION 'restart';
             BEGIN; DELETE FROM t WHERE id = 10; PREPARE TRANSACTION 'crash';
             UPDATE t SET title = 'later and committed before' WHERE id = 4",
        )
        .unwrap();
    // The prepared ones have the lower queue ids, and the worker has read past them.
    cluster.assert_synced("prepared", "t");
    client.batch_execute("COMMIT PREPARED 'kept'").unwrap();
    client.batch_execute("ROLLBACK PREPARED 'undone'").unwrap();
    cluster.assert_synced("prepared", "t");
    cluster.restart(Shutdown::Fast);
    let mut client = cluster.connect("prepared");
    client.batch_execute("UPDATE t SET title = 'after the restart' WHERE id = 5").unwrap();
    cluster.assert_synced("prepared", "t");
    client.batch_execute("COMMIT PREPARED 'restart'").unwrap();
    cluster.assert_synced("prepared", "t");
    cluster.restart(Shutdown::Immediate);
    let mut client = cluster.connect("prepared");
    client.batch_execute("UPDATE t SET title = 'after the crash' WHERE id = 6").unwrap();
    cluster.assert_synced("prepared", "t");
    client.batch_execute("COMMIT PREPARED 'crash'").unwrap();
    cluster.assert_synced("prepared", "t");
    let left = client.query_one("SELECT count(*) FROM t", &[]).unwrap();
    assert_eq!(left.get::<_, i64>(0), 10);
}

#[test]
fn a_transaction_of_200000_keys_with_savepoints() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("large");
    create_source(&mut client, "t", 50);
    drop_vector_index(&mut client, "t");
    backfill(&mut client, "t");
    cluster.assert_synced("large", "t");
    // Rows without text need no provider; this test is about the keys.
    client
        .batch_execute(
            "BEGIN;
             INSERT INTO t SELECT i, NULL, '', 0 FROM generate_series(1001, 61000) i;
             SAVEPOINT a;
               INSERT INTO t SELECT i, NULL, '', 1 FROM generate_series(100001, 260000) i;
               DELETE FROM t WHERE id BETWEEN 1001 AND 2000;
             ROLLBACK TO a;
             SAVEPOINT b;
               INSERT INTO t SELECT i, NULL, '', 2 FROM generate_series(100001, 240000) i;
               SAVEPOINT c;
                 DELETE FROM t WHERE id > 150000;
               RELEASE c;
               SAVEPOINT d;
                 UPDATE t SET title = 'undone', price = 3;
               ROLLBACK TO d;
             RELEASE b;
             UPDATE t SET title = 'kept ' || id WHERE id < 50;
             DELETE FROM t WHERE id BETWEEN 1001 AND 20000;
             COMMIT",
        )
        .unwrap();
    cluster.assert_synced("large", "t");
}

#[test]
fn an_error_at_commit_leaves_the_session_as_it_was() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("refused");
    synced_source(&cluster, "refused", &mut client, "t", 5);
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF new.price < 0 THEN RAISE EXCEPTION 'refused'; END IF; RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER refused AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    assert!(client.batch_execute("BEGIN; UPDATE t SET price = -1, title = 'x'; COMMIT").is_err());
    client.batch_execute("UPDATE t SET title = 'fine' WHERE id = 1").unwrap();
    cluster.assert_synced("refused", "t");
    cluster.wait_for(
        "refused",
        LONG,
        "the change after the error",
        "SELECT last_error IS NULL FROM embedd.sync_status('t')",
    );
}
