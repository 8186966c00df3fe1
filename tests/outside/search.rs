//! Answers: as many rows as match, and the right ones, whatever a filter, a policy, equal texts, old row versions or the kind
//! of index hides from an index scan.

mod asking;
mod calibration;
mod generated;
mod providers;
mod readers;

use std::collections::BTreeSet;

use postgres::{Client, IsolationLevel};
use support::fake_provider::{Dialect, FakeProvider};
use support::source::{relation, wait_synced};
use support::{Cluster, Shared};

static SHARED: Shared = Shared::new();

const QUESTIONS: [&str; 12] = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
];

/// A vector table `t` of these texts, one a row, with a number and the name of a tenant as metadata, and its provider.
fn create(cluster: &Cluster, db: &str, client: &mut Client, texts: &str) -> FakeProvider {
    let fake =
        FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(32).record(false).start();
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('fake', 'openai_compatible', base_url => '{}', default_model => 'm');
             CREATE TABLE t (id int PRIMARY KEY, body text, n int, tenant text);
             INSERT INTO t SELECT i, {texts}, i, 'tenant' || i % 200 FROM generate_series(1, 8000) i;
             SELECT embedd.create_vector_table('t', 't', '[{{\"name\": \"body\", \"role\": \"embedding\"}},
                    {{\"name\": \"n\", \"role\": \"metadata\"}}, {{\"name\": \"tenant\", \"role\": \"metadata\"}}]',
                    embedding_provider => 'fake', embedding_dimensions => 32, start_backfill => true)",
            fake.base_url()
        ))
        .unwrap();
    wait_synced(cluster, db, "t");
    let vectors = relation(client, "t");
    client.batch_execute(&format!("ANALYZE {vectors}")).unwrap();
    fake
}

