//! DDL on a source with concurrent writes: names, columns, types, partitions, and the table itself.

mod columns;
mod dump;
mod names;
mod partitions;
mod sources;
mod vectors;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;

use postgres::Client;
use support::source::{relation, synced_source};
use support::{Cluster, LONG, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// The cluster of the tests whose changes only polling can find.
static POLLING: Shared = Shared::of(|| {
    Cluster::builder().set("embedd.poll_interval", "200ms").set("max_worker_processes", "32")
});

/// A database of the shared cluster, which never polls, with a synced table `t` of this many rows.
fn synced(db: &str, rows: i64) -> (Arc<Cluster>, Client) {
    let cluster = SHARED.cluster();
    let mut client = cluster.database(db);
    synced_source(&cluster, db, &mut client, "t", rows);
    (cluster, client)
}

/// Waits until the status of a vector table is an error with this text.
fn wait_error(cluster: &Cluster, db: &str, table: &str, told: &str) {
    let sql = format!(
        "SELECT sync_status = 'error' AND strpos(last_error, $told${told}$told$) > 0
           FROM embedd.sync_status('{table}')"
    );
    cluster.wait_for(db, LONG, &format!("an error of \"{table}\" with the text {told}"), &sql);
}

/// Waits until a vector table is synced, without an error.
fn wait_well(cluster: &Cluster, db: &str, table: &str) {
    let sql = format!(
        "SELECT sync_status = 'synced' AND last_error IS NULL FROM embedd.sync_status('{table}')"
    );
    cluster.wait_for(db, LONG, &format!("\"{table}\" to be synced"), &sql);
}

/// Waits until a condition on the row of `t` in embedd.vector_tables holds.
fn wait_noted(cluster: &Cluster, db: &str, condition: &str) {
    let sql = format!("SELECT {condition} FROM embedd.vector_tables WHERE name = 't'");
    cluster.wait_for(db, LONG, condition, &sql);
}

/// The xmin of each row of a vector table.
fn versions(client: &mut Client, table: &str) -> BTreeMap<String, String> {
    let sql = format!("SELECT pk_value, xmin::text FROM {}", relation(client, table));
    let rows = client.query(&sql, &[]).expect("the vectors can be read");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// How many rows a query of `t` returns.
fn answers(client: &mut Client, filters: &str) -> usize {
    let sql = format!("SELECT id FROM embedd.query('t', 'title', 1000, '{filters}')");
    client.query(&sql, &[]).expect("the question can be asked").len()
}
