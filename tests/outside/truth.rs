//! The status tells the truth, and no vector is removed because its row could not be seen.

mod copies;
mod dumps;
mod objects;
mod servers;
mod sight;
mod values;

use postgres::Client;
use support::fake_provider::FakeProvider;
use support::source::{BODY, create_texts_of, synced_texts as synced, wait_status, wait_synced};
use support::{Cluster, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// A database whose provider counts what it is paid for, with 60 rows of which every copy has to keep the vectors.
fn paid(cluster: &Cluster, db: &str, fake: &FakeProvider) -> Client {
    let mut client = cluster.database(db);
    create_texts_of(&mut client, fake, "items", 60);
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
