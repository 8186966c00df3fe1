//! The embedder as a separate program: whatever happens to it, sessions, workers and rows only have to wait.

mod deaths;
mod life;
mod poison;
mod starts;

use postgres::Client;

use support::processes::EMBEDDER;
use support::{Cluster, LONG};

/// The embedder's process id, if it is running.
fn serving(client: &mut Client) -> Option<i32> {
    client
        .query_one("SELECT pid FROM embedd.embedder_status()", &[])
        .expect("the status has a row")
        .get(0)
}

/// Waits until another process than this one is ready, and returns it.
fn next_after(cluster: &Cluster, client: &mut Client, before: i32) -> i32 {
    let mut found = None;
    cluster.wait_until(LONG, "the next embedder to be ready", || {
        found = serving(client).filter(|pid| *pid != before);
        found.is_some()
    });
    found.expect("just found")
}

/// Every long-lived process of the server, and the embedder's program.
fn lasting(cluster: &Cluster) -> Vec<(i32, String)> {
    let comes_and_goes = ["autovacuum worker", "parallel worker", EMBEDDER];
    let mut processes = cluster.processes();
    processes.retain(|(_, title)| !comes_and_goes.iter().any(|kind| title.starts_with(kind)));
    // The end of a title shows the current activity.
    for (_, title) in &mut processes {
        *title = title.split(' ').take(2).collect::<Vec<_>>().join(" ");
    }
    processes.sort();
    processes
}
