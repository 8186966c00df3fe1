//! Partitions and subpartitions are added, dropped and truncated; rows move between them.

use postgres::Client;

use super::{SHARED, answers, versions};
use support::source::{backfill, create_vector_table, relation, synced_source};
use support::{Cluster, LONG};

/// Columns of a table that becomes a partition, in another order.
const OTHER: &str = "(price integer, body text, title text, id bigint NOT NULL)";

/// A partitioned source: t_low (0 to 100), and t_high (100 to 300) with the partitions t_a and t_b; 61 rows in total.
fn synced(cluster: &Cluster, db: &str) -> Client {
    let mut client = cluster.database(db);
    client
        .batch_execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, price integer) PARTITION BY RANGE (id);
             CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (100);
             CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (100) TO (300) PARTITION BY RANGE (id);
             CREATE TABLE t_a (gone integer, price integer, body text, title text, id bigint NOT NULL);
             ALTER TABLE t_a DROP COLUMN gone;
             ALTER TABLE t_high ATTACH PARTITION t_a FOR VALUES FROM (100) TO (200);
             CREATE TABLE t_b PARTITION OF t_high FOR VALUES FROM (200) TO (300);
             INSERT INTO t SELECT i, 'title ' || i, '', i FROM generate_series(0, 299, 5) i;
             INSERT INTO t_a (id, title) VALUES (101, 'straight')"
        )
        .unwrap();
    create_vector_table(&mut client, "t");
    backfill(&mut client, "t");
    cluster.assert_synced(db, "t");
    client
}

#[test]
fn partitions_are_dropped() {
    let cluster = SHARED.cluster();
    let mut client = synced(&cluster, "parts_go");
    let steps = [
        ("TRUNCATE t_b", 41),
        (
            "INSERT INTO t VALUES (201, 'in b', '', 1); BEGIN; SAVEPOINT a; TRUNCATE t_b; ROLLBACK TO a; COMMIT",
            42,
        ),
        ("BEGIN; DROP TABLE t_high; ROLLBACK", 42),
        ("ALTER TABLE t_high DETACH PARTITION t_b", 41),
        (
            "UPDATE t_b SET title = 'none of ours'; INSERT INTO t_b VALUES (202, 'nor this', '', 1)",
            41,
        ),
        ("ALTER TABLE t_high ATTACH PARTITION t_b FOR VALUES FROM (200) TO (300)", 43),
        ("DROP TABLE t_a", 22),
        ("BEGIN; TRUNCATE t_b; INSERT INTO t VALUES (203, 'after', '', 1); COMMIT", 21),
        ("TRUNCATE t_high", 20),
        ("INSERT INTO t VALUES (204, 'again', '', 1)", 21),
        ("ALTER TABLE t DETACH PARTITION t_high", 20),
        ("INSERT INTO t_high VALUES (205, 'elsewhere', '', 1)", 20),
        ("ALTER TABLE t ATTACH PARTITION t_high FOR VALUES FROM (100) TO (300)", 22),
        ("DROP TABLE t_high", 20),
        ("BEGIN; TRUNCATE t_low; TRUNCATE t; INSERT INTO t VALUES (1, 'one', '', 1); COMMIT", 1),
    ];
    for (step, rows) in steps {
        client.batch_execute(step).unwrap();
        cluster.wait_done("parts_go");
        assert_eq!(answers(&mut client, "{}"), rows, "{step}");
        cluster.assert_synced("parts_go", "t");
    }
}

