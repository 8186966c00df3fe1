//! The batch worker: compares one vector table with its source, applies the differences, and exits.

use pgrx::prelude::*;
use pgrx::{check_for_interrupts, pg_sys};

use super::{signals, sync_worker};
use crate::latch;
use crate::shared;
use crate::sync::{Engine, Round};

/// The entry point of a batch worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_batch_worker_main(arg: pg_sys::Datum) {
    let errand = sync_worker::begin(arg);
    let mut engine = Engine::of_run(errand.table_id);
    loop {
        check_for_interrupts!();
        signals::reload_if_asked();
        match engine.round() {
            Round::NoExtension => return,
            _ if engine.is_run_over() => break,
            Round::Wait(timeout) => latch::wait(timeout, engine.socket()),
            Round::Idle(_) => break,
        }
    }
    engine.leave();
    shared::wake_worker(errand.database);
}
