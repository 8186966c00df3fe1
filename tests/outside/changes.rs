//! Every kind of change is synced: key changes, TRUNCATE, COPY, ON CONFLICT, MERGE, partitions, ordinary roles.

use std::io::Write;

use support::source::{
    COLUMNS, assert_equal, backfill, create_source, create_vector_table, drop_vector_index,
    stored_text, synced_source,
};
use support::{Frozen, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

#[test]
fn keys_change_and_are_swapped() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("keys");
    synced_source(&cluster, "keys", &mut client, "t", 20);
    client
        .batch_execute(
            "UPDATE t SET id = 101 WHERE id = 1;
             BEGIN;
               UPDATE t SET id = -2 WHERE id = 2;
               UPDATE t SET id = 2 WHERE id = 3;
               UPDATE t SET id = 3 WHERE id = -2;
             COMMIT;
             BEGIN; DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (4, 'another four', '', 4); COMMIT;
             BEGIN; INSERT INTO t VALUES (50, 'short life', '', 0); DELETE FROM t WHERE id = 50; COMMIT;
             BEGIN; UPDATE t SET id = 200 WHERE id = 5; UPDATE t SET id = 5 WHERE id = 200; COMMIT;
             UPDATE t SET id = id + 1000 WHERE id BETWEEN 10 AND 20",
        )
        .unwrap();
    cluster.assert_synced("keys", "t");
    assert_eq!(stored_text(&mut client, "t", "3").unwrap(), "Title: title 2\nbody of 2");
    assert_eq!(stored_text(&mut client, "t", "2").unwrap(), "Title: title 3\nbody of 3");
}

#[test]
fn text_keys_of_every_kind() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("textkeys");
    client
        .batch_execute(
            "CREATE TABLE t (\"the Key\" text PRIMARY KEY, title text, body text, price integer);
             INSERT INTO t VALUES ('', 'empty key', '', 1), (' ', 'a space', '', 1), ('NULL', 'a word', '', 1),
                ('a,b', 'comma', '', 1), ('\"quoted\"', 'quotes', '', 1), ('{x}', 'braces', '', 1),
                (E'back\\\\slash', 'backslash', '', 1), (E'new\\nline', 'newline', '', 1), ('ключ 鍵 🔑', 'scripts', '', 1),
                (repeat('long', 500), 'long', '', 1)",
        )
        .unwrap();
    create_vector_table(&mut client, "t");
    backfill(&mut client, "t");
    cluster.assert_synced("textkeys", "t");
    client
        .batch_execute(
            "UPDATE t SET body = 'changed'; DELETE FROM t WHERE \"the Key\" IN ('', '{x}');
             UPDATE t SET \"the Key\" = 'null' WHERE \"the Key\" = 'NULL'",
        )
        .unwrap();
    cluster.assert_synced("textkeys", "t");
}

#[test]
fn truncate_alone_and_followed_by_inserts() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("truncated");
    synced_source(&cluster, "truncated", &mut client, "t", 30);
    client
        .batch_execute(
            "BEGIN;
               INSERT INTO t VALUES (31, 'before the truncate', '', 0);
               TRUNCATE t;
               INSERT INTO t SELECT i, 'new ' || i, '', i FROM generate_series(5, 12) i;
             COMMIT",
        )
        .unwrap();
    cluster.assert_synced("truncated", "t");
    client.batch_execute("TRUNCATE t").unwrap();
    cluster.assert_synced("truncated", "t");
    client.batch_execute("INSERT INTO t VALUES (1, 'one again', '', 1)").unwrap();
    client.batch_execute("BEGIN; TRUNCATE t; ROLLBACK").unwrap();
    client.batch_execute("TRUNCATE t; INSERT INTO t VALUES (2, 'two', '', 2)").unwrap();
    cluster.assert_synced("truncated", "t");
}

#[test]
fn copy_on_conflict_and_merge() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("upserts");
    synced_source(&cluster, "upserts", &mut client, "t", 10);
    let mut copy = client.copy_in("COPY t FROM stdin").unwrap();
    for i in 11..=500 {
        writeln!(copy, "{i}\tcopied {i}\t\\N\t{i}").unwrap();
    }
    copy.finish().unwrap();
    client
        .batch_execute(
            "INSERT INTO t SELECT i, 'upserted', 'x', 0 FROM generate_series(5, 15) i
                 ON CONFLICT (id) DO UPDATE SET title = excluded.title || ' over ' || t.title;
             INSERT INTO t VALUES (1, 'ignored', '', 0), (600, 'inserted', '', 0) ON CONFLICT DO NOTHING;
             WITH moved AS (DELETE FROM t WHERE id > 490 RETURNING *)
                 INSERT INTO t SELECT id + 10000, title, body, price FROM moved",
        )
        .unwrap();
    let version: i32 = client
        .query_one("SELECT current_setting('server_version_num')::integer", &[])
        .unwrap()
        .get(0);
    if version >= 150_000 {
        client
            .batch_execute(
                "MERGE INTO t USING generate_series(1, 1000, 100) g(i) ON t.id = g.i
                     WHEN MATCHED AND i < 300 THEN DELETE
                     WHEN MATCHED THEN UPDATE SET title = 'merged'
                     WHEN NOT MATCHED THEN INSERT VALUES (i, 'merged in', '', 0)",
            )
            .unwrap();
    }
    cluster.assert_synced("upserts", "t");
}

