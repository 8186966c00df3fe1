//! The background processes: registered here, one file for each.

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::pg_sys;

pub mod batch_worker;
mod databases;
pub mod index_builder;
pub mod launcher;
mod log_context;
mod program;
mod restarts;
pub mod signals;
pub mod supervisor;
pub mod sync_worker;

/// Name and type of the process that keeps the embedder running.
pub const EMBEDDER: &str = "embedd embedder";
/// Name and type of the process that starts sync workers.
pub const LAUNCHER: &str = "embedd launcher";
/// Type of the processes that keep vector tables in sync, and the beginning of their names.
pub const SYNC_WORKER: &str = "embedd sync worker";

/// Pause before the postmaster starts a process again that has ended.
const RESTART: Duration = Duration::from_secs(1);

/// Registers the processes that are one a server. Called while the postmaster loads its libraries.
pub fn register() {
    // A transaction of a worker would corrupt the cluster that pg_upgrade is filling.
    // SAFETY: a plain global of the process.
    if unsafe { pg_sys::IsBinaryUpgrade } {
        return;
    }
    BackgroundWorkerBuilder::new(EMBEDDER)
        .set_type(EMBEDDER)
        .set_library("embedd")
        .set_function("embedd_embedder_main")
        .enable_spi_access()
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
