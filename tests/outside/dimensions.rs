//! Vectors of many dimensions and of both types, and tables with a name of their own, through every step: created,
//! backfilled, asked, changed, verified, dumped and restored.

use std::sync::Arc;

use postgres::Client;
use support::fake_provider::{Dialect, FakeProvider};
use support::source::{relation, wait_synced};
use support::{Cluster, LONG, Shared};

use crate::truth::dumps::{dump, restore};

/// The cluster of these tests.
static SHARED: Shared = Shared::new();

const KEY: &str = "sk-dimensions-0123456789";

/// Creates a source of this many texts and its vector table, with further arguments, and waits until it is synced.
fn create(cluster: &Cluster, db: &str, client: &mut Client, rows: i64, arguments: &str) {
    client
        .batch_execute(&format!(
            "CREATE TABLE t (id integer PRIMARY KEY, body text);
             INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, {rows}) i;
             SELECT embedd.create_vector_table('t', 't', '[{{\"name\": \"body\", \"role\": \"embedding\"}}]',
                    start_backfill => true, {arguments})"
        ))
        .unwrap();
    wait_synced(cluster, db, "t");
}

/// What is expected of a vector table.
#[derive(Clone, Copy)]
struct Expected {
    /// The type of the column, with its dimensions.
    column: &'static str,
    /// The key and the options of the index; None for no index.
    index: Option<&'static str>,
}

/// Asserts that the vector table answers, by its index if it has one and otherwise exactly, that its vectors are those of
/// its texts, and that doctor() misses nothing.
fn works(client: &mut Client, expected: Expected) {
    let vectors = relation(client, "t");
    let one = |client: &mut Client, sql: &str| client.query_one(sql, &[]).unwrap();
    let sql = format!(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = '{vectors}'::regclass AND attname = 'embedding'"
    );
    assert_eq!(one(client, &sql).get::<_, String>(0), expected.column);
    let sql = format!(
        "SELECT substring(pg_get_indexdef(indexrelid) FROM 'USING hnsw (.*)') FROM pg_index
          WHERE indrelid = '{vectors}'::regclass AND NOT indisprimary"
    );
    let index: Option<String> = client.query_opt(&sql, &[]).unwrap().map(|row| row.get(0));
    assert_eq!(index.as_deref(), expected.index);

    let scans = format!(
        "SELECT coalesce(sum(pg_stat_get_numscans(indexrelid)), 0)::bigint FROM pg_index
          WHERE indrelid = '{vectors}'::regclass AND NOT indisprimary"
    );
    let flush = "SELECT pg_stat_force_next_flush()";
    client.batch_execute(&format!("SET enable_seqscan = off; {flush}")).unwrap();
    let before: i64 = one(client, &scans).get(0);
    // Texts that share half of their words are hard for a graph.
    let question =
        "SELECT id, score FROM embedd.query('t', 'row 33', \"limit\" => 1, ef_search => 1000)";
    let nearest = one(client, question);
    assert_eq!(nearest.get::<_, String>(0), "33");
    assert!(nearest.get::<_, f64>(1) > 0.9);
    client.batch_execute(flush).unwrap();
    let grown = one(client, &scans).get::<_, i64>(0) - before;
    assert_eq!(grown, i64::from(expected.index.is_some()));
    client.batch_execute("RESET enable_seqscan").unwrap();
    if expected.index.is_none() {
        let sql = format!(
            "SELECT array_agg(q.id ORDER BY q.score DESC) = (SELECT array_agg(pk_value) FROM
                   (SELECT pk_value FROM {vectors} ORDER BY embedding <=> embedd.embed('t', 'row 7') LIMIT 10) v)
               FROM embedd.query('t', 'row 7') q"
        );
        assert!(one(client, &sql).get::<_, bool>(0), "the answer is not exact");
    }

    let sql = format!(
        "SELECT vector_dims(embedd.embed('t', 'x')) = min(vector_dims(embedding)) FROM {vectors}"
    );
    assert!(one(client, &sql).get::<_, bool>(0));
    for call in ["embedd.verify('t')", "embedd.verify('t', 20)"] {
        let sql = format!("SELECT count(*) FROM {call}");
        assert_eq!(one(client, &sql).get::<_, i64>(0), 0, "{call}");
    }
    let sql = "SELECT coalesce(string_agg(meaning, '; '), '') FROM embedd.doctor()
                WHERE state <> 'ok' AND \"check\" ~ 'index|table'";
    assert_eq!(one(client, sql).get::<_, String>(0), "");
}

