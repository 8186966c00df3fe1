//! Sources and vector tables that Citus shards over a coordinator and a worker node. Without Citus these tests report
//! that and do nothing.

mod names;
mod questions;
mod sources;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use postgres::Client;
use support::binaries::pg_config_says;
use support::source::{BODY, relation, synced_texts, wait_status, wait_synced};
use support::{Builder, Cluster};

/// Two servers; each test creates its own databases.
struct Nodes {
    coordinator: Cluster,
    worker: Cluster,
    /// Held while a database gets its nodes, because concurrent changes of the roles in Citus fail.
    joining: Mutex<()>,
}

/// Whether the server of the tests has Citus.
fn is_available() -> bool {
    let control = pg_config_says("--sharedir").join("extension/citus.control");
    if !control.exists() {
        eprintln!("citus is not available: skipped");
    }
    control.exists()
}

/// The running servers, or new ones; None without Citus.
fn nodes() -> Option<Arc<Nodes>> {
    static NODES: Mutex<Weak<Nodes>> = Mutex::new(Weak::new());
    if !is_available() {
        return None;
    }
    let mut running = NODES.lock().unwrap_or_else(PoisonError::into_inner);
    Some(running.upgrade().unwrap_or_else(|| {
        let nodes = Arc::new(Nodes {
            coordinator: server().start(),
            // Another time zone than the coordinator's.
            worker: server().set("timezone", "America/New_York").start(),
            joining: Mutex::new(()),
        });
        *running = Arc::downgrade(&nodes);
        nodes
    }))
}

fn server() -> Builder {
    Cluster::builder()
        // Citus sends no event when a table is distributed.
        .set("embedd.poll_interval", "1s")
        .set("shared_preload_libraries", "citus,embedd")
        .set("max_prepared_transactions", "100")
        .set("max_worker_processes", "64")
        .set("max_connections", "200")
        .set("citus.shard_count", "4")
        .set("timezone", "UTC")
}

impl Nodes {
    /// A database on both nodes, with shards on both, and a session on the coordinator.
    fn database(&self, db: &str) -> Client {
        let _joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        for node in [&self.worker, &self.coordinator] {
            node.create_database(db);
            node.psql(db, "CREATE EXTENSION citus");
        }
        let address =
            |node: &Cluster| format!("'{}', {}", node.socket_dir().display(), node.port());
        let mut client = self.coordinator.connect(db);
        client
            .batch_execute(&format!(
                "SET client_min_messages = warning;
                 SELECT citus_set_coordinator_host({coordinator});
                 SELECT citus_set_node_property({coordinator}, 'shouldhaveshards', true);
                 SELECT citus_add_node({worker});
                 CREATE EXTENSION embedd CASCADE",
                coordinator = address(&self.coordinator),
                worker = address(&self.worker)
            ))
            .unwrap();
        client
    }
}

/// One number.
fn number(client: &mut Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).unwrap().get(0)
}
