//! Backfills at the price of a provider's batch API: each text is paid for once, at that price, whatever happens meanwhile.

mod trouble;

use std::sync::Arc;

use postgres::Client;

use super::{KEY, MODEL, SHARED, create_provider, fake, status};
use support::fake_provider::{BatchFate, Dialect, FakeProvider, typed_vector};
use support::source::{BODY, assert_equal, wait_status};
use support::{Cluster, LONG, SHORT};

/// The services with a batch API.
const DIALECTS: [Dialect; 3] = [Dialect::OpenAi, Dialect::Voyage, Dialect::Gemini];

/// Creates a provider for a fake, and a table of rows whose texts are `text of <n>`, with a vector table; every tenth text
/// is that of row 1.
fn create(client: &mut Client, fake: &FakeProvider, dialect: Dialect, name: &str, rows: i64) {
    create_provider(client, name, dialect, &fake.base_url(), "{}");
    client
        .batch_execute(&format!(
            "CREATE TABLE {name} (id integer PRIMARY KEY, body text);
             INSERT INTO {name} SELECT n, 'text of ' || case when n % 10 = 0 then 1 else n end FROM generate_series(1, {rows}) n;
             SELECT embedd.create_vector_table('{name}', '{name}', '{BODY}', embedding_provider => '{name}',
                    embedding_dimensions => 8)"
        ))
        .unwrap();
}

/// A database with such a table and vector table, and their fake.
fn start(db: &str, dialect: Dialect, rows: i64) -> (Arc<Cluster>, Client, FakeProvider) {
    let cluster = SHARED.cluster();
    let (mut client, fake) = (cluster.database(db), fake(dialect));
    create(&mut client, &fake, dialect, "t", rows);
    (cluster, client, fake)
}

fn begin(client: &mut Client, name: &str) {
    client.execute("SELECT embedd.backfill($1, price => 'batch')", &[&name]).unwrap();
}

fn phase(client: &mut Client, name: &str) -> Option<String> {
    let sql = "SELECT t.phase FROM embedd.tasks t JOIN embedd.vector_tables v ON v.id = t.target_id
                WHERE v.name = $1 AND t.status IN ('pending', 'running')";
    client.query_opt(sql, &[&name]).unwrap().map(|row| row.get(0))
}

fn noted(client: &mut Client) -> (i64, i64) {
    let sql = "SELECT (SELECT count(*) FROM embedd.provider_batches), (SELECT count(*) FROM embedd.provider_batch_texts)";
    let row = client.query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1))
}

/// The requests for vectors outside of batches.
fn ordinary(fake: &FakeProvider) -> usize {
    fake.requests().iter().filter(|seen| !seen.texts.is_empty()).count()
}

/// Waits for status synced. So many texts were paid for then, each once, and so many requests were made outside of batches;
/// nothing of a batch is left, and the vector table equals its source.
fn wait_synced(
    cluster: &Cluster,
    db: &str,
    client: &mut Client,
    fake: &FakeProvider,
    (paid, requests): (u64, usize),
) {
    wait_status(cluster, db, "t", "sync_status = 'synced' AND last_error IS NULL");
    assert_eq!(fake.paid_more_than_once(), Vec::new(), "{db}");
    assert_eq!((fake.paid_total(), ordinary(fake)), (paid, requests), "{db}");
    assert_eq!(noted(client), (0, 0), "{db}");
    let sql = "SELECT count(*) FROM embedd.verify('t')";
    assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0, "{db}");
}

/// Waits until the provider has confirmed the batch.
fn wait_named(cluster: &Cluster, db: &str) {
    let named = "SELECT provider_batch IS NOT NULL FROM embedd.provider_batches";
    cluster.wait_for(db, LONG, "its name", named);
}

/// Asserts that a row has this vector.
fn assert_vector(client: &mut Client, key: &str, expected: &[f32]) {
    let relation = support::source::relation(client, "t");
    let sql = format!("SELECT embedding::real[] FROM {relation} WHERE pk_value = '{key}'");
    let stored: Vec<f32> = client.query_one(&sql, &[]).unwrap().get(0);
    let is_near = stored.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(is_near && stored.len() == expected.len(), "{key}: {stored:?} {expected:?}");
}

