//! The status tells the truth, and no vector is removed because its row could not be seen.

mod copies;
mod sight;
mod values;

use postgres::Client;
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
