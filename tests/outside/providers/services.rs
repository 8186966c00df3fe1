//! Every service syncs a vector table and answers queries; batches are full, and counted.

use postgres::Client;

use super::{MODEL, SHARED, create_provider, create_source, fake, status};
use support::fake_provider::{Dialect, Respond, Rule, typed_vector};
use support::source::{assert_equal, relation};
use support::{Cluster, LONG, SHORT, Shutdown};

#[test]
fn every_service_embeds_rows_and_questions() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("services");
    for dialect in Dialect::ALL {
        let name = super::kind(dialect);
        let fake = fake(dialect);
        create_provider(&mut client, name, dialect, &fake.base_url(), "{}");
        let row = client
            .query_one(
                "SELECT status, latency_ms, model, dimensions FROM embedd.test_provider($1)",
                &[&name],
            )
            .unwrap();
        let (said, latency): (String, f64) = (row.get(0), row.get(1));
        assert_eq!((said.as_str(), row.get(2), row.get(3)), ("ok", MODEL, 8));
        assert!(latency > 0.0);

        create_source(&mut client, name, name, 100);
        cluster.wait_done("services");
        let types = match dialect {
            Dialect::Gemini => [Some("RETRIEVAL_DOCUMENT"), Some("RETRIEVAL_QUERY")],
            Dialect::Voyage => [Some("document"), Some("query")],
            _ => [None, None],
        };
        let text = "Title: title 7\nbody of 7";
        let expected = typed_vector(MODEL, text, types[0], 8);
        assert!(near(&stored(&mut client, name, "7"), &expected), "{name}");
        let row = client.query_one("SELECT embedd.embed($1, $2)::text", &[&name, &text]).unwrap();
        assert!(near(&numbers(row.get(0)), &typed_vector(MODEL, text, types[1], 8)), "{name}");
        let id: String = client
            .query_one("SELECT id FROM embedd.query($1, $2, \"limit\" => 1)", &[&name, &text])
            .unwrap()
            .get(0);
        assert_eq!(id, "7", "{name}");
        // Rows are paid for once, in batches as full as the service accepts.
        assert!(fake.request_count() <= 10, "{name}: {}", fake.request_count());
        // Once as a row and once as a question; the repeated question is cached.
        assert_eq!(fake.paid(text), 2);
    }
}

#[test]
fn a_source_is_synced_through_a_service_and_metadata_changes_cost_nothing() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("equal");
    let fake = fake(Dialect::OpenAiCompatible);
    create_provider(&mut client, "fake", Dialect::OpenAiCompatible, &fake.base_url(), "{}");
    create_source(&mut client, "t", "fake", 300);
    cluster.wait_done("equal");
    assert_equal(&mut client, "t");
    let paid = fake.paid_total();
    client.batch_execute("UPDATE t SET price = price + 1; DELETE FROM t WHERE id > 250").unwrap();
    cluster.wait_done("equal");
    assert_eq!(fake.paid_total(), paid);
    assert_equal(&mut client, "t");
}

#[test]
fn indexes_are_deferred_for_a_large_first_load_and_survive_a_crash() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database("large");
    let fake = fake(Dialect::OpenAi);
    create_provider(
        &mut client,
        "fake",
        Dialect::OpenAi,
        &fake.base_url(),
        r#"{"texts_per_request": 100}"#,
    );
    let gate = fake.hold();
    create_source(&mut client, "t", "fake", 6000);
    fake.wait_for_requests(1, LONG);
    cluster.wait_until(SHORT, "the index to be dropped", || index(&mut client).is_none());
    cluster.crash();
    gate.release();
    cluster.start_again();
    cluster.wait_done("large");
    let mut client = cluster.connect("large");
    let index = index(&mut client).unwrap();
    assert!(index.contains("_embedding_idx ON public.embedd_vt_"), "{index}");
    assert!(index.ends_with("USING hnsw (embedding vector_cosine_ops)"), "{index}");
    assert_equal(&mut client, "t");
    let held: bool = client
        .query_one("SELECT held_indexes IS NOT NULL FROM embedd.vector_tables", &[])
        .unwrap()
        .get(0);
    assert!(!held);
    assert_eq!(status(&mut client, "t", "sync_status").as_deref(), Some("synced"));
}

