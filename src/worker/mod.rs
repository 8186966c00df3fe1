//! Registers the background processes; each has a file of its own.

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::pg_sys;

pub mod batch_worker;
pub mod calibrator;
mod databases;
pub mod index_builder;
pub mod launcher;
mod log_context;
mod program;
mod restarts;
pub mod signals;
pub mod supervisor;
pub mod sync_worker;

/// The name and type of the process that supervises the embedder.
pub const EMBEDDER: &str = "embedd embedder";
/// The name and type of the process that starts sync workers.
pub const LAUNCHER: &str = "embedd launcher";
/// The type of the sync workers, and the beginning of their names.
pub const SYNC_WORKER: &str = "embedd sync worker";

/// The pause before the postmaster restarts a process.
const RESTART: Duration = Duration::from_secs(1);

/// Registers the launcher and the supervisor. Called while the postmaster loads its libraries.
pub fn register() {
    // A transaction of a worker would corrupt the cluster during pg_upgrade.
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
    // It starts at RecoveryFinished: on a standby there is nothing to sync until it is promoted.
    BackgroundWorkerBuilder::new(LAUNCHER)
        .set_type(LAUNCHER)
        .set_library("embedd")
        .set_function("embedd_launcher_main")
        .enable_spi_access()
        .set_restart_time(Some(RESTART))
        .load();
}
