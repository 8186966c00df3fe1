//! Columns and writes of every kind, by roles without privileges on embedd.

use super::{SHARED, answers, synced, versions};
use support::LONG;
use support::source::{backfill, create_vector_table, relation, synced_source};

#[test]
fn columns_of_every_kind() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("kinds");
    client
        .batch_execute(
            r#"CREATE TYPE mood AS ENUM ('sad', 'happy');
             CREATE DOMAIN short AS text CHECK (length(value) < 10000);
             CREATE TYPE point_of AS (x integer, label text);
             CREATE TYPE spoken AS (a integer);
             CREATE FUNCTION speak(spoken) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'spoken ' || ($1).a $$;
             CREATE CAST (spoken AS text) WITH FUNCTION speak(spoken);
             CREATE TABLE t (id bigint PRIMARY KEY, j json, jb jsonb, a text[], m mood, d short, n numeric, b bytea,
                c point_of, s spoken, long text, ts timestamptz, i interval, f float8, made text GENERATED ALWAYS AS (d || '!') STORED);
             ALTER TABLE t ALTER long SET STORAGE EXTERNAL;
             INSERT INTO t (id, j, jb, a, m, d, n, b, c, s, long, ts, i, f)
                SELECT n, '{"a":  1}', '{"b": [1, null]}', ARRAY['x', NULL, 'y"z'], 'sad', 'short ' || n, 1.0, '\x00ff',
                       ROW(1, 'a b')::point_of, ROW(n)::spoken, repeat('long text ', 1000) || n, '2024-01-02 03:04:05+06', '1 year 2 days', 0.1
                  FROM generate_series(1, 30) n;
             INSERT INTO t (id) VALUES (31);
             SELECT embedd.create_vector_table('t', 't', '[
                {"name": "j", "role": "embedding", "name_prefix": "J: "}, {"name": "jb", "role": "embedding"},
                {"name": "a", "role": "embedding"}, {"name": "m", "role": "embedding"}, {"name": "d", "role": "embedding"},
                {"name": "n", "role": "embedding"}, {"name": "b", "role": "embedding"}, {"name": "c", "role": "embedding"},
                {"name": "s", "role": "embedding"}, {"name": "long", "role": "embedding", "ordinal": 9},
                {"name": "ts", "role": "metadata"}, {"name": "i", "role": "metadata"}, {"name": "f", "role": "metadata"},
                {"name": "made", "role": "embedding"}]', start_backfill => true)"#,
        )
        .unwrap();
    cluster.assert_synced("kinds", "t");
    let before = versions(&mut client, "t");
    client
        .batch_execute(
            r#"SET datestyle = 'German'; SET timezone = 'Asia/Tokyo'; SET bytea_output = 'escape'; SET intervalstyle = 'iso_8601';
             SET extra_float_digits = -3;
             UPDATE t SET j = '{"a": 1}' WHERE id = 1;
             UPDATE t SET jb = '{"b":   [1, null]}' WHERE id = 30;
             UPDATE t SET jb = jb || '{"c": "é"}' WHERE id = 2;
             UPDATE t SET a = a || 'more'::text WHERE id = 3;
             UPDATE t SET m = 'happy' WHERE id = 4;
             UPDATE t SET d = 'other' WHERE id = 5;
             UPDATE t SET n = 1.00 WHERE id = 6;
             UPDATE t SET n = 'NaN' WHERE id = 7;
             UPDATE t SET b = b || '\x01' WHERE id = 8;
             UPDATE t SET c.label = 'c' WHERE id = 9;
             UPDATE t SET s.a = 4711 WHERE id = 10;
             UPDATE t SET long = long || '.' WHERE id = 11;
             UPDATE t SET long = long, d = 'with long as it was' WHERE id = 12;
             UPDATE t SET long = repeat('long text ', 1000) || 29 WHERE id = 29;
             UPDATE t SET long = NULL WHERE id = 13;
             UPDATE t SET ts = ts + '1 microsecond' WHERE id = 14;
             UPDATE t SET i = '367 days' WHERE id = 15;
             UPDATE t SET f = 0.30000000000000004 WHERE id = 16;
             UPDATE t SET d = '' WHERE id = 17; UPDATE t SET d = NULL WHERE id = 18; UPDATE t SET d = '' WHERE id = 18;
             UPDATE t SET d = NULL WHERE id = 17;
             UPDATE t SET (j, jb, a, m, d, n, b, c, s, long) = (SELECT NULL::json, NULL::jsonb, NULL::text[], NULL::mood, NULL::short, NULL::numeric, NULL::bytea, NULL::point_of, NULL::spoken, NULL::text) WHERE id = 19;
             UPDATE t SET d = 'out of nothing' WHERE id = 31;
             INSERT INTO t (id, d, i, ts, b, f) VALUES (32, 'odd settings', 'P1Y2M', '01.02.2024', 'a\000b', 1e-17)"#,
        )
        .unwrap();
    cluster.assert_synced("kinds", "t");
    client
        .batch_execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; SELECT embedd.reconcile('t')")
        .unwrap();
    cluster.assert_synced("kinds", "t");
    client.batch_execute("UPDATE t SET m = NULL, jb = '{}' WHERE id IN (20, 29, 30)").unwrap();
    cluster.assert_synced("kinds", "t");
    assert_eq!(before.len(), 31);
}