/// Changes the source, whose vector table must follow.
fn follows(cluster: &Cluster, db: &str, client: &mut Client) {
    client
        .batch_execute(
            "INSERT INTO t VALUES (100000, 'a new row'); DELETE FROM t WHERE id = 1;
             UPDATE t SET body = NULL WHERE id = 2; UPDATE t SET body = 'another text' WHERE id = 3",
        )
        .unwrap();
    wait_synced(cluster, db, "t");
    let sql = "SELECT id FROM embedd.query('t', 'another text', \"limit\" => 1, ef_search => 1000)";
    assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, String>(0), "3");
}

/// All of it, in the database and in a copy that was restored from its dump.
fn works_here_and_in_a_copy(cluster: &Cluster, db: &str, client: &mut Client, expected: Expected) {
    works(client, expected);
    let (archive, copy) = (cluster.dir().join(format!("{db} dump")), format!("{db} copy"));
    dump(cluster, db, &archive, &["-Fc"]);
    restore(cluster, &copy, &archive, "-1");
    let mut restored = cluster.connect(&copy);
    restored.batch_execute("INSERT INTO t VALUES (0, 'the first write')").unwrap();
    wait_synced(cluster, &copy, "t");
    works(&mut restored, expected);
    follows(cluster, &copy, &mut restored);
    works(&mut restored, expected);
    follows(cluster, db, client);
    works(client, expected);
}

fn database(db: &str) -> (Arc<Cluster>, Client) {
    let cluster = SHARED.cluster();
    let client = cluster.database(db);
    (cluster, client)
}

/// A database with a provider whose vectors cost nothing and may have any number of dimensions.
fn with_test_provider(db: &str) -> (Arc<Cluster>, Client) {
    let (cluster, mut client) = database(db);
    client.batch_execute("SELECT embedd.create_provider('p', 'test')").unwrap();
    (cluster, client)
}

/// A database with a vector table of a model of 3072 dimensions.
fn of_model(db: &str, dialect: Dialect, kind: &str, model: &str) {
    let (cluster, mut client) = database(db);
    let fake = FakeProvider::builder(dialect).key(KEY).dimensions(3072).start();
    // A prefix would change the vectors of the fake, which knows no meaning.
    let sql = format!(
        "SELECT embedd.create_provider('p', '{kind}', api_key => $1, base_url => $2,
                options => '{{\"query_prefix\": \"\", \"document_prefix\": \"\"}}')"
    );
    client.execute(&sql, &[&KEY, &fake.base_url().as_str()]).unwrap();
    let arguments = format!("embedding_provider => 'p', embedding_model => '{model}'");
    create(&cluster, db, &mut client, 50, &arguments);
    let expected = Expected {
        column: "vector(3072)",
        index: Some("(((embedding)::halfvec(3072)) halfvec_cosine_ops)"),
    };
    works_here_and_in_a_copy(&cluster, db, &mut client, expected);
}

#[test]
fn text_embedding_3_large() {
    of_model("large", Dialect::OpenAi, "openai", "text-embedding-3-large");
}

#[test]
fn gemini_embedding_001() {
    of_model("gemini 1", Dialect::Gemini, "gemini", "gemini-embedding-001");
}

#[test]
fn gemini_embedding_2() {
    of_model("gemini 2", Dialect::Gemini, "gemini", "gemini-embedding-2");
}

#[test]
fn an_index_over_3072_dimensions_is_built_after_the_load() {
    for (db, of, column, index) in [
        ("vectors", "vector", "vector(3072)", "(((embedding)::halfvec(3072)) halfvec_cosine_ops)"),
        ("halfvecs", "halfvec", "halfvec(3072)", "(embedding halfvec_cosine_ops)"),
    ] {
        let (cluster, mut client) = with_test_provider(db);
        // A small graph is built soon.
        let arguments = format!(
            "embedding_provider => 'p', embedding_dimensions => 3072, vector_type => '{of}', index => '{{\"m\": 8, \"ef_construction\": 32}}'"
        );
        create(&cluster, db, &mut client, 5000, &arguments);
        let deferred = "SELECT count(*) FROM embedd.tasks WHERE phase = 'index'";
        assert_eq!(client.query_one(deferred, &[]).unwrap().get::<_, i64>(0), 1);
        let index = format!("{index} WITH (m='8', ef_construction='32')");
        works(&mut client, Expected { column, index: Some(index.leak()) });
        follows(&cluster, db, &mut client);
    }
}

