//! The source is dropped, restored or replaced; and so are its triggers and the vector table.

use postgres::Client;

use super::{POLLING, SHARED, answers, synced, wait_error, wait_noted, wait_well};
use support::fake_provider::{Dialect, FakeProvider};
use support::source::{COLUMNS, assert_equal, backfill, create_vector_table, relation};
use support::{Cluster, LONG};

/// The columns of the sources created here.
const DEFINITION: &str = "(id bigint PRIMARY KEY, title text, body text, price integer)";

/// A synced table `t` of ten rows in a database of the polling cluster, with vectors of the fake.
fn paid_for(db: &str, fake: &FakeProvider, on_drop: &str) -> (std::sync::Arc<Cluster>, Client) {
    let cluster = POLLING.cluster();
    let mut client = cluster.database(db);
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('fake', 'openai', 'sk-test', 'fake-model', '{}');
             CREATE TABLE t {DEFINITION};
             INSERT INTO t SELECT i, 'title ' || i, 'body of ' || i, i FROM generate_series(1, 10) i;
             SELECT embedd.create_vector_table('t', 't', '{COLUMNS}', embedding_provider => 'fake',
                embedding_dimensions => 8, start_backfill => true, on_source_drop => '{on_drop}')",
            fake.base_url()
        ))
        .unwrap();
    cluster.wait_done(db);
    assert_eq!(fake.paid_total(), 10);
    (cluster, client)
}

