//! A sync worker's process: one a database, it runs the rounds of the sync engine and waits in between.

use std::ffi::CStr;

use pgrx::prelude::*;
use pgrx::{check_for_interrupts, pg_sys};

use super::signals::{self, Terminate};
use crate::server;
use crate::shared::{self, SlotState};
use crate::sync::{Engine, Round};

/// Settings that the safety of a query depends on, the same in every sync worker.
const SETTINGS: &[(&CStr, &CStr)] = &[
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"statement_timeout", c"0"),
    // One locked table must not keep the others waiting.
    // Shorter than deadlock_timeout, so that in a deadlock with a session it is the worker that gives way.
    (c"lock_timeout", c"500ms"),
    // What a crash of the server takes away is taken away with the removal from the queue, so it is done again.
    (c"synchronous_commit", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"idle_in_transaction_session_timeout", c"0"),
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    (c"transaction_timeout", c"0"),
    (c"row_security", c"on"),
    (c"session_replication_role", c"origin"),
];

/// Connects a process that is starting to a database, with the settings above; a database that is gone ends the process.
pub fn connect(database: pg_sys::Oid) {
    signals::accept(Terminate::AtOnce);
    // SAFETY: the main thread of a background worker that is not connected yet.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0) };
    SETTINGS.iter().chain(server::TEXT_SETTINGS).for_each(|(name, value)| set(name, value));
}

/// Sets what nothing else in the process sets again.
pub fn set(name: &CStr, value: &CStr) {
    // SAFETY: the main thread of a process that is connected, with terminated names and values.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// What the postmaster runs as a sync worker; the argument is the oid of the database.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_sync_worker_main(arg: pg_sys::Datum) {
    let database = pg_sys::Oid::from(arg.value() as u32);
    // SAFETY: the function is static and guarded.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), arg) };
    connect(database);
    shared::worker_started(database);
    let mut engine = Engine::new(shared::Portion { index: 0, count: 1 });
    loop {
        check_for_interrupts!();
        signals::reload_if_asked();
        if shared::shall_leave(database) {
            engine.leave();
            shared::worker_ended(database, SlotState::Left);
            return;
        }
        let wakes = shared::wakes(database);
        match engine.round() {
            Round::NoExtension => {
                shared::worker_ended(database, SlotState::NoExtension);
                return;
            }
            // Whoever woke the worker since may have done so after the round had looked.
            Round::Wait(_) if shared::wakes(database) != wakes => {}
            Round::Idle(due) => {
                let due = due.unwrap_or(std::time::Duration::MAX).min(crate::guc::poll_interval());
                server::wait(due, engine.socket());
            }
            Round::Wait(timeout) => server::wait(timeout, engine.socket()),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: i32, arg: pg_sys::Datum) {
    shared::worker_ended(pg_sys::Oid::from(arg.value() as u32), SlotState::Failed);
}
