//! Sync mode batch: sources without triggers are compared at an interval, and a failing source does not affect the
//! others.

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

/// An interval longer than any test.
const NEVER: &str = "1 day";

/// Creates and backfills a vector table of the same name for a relation with the columns id, title and n.
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

/// Waits until no run is active or requested.
fn wait_over(cluster: &Cluster, db: &str) {
    let sql = "SELECT NOT EXISTS (SELECT FROM embedd.tasks WHERE status IN ('pending', 'running'))";
    cluster.wait_for(db, LONG, "the runs to be over", sql);
}

/// Waits until embedd.verify() finds no difference, and checks it independently.
fn assert_arrives(cluster: &Cluster, db: &str, name: &str) {
    let sql = format!("SELECT NOT EXISTS (SELECT FROM embedd.verify('{name}'))");
    cluster.wait_for(db, LONG, &format!("the changes of \"{name}\" to arrive"), &sql);
    assert_equal(&mut cluster.connect(db), name);
}

/// Waits until the status of a vector table is an error with this text.
fn wait_error(cluster: &Cluster, db: &str, name: &str, told: &str) {
    let sql = format!(
        "SELECT sync_status = 'error' AND strpos(last_error, $told${told}$told$) > 0 FROM embedd.sync_status('{name}')"
    );
    cluster.wait_for(db, LONG, &format!("an error of \"{name}\" with the text {told}"), &sql);
}

/// Waits until a vector table is synced, without an error.
fn wait_well(cluster: &Cluster, db: &str, name: &str) {
    let sql = format!(
        "SELECT sync_status = 'synced' AND last_error IS NULL FROM embedd.sync_status('{name}')"
    );
    cluster.wait_for(db, LONG, &format!("\"{name}\" to be synced"), &sql);
}
