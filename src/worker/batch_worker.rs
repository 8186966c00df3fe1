//! The batch worker's process: it compares one vector table with its source, brings in what differs, and ends.

use pgrx::prelude::*;
use pgrx::{check_for_interrupts, pg_sys};

use super::helper::{self, Errand};
use super::process::Process;
use super::signals;
use crate::sync::{Engine, Round};
use crate::{server, shared};

/// Type of the process, and the beginning of its name.
pub const BATCH_WORKER: &str = "embedd batch worker";

/// Starts one for a vector table; none when the server has no place for it.
pub fn start(table_id: i32, name: &str) -> Option<Process> {
    helper::start(BATCH_WORKER, "embedd_batch_worker_main", table_id, name)
}

/// What the postmaster runs as a batch worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_batch_worker_main(arg: pg_sys::Datum) {
    let errand = Errand::begin(arg);
    let mut engine = Engine::of_run(errand.table_id);
    loop {
        check_for_interrupts!();
        signals::reload_if_asked();
        match engine.round() {
            Round::NoExtension => return,
            _ if engine.is_run_over() => break,
            Round::Wait(timeout) => server::wait(timeout, engine.socket()),
            Round::Idle(_) => break,
        }
    }
    engine.leave();
    shared::wake_worker(errand.database);
}
