//! Prefixes of models, and vectors that need no model.

use super::{KEY, SHARED};
use support::fake_provider::{Dialect, FakeProvider};

#[test]
fn texts_have_the_prefixes_of_the_tables_creation() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("prefixes");
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).key(KEY).dimensions(8).start();
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('fake', 'openai_compatible', '{KEY}', 'multilingual-e5-large', '{}');
             CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, price integer);
             INSERT INTO t SELECT i, 'title ' || i, 'body of ' || i, i FROM generate_series(1, 20) i;
             SELECT embedd.create_vector_table('t', 't', '{}', embedding_provider => 'fake', embedding_dimensions => 8,
                    start_backfill => true)",
            fake.base_url(),
            support::source::COLUMNS
        ))
        .unwrap();
    cluster.wait_done("prefixes");
    let differences = "SELECT count(*) FROM embedd.verify('t')";
    assert_eq!(client.query_one(differences, &[]).unwrap().get::<_, i64>(0), 0);
    let sent: Vec<String> = fake.requests().into_iter().flat_map(|seen| seen.texts).collect();
    assert_eq!(sent.len(), 20);
    assert!(sent.iter().all(|text| text.starts_with("passage: Title: title ")), "{sent:?}");
    let relation = support::source::relation(&mut client, "t");
    let sql = format!("SELECT embedded_text FROM {relation} WHERE pk_value = '7'");
    let text: String = client.query_one(&sql, &[]).unwrap().get(0);
    assert_eq!(text, "Title: title 7\nbody of 7");
    client.batch_execute("SELECT * FROM embedd.query('t', 'warm')").unwrap();
    assert_eq!(fake.requests().last().unwrap().texts, ["query: warm"]);

    // A changed option applies to new tables only.
    client
        .batch_execute(
            "SELECT embedd.update_provider('fake', options => '{\"query_prefix\": \"q: \", \"document_prefix\": \"\"}');
             UPDATE t SET title = 'changed' WHERE id = 3",
        )
        .unwrap();
    cluster.wait_done("prefixes");
    assert_eq!(fake.requests().last().unwrap().texts, ["passage: Title: changed\nbody of 3"]);
    client
        .batch_execute(
            "SELECT * FROM embedd.query('t', 'cold'); SELECT * FROM embedd.test_provider('fake')",
        )
        .unwrap();
    let requests = fake.requests();
    let [.., question, test] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(question.texts, ["query: cold"]);
    assert!(test.texts.len() == 2 && !test.texts[0].starts_with("passage"), "{test:?}");
}

#[test]
fn an_application_is_tested_without_a_model() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("application");
    client
        .batch_execute(
            "SELECT embedd.create_provider('test', 'test');
             CREATE TABLE products (id bigint PRIMARY KEY, name text, price integer);
             INSERT INTO products VALUES (1, 'a red tent for two', 100), (2, 'boots of leather', 80), (3, 'a gas stove', 30);
             SELECT embedd.create_vector_table('products', 'products', '[{\"name\": \"name\", \"role\": \"embedding\"}]',
                    embedding_provider => 'test', embedding_dimensions => 256, start_backfill => true)",
        )
        .unwrap();
    cluster.wait_done("application");
    for (question, id) in [("Tent, red", "1"), ("leather boots", "2"), ("stove", "3")] {
        let sql = "SELECT id FROM embedd.query('products', $1, \"limit\" => 1)";
        let found: String = client.query_one(sql, &[&question]).unwrap().get(0);
        assert_eq!(found, id, "{question}");
    }
    let sql = "SELECT score FROM embedd.query('products', 'a gas stove', \"limit\" => 1)";
    assert!(client.query_one(sql, &[]).unwrap().get::<_, f64>(0) > 0.9999);
    let used = client.query("SELECT * FROM embedd.provider_usage", &[]).unwrap();
    assert!(used.is_empty());
}
