//! The background processes: registered here, one file for each.

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};

pub mod batch_worker;
mod databases;
pub mod embedder;
pub mod helper;
pub mod index_builder;
pub mod launcher;
pub mod process;
pub mod signals;
pub mod sync_worker;
pub mod transaction;

/// Name and type of the process that talks to the outside world.
pub const EMBEDDER: &str = "embedd embedder";
/// Name and type of the process that starts sync workers.
pub const LAUNCHER: &str = "embedd launcher";
/// Type of the processes that keep vector tables in sync, and the beginning of their names.
pub const SYNC_WORKER: &str = "embedd sync worker";

/// Pause before the postmaster starts a process again that has ended.
const RESTART: Duration = Duration::from_secs(1);

/// Registers the processes that are one a server. Called while the postmaster loads its libraries.
pub fn register() {
    BackgroundWorkerBuilder::new(EMBEDDER)
        .set_type(EMBEDDER)
        .set_library("embedd")
        .set_function("embedd_embedder_main")
        .enable_shmem_access(None)
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .set_restart_time(Some(RESTART))
        .load();
    // Its start is RecoveryFinished: on a standby there is nothing to keep in sync until it is promoted.
    BackgroundWorkerBuilder::new(LAUNCHER)
        .set_type(LAUNCHER)
        .set_library("embedd")
        .set_function("embedd_launcher_main")
        .enable_spi_access()
        .set_restart_time(Some(RESTART))
        .load();
}