#[test]
fn partitions_are_detached_concurrently() {
    let cluster = SHARED.cluster();
    let mut client = synced(&cluster, "parts_slow");
    client.batch_execute("ALTER TABLE t_high DETACH PARTITION t_b CONCURRENTLY").unwrap();
    cluster.assert_synced("parts_slow", "t");
    assert_eq!(answers(&mut client, "{}"), 41);
    // Interrupted in the middle, and finished by another session.
    let mut reader = cluster.connect("parts_slow");
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t_low, t")
        .unwrap();
    client.batch_execute("SET statement_timeout = '500ms'").unwrap();
    let error = client.batch_execute("ALTER TABLE t DETACH PARTITION t_low CONCURRENTLY");
    assert_eq!(error.unwrap_err().code().unwrap().code(), "57014");
    reader.batch_execute("COMMIT").unwrap();
    client
        .batch_execute("RESET statement_timeout; INSERT INTO t_low VALUES (1, 'half out', '', 1); DELETE FROM t_low WHERE id = 5")
        .unwrap();
    client.batch_execute("ALTER TABLE t DETACH PARTITION t_low FINALIZE").unwrap();
    cluster.assert_synced("parts_slow", "t");
    assert_eq!(answers(&mut client, "{}"), 21);
    client.batch_execute("INSERT INTO t_low VALUES (2, 'out', '', 1)").unwrap();
    cluster.assert_synced("parts_slow", "t");
}

#[test]
fn partitions_are_added() {
    let cluster = SHARED.cluster();
    let mut client = synced(&cluster, "parts_come");
    let before = versions(&mut client, "t");
    client
        .batch_execute(&format!(
            "CREATE TABLE t_c {OTHER};
             INSERT INTO t_c (id, title, price) SELECT i, 'came ' || i, i FROM generate_series(300, 310) i;
             ALTER TABLE t ATTACH PARTITION t_c FOR VALUES FROM (300) TO (400);
             UPDATE t SET title = 'changed there' WHERE id = 305;
             BEGIN;
               CREATE TABLE t_d {OTHER};
               INSERT INTO t_d (id, title) VALUES (401, 'before it was attached');
               ALTER TABLE t ATTACH PARTITION t_d FOR VALUES FROM (400) TO (500);
               INSERT INTO t VALUES (402, 'and after', '', 2);
             COMMIT;
             CREATE TABLE t_e {OTHER};
             ALTER TABLE t ATTACH PARTITION t_e FOR VALUES FROM (500) TO (600);
             INSERT INTO t VALUES (501, 'in one that was empty', '', 2);
             CREATE TABLE t_f (LIKE t) PARTITION BY RANGE (id);
             CREATE TABLE t_f1 PARTITION OF t_f FOR VALUES FROM (600) TO (650);
             INSERT INTO t_f VALUES (601, 'two floors down', '', 2);
             ALTER TABLE t ATTACH PARTITION t_f FOR VALUES FROM (600) TO (700);
             BEGIN; SAVEPOINT a; CREATE TABLE t_g (LIKE t); INSERT INTO t_g VALUES (701, 'never', '', 1);
               ALTER TABLE t ATTACH PARTITION t_g FOR VALUES FROM (700) TO (800); ROLLBACK TO a; COMMIT;
             CREATE TABLE t_default PARTITION OF t DEFAULT; INSERT INTO t VALUES (9000, 'far out', '', 1)"
        ))
        .unwrap();
    cluster.assert_synced("parts_come", "t");
    assert_eq!(answers(&mut client, "{}"), 61 + 11 + 2 + 1 + 1 + 1);
    // Existing rows were not written again.
    let after = versions(&mut client, "t");
    assert!(before.iter().all(|(key, xmin)| after[key] == *xmin));
    client
        .batch_execute("TRUNCATE t_f1; UPDATE t SET id = id - 9000 + 650 WHERE id = 9000")
        .expect_err("there is no partition for the row");
    client.batch_execute("UPDATE t SET id = 610 WHERE id = 9000").unwrap();
    cluster.assert_synced("parts_come", "t");
}