#[test]
fn another_session_may_build_the_index_meanwhile() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("meanwhile");
    let fake = fake(Dialect::OpenAi);
    create_provider(&mut client, "fake", Dialect::OpenAi, &fake.base_url(), "{}");
    let gate = fake.hold();
    create_source(&mut client, "t", "fake", 5500);
    cluster.wait_until(SHORT, "the index to be dropped", || index(&mut client).is_none());
    let relation = relation(&mut client, "t");
    // It gets the name of the deferred index.
    let sql = format!("CREATE INDEX ON {relation} USING hnsw (embedding vector_cosine_ops)");
    client.batch_execute(&sql).unwrap();
    gate.release();
    cluster.assert_synced("meanwhile", "t");
    assert!(index(&mut client).is_some());
    assert_eq!(status(&mut client, "t", "sync_status").as_deref(), Some("synced"));
}

#[test]
fn provider_usage_counts_and_survives_a_restart() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database("usage");
    let fake = fake(Dialect::OpenAi);
    create_provider(&mut client, "fake", Dialect::OpenAi, &fake.base_url(), "{}");
    fake.script(Rule::always().once().respond(Respond::rate_limited().retry_after_ms(50)));
    create_source(&mut client, "t", "fake", 50);
    cluster.wait_done("usage");
    // Texts that were sent count, including those of the rejected request; tokens only if the service processed them.
    let counted = format!(
        "SELECT count(*) = 1 AND sum(texts) = {} AND sum(requests) = {} AND sum(rate_limited) = 1
            AND sum(tokens) > 50 AND sum(errors) = 1 AND min(avg_latency_ms) > 0
            AND min(day) >= current_date - 1
       FROM embedd.provider_usage WHERE provider = 'fake'",
        fake.text_count(),
        fake.request_count()
    );
    cluster.wait_for("usage", SHORT, "the counts to be written", &counted);
    cluster.restart(Shutdown::Fast);
    cluster.wait_for("usage", SHORT, "the counts to be there again", &counted);
    // A role that may not use the provider does not see its usage.
    let mut client = cluster.connect("usage");
    client.batch_execute("CREATE ROLE stranger LOGIN").unwrap();
    let rows = cluster
        .connect_as("usage", "stranger")
        .query("SELECT * FROM embedd.provider_usage", &[])
        .unwrap();
    assert!(rows.is_empty());
}

#[test]
fn questions_are_answered_on_a_standby_through_a_service() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database("standby");
    let fake = fake(Dialect::Voyage);
    create_provider(&mut client, "fake", Dialect::Voyage, &fake.base_url(), "{}");
    create_source(&mut client, "t", "fake", 20);
    cluster.wait_done("standby");
    let standby = cluster.standby();
    let id: String = standby
        .connect("standby")
        .query_one(
            "SELECT id FROM embedd.query('t', 'Title: title 3\nbody of 3', \"limit\" => 1)",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(id, "3");
}

/// The definition of the vector table's index.
fn index(client: &mut Client) -> Option<String> {
    let sql =
        "SELECT indexdef FROM pg_indexes WHERE tablename ~ '^embedd_vt_' AND indexdef ~ 'hnsw'";
    client.query_opt(sql, &[]).unwrap().map(|row| row.get(0))
}

/// The vector stored for a key.
fn stored(client: &mut Client, name: &str, key: &str) -> Vec<f32> {
    let sql = format!("SELECT embedding::text FROM {} WHERE pk_value = $1", relation(client, name));
    numbers(client.query_one(&sql, &[&key]).unwrap().get(0))
}

fn numbers(text: &str) -> Vec<f32> {
    text.trim_matches(['[', ']']).split(',').map(|number| number.parse().unwrap()).collect()
}

fn near(one: &[f32], other: &[f32]) -> bool {
    let dot: f32 = one.iter().zip(other).map(|(a, b)| a * b).sum();
    one.len() == other.len() && dot > 0.9999
}