#[test]
fn a_dropped_source_leaves_its_vectors() {
    let (cluster, mut client) = synced("gone", 10);
    client.batch_execute("UPDATE t SET title = 'last words' WHERE id < 4; DROP TABLE t").unwrap();
    wait_error(&cluster, "gone", "t", "source");
    cluster.wait_for(
        "gone",
        LONG,
        "an empty queue",
        "SELECT NOT EXISTS (SELECT FROM embedd.queue)",
    );
    assert_eq!(answers(&mut client, r#"{"price": {"lte": 7}}"#), 7);
    for call in ["embedd.reconcile('t')", "embedd.verify('t')"] {
        let error = client.query(&format!("SELECT {call}"), &[]).unwrap_err();
        assert!(error.as_db_error().unwrap().message().contains("source"), "{call}: {error:?}");
    }
    let vectors = relation(&mut client, "t");
    client.batch_execute("SELECT embedd.drop_vector_table('t', keep_table => true)").unwrap();
    let count = client.query_one(&format!("SELECT count(*) FROM {vectors}"), &[]).unwrap();
    assert_eq!(count.get::<_, i64>(0), 10);
}

#[test]
fn a_dropped_source_and_its_vectors_dropped_later() {
    let (cluster, mut client) = synced("gone_both", 10);
    let vectors = relation(&mut client, "t");
    client.batch_execute("DROP TABLE t").unwrap();
    wait_error(&cluster, "gone_both", "t", "source");
    client.batch_execute("SELECT embedd.drop_vector_table('t')").unwrap();
    let sql = "SELECT to_regclass($1) IS NULL AND NOT EXISTS (SELECT FROM embedd.vector_tables)";
    assert!(client.query_one(sql, &[&vectors]).unwrap().get::<_, bool>(0));
}

#[test]
fn a_source_dropped_with_its_vectors() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("gone_with");
    client
        .batch_execute(&format!(
            "CREATE TABLE t {DEFINITION}; INSERT INTO t VALUES (1, 'one', '', 1);
             SELECT embedd.create_vector_table('t', 't', '{COLUMNS}', start_backfill => true, on_source_drop => 'drop')"
        ))
        .unwrap();
    cluster.assert_synced("gone_with", "t");
    let vectors = relation(&mut client, "t");
    client
        .batch_execute("BEGIN; DROP TABLE t; ROLLBACK; UPDATE t SET title = 'still here'")
        .unwrap();
    cluster.assert_synced("gone_with", "t");
    client.batch_execute("UPDATE t SET title = 'last words'; DROP TABLE t").unwrap();
    let sql = format!(
        "SELECT to_regclass('{vectors}') IS NULL AND NOT EXISTS (SELECT FROM embedd.vector_tables)
            AND NOT EXISTS (SELECT FROM embedd.queue) AND NOT EXISTS (SELECT FROM embedd.tasks)"
    );
    cluster.wait_for("gone_with", LONG, "everything to be gone", &sql);
}

/// Statements that recreate the source, with rows 1 to 9 as they were and another row 10.
fn made_anew(db: &str, statements: &[&str]) {
    let fake = FakeProvider::start(Dialect::OpenAi);
    let (cluster, mut client) = paid_for(db, &fake, "keep");
    let before = client.query_one("SELECT 't'::regclass::oid", &[]).unwrap().get::<_, u32>(0);
    for statement in statements {
        client.batch_execute(statement).unwrap();
    }
    let after = client.query_one("SELECT 't'::regclass::oid", &[]).unwrap().get::<_, u32>(0);
    assert_ne!(before, after);
    wait_noted(
        &cluster,
        db,
        &format!("source_table = {after} AND sync_status = 'synced' AND last_error IS NULL"),
    );
    cluster.wait_done(db);
    assert_eq!(fake.paid_total(), 11, "{:?}", fake.paid_more_than_once());
    client
        .batch_execute("UPDATE t SET title = 'followed' WHERE id = 1; DELETE FROM t WHERE id = 2; UPDATE t SET price = 7")
        .unwrap();
    cluster.wait_done(db);
    assert_eq!(fake.paid_total(), 12);
    assert_equal(&mut client, "t");
    client.batch_execute("TRUNCATE t").unwrap();
    cluster.assert_synced(db, "t");
}

/// The rows of the table that replaces the source.
const ROWS: &str = "INSERT INTO t SELECT i, CASE i WHEN 10 THEN 'another ten' ELSE 'title ' || i END, 'body of ' || i, i
    FROM generate_series(1, 10) i";

#[test]
fn a_source_is_recreated_in_one_transaction() {
    made_anew(
        "anew_one",
        &[&format!("BEGIN; DROP TABLE t; CREATE TABLE t {DEFINITION}; {ROWS}; COMMIT")],
    );
}

#[test]
fn a_source_is_recreated_in_two_transactions_with_other_column_numbers() {
    made_anew(
        "anew_two",
        &[
            "DROP TABLE t",
            &format!(
                "CREATE TABLE t (x integer, title text, price integer, body text, id bigint NOT NULL UNIQUE);
                 ALTER TABLE t DROP COLUMN x;
                 {}",
                ROWS.replace("INTO t", "INTO t (id, title, body, price)")
            ),
        ],
    );
}

#[test]
fn another_table_takes_the_name_of_the_source() {
    made_anew(
        "anew_name",
        &[
            &format!("CREATE TABLE t_new {DEFINITION}; {}", ROWS.replace("INTO t", "INTO t_new")),
            "BEGIN; DROP TABLE t; ALTER TABLE t_new RENAME TO t; COMMIT",
        ],
    );
    made_anew(
        "anew_old",
        &[
            &format!("CREATE TABLE t_new {DEFINITION}; {}", ROWS.replace("INTO t", "INTO t_new")),
            "BEGIN; ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t; DROP TABLE t_old; COMMIT",
        ],
    );
}

#[test]
fn a_table_that_cannot_replace_the_source() {
    let fake = FakeProvider::start(Dialect::OpenAi);
    let (cluster, mut client) = paid_for("anew_bad", &fake, "keep");
    client
        .batch_execute("DROP TABLE t; CREATE TABLE t (id bigint PRIMARY KEY, body text)")
        .unwrap();
    wait_error(&cluster, "anew_bad", "t", "\"title\"");
    client.batch_execute("DROP TABLE t; CREATE VIEW t AS SELECT 1 AS id").unwrap();
    wait_error(&cluster, "anew_bad", "t", "public.t");
    assert_eq!(answers(&mut client, "{}"), 10);
    client.batch_execute(&format!("DROP VIEW t; CREATE TABLE t {DEFINITION}; {ROWS}")).unwrap();
    wait_well(&cluster, "anew_bad", "t");
    cluster.assert_synced("anew_bad", "t");
}

#[test]
fn dropped_triggers_are_recreated() {
    let cluster = POLLING.cluster();
    let mut client = cluster.database("triggers");
    client.batch_execute(&format!("CREATE TABLE t {DEFINITION}; {ROWS}")).unwrap();
    create_vector_table(&mut client, "t");
    backfill(&mut client, "t");
    cluster.assert_synced("triggers", "t");
    let names = "SELECT array_agg(tgname::text ORDER BY tgname) FROM pg_trigger WHERE tgrelid = 't'::regclass";
    let triggers: Vec<String> = client.query_one(names, &[]).unwrap().get(0);
    assert_eq!(triggers.len(), 2);
    for trigger in &triggers {
        client
            .batch_execute(&format!(
                "BEGIN; DROP TRIGGER {trigger} ON t; UPDATE t SET title = 'unseen {trigger}'; DELETE FROM t WHERE id = 4; COMMIT"
            ))
            .unwrap();
        let sql = "SELECT count(*) = 2 FROM pg_trigger WHERE tgrelid = 't'::regclass";
        cluster.wait_for("triggers", LONG, "the trigger to be recreated", sql);
        cluster.assert_synced("triggers", "t");
        client.batch_execute("UPDATE t SET title = 'seen' WHERE id = 1").unwrap();
        cluster.assert_synced("triggers", "t");
    }
    client.batch_execute("TRUNCATE t").unwrap();
    cluster.assert_synced("triggers", "t");
}

#[test]
fn the_vector_table_is_dropped_by_hand() {
    let (cluster, mut client) = synced("vectors_gone", 10);
    let vectors = relation(&mut client, "t");
    client.batch_execute(&format!("DROP TABLE {vectors}")).unwrap();
    wait_error(&cluster, "vectors_gone", "t", "table");
    client
        .batch_execute("UPDATE t SET title = 'x'; DELETE FROM t WHERE id = 1; TRUNCATE t; INSERT INTO t VALUES (1)")
        .unwrap();
    let error = client.query("SELECT * FROM embedd.query('t', 'x')", &[]).unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("does not exist"), "{error:?}");
    client.batch_execute("SELECT embedd.drop_vector_table('t')").unwrap();
    create_vector_table(&mut client, "t");
    backfill(&mut client, "t");
    cluster.assert_synced("vectors_gone", "t");
}

