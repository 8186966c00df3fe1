//! Sync in batches: sources that fire no triggers are compared every now and then, and trouble with one is nobody else's.

mod foreign;
mod paid;
mod runs;
mod sources;

use postgres::Client;
use support::source::assert_equal;
use support::{Cluster, LONG, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// The type of the processes that compare.
const BATCH_WORKER: &str = "embedd batch worker";

/// An interval that no test waits for.
const NEVER: &str = "1 day";

/// Makes a vector table of the same name for a relation with the columns id, title and n, and begins.
fn create_batch(client: &mut Client, name: &str, interval: &str) {
    create_batch_of(client, name, interval, "");
}

/// The same with more arguments.
fn create_batch_of(client: &mut Client, name: &str, interval: &str, more: &str) {
    let sql = format!(
        "SELECT embedd.create_vector_table('{name}', '{name}', '[{{\"name\": \"title\", \"role\": \"embedding\"}},
            {{\"name\": \"n\", \"role\": \"metadata\"}}]', 'id', sync_mode => 'batch', batch_interval => '{interval}',
            start_backfill => true {more})"
    );
    client.batch_execute(&sql).expect("the vector table can be made");
}

/// Waits until no run is under way or waits.
fn wait_over(cluster: &Cluster, db: &str) {
    let sql = "SELECT NOT EXISTS (SELECT FROM embedd.tasks WHERE status IN ('pending', 'running'))";
    cluster.wait_for(db, LONG, "the runs to be over", sql);
}

/// Waits until embedd finds no difference any more; then there is none.
fn assert_arrives(cluster: &Cluster, db: &str, name: &str) {
    let sql = format!("SELECT NOT EXISTS (SELECT FROM embedd.verify('{name}'))");
    cluster.wait_for(db, LONG, &format!("the changes of \"{name}\" to arrive"), &sql);
    assert_equal(&mut cluster.connect(db), name);
}

/// Waits until the status of a vector table is an error that tells this.
fn wait_error(cluster: &Cluster, db: &str, name: &str, told: &str) {
    let sql = format!(
        "SELECT sync_status = 'error' AND strpos(last_error, $told${told}$told$) > 0 FROM embedd.sync_status('{name}')"
    );
    cluster.wait_for(db, LONG, &format!("an error of \"{name}\" that tells {told}"), &sql);
}

/// Waits until a vector table is in sync, and without an error.
fn wait_well(cluster: &Cluster, db: &str, name: &str) {
    let sql = format!(
        "SELECT sync_status = 'synced' AND last_error IS NULL FROM embedd.sync_status('{name}')"
    );
    cluster.wait_for(db, LONG, &format!("\"{name}\" to be well"), &sql);
}
