//! The shared memory of embedd for sessions: wakes the sync workers of a database, and requests missing ones.

pub mod embedder;
mod memory;
pub mod monitor;
pub mod slots;
pub mod worker;

use std::sync::atomic::Ordering::SeqCst;

use pgrx::prelude::*;

pub use memory::{
    LeaveRequest, MAX_WORKERS_PER_DATABASE, SLOTS, SlotState, WorkerIndex, init, is_preloaded,
};
use memory::{set_latch, shared, wake_launcher};

/// When the shared memory was created, in microseconds since 1970. It changes when the server restarts or recovers
/// from a crash, after which unlogged tables are empty.
pub fn started_at() -> i64 {
    if is_preloaded() { shared().started_at } else { 0 }
}

/// The number of sync workers of each database that is in force.
pub fn worker_count() -> u16 {
    if is_preloaded() { shared().portions.load(SeqCst) as u16 } else { 1 }
}

/// Wakes the sync workers of a database, and asks the launcher for missing ones. Raises no error, so it may be called
/// after a commit.
pub fn wake_worker(database: pg_sys::Oid) {
    if !is_preloaded() {
        return;
    }
    let mut missing: u32 = (1 << worker_count()) - 1;
    for slot in &shared().slots {
        let taken = slot.taken.load(SeqCst);
        if !slot.is_of(database) {
            continue;
        }
        let index = memory::WorkerIndex::from_u32(slot.portion.load(SeqCst)).index;
        // The count is incremented before the state is read; a leaving worker does the reverse.
        slot.wakes.fetch_add(1, SeqCst);
        let state = slot.state();
        let proc_number = slot.proc_number.load(SeqCst);
        // If another database has the slot by now, a spurious wake-up is harmless.
        if slot.taken.load(SeqCst) != taken {
            continue;
        }
        match state {
            SlotState::Running => set_latch(proc_number),
            // The worker is starting; it reads the tables only after this commit.
            SlotState::Starting => {}
            _ => continue,
        }
        missing &= !(1 << index);
    }
    if missing != 0 {
        request_worker(database);
    }
}

/// Marks the configuration of a database as changed, and wakes its sync workers. Raises no error.
pub fn touch(database: pg_sys::Oid) {
    if !is_preloaded() {
        return;
    }
    for slot in shared().slots.iter().filter(|slot| slot.is_of(database)) {
        slot.config.fetch_add(1, SeqCst);
    }
    wake_worker(database);
}

/// The configuration counter of a database, which changes with embedd's own tables. A sync worker must read it before
/// the tables.
pub fn config_changes(database: pg_sys::Oid) -> u32 {
    if !is_preloaded() {
        return 0;
    }
    let of_database = || shared().slots.iter().find(|slot| slot.is_of(database));
    worker::own().or_else(of_database).map_or(0, |slot| slot.config.load(SeqCst))
}

/// Asks the launcher for the missing sync workers of a database. Raises no error.
fn request_worker(database: pg_sys::Oid) {
    let requests = &shared().requests;
    let wanted = database.to_u32();
    let is_noted = requests.iter().any(|request| request.load(SeqCst) == wanted)
        || requests
            .iter()
            .any(|request| request.compare_exchange(0, wanted, SeqCst, SeqCst).is_ok());
    if !is_noted {
        shared().all_ask.store(1, SeqCst);
    }
    wake_launcher();
}

/// Asks the workers of a database to disconnect, because the session is about to drop, rename or copy the database.
pub fn ask_to_leave(database: pg_sys::Oid) {
    if is_preloaded() {
        shared()
            .slots
            .iter()
            .filter(|slot| slot.is_of(database))
            .for_each(|s| s.ask(LeaveRequest::AtOnce));
    }
}
