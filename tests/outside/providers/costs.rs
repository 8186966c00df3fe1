//! What a backfill costs is known before it, and a cap of tokens stops documents, not questions.

use postgres::Client;

use super::{KEY, SHARED, create_provider, status};
use support::fake_provider::{Dialect, FakeProvider, tokens};
use support::processes::kill9;
use support::source::{BODY, assert_equal};
use support::{Cluster, LONG, SHORT, Shutdown};

/// A model whose tokenizer embedd has.
const COUNTED: &str = "text-embedding-3-small";

/// A SQL expression for the text of row `n`, of so many tokens: words that OpenAI's tokenizer and the fake both count
/// as one token each. The texts of two rows differ.
fn words(count: &str) -> String {
    format!(
        "'that' || (SELECT string_agg((array[' cat', ' dog', ' you', ' for', ' not', ' are', ' but', ' her'])[1 + (n >> (3 * least(i, 9))) % 8], '' ORDER BY i)
                      FROM generate_series(0, {count} - 2) i)"
    )
}

fn counted_fake() -> FakeProvider {
    FakeProvider::builder(Dialect::OpenAi).key(KEY).dimensions(8).model(COUNTED).start()
}

/// Creates a provider with this model for a fake, and a table `t` of texts with a vector table.
fn create(client: &mut Client, fake: &FakeProvider, options: &str, rows: &str, starts: bool) {
    create_provider(client, "fake", Dialect::OpenAi, &fake.base_url(), options);
    client
        .batch_execute(&format!(
            "CREATE TABLE t (id integer PRIMARY KEY, body text);
             INSERT INTO t {rows};
             SELECT embedd.create_vector_table('t', 't', '{BODY}', embedding_provider => 'fake', embedding_model => '{COUNTED}',
                    embedding_dimensions => 8, start_backfill => {starts})"
        ))
        .unwrap();
}