#[test]
fn above_4000_dimensions_answers_are_exact() {
    for (db, of, dimensions, column) in [
        ("v 4096", "vector", 4096, "vector(4096)"),
        ("h 4096", "halfvec", 4096, "halfvec(4096)"),
        ("v 16000", "vector", 16000, "vector(16000)"),
        ("h 16000", "halfvec", 16000, "halfvec(16000)"),
    ] {
        let (cluster, mut client) = with_test_provider(db);
        let arguments = format!(
            "embedding_provider => 'p', embedding_dimensions => {dimensions}, vector_type => '{of}'"
        );
        create(&cluster, db, &mut client, 60, &arguments);
        let expected = Expected { column, index: None };
        works_here_and_in_a_copy(&cluster, db, &mut client, expected);
    }
}

#[test]
fn a_large_load_without_an_index() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(4096).start();
    let (cluster, mut client) = database("no index");
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('p', 'openai_compatible', base_url => '{}', default_model => 'm')",
            fake.base_url()
        ))
        .unwrap();
    let arguments = "embedding_provider => 'p', embedding_dimensions => 4096";
    create(&cluster, "no index", &mut client, 6000, arguments);
    assert_eq!(fake.paid_total(), 6000);
    works(&mut client, Expected { column: "vector(4096)", index: None });
}

#[test]
fn a_table_with_a_name_of_its_own() {
    let (cluster, mut client) = with_test_provider("named");
    client.batch_execute("CREATE SCHEMA \"Vectors of\"").unwrap();
    let arguments = "embedding_provider => 'p', embedding_dimensions => 8, table_name => 'the \"docs\"', table_schema => 'Vectors of'";
    create(&cluster, "named", &mut client, 50, arguments);
    assert_eq!(relation(&mut client, "t"), r#""Vectors of"."the ""docs""""#);
    let expected = Expected { column: "vector(8)", index: Some("(embedding vector_cosine_ops)") };
    works_here_and_in_a_copy(&cluster, "named", &mut client, expected);
    // The copy has it under the same name, and a second vector table cannot take it.
    let mut copy = cluster.connect("named copy");
    assert_eq!(relation(&mut copy, "t"), r#""Vectors of"."the ""docs""""#);
    let error = copy
        .batch_execute(
            "SELECT embedd.create_vector_table('u', 't', '[{\"name\": \"body\", \"role\": \"embedding\"}]',
                    table_name => 'the \"docs\"', table_schema => 'Vectors of')",
        )
        .unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("42P07"), "{error:?}");

    // Other names of table and schema are followed, and so is a table that was recreated under its name.
    client
        .batch_execute(
            "ALTER TABLE \"Vectors of\".\"the \"\"docs\"\"\" RENAME TO docs; ALTER SCHEMA \"Vectors of\" RENAME TO vectors",
        )
        .unwrap();
    let noted = "SELECT vectors_name = 'vectors.docs' FROM embedd.vector_tables";
    cluster.wait_for("named", LONG, "the new name to be noted", noted);
    works(&mut client, expected);
    client
        .batch_execute(
            "BEGIN; CREATE TABLE vectors.other (LIKE vectors.docs INCLUDING ALL);
             INSERT INTO vectors.other SELECT * FROM vectors.docs WHERE pk_value <> '5';
             DROP TABLE vectors.docs; ALTER TABLE vectors.other RENAME TO docs; COMMIT",
        )
        .unwrap();
    let noted = "SELECT vector_table = 'vectors.docs'::regclass FROM embedd.vector_tables";
    cluster.wait_for("named", LONG, "the new table to be noted", noted);
    wait_synced(&cluster, "named", "t");
    works(&mut client, expected);
}
