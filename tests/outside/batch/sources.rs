//! Possible sources: views, materialized views, tables; with keys that are not unique, and with other roles'
//! privileges.

use super::{
    NEVER, SHARED, assert_arrives, create_batch, create_batch_of, wait_error, wait_over, wait_well,
};
use support::source::{assert_equal, relation, stored_text, synced_source};
use support::{Cluster, LONG};

#[test]
fn a_view_that_joins_and_aggregates() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("view");
    client
        .batch_execute(
            "CREATE TABLE author (id integer PRIMARY KEY, name text);
             CREATE TABLE book (author integer REFERENCES author, title text);
             INSERT INTO author SELECT i, 'author ' || i FROM generate_series(1, 30) i;
             INSERT INTO book SELECT i % 30 + 1, 'book ' || i FROM generate_series(1, 90) i;
             CREATE VIEW v AS SELECT a.id, a.name || ': ' || string_agg(b.title, ', ' ORDER BY b.title) AS title, count(*) AS n
                FROM author a JOIN book b ON b.author = a.id GROUP BY a.id",
        )
        .unwrap();
    create_batch(&mut client, "v", "1 second");
    assert_arrives(&cluster, "view", "v");
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgfoid = 'embedd.note_change'::regproc";
    assert_eq!(client.query_one(triggers, &[]).unwrap().get::<_, i64>(0), 0);
    client
        .batch_execute(
            "INSERT INTO book VALUES (1, 'a new one'); DELETE FROM book WHERE author = 2; UPDATE author SET name = 'renamed' WHERE id = 3;
             INSERT INTO author VALUES (31, 'of one book'); INSERT INTO book VALUES (31, 'the only')",
        )
        .unwrap();
    assert_arrives(&cluster, "view", "v");
    assert_eq!(stored_text(&mut client, "v", "31").unwrap(), "of one book: the only");
    assert_eq!(stored_text(&mut client, "v", "2"), None);
    // A changed definition, and another name.
    client
        .batch_execute("CREATE OR REPLACE VIEW v AS SELECT id, name AS title, 1::bigint AS n FROM author; ALTER VIEW v RENAME TO w")
        .unwrap();
    assert_arrives(&cluster, "view", "v");
    let row = client.query_one("SELECT id FROM embedd.query('v', 'renamed', 1)", &[]).unwrap();
    assert!(!row.get::<_, String>(0).is_empty());
}

#[test]
fn a_materialized_view_and_a_table_without_triggers() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("relations");
    client
        .batch_execute(
            "CREATE TABLE plain (id integer PRIMARY KEY, title text, n integer);
             INSERT INTO plain SELECT i, 'title ' || i, i FROM generate_series(1, 1500) i;
             CREATE MATERIALIZED VIEW m AS SELECT id, title, n FROM plain WHERE id <= 50; CREATE UNIQUE INDEX ON m (id)",
        )
        .unwrap();
    create_batch(&mut client, "plain", "1 second");
    create_batch(&mut client, "m", NEVER);
    wait_over(&cluster, "relations");
    assert_arrives(&cluster, "relations", "plain");
    assert_equal(&mut client, "m");
    client
        .batch_execute(
            "UPDATE plain SET title = 'changed ' || id WHERE id % 10 = 1; DELETE FROM plain WHERE id % 10 = 2; UPDATE plain SET id = -id WHERE id % 10 = 3",
        )
        .unwrap();
    assert_arrives(&cluster, "relations", "plain");
    assert_eq!(stored_text(&mut client, "m", "1").unwrap(), "title 1");
    client
        .batch_execute("REFRESH MATERIALIZED VIEW CONCURRENTLY m; SELECT embedd.reconcile('m')")
        .unwrap();
    assert_arrives(&cluster, "relations", "m");
    client
        .batch_execute("TRUNCATE plain; REFRESH MATERIALIZED VIEW m; SELECT embedd.backfill('m')")
        .unwrap();
    assert_arrives(&cluster, "relations", "m");
    assert_arrives(&cluster, "relations", "plain");
    let sql = format!("SELECT count(*) FROM {}", relation(&mut client, "plain"));
    assert_eq!(client.query_one(&sql, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn rows_without_a_key_and_duplicate_keys() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("no_keys");
    client
        .batch_execute(
            "CREATE TABLE base (id integer, title text, n integer); CREATE VIEW v AS SELECT * FROM base;
             INSERT INTO base SELECT i, 'title ' || i, i FROM generate_series(1, 20) i;
             INSERT INTO base VALUES (NULL, 'nobody', 0), (5, 'a twin', 0)",
        )
        .unwrap();
    create_batch(&mut client, "v", "1 second");
    let failed = |count: i64| {
        let sql = format!(
            "SELECT failed_rows = {count} AND sync_status = 'synced' FROM embedd.sync_status('v')"
        );
        cluster.wait_for("no_keys", LONG, &format!("{count} failed rows"), &sql);
    };
    failed(1);
    assert_eq!(stored_text(&mut client, "v", "5"), None);
    assert_eq!(stored_text(&mut client, "v", "6").unwrap(), "title 6");
    client.batch_execute("INSERT INTO base VALUES (6, 'a twin of six', 0)").unwrap();
    failed(2);
    assert_eq!(stored_text(&mut client, "v", "6"), None);
    // After some retries the result is the same.
    let retried: i64 = client.query_one("SELECT embedd.retry_failed('v')", &[]).unwrap().get(0);
    assert_eq!(retried, 2);
    let tried = "SELECT bool_and(attempts >= 2) FROM embedd.failed_rows";
    cluster.wait_for("no_keys", LONG, "another retry", tried);
    client.batch_execute("DELETE FROM base WHERE title LIKE 'a twin%'").unwrap();
    failed(0);
    client.batch_execute("DELETE FROM base WHERE id IS NULL").unwrap();
    assert_arrives(&cluster, "no_keys", "v");
}

#[test]
fn a_row_that_cannot_be_read_affects_only_its_view() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("bad_row");
    client
        .batch_execute(
            "CREATE TABLE base (id integer, title text, n integer); CREATE VIEW v AS SELECT id, title, 10 / n AS n FROM base;
             INSERT INTO base SELECT i, 'title ' || i, i FROM generate_series(1, 20) i",
        )
        .unwrap();
    create_batch(&mut client, "v", "1 second");
    synced_source(&cluster, "bad_row", &mut client, "t", 5);
    assert_arrives(&cluster, "bad_row", "v");
    client
        .batch_execute(
            "UPDATE base SET n = 0 WHERE id = 3; UPDATE base SET title = 'waits' WHERE id = 4",
        )
        .unwrap();
    wait_error(&cluster, "bad_row", "v", "division by zero");
    client.batch_execute("UPDATE t SET title = 'not held up' WHERE id = 1").unwrap();
    let arrived = "SELECT rows_pending = 0 AND sync_status = 'synced' FROM embedd.sync_status('t')";
    cluster.wait_for("bad_row", LONG, "the other table", arrived);
    assert_equal(&mut client, "t");
    client.batch_execute("UPDATE base SET n = 1 WHERE id = 3").unwrap();
    wait_well(&cluster, "bad_row", "v");
    assert_arrives(&cluster, "bad_row", "v");
}

