//! Calibration: a worker measures the recall of an index, and questions visit as much of it as their target needs.

use postgres::Client;
use support::Shared;
use support::source::{relation, wait_synced};

static SHARED: Shared = Shared::new();

/// Texts of random words, whose vectors of many dimensions are nearly as far from each other: a small graph finds them badly.
const TEXTS: &str = "(select string_agg('w' || (hashint4(i * 8 + j) % 2000 + 2000) % 2000, ' ') from generate_series(1, 8) j)";

fn recall(client: &mut Client) -> (f64, Option<i32>) {
    let sql = "SELECT recall, ef_search FROM embedd.recall('t', sample => 200)";
    let row = client.query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1))
}

/// It is measured once when the table is in sync, again when the index is another one or the table has grown, and not where
/// the rows are too few. The role of the reader changes nothing.
#[test]
fn a_table_meets_its_target_where_a_graph_finds_little() {
    let (cluster, db) = (&SHARED.cluster(), "calibration");
    let mut client = cluster.database(db);
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('words', 'test');
             CREATE TABLE t (id int PRIMARY KEY, body text);
             INSERT INTO t SELECT i, {TEXTS} FROM generate_series(1, 12000) i;
             CREATE TABLE few (id int PRIMARY KEY, body text);
             INSERT INTO few SELECT i, {TEXTS} FROM generate_series(1, 500) i;
             SELECT embedd.create_vector_table(n, n, '[{{\"name\": \"body\", \"role\": \"embedding\"}}]', embedding_provider => 'words',
                    embedding_dimensions => 384, index => '{{\"m\": 4, \"ef_construction\": 16}}', start_backfill => true) FROM unnest(ARRAY['t', 'few']) n"
        ))
        .unwrap();
    wait_synced(cluster, db, "t");
    let measured = "SELECT measured_recall IS NOT NULL FROM embedd.vector_tables WHERE name = 't'";
    cluster.wait_for(db, support::LONG, "the measurement", measured);
    let curve = "SELECT (measured_recall->>'index')::oid, (measured_recall->>'questions')::int,
                        ARRAY(SELECT r::float8 FROM jsonb_array_elements_text(measured_recall->'recall') r) FROM embedd.vector_tables WHERE name = 't'";
    let row = client.query_one(curve, &[]).unwrap();
    let (index, questions, at): (u32, i32, Vec<f64>) = (row.get(0), row.get(1), row.get(2));
    assert!(questions == 100 && at.len() == 9 && at[0] < 0.97 && at[8] > at[0], "{at:?}");
    // More than the 160 of a table that was not measured, or every row.
    let (found, ef_search) = recall(&mut client);
    assert!(found >= 0.97 && ef_search.is_none_or(|ef| ef > 200), "{found} {ef_search:?}");
    let (less, ef_low) = {
        let sql = "SELECT embedd.update_vector_table('t', recall_target => 0.8)";
        client.batch_execute(sql).unwrap();
        recall(&mut client)
    };
    assert!(less >= 0.75, "{less} {ef_low:?}");
    // Another index is measured for itself; until then the first measurement says nothing.
    let vectors = relation(&mut client, "t");
    client
        .batch_execute(&format!(
            "DO $$ BEGIN EXECUTE 'DROP INDEX ' || {index}::regclass; END $$;
             CREATE INDEX ON {vectors} USING hnsw (embedding vector_cosine_ops) WITH (m = 32)"
        ))
        .unwrap();
    // A worker looks at indexes when it polls, or is woken.
    client.batch_execute("SELECT embedd.update_vector_table('t', recall_target => 0.98)").unwrap();
    let again = format!(
        "SELECT (measured_recall->>'index')::oid <> {index} FROM embedd.vector_tables WHERE name = 't'"
    );
    cluster.wait_for(db, support::LONG, "the second measurement", &again);
    let few = "SELECT measured_recall IS NULL FROM embedd.vector_tables WHERE name = 'few'";
    assert!(client.query_one(few, &[]).unwrap().get::<_, bool>(0));
}
