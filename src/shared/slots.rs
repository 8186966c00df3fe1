//! The launcher's view of the shared memory: requests for workers, and taken slots.

use std::sync::atomic::Ordering::SeqCst;

use pgrx::prelude::*;

use super::memory::{
    LeaveRequest, NEVER, NO_PROCESS, Slot, SlotState, WorkerIndex, clock, my_proc_number, shared,
};

/// A snapshot of a taken slot.
#[derive(Clone, Copy, Debug)]
pub struct TakenSlot {
    number: usize,
    pub database: pg_sys::Oid,
    pub portion: WorkerIndex,
    pub state: SlotState,
    /// Whether the worker has found the extension.
    pub found: bool,
    /// Whether the worker is idle, and for how many milliseconds it has been idle or busy.
    pub is_idle: bool,
    pub since: u64,
    /// How many milliseconds ago the worker was asked to exit, if it was.
    pub asked: Option<u64>,
    /// In how many milliseconds an exited worker has to be started again, if known.
    pub due: Option<u64>,
}

impl TakenSlot {
    fn slot(&self) -> &'static Slot {
        &shared().slots[self.number]
    }

    /// Frees the slot.
    pub fn free(&self) {
        self.slot().set_state(SlotState::Free);
        self.slot().database.store(0, SeqCst);
    }

    /// Cancels the start of a worker; false if it has started meanwhile.
    pub fn cancel_start(&self) -> bool {
        self.slot().change_state(SlotState::Starting, SlotState::Failed)
    }

    /// Asks the worker to exit.
    pub fn ask(&self, request: LeaveRequest) {
        self.slot().ask(request);
    }

    /// Whether the worker has this request.
    pub fn is_asked(&self, request: LeaveRequest) -> bool {
        self.slot().asked.load(SeqCst) & request as u32 != 0
    }

    /// Withdraws the request to yield the slot.
    pub fn keep(&self) {
        self.slot().asked.fetch_and(!(LeaveRequest::YieldSlot as u32), SeqCst);
    }
}

/// All taken slots.
pub fn taken() -> Vec<TakenSlot> {
    let now = clock();
    let slots = shared().slots.iter().enumerate();
    slots
        .map(|(number, slot)| {
            // The state is read first: everything an exiting worker writes precedes its last state.
            let state = slot.state();
            let asked_at = slot.asked_at.load(SeqCst);
            let due = slot.due.load(SeqCst);
            TakenSlot {
                number,
                state,
                database: pg_sys::Oid::from(slot.database.load(SeqCst)),
                portion: WorkerIndex::from_u32(slot.portion.load(SeqCst)),
                found: slot.found.load(SeqCst) != 0,
                is_idle: slot.is_idle.load(SeqCst) != 0,
                since: now.saturating_sub(slot.since.load(SeqCst)),
                asked: (slot.asked.load(SeqCst) != 0).then(|| now.saturating_sub(asked_at)),
                due: (due != NEVER).then(|| due.saturating_sub(now)),
            }
        })
        .filter(|slot| slot.state != SlotState::Free)
        .collect()
}

/// Takes a slot for a worker; false if all are taken.
pub fn take(database: pg_sys::Oid, portion: WorkerIndex) -> bool {
    let free = shared().slots.iter().find(|slot| slot.state() == SlotState::Free);
    let Some(slot) = free else { return false };
    slot.taken.fetch_add(1, SeqCst);
    slot.proc_number.store(NO_PROCESS, SeqCst);
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

/// The databases that requested a worker since the last call; None if any database may have.
pub fn take_requests() -> Option<Vec<pg_sys::Oid>> {
    let shared = shared();
    let all = shared.all_ask.swap(0, SeqCst) != 0;
    let asking = shared.requests.iter().map(|request| request.swap(0, SeqCst));
    let asking: Vec<_> = asking.filter(|database| *database != 0).map(pg_sys::Oid::from).collect();
    (!all).then_some(asking)
}

/// Sets the number of sync workers of each database.
pub fn set_worker_count(count: u16) {
    shared().portions.store(u32::from(count), SeqCst);
}

/// Sets how many workers wait for a slot.
pub fn set_waiting(count: usize) {
    shared().waiting.store(count as u32, SeqCst);
}

/// Registers the launcher, so that it can be woken.
pub fn launcher_started() {
    shared().launcher.store(my_proc_number(), SeqCst);
}

/// Unregisters the launcher.
pub fn launcher_stopped() {
    shared().launcher.store(NO_PROCESS, SeqCst);
}