#[test]
fn writes_without_a_change_are_not_queued() {
    let (cluster, mut client) = synced("nothing", 20);
    client
        .batch_execute(
            "ALTER TABLE t ADD COLUMN seen integer; ALTER TABLE t ALTER body SET STORAGE EXTERNAL",
        )
        .unwrap();
    client.batch_execute("UPDATE t SET body = repeat('long ', 2000) WHERE id = 1").unwrap();
    cluster.assert_synced("nothing", "t");
    let before = versions(&mut client, "t");
    let noted = "SELECT last_value FROM embedd.queue_id_seq";
    let last: i64 = client.query_one(noted, &[]).unwrap().get(0);
    client
        .batch_execute(
            "UPDATE t SET seen = id; UPDATE t SET title = title, body = body; UPDATE t SET id = id;
             UPDATE t SET body = repeat('long ', 2000) WHERE id = 1; UPDATE t SET price = 9 WHERE false",
        )
        .unwrap();
    assert_eq!(client.query_one(noted, &[]).unwrap().get::<_, i64>(0), last);
    cluster.assert_synced("nothing", "t");
    assert_eq!(versions(&mut client, "t"), before);
}

#[test]
fn updates_from_other_tables_and_rules_of_foreign_keys() {
    let (cluster, mut client) = synced("from", 20);
    client
        .batch_execute(
            "CREATE TABLE news (id bigint PRIMARY KEY, headline text); INSERT INTO news SELECT i, 'news ' || i FROM generate_series(1, 10) i;
             UPDATE t SET title = n.headline FROM news n WHERE n.id = t.id AND n.id < 6;
             DELETE FROM t USING news n WHERE n.id = t.id AND n.id > 8;
             CREATE TABLE names (title text PRIMARY KEY); INSERT INTO names SELECT DISTINCT title FROM t; INSERT INTO names VALUES ('spare');
             ALTER TABLE t ALTER title SET DEFAULT 'spare',
                ADD FOREIGN KEY (title) REFERENCES names ON UPDATE CASCADE ON DELETE SET DEFAULT;
             UPDATE names SET title = 'cascaded' WHERE title = 'title 11';
             DELETE FROM names WHERE title = 'title 12';
             CREATE VIEW v AS SELECT id, title FROM t WHERE id > 14; UPDATE v SET title = 'cascaded' WHERE id = 15;
             CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.body := new.body || ' touched'; RETURN new; END $$;
             CREATE TRIGGER a_touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();
             UPDATE t SET price = 1 WHERE id = 16",
        )
        .unwrap();
    cluster.assert_synced("from", "t");
    assert_eq!(answers(&mut client, r#"{"title": "cascaded"}"#), 2);
}

#[test]
fn changes_without_triggers_are_found_by_a_comparison() {
    let (cluster, mut client) = synced("silent", 2500);
    client
        .batch_execute(
            "SET session_replication_role = replica;
             UPDATE t SET title = 'silent' WHERE id % 100 = 0; DELETE FROM t WHERE id % 100 = 1;
             INSERT INTO t SELECT i, 'new ' || i, '', i FROM generate_series(5001, 5010) i;
             UPDATE t SET id = 7000 WHERE id = 7; RESET session_replication_role",
        )
        .unwrap();
    cluster.wait_done("silent");
    let problems: Vec<(String, i64)> = client
        .query(
            "SELECT problem, count(*) FROM embedd.verify('t') GROUP BY problem ORDER BY problem",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(problems, [("missing".into(), 11), ("orphaned".into(), 26), ("stale".into(), 25)]);
    client.batch_execute("SELECT embedd.reconcile('t')").unwrap();
    cluster.assert_synced("silent", "t");
    let sql = "SELECT different_rows FROM embedd.tasks WHERE task_type = 'reconcile'";
    assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, i64>(0), 62);
}

#[test]
fn a_role_without_privileges_on_embedd() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("stranger");
    client
        .batch_execute(
            "CREATE ROLE stranger LOGIN; CREATE SCHEMA hers AUTHORIZATION stranger; SET ROLE stranger;
             CREATE TABLE hers.t (id timestamptz PRIMARY KEY, title text, body text, price integer) PARTITION BY RANGE (id);
             CREATE TABLE hers.t1 PARTITION OF hers.t FOR VALUES FROM ('2000-01-01') TO ('2010-01-01');
             CREATE TABLE hers.t2 PARTITION OF hers.t DEFAULT; RESET ROLE",
        )
        .unwrap();
    client.batch_execute("SET search_path = hers, public").unwrap();
    create_vector_table(&mut client, "t");
    backfill(&mut client, "t");
    client
        .batch_execute(
            "RESET search_path; REVOKE ALL ON SCHEMA embedd FROM public;
             REVOKE ALL ON ALL TABLES IN SCHEMA embedd FROM public; REVOKE ALL ON ALL FUNCTIONS IN SCHEMA embedd FROM public",
        )
        .unwrap();
    let mut stranger = cluster.connect_as("stranger", "stranger");
    stranger
        .batch_execute(
            "CREATE FUNCTION hers.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS 'SELECT ''evil''';
             CREATE TABLE hers.vector_tables (id integer); CREATE TABLE hers.queue (id integer);
             SET search_path = hers, pg_catalog; SET datestyle = 'SQL, DMY'; SET timezone = 'Pacific/Chatham';
             SET default_transaction_isolation = 'repeatable read'; SET row_security = off;
             INSERT INTO t SELECT timestamptz '2001-02-03 04:05:06.789+00' + i * interval '400 days', 'title ' || i, '', i FROM generate_series(1, 20) i;
             UPDATE t SET title = 'rewritten' WHERE price = 2; UPDATE t SET id = id + '20 years' WHERE price = 3; DELETE FROM t WHERE price = 4;
             BEGIN; SAVEPOINT a; TRUNCATE t1; ROLLBACK TO a; COMMIT; TRUNCATE t2;
             INSERT INTO t VALUES ('03/02/2031 23:59:59.5 Europe/Paris', 'after', '', 1);
             ALTER TABLE t RENAME title TO titel; ALTER TABLE t DETACH PARTITION t1; INSERT INTO t VALUES (now(), 'now', '', 1)",
        )
        .unwrap();
    // PostgreSQL requires this privilege to create the triggers of an attached partition.
    client.batch_execute("GRANT USAGE ON SCHEMA embedd TO stranger; GRANT EXECUTE ON FUNCTION embedd.note_change() TO stranger").unwrap();
    stranger
        .batch_execute(
            "ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM ('01/01/2000') TO ('01/01/2010'); DROP TABLE t1",
        )
        .unwrap();
    cluster.wait_for(
        "stranger",
        LONG,
        "the new name",
        "SELECT columns::text ~ 'titel' FROM embedd.vector_tables",
    );
    cluster.assert_synced("stranger", "t");
    stranger.batch_execute("DROP TABLE t").unwrap();
    let sql = "SELECT sync_status = 'error' FROM embedd.sync_status('t')";
    cluster.wait_for("stranger", LONG, "the status", sql);
}

#[test]
fn a_session_with_prepared_statements() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("prepared");
    synced_source(&cluster, "prepared", &mut client, "t", 10);
    let mut other = cluster.connect("prepared");
    let write = other.prepare("UPDATE t SET body = $2 WHERE id = $1").unwrap();
    for (n, change) in (1_i64..).zip([
        "SELECT 1",
        "ALTER TABLE t ADD COLUMN more text",
        "ALTER TABLE t RENAME title TO headline",
        "ALTER TABLE t ALTER price TYPE bigint",
        "SELECT embedd.create_vector_table('second', 't', '[{\"name\": \"body\", \"role\": \"embedding\"}]', start_backfill => true)",
        "ALTER TABLE t DROP COLUMN more",
    ]) {
        client.batch_execute(change).unwrap();
        other.execute(&write, &[&n, &format!("written after {change}")]).unwrap();
        cluster.wait_for("prepared", LONG, "the name", "SELECT bool_and(columns::text ~ CASE WHEN name = 't'
            AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = source_table AND attname = 'headline') THEN 'headline' ELSE '' END)
            FROM embedd.vector_tables");
        cluster.assert_synced("prepared", "t");
    }
    cluster.assert_synced("prepared", "second");
    client.batch_execute("SELECT embedd.drop_vector_table('t')").unwrap();
    other.execute(&write, &[&9_i64, &"only the second is left".to_string()]).unwrap();
    cluster.assert_synced("prepared", "second");
    assert!(relation(&mut client, "second").contains("second"));
}

#[test]
fn a_table_that_is_rewritten_while_the_worker_waits_for_it() {
    let (cluster, mut client) = synced("rewritten", 200);
    let mut other = cluster.connect("rewritten");
    let worker = cluster.sync_worker("rewritten");
    {
        let _still = support::Frozen::new(worker);
        client.batch_execute("UPDATE t SET title = 'seen late' WHERE id < 100").unwrap();
        other.batch_execute("BEGIN; ALTER TABLE t ALTER price TYPE numeric; ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES t").unwrap();
    }
    let sql = format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {worker} AND NOT granted)");
    cluster.wait_for("rewritten", LONG, "the worker to wait", &sql);
    // A snapshot from before the rewrite sees the new table as empty.
    other.batch_execute("COMMIT").unwrap();
    cluster.assert_synced("rewritten", "t");
}
