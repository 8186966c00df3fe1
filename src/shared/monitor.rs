//! What a session sees of the sync workers of its database.

use std::sync::atomic::Ordering::SeqCst;

use pgrx::prelude::*;

use super::memory::{NOBODY, SlotState, clock, is_preloaded, shared};

/// How the sync workers of a database are; of several the busiest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    pub state: &'static str,
    /// For how many milliseconds that has been so, where it is known.
    for_ms: Option<u64>,
}

impl Worker {
    /// Since when that has been so.
    pub fn since(self) -> Option<TimestampWithTimeZone> {
        let milliseconds = self.for_ms?;
        // SAFETY: reads a clock.
        let now = unsafe { pg_sys::GetCurrentTimestamp() };
        let micros = i64::try_from(milliseconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
        TimestampWithTimeZone::try_from(now.saturating_sub(micros)).ok()
    }
}

/// How the sync workers of this database are.
pub fn worker() -> Worker {
    let plain = |state| Worker { state, for_ms: None };
    if !is_preloaded() {
        return plain("not preloaded");
    }
    // SAFETY: a plain global of the process.
    let database = unsafe { pg_sys::MyDatabaseId };
    let (mut found, now) = (None, clock());
    for slot in shared().slots.iter().filter(|slot| slot.is_of(database)) {
        let for_ms = Some(now.saturating_sub(slot.since.load(SeqCst)));
        let state = match slot.state() {
            SlotState::Running if slot.is_idle.load(SeqCst) == 0 => {
                return Worker { state: "busy", for_ms };
            }
            SlotState::Running | SlotState::Leaving => "idle",
            SlotState::Starting => "starting",
            _ => continue,
        };
        found.get_or_insert(Worker { state, for_ms });
    }
    match found {
        Some(worker) => worker,
        None if shared().launcher.load(SeqCst) == NOBODY => plain("not running"),
        None if shared().short.load(SeqCst) > 0 => plain("waiting for a slot"),
        // It leaves when it has nothing to do, and comes with the next change.
        None => plain("idle"),
    }
}

/// Sync workers of all databases that are wanted and have no place.
pub fn waiting() -> u32 {
    if is_preloaded() { shared().short.load(SeqCst) } else { 0 }
}
