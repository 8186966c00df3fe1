//! A sync worker's side of its slot.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pgrx::prelude::*;

use super::memory::{
    LeaveRequest, NEVER, NO_PROCESS, Slot, SlotState, WorkerIndex, clock, my_proc_number, shared,
    wake_launcher,
};

/// The process never had a slot.
const NEVER_HAD: usize = usize::MAX;
/// The process has released its slot.
const RELEASED: usize = usize::MAX - 1;

/// The index of this process's slot.
static OWN: AtomicUsize = AtomicUsize::new(NEVER_HAD);

/// The slot of this process, while it is a sync worker.
pub fn own() -> Option<&'static Slot> {
    match OWN.load(SeqCst) {
        NEVER_HAD | RELEASED => None,
        own => shared().slots.get(own),
    }
}

/// The slot reserved for a worker that is starting.
fn reserved(
    database: pg_sys::Oid,
    portion: WorkerIndex,
) -> impl Iterator<Item = (usize, &'static Slot)> {
    shared().slots.iter().enumerate().filter(move |(_, slot)| {
        slot.is_of(database) && slot.portion.load(SeqCst) == portion.to_u32()
    })
}

/// Takes the slot reserved for this worker; false if the launcher has cancelled the start.
pub fn started(database: pg_sys::Oid, portion: WorkerIndex) -> bool {
    let found = reserved(database, portion)
        .find(|(_, slot)| slot.change_state(SlotState::Starting, SlotState::Running));
    let Some((number, slot)) = found else { return false };
    OWN.store(number, SeqCst);
    // A wake-up before this line precedes the first round, so it is not lost.
    slot.proc_number.store(my_proc_number(), SeqCst);
    set_idle(false);
    // The launcher may start the next worker.
    wake_launcher();
    true
}

/// Records that the database has the extension.
pub fn found() {
    if let Some(slot) = own()
        && slot.found.swap(1, SeqCst) == 0
    {
        wake_launcher();
    }
}

/// Records that the worker became idle or busy.
pub fn set_idle(is_idle: bool) {
    if let Some(slot) = own() {
        slot.since.store(clock(), SeqCst);
        slot.is_idle.store(u32::from(is_idle), SeqCst);
    }
}

/// How often this worker was woken.
pub fn wakes() -> u32 {
    own().map_or(0, |slot| slot.wakes.load(SeqCst))
}

/// Whether this worker was asked to exit in this way.
pub fn is_asked(request: LeaveRequest) -> bool {
    own().is_some_and(|slot| slot.asked.load(SeqCst) & request as u32 != 0)
}

/// Whether workers wait for a slot.
pub fn others_are_waiting() -> bool {
    shared().waiting.load(SeqCst) > 0
}

/// Releases the slot of an idle worker, unless it was woken after it read `wakes`: then false.
///
/// A waking session increments the counter before it reads the state. So either this function sees the new counter, or
/// the session sees the state and asks the launcher for a worker.
pub fn release_slot(wakes: u32, state: SlotState, due: Option<Duration>) -> bool {
    let Some(slot) = own() else { return true };
    slot.set_state(SlotState::Leaving);
    if slot.wakes.load(SeqCst) != wakes {
        slot.set_state(SlotState::Running);
        return false;
    }
    slot.due.store(due.map_or(NEVER, |due| clock() + due.as_millis() as u64), SeqCst);
    leave(state);
    true
}

/// Releases the slot; `state` says why.
pub fn leave(state: SlotState) {
    if let Some(slot) = own() {
        slot.proc_number.store(NO_PROCESS, SeqCst);
        // After the last store the slot may belong to another worker.
        OWN.store(RELEASED, SeqCst);
        slot.set_state(state);
    }
    wake_launcher();
}

/// The process is exiting; if it has not released its slot, that is a failure.
pub fn ended(database: pg_sys::Oid, portion: WorkerIndex) {
    if OWN.load(SeqCst) == NEVER_HAD {
        let _ = reserved(database, portion)
            .any(|(_, slot)| slot.change_state(SlotState::Starting, SlotState::Failed));
        wake_launcher();
    } else if own().is_some() {
        leave(SlotState::Failed);
    }
}
