//! The status is correct, and no vector is deleted because its row could not be seen.

mod copies;
pub mod dumps;
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

/// A database whose provider counts payments, with 60 rows whose vectors every copy has to keep.
fn paid(cluster: &Cluster, db: &str, fake: &FakeProvider) -> Client {
    let mut client = cluster.database(db);
    create_texts_of(&mut client, fake, "items", 60);
    wait_synced(cluster, db, "items");
    assert_eq!(fake.paid_total(), 60);
    client
}

/// Writes to a copy, which must become synced with equal vectors and pay only for new texts.
fn goes_on(cluster: &Cluster, db: &str, fake: &FakeProvider) {
    let before = fake.paid_total();
    let mut client = cluster.connect(db);
    let new = format!("INSERT INTO items VALUES (1000, 'new in {db} {}')", cluster.port());
    client.batch_execute(&new).unwrap();
    client.batch_execute("DELETE FROM items WHERE id = 1").unwrap();
    wait_status(cluster, db, "items", "sync_status = 'synced' AND synced_rows = 60");
    wait_synced(cluster, db, "items");
    assert_eq!(fake.paid_total() - before, 1, "only the new row is paid for");
    // Another vector table can be created, whatever its id was in the original.
    client
        .batch_execute(&format!("SELECT embedd.create_vector_table('second', 'items', '{BODY}')"))
        .unwrap();
    client.batch_execute("SELECT embedd.drop_vector_table('second')").unwrap();
}
