//! What a question costs: calls of the provider, and the index that serves SQL of the user's own.

use support::fake_provider::FakeProvider;
use support::source::{relation, wait_synced};
use support::{Cluster, Shared};

/// No question is cached beyond a statement, so every call is seen.
static SHARED: Shared = Shared::of(|| {
    Cluster::builder()
        .never_polling()
        .set("max_worker_processes", "64")
        .set("embedd.query_cache_size", "0")
});

/// How many texts the provider is asked for by this statement, whose result has one number.
fn paid(client: &mut postgres::Client, fake: &FakeProvider, sql: &str) -> (u64, i64) {
    let before = fake.paid_total();
    let row = client.query_one(sql, &[]).unwrap();
    (fake.paid_total() - before, row.get(0))
}

/// embed() in a condition on every row is one call, and ORDER BY uses the index, in a sub-select too.
#[test]
fn embed_is_evaluated_once_in_a_statement() {
    let (cluster, db) = (&SHARED.cluster(), "embed");
    let mut client = cluster.database(db);
    let fake = super::create(cluster, db, &mut client, "'text ' || i");
    let vectors = relation(&mut client, "t");
    let embed = "embedd.embed('t', 'a question')";
    let rows = format!(
        "SELECT count(*) FROM {vectors} WHERE embedding <=> {embed} <= 2 AND embedding <=> {embed} >= 0"
    );
    assert_eq!(paid(&mut client, &fake, &rows), (1, 8000));
    // Another statement is another question, also in the same transaction.
    client.batch_execute("BEGIN").unwrap();
    assert_eq!(paid(&mut client, &fake, &rows).0, 1);
    assert_eq!(paid(&mut client, &fake, &rows).0, 1);
    client.batch_execute("COMMIT").unwrap();
    let texts =
        "SELECT count(embedd.embed('t', 'question ' || i % 4)) FROM generate_series(1, 100) i";
    assert_eq!(paid(&mut client, &fake, texts), (4, 100));

    let nearest = format!("SELECT pk_value FROM {vectors} ORDER BY embedding <=> {embed} LIMIT 5");
    let inner = format!(
        "SELECT count(*) FROM t WHERE id::text IN ({nearest}) OR id = ANY (SELECT pk_value::int FROM ({nearest}) n)"
    );
    assert_eq!(paid(&mut client, &fake, &inner), (1, 5));
    for sql in [&nearest, &inner] {
        let plan = client.query(&format!("EXPLAIN {sql}"), &[]).unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains("Index Scan using") && plan.contains("Order By"), "{plan}");
    }

    // A role without the privilege is refused, although the vector is known to the session.
    client.batch_execute("CREATE ROLE without; GRANT USAGE ON SCHEMA embedd TO without").unwrap();
    let as_another =
        format!("DO $$ BEGIN PERFORM {embed}; SET LOCAL ROLE without; PERFORM {embed}; END $$");
    let error = client.batch_execute(&as_another).unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error:?}");
}

/// One call for each model, whatever number of tables is searched.
#[test]
fn a_search_embeds_its_text_once_for_each_model() {
    let (cluster, db) = (&SHARED.cluster(), "tables");
    let mut client = cluster.database(db);
    let fake = super::create(cluster, db, &mut client, "'text ' || i");
    for (name, model) in [("second", "m"), ("third", "other")] {
        client
            .batch_execute(&format!(
                "SELECT embedd.create_vector_table('{name}', 't', '[{{\"name\": \"body\", \"role\": \"embedding\"}}]',
                        embedding_provider => 'fake', embedding_model => '{model}', embedding_dimensions => 32, start_backfill => true)"
            ))
            .unwrap();
        wait_synced(cluster, db, name);
    }
    let search = "SELECT count(DISTINCT vector_table) FROM embedd.search(ARRAY['t', 'second', 'third'], 'text 7', 300)";
    assert_eq!(paid(&mut client, &fake, search), (2, 3));
    // What is refused is refused before anything is paid.
    let before = fake.paid_total();
    let wrong = "SELECT embedd.search(ARRAY['t', 'third'], 'text 7', filters => '{\"n\": 1}')";
    assert!(client.query(wrong, &[]).is_err());
    let wrong =
        "SELECT embedd.query('t', 'text 7', boosts => '[{\"column\": \"tenant\", \"weight\": 1}]')";
    assert!(client.query(wrong, &[]).is_err());
    assert_eq!(fake.paid_total(), before);
}
