//! Composite keys, keys of every type, written by sessions with unusual settings.

use postgres::Client;
use support::source::{assert_equal, relation};
use support::{Cluster, LONG, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// Settings that change the text of most values.
const ODD: &str =
    "SET datestyle = 'German'; SET timezone = 'Asia/Kolkata'; SET intervalstyle = 'sql_standard';
    SET bytea_output = 'escape'; SET extra_float_digits = -5";

/// Creates and backfills the vector table `t` of the table `t`.
fn synced(cluster: &Cluster, db: &str, client: &mut Client) {
    client
        .batch_execute(
            "SELECT embedd.create_vector_table('t', 't', '[{\"name\": \"title\", \"role\": \"embedding\"},
                {\"name\": \"n\", \"role\": \"metadata\"}]', start_backfill => true)",
        )
        .unwrap();
    assert_all_equal(cluster, db, client);
}

/// Waits; then source and vector table must be equal, according to this test and to embedd, and every row can be
/// found.
fn assert_all_equal(cluster: &Cluster, db: &str, client: &mut Client) {
    cluster.wait_done(db);
    assert_equal(client, "t");
    let differences =
        client.query("SELECT pk_value, problem FROM embedd.verify('t')", &[]).unwrap();
    let first = differences.first().map(|row| row.get::<_, String>(0));
    assert_eq!(first, None);
    let sql = format!(
        "SELECT (SELECT array_agg(id ORDER BY id) FROM embedd.query('t', 'title', 1000))
            IS NOT DISTINCT FROM (SELECT array_agg(pk_value ORDER BY pk_value) FROM {} WHERE embedding IS NOT NULL)",
        relation(client, "t")
    );
    let count = format!("SELECT count(*) FROM {}", relation(client, "t"));
    if client.query_one(&count, &[]).unwrap().get::<_, i64>(0) <= 200 {
        assert!(
            client.query_one(&sql, &[]).unwrap().get::<_, bool>(0),
            "query() returns other ids"
        );
    }
}

/// A type of a key: its name, four values as SQL (the last two are not in the initial rows), and its prerequisites.
struct Kind {
    name: &'static str,
    values: [&'static str; 4],
}

const KINDS: &[Kind] = &[
    Kind { name: "integer", values: ["-1", "2147483647", "0", "7"] },
    Kind { name: "bigint", values: ["'-9223372036854775808'", "9223372036854775807", "0", "7"] },
    Kind { name: "smallint", values: ["'-32768'", "3", "0", "7"] },
    Kind {
        name: "text",
        values: [
            r#"'quo"te'"#,
            r"E'back\\slash\nline\t\u0001'",
            "'  blanks '",
            "'ключ 鍵 🔑 [1, \"x\"]'",
        ],
    },
    Kind { name: "varchar(20)", values: ["''", "'null'", "'a,b'", "'{}'"] },
    Kind { name: "char(6)", values: ["'ab'", "'abcdef'", "''", r#"'"'"#] },
    Kind { name: "numeric", values: ["1.50", "'NaN'", "-0.000000000000000000001", "1e30"] },
    Kind { name: "numeric(10,3)", values: ["1.5", "-12.345", "0", "1000000"] },
    Kind { name: "boolean", values: ["true", "false", "true", "false"] },
    Kind {
        name: "date",
        values: ["'2024-02-29'", "'infinity'", "'0044-03-15 BC'", "'1999-12-31'"],
    },
    Kind {
        name: "timestamptz",
        values: [
            "'2024-01-01 00:00:00.123456+09'",
            "'-infinity'",
            "'2024-07-01 12:00+00'",
            "'1900-01-01 00:00+00'",
        ],
    },
    Kind {
        name: "timestamp",
        values: ["'2024-01-01 00:00:00.1'", "'infinity'", "'2024-07-01 12:00'", "'1900-01-01'"],
    },
    Kind {
        name: "uuid",
        values: [
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'00000000-0000-0000-0000-000000000000'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            "'12345678-1234-1234-1234-123456789abc'",
        ],
    },
    Kind { name: "bytea", values: [r"'\x00ff'", r"'\x'", r"'\x5c22'", r"'\x41'"] },
    Kind { name: "mood", values: ["'sad'", "'so \"so\"'", "'happy'", "'angry'"] },
    Kind { name: "small", values: ["1", "2", "3", "4"] },
    Kind {
        name: "interval",
        values: ["'1 year 2 mons 3 days 04:05:06.7'", "'-1 day'", "'0'", "'100 hours'"],
    },
    Kind { name: "float8", values: ["0.1", "'NaN'", "1e300", "0.30000000000000004"] },
    Kind { name: "real", values: ["0.1", "'-Infinity'", "1e30", "16777216"] },
    Kind { name: "jsonb", values: [r#"'{"a": [1, "x"]}'"#, "'null'", r#"'"text"'"#, "'1.50'"] },
    Kind { name: "integer[]", values: ["'{1,2}'", "'{}'", "'{{1},{2}}'", "'{NULL}'"] },
    Kind { name: "inet", values: ["'192.168.0.1/24'", "'::1'", "'10.0.0.0/8'", "'1.2.3.4'"] },
    Kind { name: "public.citext", values: ["'MiXed'", "'ß'", "''", "'Other'"] },
];

/// A database with the types of [`KINDS`].
fn database(cluster: &Cluster, db: &str) -> Client {
    let mut client = cluster.database(db);
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('sad', 'so \"so\"', 'happy', 'angry'); CREATE DOMAIN small AS smallint CHECK (value < 1000);
             CREATE EXTENSION citext SCHEMA public",
        )
        .unwrap();
    client
}

/// Inserts rows, changes one part of their keys and both, swaps, deletes and truncates.
fn live(cluster: &Cluster, db: &str, client: &mut Client, kind: &Kind) {
    let Kind { name, values: [a, b, c, d] } = kind;
    let cast = |value: &str| format!("{value}::{name}");
    let (a, b, c, d) = (cast(a), cast(b), cast(c), cast(d));
    client
        .batch_execute(&format!(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (title text, n integer, k {name}, id integer, PRIMARY KEY (k, id));
             INSERT INTO t SELECT 'title ' || i, i, {a}, i FROM generate_series(1, 5) i;
             INSERT INTO t SELECT 'title ' || i, i, {b}, i FROM generate_series(6, 10) i"
        ))
        .unwrap();
    synced(cluster, db, client);
    client.batch_execute(ODD).unwrap();
    client
        .batch_execute(&format!(
            "INSERT INTO t VALUES ('inserted', 1, {c}, 11), ('inserted too', 1, {d}, 11 + 1);
             UPDATE t SET title = 'rewritten' WHERE id = 1;
             UPDATE t SET k = {c}, title = 'another first part' WHERE id = 2;
             UPDATE t SET id = 103 WHERE id = 3;
             UPDATE t SET k = {d}, id = 104 WHERE id = 4;
             UPDATE t SET n = 50 WHERE id = 5;
             DELETE FROM t WHERE id = 6"
        ))
        .unwrap();
    client
        .batch_execute(&format!(
            "BEGIN; UPDATE t SET id = -7 WHERE id = 7; UPDATE t SET id = 7 WHERE id = 8; UPDATE t SET id = 8 WHERE id = -7;
             SAVEPOINT a; UPDATE t SET k = {c} WHERE id = 9; ROLLBACK TO a; DELETE FROM t WHERE id = 10;
             INSERT INTO t VALUES ('in the place of another', 3, {b}, 10); COMMIT"
        ))
        .unwrap();
    assert_all_equal(cluster, db, client);
    client
        .batch_execute(&format!("TRUNCATE t; INSERT INTO t VALUES ('after', 1, {b}, 1)"))
        .unwrap();
    assert_all_equal(cluster, db, client);
    client.batch_execute("SELECT embedd.drop_vector_table('t')").unwrap();
}

#[test]
fn every_type_works_in_a_composite_key() {
    let cluster = SHARED.cluster();
    let mut client = database(&cluster, "parts");
    for kind in KINDS {
        println!("{}", kind.name);
        live(&cluster, "parts", &mut client, kind);
        client.batch_execute("RESET ALL").unwrap();
    }
}

#[test]
fn every_type_works_as_a_key() {
    let cluster = SHARED.cluster();
    let mut client = database(&cluster, "alone");
    for Kind { name, values: [a, b, c, d] } in KINDS {
        println!("{name}");
        // There are only two boolean values.
        let (c, d) = if *name == "boolean" { ("NULL", "NULL") } else { (*c, *d) };
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (title text, n integer, k {name} PRIMARY KEY);
                 INSERT INTO t VALUES ('a', 1, {a}::{name}), ('b', 2, {b}::{name})"
            ))
            .unwrap();
        synced(&cluster, "alone", &mut client);
        client.batch_execute(ODD).unwrap();
        client
            .batch_execute(&format!(
                "UPDATE t SET title = 'rewritten' WHERE n = 1; INSERT INTO t SELECT 'c', 3, c FROM (VALUES ({c}::{name})) v(c) WHERE c IS NOT NULL;
                 UPDATE t SET k = coalesce({d}::{name}, k), title = 'moved' WHERE n = 2"
            ))
            .unwrap();
        assert_all_equal(&cluster, "alone", &mut client);
        client.batch_execute("RESET ALL; DELETE FROM t WHERE n = 1").unwrap();
        assert_all_equal(&cluster, "alone", &mut client);
        client.batch_execute("SELECT embedd.drop_vector_table('t')").unwrap();
    }
}

#[test]
fn numbers_that_are_equal_but_not_identical() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("scale");
    client
        .batch_execute(
            "CREATE TABLE t (title text, n integer, a numeric, b numeric, c text, PRIMARY KEY (a, b, c));
             INSERT INTO t VALUES ('one', 1, 1.0, 2.00, 'x'), ('two', 2, 1.5, 'NaN', 'x'), ('three', 3, 'Infinity', 0, 'x')",
        )
        .unwrap();
    synced(&cluster, "scale", &mut client);
    client
        .batch_execute("UPDATE t SET a = 1.000, title = 'same place' WHERE n = 1; UPDATE t SET b = -0.0 WHERE n = 3; UPDATE t SET b = 1.10 WHERE n = 2")
        .unwrap();
    assert_all_equal(&cluster, "scale", &mut client);
    client.batch_execute("DELETE FROM t WHERE a = 1").unwrap();
    assert_all_equal(&cluster, "scale", &mut client);
}

#[test]
fn pages_with_few_distinct_first_columns() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("pages");
    client
        .batch_execute(
            "CREATE TABLE t (title text, n integer, tenant text, kind boolean, id bigint, PRIMARY KEY (tenant, kind, id));
             INSERT INTO t SELECT 'title ' || i % 7, i, CASE i % 2 WHEN 0 THEN 'a \"b\"' ELSE E'c\\\\d\\n' END, i % 3 = 0, i
               FROM generate_series(1, 4500) i",
        )
        .unwrap();
    synced(&cluster, "pages", &mut client);
    client.batch_execute("SET session_replication_role = replica; UPDATE t SET title = 'silent' WHERE n % 50 = 0; DELETE FROM t WHERE n % 50 = 1; RESET session_replication_role").unwrap();
    client.batch_execute("SELECT embedd.reconcile('t')").unwrap();
    assert_all_equal(&cluster, "pages", &mut client);
    client
        .batch_execute(
            "UPDATE t SET tenant = 'moved' WHERE kind; UPDATE t SET n = n + 1 WHERE NOT kind",
        )
        .unwrap();
    assert_all_equal(&cluster, "pages", &mut client);
    client.batch_execute("TRUNCATE t").unwrap();
    cluster.wait_for(
        "pages",
        LONG,
        "no rows",
        "SELECT total_rows = 0 AND synced_rows = 0 FROM embedd.sync_status('t')",
    );
    assert_all_equal(&cluster, "pages", &mut client);
}

#[test]
fn composite_keys_in_partitions_and_after_renames() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("partitioned");
    client
        .batch_execute(
            "CREATE TABLE t (title text, n integer, region char(4), day date, id integer, PRIMARY KEY (day, region, id)) PARTITION BY LIST (region);
             CREATE TABLE t_eu (id integer NOT NULL, region char(4) NOT NULL, n integer, day date NOT NULL, title text);
             ALTER TABLE t ATTACH PARTITION t_eu FOR VALUES IN ('eu');
             CREATE TABLE t_us PARTITION OF t FOR VALUES IN ('us');
             INSERT INTO t SELECT 'title ' || i, i, CASE i % 2 WHEN 0 THEN 'eu' ELSE 'us' END, date '2024-01-01' + i, i FROM generate_series(1, 40) i",
        )
        .unwrap();
    synced(&cluster, "partitioned", &mut client);
    client.batch_execute(ODD).unwrap();
    client
        .batch_execute(
            "UPDATE t SET region = 'us', title = 'moved' WHERE id = 2; UPDATE t_eu SET day = day + 1000 WHERE id = 4;
             DELETE FROM t_us WHERE id = 5; INSERT INTO t_eu (id, region, day, title) VALUES (99, 'eu', '24.12.2024', 'straight')",
        )
        .unwrap();
    assert_all_equal(&cluster, "partitioned", &mut client);
    client
        .batch_execute(
            "ALTER TABLE t RENAME region TO \"the Region\"; UPDATE t SET title = 'renamed' WHERE id = 6; UPDATE t SET id = 700 WHERE id = 7",
        )
        .unwrap();
    cluster.wait_for(
        "partitioned",
        LONG,
        "the name",
        "SELECT primary_key_column::jsonb = '[\"day\", \"the Region\", \"id\"]' FROM embedd.vector_tables",
    );
    assert_all_equal(&cluster, "partitioned", &mut client);
}

#[test]
fn a_composite_key_chosen_by_argument() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("chosen");
    client
        .batch_execute(
            "CREATE TABLE t (id integer PRIMARY KEY, \"A b\" text NOT NULL, c uuid NOT NULL DEFAULT gen_random_uuid(), title text, n integer, UNIQUE (c, \"A b\"));
             INSERT INTO t SELECT i, 'a ' || i % 3, gen_random_uuid(), 'title ' || i, i FROM generate_series(1, 20) i;
             SELECT embedd.create_vector_table('t', 't', '[{\"name\": \"title\", \"role\": \"embedding\"}]', '[\"A b\", \"c\"]', start_backfill => true)",
        )
        .unwrap();
    assert_all_equal(&cluster, "chosen", &mut client);
    client
        .batch_execute("UPDATE t SET id = id + 100; UPDATE t SET \"A b\" = 'é' WHERE n = 2; UPDATE t SET c = gen_random_uuid() WHERE n = 3")
        .unwrap();
    assert_all_equal(&cluster, "chosen", &mut client);
    // A part of the key is dropped: the status names it, and writers get no error.
    client.batch_execute("ALTER TABLE t DROP COLUMN c").unwrap();
    let told =
        "SELECT sync_status = 'error' AND last_error LIKE '%\"c\"%' FROM embedd.sync_status('t')";
    cluster.wait_for("chosen", LONG, "an error that names the column", told);
    client
        .batch_execute("UPDATE t SET title = 'x' WHERE n = 4; DELETE FROM t WHERE n = 5")
        .unwrap();
    client
        .batch_execute("ALTER TABLE t ADD COLUMN c uuid NOT NULL DEFAULT gen_random_uuid(), ADD UNIQUE (\"A b\", c)")
        .unwrap();
    let well = "SELECT sync_status = 'synced' FROM embedd.sync_status('t')";
    cluster.wait_for("chosen", LONG, "it to recover", well);
    assert_all_equal(&cluster, "chosen", &mut client);
}