#[test]
fn a_truncate_cascades_through_foreign_keys() {
    let (cluster, mut client) = synced("cascade", 10);
    client
        .batch_execute(
            "CREATE TABLE parent (id bigint PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 20);
             ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE;
             CREATE SEQUENCE numbers OWNED BY t.price",
        )
        .unwrap();
    client
        .batch_execute("DELETE FROM parent WHERE id = 1; UPDATE parent SET id = 102 WHERE id = 2")
        .unwrap();
    cluster.assert_synced("cascade", "t");
    client
        .batch_execute("BEGIN; SAVEPOINT a; TRUNCATE parent CASCADE; ROLLBACK TO a; COMMIT")
        .unwrap();
    cluster.assert_synced("cascade", "t");
    client.batch_execute("TRUNCATE parent CASCADE").unwrap();
    cluster.assert_synced("cascade", "t");
    assert_eq!(answers(&mut client, "{}"), 0);
    client
        .batch_execute(
            "INSERT INTO parent VALUES (1), (2); INSERT INTO t VALUES (1, 'one', '', 1);
             BEGIN; TRUNCATE parent, t RESTART IDENTITY; INSERT INTO parent VALUES (2);
             INSERT INTO t VALUES (2, 'two', '', 1); COMMIT",
        )
        .unwrap();
    cluster.assert_synced("cascade", "t");
}