/// Waits until changes from before the first backfill are forgotten: it reads every row as it is then.
fn wait_forgotten(cluster: &Cluster, db: &str) {
    cluster.wait_for(db, LONG, "no change to wait", "SELECT count(*) = 0 FROM embedd.queue");
}

fn wait_batches(cluster: &Cluster, fake: &FakeProvider, count: usize) {
    cluster.wait_until(LONG, "batches at the provider", || fake.batches().len() >= count);
}

#[test]
fn every_text_goes_through_the_batch_api_once() {
    let cluster = SHARED.cluster();
    for (number, dialect) in DIALECTS.into_iter().enumerate() {
        let db = format!("batch_price_{number}");
        let (_, mut client, fake) = start(&db, dialect, 2500);
        fake.hold_batches();
        begin(&mut client, "t");
        wait_batches(&cluster, &fake, 1);
        // It can be watched, and nothing is synced yet.
        cluster.wait_for(
            &db,
            LONG,
            "the batch to be noted",
            "SELECT bool_and(provider = 't' AND provider_batch IS NOT NULL AND texts = 2250 AND submitted_at IS NOT NULL)
               FROM embedd.provider_batches",
        );
        assert_eq!(phase(&mut client, "t").as_deref(), Some("provider_batch"));
        assert_eq!(status(&mut client, "t", "sync_status").as_deref(), Some("backfilling"));
        fake.end_batches(BatchFate::Complete);
        wait_synced(&cluster, &db, &mut client, &fake, (2250, 0));
        let purpose = match dialect {
            Dialect::OpenAi => None,
            _ => Some("RETRIEVAL_DOCUMENT"),
        };
        let expected = typed_vector(MODEL, "text of 7", purpose, 8);
        assert_vector(&mut client, "7", &expected);
        // The provider keeps no texts or vectors either.
        cluster.wait_until(LONG, "the files to be deleted", || {
            fake.batch_files() == 0 && !fake.deleted().is_empty()
        });
        let used = "SELECT coalesce(sum(texts), 0)::bigint FROM embedd.provider_usage";
        cluster.wait_until(SHORT, "the usage to be written", || {
            client.query_one(used, &[]).unwrap().get::<_, i64>(0) >= 2250
        });
        // Nothing is left to be sent.
        let before = fake.paid_total();
        begin(&mut client, "t");
        wait_status(&cluster, &db, "t", "sync_status = 'synced'");
        assert_eq!(fake.paid_total(), before);
    }
}

#[test]
fn rows_that_change_meanwhile_are_not_overwritten() {
    let db = "batch_price_changes";
    let (cluster, mut client, fake) = start(db, Dialect::OpenAi, 100);
    fake.hold_batches();
    begin(&mut client, "t");
    wait_batches(&cluster, &fake, 1);
    client
        .batch_execute(
            "UPDATE t SET body = 'newer ' || id WHERE id <= 5; DELETE FROM t WHERE id BETWEEN 11 AND 15;
             INSERT INTO t VALUES (101, 'text of 2'), (102, 'a new row')",
        )
        .unwrap();
    // Changes do not wait for the batch, nor for what is in it.
    let relation = support::source::relation(&mut client, "t");
    let sql = format!("SELECT count(*) = 7 FROM {relation} WHERE embedding IS NOT NULL");
    cluster.wait_for(db, LONG, "the changes to be synced", &sql);
    fake.end_batches(BatchFate::Complete);
    wait_status(&cluster, db, "t", "sync_status = 'synced'");
    assert_equal(&mut client, "t");
    let texts = format!("SELECT count(*) FROM {relation} WHERE embedded_text LIKE 'newer %'");
    assert_eq!(client.query_one(&texts, &[]).unwrap().get::<_, i64>(0), 5);
    for (key, text) in [("3", "newer 3"), ("101", "text of 2"), ("20", "text of 1")] {
        assert_vector(&mut client, key, &support::fake_provider::vector(MODEL, text, 8));
    }
    assert_eq!(noted(&mut client), (0, 0));
}

