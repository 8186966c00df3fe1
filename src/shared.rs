//! The shared memory of embedd as sessions see it: how to wake the sync workers of a database, and ask for those missing.

pub mod embedder;
mod memory;
pub mod monitor;
pub mod places;
pub mod worker;

use std::sync::atomic::Ordering::SeqCst;

use pgrx::prelude::*;

pub use memory::{Ask, MOST_PORTIONS, Portion, SLOTS, SlotState, init, is_preloaded};
use memory::{set_latch, shared, wake_launcher};

/// When the shared memory was made, in microseconds since 1970: the same until the server starts again or recovers from a
/// crash, after which unlogged tables are empty.
pub fn started_at() -> i64 {
    if is_preloaded() { shared().started_at } else { 0 }
}

/// How many sync workers each database has, as it is in force now.
pub fn portions() -> u16 {
    if is_preloaded() { shared().portions.load(SeqCst) as u16 } else { 1 }
}

/// Wakes the sync workers of a database, and asks the launcher for those that are not there. Raises nothing, so that it
/// may be called after a commit.
pub fn wake_worker(database: pg_sys::Oid) {
    if !is_preloaded() {
        return;
    }
    let mut missing: u32 = (1 << portions()) - 1;
    for slot in &shared().slots {
        let taken = slot.taken.load(SeqCst);
        if !slot.is_of(database) {
            continue;
        }
        let index = memory::Portion::from_u32(slot.portion.load(SeqCst)).index;
        // First the count and then the state; a worker that leaves does it the other way round.
        slot.wakes.fetch_add(1, SeqCst);
        let state = slot.state();
        let proc_number = slot.proc_number.load(SeqCst);
        // A slot that has changed hands meanwhile may be another database's by now.
        if slot.taken.load(SeqCst) != taken {
            continue;
        }
        match state {
            SlotState::Running => set_latch(proc_number),
            // Its first look comes after this commit.
            SlotState::Starting => {}
            _ => continue,
        }
        missing &= !(1 << index);
    }
    if missing != 0 {
        request_worker(database);
    }
}

/// Tells the sync workers of a database that embedd's own tables have changed, and wakes them. Raises nothing.
pub fn touch(database: pg_sys::Oid) {
    if !is_preloaded() {
        return;
    }
    for slot in shared().slots.iter().filter(|slot| slot.is_of(database)) {
        slot.config.fetch_add(1, SeqCst);
    }
    wake_worker(database);
}

/// A number that has changed when embedd's own tables of a database may have: for its sync workers, to be read before the
/// tables are.
pub fn config_changes(database: pg_sys::Oid) -> u32 {
    if !is_preloaded() {
        return 0;
    }
    let of_database = || shared().slots.iter().find(|slot| slot.is_of(database));
    worker::own().or_else(of_database).map_or(0, |slot| slot.config.load(SeqCst))
}

/// Asks the launcher for the sync workers of a database that are not there. Raises nothing.
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

/// Asks the workers of a database to leave it, because the session is about to drop, rename or copy that database.
pub fn ask_to_leave(database: pg_sys::Oid) {
    if is_preloaded() {
        shared()
            .slots
            .iter()
            .filter(|slot| slot.is_of(database))
            .for_each(|s| s.ask(Ask::Database));
    }
}
