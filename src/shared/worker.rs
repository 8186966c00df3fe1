//! What a sync worker says of itself in its slot, and what it is told there.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pgrx::prelude::*;

use super::memory::{
    Ask, NEVER, NOBODY, Portion, Slot, SlotState, clock, my_proc_number, shared, wake_launcher,
};

/// The process has never had a slot.
const NONE_YET: usize = usize::MAX;
/// The process has given its slot back.
const NO_MORE: usize = usize::MAX - 1;

/// Which slot is this process's own.
static OWN: AtomicUsize = AtomicUsize::new(NONE_YET);

/// The slot of this process, while it is a sync worker.
pub fn own() -> Option<&'static Slot> {
    match OWN.load(SeqCst) {
        NONE_YET | NO_MORE => None,
        own => shared().slots.get(own),
    }
}

/// The place that the launcher keeps for a worker that is starting.
fn kept(database: pg_sys::Oid, portion: Portion) -> impl Iterator<Item = (usize, &'static Slot)> {
    shared().slots.iter().enumerate().filter(move |(_, slot)| {
        slot.is_of(database) && slot.portion.load(SeqCst) == portion.to_u32()
    })
}

/// Takes the slot that the launcher keeps for this worker; false when it waits for this worker no more.
pub fn started(database: pg_sys::Oid, portion: Portion) -> bool {
    let found = kept(database, portion)
        .find(|(_, slot)| slot.change_state(SlotState::Starting, SlotState::Running));
    let Some((number, slot)) = found else { return false };
    OWN.store(number, SeqCst);
    // Who wakes it before this has done so before the first round.
    slot.proc_number.store(my_proc_number(), SeqCst);
    set_idle(false);
    // The next one may start.
    wake_launcher();
    true
}

/// Says that the extension is there.
pub fn found() {
    if let Some(slot) = own()
        && slot.found.swap(1, SeqCst) == 0
    {
        wake_launcher();
    }
}

/// Says whether there is anything to do; the first of several in a row counts.
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

/// Whether this worker is asked for something.
pub fn is_asked(what: Ask) -> bool {
    own().is_some_and(|slot| slot.asked.load(SeqCst) & what as u32 != 0)
}

/// Whether workers are wanted that have no place.
pub fn others_wait() -> bool {
    shared().short.load(SeqCst) > 0
}

/// Gives the slot back because of nothing to do, unless the worker was woken since it had counted `wakes`: then false.
///
/// Whoever wakes counts first and then looks at the state. So either the count has changed here, or the state is seen
/// there and the launcher is asked for a worker.
pub fn step_aside(wakes: u32, state: SlotState, due: Option<Duration>) -> bool {
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

/// Gives the slot back; `state` says why.
pub fn leave(state: SlotState) {
    if let Some(slot) = own() {
        slot.proc_number.store(NOBODY, SeqCst);
        // From the last store on the slot may be another worker's.
        OWN.store(NO_MORE, SeqCst);
        slot.set_state(state);
    }
    wake_launcher();
}

/// Says that this process ends: that is a failure where it has said nothing before.
pub fn ended(database: pg_sys::Oid, portion: Portion) {
    if OWN.load(SeqCst) == NONE_YET {
        let _ = kept(database, portion)
            .any(|(_, slot)| slot.change_state(SlotState::Starting, SlotState::Failed));
        wake_launcher();
    } else if own().is_some() {
        leave(SlotState::Failed);
    }
}