#[test]
fn a_changed_model_is_filled_at_the_batch_price_and_swapped_in() {
    let cluster = SHARED.cluster();
    let db = "batch_price_shadow";
    let mut client = cluster.database(db);
    let builder = FakeProvider::builder(Dialect::Voyage).key(KEY).dimensions(8);
    let fake = builder.model(MODEL).model("other").start();
    create(&mut client, &fake, Dialect::Voyage, "t", 50);
    client.batch_execute("SELECT embedd.backfill('t')").unwrap();
    wait_status(&cluster, db, "t", "sync_status = 'synced'");
    let before = ordinary(&fake);
    client
        .batch_execute("SELECT embedd.update_vector_table('t', embedding_model => 'other', embedding_dimensions => 8)")
        .unwrap();
    begin(&mut client, "t");
    let sql = "SELECT embedding_model = 'other' AND replaces IS NULL FROM embedd.vector_tables WHERE name = 't' AND replaces IS NULL";
    cluster.wait_for(db, LONG, "the swap", sql);
    wait_status(&cluster, db, "t", "sync_status = 'synced'");
    assert_eq!((ordinary(&fake), fake.batches().len()), (before, 1));
    assert_eq!(noted(&mut client), (0, 0));
    assert_vector(&mut client, "7", &typed_vector("other", "text of 7", Some("document"), 8));
}

#[test]
fn a_cancelled_backfill_cancels_its_batches_and_keeps_what_is_paid() {
    let db = "batch_price_cancelled";
    let (cluster, mut client, fake) = start(db, Dialect::OpenAi, 20);
    fake.hold_batches();
    begin(&mut client, "t");
    wait_batches(&cluster, &fake, 1);
    // In use: another provider would not know the batch.
    wait_named(&cluster, db);
    create_provider(&mut client, "u", Dialect::OpenAi, &fake.base_url(), "{}");
    let update = "SELECT embedd.update_vector_table('t', embedding_provider => 'u')";
    let refused = client.batch_execute(update).unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "55006");
    client.batch_execute("SELECT embedd.cancel_backfill('t')").unwrap();
    cluster
        .wait_until(LONG, "the batch to be cancelled", || fake.batches()[0].state == "cancelled");
    cluster.wait_for(
        db,
        LONG,
        "the batch to be forgotten",
        "SELECT count(*) = 0 FROM embedd.provider_batches",
    );
    assert_eq!((noted(&mut client), fake.paid_total()), ((0, 0), 0));
    // A batch that has ended when it is cancelled is paid for: the next backfill uses it.
    begin(&mut client, "t");
    wait_batches(&cluster, &fake, 2);
    wait_named(&cluster, db);
    client.batch_execute("SELECT embedd.pause_sync('t')").unwrap();
    fake.end_batches(BatchFate::Complete);
    client
        .batch_execute("SELECT embedd.cancel_backfill('t'); SELECT embedd.resume_sync('t')")
        .unwrap();
    let kept = "SELECT count(*) = 18 AND NOT EXISTS (SELECT FROM embedd.provider_batches)
                  FROM embedd.provider_batch_texts WHERE embedding IS NOT NULL";
    cluster.wait_for(db, LONG, "the vectors to be kept", kept);
    client.batch_execute("SELECT embedd.backfill('t')").unwrap();
    wait_synced(&cluster, db, &mut client, &fake, (18, 0));
}

#[test]
fn a_vector_table_that_is_dropped_warns_of_batches_that_go_on() {
    let db = "batch_price_dropped";
    let (cluster, mut client, fake) = start(db, Dialect::Gemini, 20);
    fake.hold_batches();
    begin(&mut client, "t");
    wait_named(&cluster, db);
    let said = cluster
        .psql_command(db)
        .args(["-c", "SELECT embedd.drop_vector_table('t')"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let name = fake.batches()[0].name.clone();
    assert!(said.contains("WARNING") && said.contains(&name), "{said}");
    assert_eq!(noted(&mut client), (0, 0));
}

#[test]
fn rows_of_much_text_are_handed_in_batch_by_batch() {
    let db = "batch_price_large";
    let (cluster, mut client, fake) = start(db, Dialect::Voyage, 60);
    client.batch_execute("UPDATE t SET body = id || repeat(' lorem ipsum', 30000)").unwrap();
    wait_forgotten(&cluster, db);
    begin(&mut client, "t");
    wait_synced(&cluster, db, &mut client, &fake, (60, 0));
    // 360 kB each: a batch has 8 MB of text.
    let batches = fake.batches().len();
    assert!((3..=4).contains(&batches), "{batches} batches for 22 MB");
}
