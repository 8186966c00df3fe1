//! The state of the sync workers of a database, for monitoring.

use std::sync::atomic::Ordering::SeqCst;

use pgrx::prelude::*;

use super::memory::{NO_PROCESS, SlotState, clock, is_preloaded, shared};

/// The state of a database's sync workers; of several workers the busiest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    pub state: &'static str,
    /// For how many milliseconds it has been in that state, if known.
    for_ms: Option<u64>,
}

impl Worker {
    /// Since when it has been in that state.
    pub fn since(self) -> Option<TimestampWithTimeZone> {
        let milliseconds = self.for_ms?;
        // SAFETY: reads a clock.
        let now = unsafe { pg_sys::GetCurrentTimestamp() };
        let micros = i64::try_from(milliseconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
        TimestampWithTimeZone::try_from(now.saturating_sub(micros)).ok()
    }
}

/// The state of the sync workers of this database.
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
        None if shared().launcher.load(SeqCst) == NO_PROCESS => plain("not running"),
        None if shared().waiting.load(SeqCst) > 0 => plain("waiting for a slot"),
        // The worker exits when it is idle, and starts with the next change.
        None => plain("idle"),
    }
}

/// How many sync workers of all databases wait for a slot.
pub fn waiting() -> u32 {
    if is_preloaded() { shared().waiting.load(SeqCst) } else { 0 }
}
