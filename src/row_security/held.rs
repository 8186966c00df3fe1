//! Keys that a search has read already, which the policy of a vector table uses instead of asking the source.

use std::cell::RefCell;
use std::collections::HashSet;

use pgrx::pg_sys;

/// The keys that one role may see of one vector table (its origin_id).
struct Keys {
    origin_id: i32,
    role: pg_sys::Oid,
    keys: HashSet<String>,
}

thread_local! {
    static IN_FORCE: RefCell<Option<Keys>> = const { RefCell::new(None) };
}

/// Keys are in force while it lives.
pub struct Held {
    /// What was in force before, to be put back.
    before: Option<Keys>,
}

/// Lets the policy of a vector table use these keys, which are all that the current role may see of it.
pub fn hold(origin_id: i32, keys: impl IntoIterator<Item = String>) -> Held {
    let now = Keys { origin_id, role: role(), keys: keys.into_iter().collect() };
    Held { before: IN_FORCE.replace(Some(now)) }
}

impl Drop for Held {
    fn drop(&mut self) {
        IN_FORCE.set(self.before.take());
    }
}

/// Whether the current role may see a key, as far as keys are in force; None where none are.
pub(super) fn is_held(origin_id: i32, pk_value: &str) -> Option<bool> {
    IN_FORCE.with_borrow(|held| {
        let held = held.as_ref().filter(|held| held.origin_id == origin_id)?;
        (held.role == role()).then(|| held.keys.contains(pk_value))
    })
}

fn role() -> pg_sys::Oid {
    // SAFETY: a plain read of the process's own state.
    unsafe { pg_sys::GetUserId() }
}