/// The tokens of the provider, as provider_usage counts them.
fn used(client: &mut Client) -> i64 {
    let sql = "SELECT coalesce(sum(tokens), 0)::bigint FROM embedd.provider_usage";
    client.query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn an_estimate_is_what_a_backfill_sends() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("estimated");
    let fake = counted_fake();
    // Texts of 2 to 96 tokens, one that is longer than the model reads, and rows without a text.
    let rows = format!(
        "SELECT n, {} FROM generate_series(1, 95) n UNION ALL SELECT 100, {} FROM (SELECT 100 AS n) x
         UNION ALL VALUES (200, ''), (201, NULL)",
        words("(n + 1)"),
        words("9000")
    );
    create(&mut client, &fake, r#"{"texts_per_request": 10}"#, &rows, false);
    let sql = "SELECT rows, texts, distinct_texts, texts_to_embed, long_texts, tokens, requests, tokens_are_exact, is_estimated,
                      cost::float8, hours_at_last_pace FROM embedd.estimate('t')";
    let told = client.query_one(sql, &[]).unwrap();
    let number = |place: usize| told.get::<_, i64>(place);
    assert_eq!(fake.request_count(), 0, "an estimate asks no provider");
    assert_eq!([0, 1, 2, 3, 4].map(number), [98, 96, 96, 96, 1]);
    assert_eq!((told.get::<_, bool>(7), told.get::<_, bool>(8)), (true, false));
    assert!((told.get::<_, f64>(9) - number(5) as f64 * 0.02 / 1e6).abs() < 1e-6);
    assert_eq!(told.get::<_, Option<f64>>(10), None);

    client.batch_execute("SELECT embedd.backfill('t')").unwrap();
    cluster.wait_done("estimated");
    let sent: u64 =
        fake.requests().iter().flat_map(|seen| &seen.texts).map(|text| tokens(text)).sum();
    assert_eq!((number(3) as u64, number(6) as u64), (fake.text_count(), fake.request_count()));
    assert_eq!(number(5) as u64, sent);
    cluster.wait_until(SHORT, "the usage to be written", || used(&mut client) == number(5));
    // Nothing is left to be embedded; for another model all of it is, at the pace of this backfill.
    let told = client.query_one(sql, &[]).unwrap();
    assert_eq!([3, 4, 5, 6].map(|place| told.get::<_, i64>(place)), [0; 4]);
    let sql = sql.replace("('t')", r#"('t', '{"embedding_model": "text-embedding-ada-002"}')"#);
    let told = client.query_one(&sql, &[]).unwrap();
    assert_eq!((told.get::<_, i64>(3), told.get::<_, i64>(5) as u64), (96, sent));
    assert!(told.get::<_, Option<f64>>(10).is_some_and(|hours| hours > 0.0));
    assert_eq!(fake.request_count(), 10);
}

#[test]
fn a_cap_stops_documents_until_it_is_raised() {
    let cluster = Cluster::start();
    let mut client = cluster.database("capped");
    let fake = counted_fake();
    let options = r#"{"texts_per_request": 10, "max_tokens_per_day": 400}"#;
    let rows = format!("SELECT n, {} FROM generate_series(1, 100) n", words("10"));
    create(&mut client, &fake, options, &rows, true);
    let reaches = |client: &mut Client, used: &str| {
        let said = format!(
            "provider \"fake\" has reached max_tokens_per_day: {used} tokens are used of 400, and documents wait until "
        );
        cluster.wait_until(LONG, &said, || {
            status(client, "t", "last_error").is_some_and(|error| error.starts_with(&said))
        });
    };
    reaches(&mut client, "400");
    // The cap is kept to the token, since embedd has the tokenizer of the model. No row has failed, and the status is
    // no error that lasts.
    assert_eq!((fake.text_count(), fake.paid_total()), (40, 40));
    assert_eq!(status(&mut client, "t", "failed_rows").as_deref(), Some("0"));
    assert_ne!(status(&mut client, "t", "sync_status").as_deref(), Some("error"));
    let told = client
        .query_one("SELECT state, meaning, remedy FROM embedd.doctor() WHERE object = 'fake'", &[])
        .unwrap();
    let (state, meaning): (&str, &str) = (told.get(0), told.get(1));
    assert!(state == "warning" && meaning.contains("max_tokens_per_day"), "{state} {meaning}");
    // What needs no provider goes on, and so do questions, which count.
    client.batch_execute("DELETE FROM t WHERE id = 100").unwrap();
    let ask = |client: &mut Client, text: &str| {
        client.query("SELECT id FROM embedd.query('t', $1)", &[&text]).unwrap().len()
    };
    assert_eq!(ask(&mut client, "that cat dog"), 10);
    cluster.wait_until(SHORT, "the usage to be written", || used(&mut client) == 403);
    // Neither the embedder nor the server forgets what was used.
    let embedder = "SELECT pid FROM embedd.embedder_status()";
    let pid: i32 = client.query_one(embedder, &[]).unwrap().get(0);
    kill9(pid);
    assert_eq!(ask(&mut client, "that dog cat"), 10);
    cluster.wait_until(SHORT, "the usage to be written", || used(&mut client) == 406);
    drop(client);
    cluster.restart(Shutdown::Fast);
    let mut client = cluster.connect("capped");
    reaches(&mut client, "406");
    assert_eq!(fake.text_count(), 42, "documents are sent over the cap");
    // The statement in the status helps at once.
    let error = status(&mut client, "t", "last_error").unwrap();
    let statement = error.split_once("To go on now: ").unwrap().1.trim_end_matches('.');
    assert_eq!(
        statement,
        r#"SELECT embedd.update_provider('fake', options => '{"max_tokens_per_day": 806}')"#
    );
    client.batch_execute(statement).unwrap();
    cluster.wait_until(LONG, "the raised cap to be reached", || {
        status(&mut client, "t", "last_error").is_some_and(|error| error.contains("of 806"))
    });
    assert_eq!(fake.paid_total(), 82);
    client
        .batch_execute(
            r#"SELECT embedd.update_provider('fake', options => '{"max_tokens_per_day": null}')"#,
        )
        .unwrap();
    cluster.wait_done("capped");
    assert_eq!((fake.paid_total(), fake.paid_more_than_once()), (101, Vec::new()));
    // It embeds some of the texts again.
    assert_equal(&mut client, "t");
    cluster.wait_until(SHORT, "the error to be over", || {
        status(&mut client, "t", "last_error").is_none()
    });
}

#[test]
fn an_estimate_is_cancelled_by_the_statement_timeout() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("cancelled");
    client
        .batch_execute(&format!(
            "CREATE VIEW slow AS SELECT i AS id, 'text' || pg_sleep(60)::text AS body FROM generate_series(1, 100) i;
             SELECT embedd.create_vector_table('slow', 'slow', '{BODY}', 'id', sync_mode => 'batch');
             SET statement_timeout = '300ms'"
        ))
        .unwrap();
    let error = client.query("SELECT * FROM embedd.estimate('slow')", &[]).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57014");
}