#[test]
fn rows_move_between_partitions() {
    let cluster = SHARED.cluster();
    let mut client = synced(&cluster, "parts_move");
    client
        .batch_execute(
            "UPDATE t SET id = id + 100 WHERE id = 101;
             UPDATE t SET id = 102, title = 'from low to a' WHERE id = 5;
             UPDATE t SET id = 6, title = 'from b to low' WHERE id = 205;
             UPDATE t_high SET id = 299 WHERE id = 105;
             BEGIN; UPDATE t SET id = 298 WHERE id = 10; UPDATE t SET id = 10 WHERE id = 298; COMMIT;
             BEGIN; SAVEPOINT a; UPDATE t SET id = 250 - 1 WHERE id = 15; ROLLBACK TO a; COMMIT;
             UPDATE t SET id = (id + 103) % 300 WHERE id % 10 = 0",
        )
        .unwrap();
    cluster.assert_synced("parts_move", "t");
}

#[test]
fn a_schema_with_a_partition_in_it_is_dropped() {
    let cluster = SHARED.cluster();
    let mut client = synced(&cluster, "parts_schema");
    client
        .batch_execute(
            "CREATE SCHEMA s;
             CREATE TABLE s.t_c PARTITION OF t FOR VALUES FROM (300) TO (400) PARTITION BY RANGE (id);
             CREATE TABLE s.t_c1 PARTITION OF s.t_c FOR VALUES FROM (300) TO (350);
             CREATE TABLE s.other (id integer);
             INSERT INTO t SELECT i, 'in the schema ' || i, '', i FROM generate_series(300, 310) i;
             ALTER TABLE t_a SET SCHEMA s",
        )
        .unwrap();
    cluster.assert_synced("parts_schema", "t");
    client.batch_execute("BEGIN; DROP SCHEMA s CASCADE; ROLLBACK").unwrap();
    client.batch_execute("UPDATE t SET title = 'still here' WHERE id = 300").unwrap();
    cluster.assert_synced("parts_schema", "t");
    client.batch_execute("DROP SCHEMA s CASCADE").unwrap();
    cluster.assert_synced("parts_schema", "t");
    assert_eq!(answers(&mut client, "{}"), 40);
    let sql = "SELECT sync_status = 'synced' FROM embedd.sync_status('t')";
    cluster.wait_for("parts_schema", LONG, "the status", sql);
}

#[test]
fn a_source_with_children_is_rejected_and_its_vectors_are_kept() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("children");
    synced_source(&cluster, "children", &mut client, "t", 10);
    client
        .batch_execute(
            "CREATE TABLE child (more text) INHERITS (t);
             INSERT INTO child SELECT t.*, 'x' FROM ONLY t WHERE id <= 5; DELETE FROM ONLY t WHERE id <= 5",
        )
        .unwrap();
    let sql = "SELECT sync_status = 'error' AND last_error LIKE '%has inheritance children%sync_mode => ''batch''%'
                 FROM embedd.sync_status('t')";
    cluster.wait_for("children", LONG, "the status to show it", sql);
    // Time for the worker to notice it, which records it in its own row too.
    let sql = "SELECT sync_status = 'error' FROM embedd.vector_tables WHERE name = 't'";
    cluster.wait_for("children", LONG, "the worker to see it", sql);
    assert_eq!(answers(&mut client, "{}"), 10);
    let refused = client
        .batch_execute("SELECT embedd.create_vector_table('u', 't', '[{\"name\": \"title\", \"role\": \"embedding\"}]')")
        .unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "55000", "{refused}");
    // A comparison reads the children.
    client
        .batch_execute(
            "SELECT embedd.create_vector_table('u', 't', '[{\"name\": \"title\", \"role\": \"embedding\"}]',
                 sync_mode => 'batch', batch_interval => '1 s', start_backfill => true)",
        )
        .unwrap();
    let vectors = relation(&mut client, "u");
    cluster.wait_for(
        "children",
        LONG,
        "all rows of the children",
        &format!("SELECT count(*) = 10 FROM {vectors}"),
    );
    // Without children the source is as before, and compared.
    client.batch_execute("DROP TABLE child").unwrap();
    cluster.wait_for(
        "children",
        LONG,
        "the comparison",
        "SELECT sync_status = 'synced' AND synced_rows = 5 FROM embedd.sync_status('t')",
    );
    cluster.assert_synced("children", "t");
}