#[test]
fn a_partitioned_source() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("partitions");
    client
        .batch_execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, price integer) PARTITION BY RANGE (id);
             CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (100);
             -- Its columns are in another order, as those of a table attached later may be.
             CREATE TABLE t_high (price integer, body text, dropped text, title text, id bigint NOT NULL);
             ALTER TABLE t_high DROP COLUMN dropped;
             ALTER TABLE t ATTACH PARTITION t_high FOR VALUES FROM (100) TO (200);
             INSERT INTO t SELECT i, 'title ' || i, '', i FROM generate_series(80, 120) i",
        )
        .unwrap();
    create_vector_table(&mut client, "t");
    backfill(&mut client, "t");
    cluster.assert_synced("partitions", "t");
    client
        .batch_execute(
            "INSERT INTO t VALUES (1, 'low', '', 1), (199, 'high', '', 1);
             INSERT INTO t_high (id, title) VALUES (198, 'straight into the partition');
             UPDATE t SET id = id + 60, title = 'moved ' || id WHERE id BETWEEN 85 AND 99;
             UPDATE t SET title = 'stays' WHERE id IN (80, 110);
             DELETE FROM t WHERE id IN (81, 111);
             CREATE TABLE t_top PARTITION OF t FOR VALUES FROM (200) TO (300);
             INSERT INTO t VALUES (250, 'in a new partition', '', 1)",
        )
        .unwrap();
    cluster.assert_synced("partitions", "t");
    client.batch_execute("TRUNCATE t; INSERT INTO t VALUES (7, 'after', '', 1)").unwrap();
    cluster.assert_synced("partitions", "t");
}

#[test]
fn keys_are_packed_about_a_thousand_to_a_queue_row() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("packed");
    synced_source(&cluster, "packed", &mut client, "t", 1);
    drop_vector_index(&mut client, "t");
    {
        let _worker = Frozen::new(cluster.sync_worker("packed"));
        client
            .batch_execute("INSERT INTO t SELECT i, NULL, '', i FROM generate_series(2, 100001) i")
            .unwrap();
        let row = client
            .query_one(
                "SELECT count(*), sum(cardinality(keys)), max(cardinality(keys)),
                        count(DISTINCT table_id) FROM embedd.queue",
                &[],
            )
            .unwrap();
        let (rows, keys, most): (i64, i64, i32) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(keys, 100_000);
        assert!((100..=110).contains(&rows), "{rows} queue rows");
        assert!(most <= 1000, "{most} keys in a row");
        let pending = client.query_one("SELECT rows_pending FROM embedd.sync_status('t')", &[]);
        assert_eq!(pending.unwrap().get::<_, i64>(0), 100_000);
    }
    cluster.assert_synced("packed", "t");
}

#[test]
fn a_role_without_any_privilege_on_embedd_writes() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("grants");
    create_source(&mut client, "t", 10);
    client
        .batch_execute(
            "CREATE ROLE writer LOGIN; GRANT INSERT, UPDATE, DELETE, SELECT, TRUNCATE ON t TO writer;
             REVOKE ALL ON SCHEMA embedd FROM public; REVOKE ALL ON ALL TABLES IN SCHEMA embedd FROM public;
             REVOKE ALL ON ALL FUNCTIONS IN SCHEMA embedd FROM public;
             CREATE SCHEMA evil AUTHORIZATION writer;
             CREATE TABLE evil.queue (x integer); CREATE TABLE evil.text (x integer)",
        )
        .unwrap();
    backfill(&mut client, "t");
    cluster.wait_done("grants");
    let mut writer = cluster.connect_as("grants", "writer");
    writer
        .batch_execute(
            "SET search_path = evil, pg_catalog; SET default_transaction_isolation = 'serializable';
             SET row_security = off; SET timezone = 'Asia/Tokyo'; SET datestyle = 'German';
             INSERT INTO public.t VALUES (11, 'a writer', 'was here', 1);
             UPDATE public.t SET title = 'rewritten' WHERE id = 2;
             UPDATE public.t SET id = 300 WHERE id = 3;
             DELETE FROM public.t WHERE id = 4;
             BEGIN; SAVEPOINT a; UPDATE public.t SET body = 'x' WHERE id = 5; RELEASE a; COMMIT",
        )
        .unwrap();
    cluster.wait_done("grants");
    assert_equal(&mut client, "t");
    writer
        .batch_execute("TRUNCATE public.t; INSERT INTO public.t VALUES (1, 'a', 'b', 1)")
        .unwrap();
    cluster.wait_done("grants");
    assert_equal(&mut client, "t");
}

#[test]
fn two_vector_tables_of_one_source() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("twice");
    synced_source(&cluster, "twice", &mut client, "t", 20);
    client
        .batch_execute(&format!(
            "SELECT embedd.create_vector_table('second', 't', '{COLUMNS}', start_backfill => true)"
        ))
        .unwrap();
    cluster.assert_synced("twice", "second");
    client
        .batch_execute("BEGIN; UPDATE t SET title = 'both'; SAVEPOINT a; DELETE FROM t WHERE id > 10; RELEASE a; COMMIT")
        .unwrap();
    cluster.assert_synced("twice", "t");
    cluster.assert_synced("twice", "second");
    client.batch_execute("SELECT embedd.drop_vector_table('second')").unwrap();
    client.batch_execute("DELETE FROM t WHERE id = 1").unwrap();
    cluster.assert_synced("twice", "t");
}
