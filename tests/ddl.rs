//! The definition of a source changes under writes: names, columns, types, partitions, and the table itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "ddl/columns.rs"]
mod columns;
#[path = "ddl/dump.rs"]
mod dump;
#[path = "support/fake_provider/mod.rs"]
#[allow(dead_code, reason = "every program uses a part of it")]
mod fake_provider;
#[path = "ddl/names.rs"]
mod names;
#[path = "ddl/partitions.rs"]
mod partitions;
#[path = "ddl/sources.rs"]
mod sources;
mod support;
#[path = "ddl/writes.rs"]
mod writes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use postgres::Client;
use support::source::{relation, synced_source};
use support::{Cluster, LONG};

/// A database of the shared cluster, which never polls, with a synced table `t` of this many rows.
fn synced(db: &str, rows: i64) -> (Arc<Cluster>, Client) {
    let cluster = Cluster::shared();
    let mut client = cluster.database(db);
    synced_source(&cluster, db, &mut client, "t", rows);
    (cluster, client)
}

/// The cluster of the tests whose changes nothing but the poll can find.
fn polling() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let builder = Cluster::builder().set("embedd.poll_interval", "200ms");
        let cluster = Arc::new(builder.set("max_worker_processes", "32").start());
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

/// Waits until the status of a vector table is an error that tells this.
fn wait_error(cluster: &Cluster, db: &str, table: &str, told: &str) {
    let sql = format!(
        "SELECT sync_status = 'error' AND strpos(last_error, $told${told}$told$) > 0
           FROM embedd.sync_status('{table}')"
    );
    cluster.wait_for(db, LONG, &format!("an error of \"{table}\" that tells {told}"), &sql);
}

/// Waits until a vector table is in sync, and without an error.
fn wait_well(cluster: &Cluster, db: &str, table: &str) {
    let sql = format!(
        "SELECT sync_status = 'synced' AND last_error IS NULL FROM embedd.sync_status('{table}')"
    );
    cluster.wait_for(db, LONG, &format!("\"{table}\" to be well"), &sql);
}

/// Waits until a condition on the row of `t` in embedd.vector_tables holds.
fn wait_noted(cluster: &Cluster, db: &str, condition: &str) {
    let sql = format!("SELECT {condition} FROM embedd.vector_tables WHERE name = 't'");
    cluster.wait_for(db, LONG, condition, &sql);
}

/// Which transaction wrote each row of a vector table.
fn versions(client: &mut Client, table: &str) -> BTreeMap<String, String> {
    let sql = format!("SELECT pk_value, xmin::text FROM {}", relation(client, table));
    let rows = client.query(&sql, &[]).expect("the vectors can be read");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// How many rows a question to `t` is answered with.
fn answers(client: &mut Client, filters: &str) -> usize {
    let sql = format!("SELECT id FROM embedd.query('t', 'title', 1000, '{filters}')");
    client.query(&sql, &[]).expect("the question can be asked").len()
}