/// The keys that query() returns, with further arguments, and their scores.
fn answers(client: &mut Client, question: &str, limit: i32, arguments: &str) -> Vec<(String, f64)> {
    let sql = format!(
        "SELECT id, score FROM embedd.query('t', '{question}', \"limit\" => {limit}{arguments})"
    );
    client.query(&sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The same by reading every row that this condition keeps.
fn expected(client: &mut Client, question: &str, limit: i32, keeps: &str) -> Vec<(String, f64)> {
    let vectors = relation(client, "t");
    let sql = format!(
        "SELECT v.pk_value, 1 - (v.embedding <=> e.e) FROM {vectors} v,
                (SELECT embedd.embed('t', '{question}') AS e OFFSET 0) e
          WHERE {keeps} ORDER BY (v.embedding <=> e.e) + 0.0::float8, v.pk_value COLLATE \"C\" LIMIT {limit}"
    );
    client.query(&sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Asserts that no answer is shorter than it could be, and that at least this part of the rows is the right one. Returns
/// how many rows there were.
fn assert_whole(
    client: &mut Client,
    limit: i32,
    (arguments, keeps): (&str, &str),
    recall: f64,
) -> usize {
    let (mut all, mut found) = (0, 0);
    for question in QUESTIONS {
        let expected = expected(client, question, limit, keeps);
        let answers = answers(client, question, limit, arguments);
        assert_eq!(answers.len(), expected.len(), "{question}, limit {limit}{arguments}");
        assert!(answers.is_sorted_by(|one, next| one.1 >= next.1), "{answers:?}");
        let right: BTreeSet<&str> = expected.iter().map(|(id, _)| id.as_str()).collect();
        all += expected.len();
        found += answers.iter().filter(|(id, _)| right.contains(id.as_str())).count();
    }
    assert!(found as f64 >= recall * all as f64, "{found} of {all}, limit {limit}{arguments}");
    all
}

/// Filters that keep half, a twentieth, a hundredth and a thousandth of the rows, with and without one; limits up to the
/// largest; with little work_mem.
#[test]
fn filters_leave_no_answer_short() {
    let (cluster, db) = (SHARED.cluster(), "filters");
    let mut client = cluster.database(db);
    let _fake = create(&cluster, db, &mut client, "'text ' || i");
    for memory in ["4MB", "64kB"] {
        client.batch_execute(&format!("SET work_mem = '{memory}'")).unwrap();
        assert_whole(&mut client, 10, ("", "true"), 0.95);
        for (rows, recall) in [(4000, 0.95), (400, 1.0), (80, 1.0), (8, 1.0)] {
            let filter = format!(", filters => '{{\"n\": {{\"lte\": {rows}}}}}'");
            let keeps = format!("(v.metadata->>'n')::int <= {rows}");
            for limit in [1, 10, 1000] {
                let all = assert_whole(&mut client, limit, (&filter, &keeps), recall);
                assert_eq!(all, QUESTIONS.len() * rows.min(limit as usize));
            }
        }
        // None matches; and every row is wanted that is similar enough.
        let nothing = (", filters => '{\"n\": {\"gt\": 8000}}'", "false");
        assert_eq!(assert_whole(&mut client, 10, nothing, 1.0), 0);
    }
    let similar = answers(&mut client, "one", 1000, ", min_similarity_score => 0.3");
    let mut all = expected(&mut client, "one", 1000, "true");
    all.retain(|(_, score)| *score >= 0.3);
    assert!(!all.is_empty() && all.len() < 1000);
    assert_eq!(similar, all);
    // A given ef_search asks for the index; what it leaves out is brought all the same.
    let rare = (", ef_search => 10, filters => '{\"n\": 77}'", "(v.metadata->>'n') = '77'");
    assert_eq!(assert_whole(&mut client, 10, rare, 1.0), QUESTIONS.len());
}

/// A reader of a few rows: the policy of the vector table, not the index, decides how many there are.
#[test]
fn policies_leave_no_answer_short() {
    let (cluster, db) = (SHARED.cluster(), "policies");
    let mut client = cluster.database(db);
    let _fake = create(&cluster, db, &mut client, "'text ' || i");
    let vectors = relation(&mut client, "t");
    client
        .batch_execute(&format!(
            "CREATE ROLE tenant7; GRANT USAGE ON SCHEMA embedd TO tenant7; GRANT SELECT ON {vectors} TO tenant7;
             ALTER TABLE {vectors} ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON {vectors} USING (metadata->>'tenant' = current_user)"
        ))
        .unwrap();
    let keeps = "v.metadata->>'tenant' = 'tenant7'";
    let right: Vec<_> = QUESTIONS.map(|q| expected(&mut client, q, 100, keeps)).into();
    client.batch_execute("SET ROLE tenant7").unwrap();
    for (question, right) in QUESTIONS.iter().zip(right) {
        assert_eq!(right.len(), 40);
        assert_eq!(answers(&mut client, question, 100, ""), right);
    }
}

/// Five thousand equal texts surround each other in the graph of an index and hide other rows.
#[test]
fn equal_texts_hide_no_other_row() {
    let (cluster, db) = (SHARED.cluster(), "equal");
    let mut client = cluster.database(db);
    let texts = "CASE WHEN i <= 5000 THEN 'the same' ELSE 'text ' || i END";
    let _fake = create(&cluster, db, &mut client, texts);
    assert_whole(&mut client, 10, ("", "true"), 1.0);
    assert_whole(&mut client, 1000, ("", "true"), 1.0);
    // The equal ones are in the order of their keys.
    let same = answers(&mut client, "the same", 20, "");
    assert_eq!(same, expected(&mut client, "the same", 20, "true"));
    assert!(same.is_sorted() && same.len() == 20);
    // Without statistics the equal distances of an answer show it.
    client.batch_execute("DELETE FROM pg_statistic").unwrap();
    assert_eq!(answers(&mut client, "the same", 20, ""), same);
}

/// A transaction with an old snapshot sees the rows of then, whose versions an index scan meets among newer ones.
#[test]
fn an_old_snapshot_has_whole_answers() {
    let (cluster, db) = (SHARED.cluster(), "snapshot");
    let mut client = cluster.database(db);
    let _fake = create(&cluster, db, &mut client, "'text ' || i");
    let mut old = cluster.connect(db);
    let mut old =
        old.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().unwrap();
    let sql = "SELECT id FROM embedd.query('t', 'one', \"limit\" => 100)";
    let ids = |rows: Vec<postgres::Row>| rows.iter().map(|r| r.get(0)).collect::<Vec<String>>();
    let before = ids(old.query(sql, &[]).unwrap());
    client.batch_execute("DELETE FROM t WHERE id % 10 <> 0").unwrap();
    wait_synced(&cluster, db, "t");
    assert_eq!(before.len(), 100);
    assert_eq!(ids(old.query(sql, &[]).unwrap()), before);
    // And a new one sees what is left, among the versions that are dead but kept for the old one.
    assert_whole(&mut client, 100, ("", "true"), 0.95);
}

/// Other indexes over the vectors, one on the condition, none at all, and partitions.
#[test]
fn other_indexes_and_partitions() {
    let (cluster, db) = (SHARED.cluster(), "indexes");
    let mut client = cluster.database(db);
    let _fake = create(&cluster, db, &mut client, "'text ' || i");
    let vectors = relation(&mut client, "t");
    let rare = (", filters => '{\"tenant\": \"tenant7\"}'", "v.metadata->>'tenant' = 'tenant7'");
    let cases = |client: &mut Client, recall: f64| {
        assert_whole(client, 10, ("", "true"), recall);
        assert_whole(client, 10, rare, 1.0);
        assert_whole(client, 1000, ("", "true"), 1.0);
    };
    let hnsw: String = client
        .query_one(&format!("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = '{vectors}'::regclass AND NOT indisprimary"), &[])
        .unwrap()
        .get(0);
    client.batch_execute(&format!("DROP INDEX {hnsw}")).unwrap();
    cases(&mut client, 1.0);
    client
        .batch_execute(&format!(
            "CREATE INDEX ON {vectors} USING ivfflat (embedding vector_cosine_ops) WITH (lists = 20)"
        ))
        .unwrap();
    cases(&mut client, 0.6);
    client
        .batch_execute(&format!(
            "CREATE INDEX ON {vectors} ((metadata->>'tenant')); ANALYZE {vectors}"
        ))
        .unwrap();
    cases(&mut client, 0.6);
    // Partitioned by its user, under the same name.
    let name: String = client
        .query_one("SELECT relname::text FROM embedd.vector_tables v JOIN pg_class c ON c.oid = v.vector_table", &[])
        .unwrap()
        .get(0);
    client
        .batch_execute(&format!(
            "SELECT embedd.pause_sync('t');
             BEGIN;
             ALTER TABLE {vectors} RENAME TO before;
             CREATE TABLE {name} (LIKE before INCLUDING DEFAULTS, PRIMARY KEY (pk_value)) PARTITION BY HASH (pk_value);
             CREATE TABLE p0 PARTITION OF {name} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE p1 PARTITION OF {name} FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO {name} SELECT * FROM before;
             CREATE INDEX ON {name} USING hnsw (embedding vector_cosine_ops);
             DROP TABLE before;
             COMMIT;
             SELECT embedd.resume_sync('t');
             ANALYZE {name}"
        ))
        .unwrap();
    wait_synced(&cluster, db, "t");
    assert_eq!(relation(&mut client, "t"), format!("public.{name}"));
    cases(&mut client, 0.95);
}
