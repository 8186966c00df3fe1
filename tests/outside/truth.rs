//! The status tells the truth, and no vector is removed because its row could not be seen.

mod copies;
mod dumps;
mod objects;
mod servers;
mod sight;
mod values;

use postgres::Client;
use support::fake_provider::FakeProvider;
use support::{Cluster, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// Two columns as text and metadata, the form of most sources here.
const BODY: &str = r#"[{"name": "body", "role": "embedding"}]"#;

/// A table of this many rows with a vector table of the same name, synced.
fn synced(cluster: &Cluster, db: &str, client: &mut Client, name: &str, rows: i64) {
    client
        .batch_execute(&format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, body text);
             INSERT INTO {name} SELECT i, 'text ' || i FROM generate_series(1, {rows}) i;
             SELECT embedd.create_vector_table('{name}', '{name}', '{BODY}', start_backfill => true)"
        ))
        .unwrap();
    wait_synced(cluster, db, name);
}

/// A database whose provider counts what it is paid for, with 60 rows of which every copy has to keep the vectors.
fn paid(cluster: &Cluster, db: &str, fake: &FakeProvider) -> Client {
    let mut client = cluster.database(db);
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('fake', 'openai_compatible', base_url => '{}', default_model => 'm');
             CREATE TABLE items (id int PRIMARY KEY, body text);
             INSERT INTO items SELECT i, 'text ' || i FROM generate_series(1, 60) i;
             SELECT embedd.create_vector_table('items', 'items', '{BODY}', embedding_provider => 'fake',
                 embedding_dimensions => 384, start_backfill => true)",
            fake.base_url()
        ))
        .unwrap();
    wait_synced(cluster, db, "items");
    assert_eq!(fake.paid_total(), 60);
    client
}

/// Writes to a copy, which has to come to rest with equal vectors and nothing paid but for what is new.
fn goes_on(cluster: &Cluster, db: &str, fake: &FakeProvider) {
    let before = fake.paid_total();
    let mut client = cluster.connect(db);
    let new = format!("INSERT INTO items VALUES (1000, 'new in {db} {}')", cluster.port());
    client.batch_execute(&new).unwrap();
    client.batch_execute("DELETE FROM items WHERE id = 1").unwrap();
    wait_status(cluster, db, "items", "sync_status = 'synced' AND synced_rows = 60");
    wait_synced(cluster, db, "items");
    assert_eq!(fake.paid_total() - before, 1, "only the new row is paid for");
    // A second one is possible, whatever its number was in the other place.
    client
        .batch_execute(&format!("SELECT embedd.create_vector_table('second', 'items', '{BODY}')"))
        .unwrap();
    client.batch_execute("SELECT embedd.drop_vector_table('second')").unwrap();
}

/// Waits until a vector table says that it is synced; then it is.
fn wait_synced(cluster: &Cluster, db: &str, name: &str) {
    wait_status(cluster, db, name, "sync_status = 'synced' AND rows_pending = 0");
    let sql = format!("SELECT count(*) FROM embedd.verify('{name}')");
    let differences: i64 = cluster.connect(db).query_one(&sql, &[]).unwrap().get(0);
    assert_eq!(differences, 0, "synced, and {differences} rows differ");
}

/// Waits until sync_status() shows something.
fn wait_status(cluster: &Cluster, db: &str, name: &str, condition: &str) {
    let sql = format!("SELECT {condition} FROM embedd.sync_status('{name}')");
    cluster.wait_for(db, support::LONG, condition, &sql);
}
