//! The launcher's side of the shared memory: who asks for a worker, and which slots are taken.

use std::sync::atomic::Ordering::SeqCst;

use pgrx::prelude::*;

use super::memory::{Ask, NEVER, NOBODY, Portion, Slot, SlotState, clock, my_proc_number, shared};

/// A slot that is taken, as it was when the launcher looked.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    number: usize,
    pub database: pg_sys::Oid,
    pub portion: Portion,
    pub state: SlotState,
    /// Whether the worker has found the extension.
    pub found: bool,
    /// Whether the worker has nothing to do, and for how many milliseconds that has been so or not so.
    pub is_idle: bool,
    pub since: u64,
    /// How many milliseconds ago the worker was asked to leave, if it was.
    pub asked: Option<u64>,
    /// In how many milliseconds the worker that has left is wanted again, if that is known.
    pub due: Option<u64>,
}

impl Place {
    fn slot(&self) -> &'static Slot {
        &shared().slots[self.number]
    }

    /// Frees the slot.
    pub fn free(&self) {
        self.slot().set_state(SlotState::Free);
        self.slot().database.store(0, SeqCst);
    }

    /// Waits no longer for a worker that is starting; false when it has come.
    pub fn give_up(&self) -> bool {
        self.slot().change_state(SlotState::Starting, SlotState::Failed)
    }

    /// Asks the worker for something.
    pub fn ask(&self, what: Ask) {
        self.slot().ask(what);
    }

    /// Whether the worker is asked for something.
    pub fn is_asked(&self, what: Ask) -> bool {
        self.slot().asked.load(SeqCst) & what as u32 != 0
    }

    /// Takes back that the worker was asked for its place.
    pub fn keep(&self) {
        self.slot().asked.fetch_and(!(Ask::Place as u32), SeqCst);
    }
}

/// Every taken slot.
pub fn taken() -> Vec<Place> {
    let now = clock();
    let slots = shared().slots.iter().enumerate();
    slots
        .map(|(number, slot)| {
            // Before all the rest: when a worker has left, everything it had to say was there before.
            let state = slot.state();
            let asked_at = slot.asked_at.load(SeqCst);
            let due = slot.due.load(SeqCst);
            Place {
                number,
                state,
                database: pg_sys::Oid::from(slot.database.load(SeqCst)),
                portion: Portion::from_u32(slot.portion.load(SeqCst)),
                found: slot.found.load(SeqCst) != 0,
                is_idle: slot.is_idle.load(SeqCst) != 0,
                since: now.saturating_sub(slot.since.load(SeqCst)),
                asked: (slot.asked.load(SeqCst) != 0).then(|| now.saturating_sub(asked_at)),
                due: (due != NEVER).then(|| due.saturating_sub(now)),
            }
        })
        .filter(|place| place.state != SlotState::Free)
        .collect()
}

/// Takes a slot for a worker; false when all are taken.
pub fn take(database: pg_sys::Oid, portion: Portion) -> bool {
    let free = shared().slots.iter().find(|slot| slot.state() == SlotState::Free);
    let Some(slot) = free else { return false };
    slot.taken.fetch_add(1, SeqCst);
    slot.proc_number.store(NOBODY, SeqCst);
    slot.asked.store(0, SeqCst);
    slot.found.store(0, SeqCst);
    slot.is_idle.store(0, SeqCst);
    slot.since.store(clock(), SeqCst);
    slot.due.store(NEVER, SeqCst);
    slot.portion.store(portion.to_u32(), SeqCst);
    slot.database.store(database.to_u32(), SeqCst);
    slot.set_state(SlotState::Starting);
    true
}

/// The databases that asked for a worker since the last call; None when every database may have asked.
pub fn take_requests() -> Option<Vec<pg_sys::Oid>> {
    let shared = shared();
    let all = shared.all_ask.swap(0, SeqCst) != 0;
    let asking = shared.requests.iter().map(|request| request.swap(0, SeqCst));
    let asking: Vec<_> = asking.filter(|database| *database != 0).map(pg_sys::Oid::from).collect();
    (!all).then_some(asking)
}

/// Notes how many sync workers each database shall have.
pub fn set_portions(count: u16) {
    shared().portions.store(u32::from(count), SeqCst);
}

/// Notes how many workers are wanted that have no place.
pub fn set_short(count: usize) {
    shared().short.store(count as u32, SeqCst);
}

/// The launcher says where it can be woken.
pub fn launcher_started() {
    shared().launcher.store(my_proc_number(), SeqCst);
}

/// The launcher goes.
pub fn launcher_stopped() {
    shared().launcher.store(NOBODY, SeqCst);
}