#[test]
fn a_view_is_read_with_the_rights_of_its_owner_only() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("rights");
    client
        .batch_execute(
            "CREATE ROLE viewer LOGIN; CREATE SCHEMA hers AUTHORIZATION viewer;
             CREATE TABLE secret (id integer, title text, n integer); INSERT INTO secret VALUES (1, 'a secret', 1);
             CREATE TABLE told (who text); GRANT INSERT ON told TO viewer;
             GRANT USAGE ON SCHEMA embedd TO viewer",
        )
        .unwrap();
    let mut viewer = cluster.connect_as("rights", "viewer");
    viewer
        .batch_execute(
            "SET search_path = hers, public;
             CREATE TABLE own (id integer, title text, n integer); INSERT INTO own VALUES (1, 'her own', 1);
             CREATE VIEW v AS SELECT id, title, n FROM own;
             CREATE VIEW w AS SELECT id, title, n FROM secret;
             -- What a superuser's worker would do for her.
             CREATE FUNCTION evil(t text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                IF current_user <> 'viewer' THEN INSERT INTO public.told VALUES (current_user); END IF;
                BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; INSERT INTO public.told VALUES ('reset'); EXCEPTION WHEN others THEN NULL; END;
                BEGIN EXECUTE 'SET ROLE postgres'; INSERT INTO public.told VALUES ('role'); EXCEPTION WHEN others THEN NULL; END;
                BEGIN PERFORM FROM public.secret; INSERT INTO public.told VALUES ('secret'); EXCEPTION WHEN others THEN NULL; END;
                RETURN t; END $$;
             CREATE VIEW e AS SELECT id, evil(title) AS title, n FROM own",
        )
        .unwrap();
    create_batch(&mut viewer, "v", "1 second");
    create_batch(&mut viewer, "e", "1 second");
    create_batch_of(&mut viewer, "w", "1 second", "");
    wait_error(&cluster, "rights", "w", "permission denied");
    assert_arrives(&cluster, "rights", "v");
    wait_well(&cluster, "rights", "e");
    assert_eq!(stored_text(&mut client, "e", "1").unwrap(), "her own");
    let told = client.query("SELECT who FROM told", &[]).unwrap();
    assert!(told.is_empty(), "{}", told[0].get::<_, String>(0));
    let sql = format!("SELECT count(*) FROM {}", relation(&mut client, "w"));
    assert_eq!(client.query_one(&sql, &[]).unwrap().get::<_, i64>(0), 0);
    client.batch_execute("GRANT SELECT ON secret TO viewer").unwrap();
    wait_well(&cluster, "rights", "w");
    assert_arrives(&cluster, "rights", "w");
    client
        .batch_execute(
            "REVOKE SELECT ON secret FROM viewer; UPDATE secret SET title = 'still a secret'",
        )
        .unwrap();
    wait_error(&cluster, "rights", "w", "permission denied");
    assert_eq!(stored_text(&mut client, "w", "1").unwrap(), "a secret");
}

#[test]
fn a_view_that_is_dropped_and_recreated() {
    let cluster = Cluster::builder().set("embedd.poll_interval", "200ms").start();
    let mut client = cluster.database("anew");
    client
        .batch_execute(
            "CREATE TABLE base (id integer, title text, n integer); CREATE VIEW v AS SELECT * FROM base;
             INSERT INTO base SELECT i, 'title ' || i, i FROM generate_series(1, 20) i",
        )
        .unwrap();
    create_batch(&mut client, "v", "1 second");
    assert_arrives(&cluster, "anew", "v");
    client.batch_execute("DROP VIEW v").unwrap();
    wait_error(&cluster, "anew", "v", "source");
    client
        .batch_execute(
            "CREATE VIEW v AS SELECT n, title || '!' AS title, id FROM base WHERE id < 15",
        )
        .unwrap();
    wait_well(&cluster, "anew", "v");
    assert_arrives(&cluster, "anew", "v");
    assert_eq!(stored_text(&mut client, "v", "14").unwrap(), "title 14!");
    assert_eq!(stored_text(&mut client, "v", "15"), None);
}
