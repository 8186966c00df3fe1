//! The embedder as a program of its own: whatever becomes of it, no session, no worker and no row does worse than wait.

mod deaths;
mod life;
mod poison;
mod starts;

use postgres::Client;

use support::processes::EMBEDDER;
use support::{Cluster, LONG};

/// The embedder's process as embedd tells it, if one serves.
fn serving(client: &mut Client) -> Option<i32> {
    client.query_one("SELECT pid FROM embedd.embedder_status()", &[]).expect("it is told").get(0)
}

/// Waits until another process than this one serves, and returns it.
fn next_after(cluster: &Cluster, client: &mut Client, before: i32) -> i32 {
    let mut found = None;
    cluster.wait_until(LONG, "the next embedder to serve", || {
        found = serving(client).filter(|pid| *pid != before);
        found.is_some()
    });
    found.expect("just found")
}

/// Every process of the server but those that come and go by themselves, and the embedder's program.
fn lasting(cluster: &Cluster) -> Vec<(i32, String)> {
    let comes_and_goes = ["autovacuum worker", "parallel worker", EMBEDDER];
    let mut processes = cluster.processes();
    processes.retain(|(_, title)| !comes_and_goes.iter().any(|kind| title.starts_with(kind)));
    // The end of a title tells what a process does at the moment.
    for (_, title) in &mut processes {
        *title = title.split(' ').take(2).collect::<Vec<_>>().join(" ");
    }
    processes.sort();
    processes
}
