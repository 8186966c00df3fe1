//! A batch at a provider, as a worker knows it. Pure.

use std::time::{Duration, Instant};

use super::{FIND_AFTER, LONG_AFTER, LOOK};
use crate::backoff::Backoff;
use crate::provider_batch::Noted;

/// A batch at a provider.
#[derive(Clone, Debug)]
pub struct Known {
    pub name: Option<String>,
    pub planned: Instant,
    /// Age at `planned`, for a batch that an earlier process has planned.
    pub age: Duration,
    pub looks: Backoff,
    pub look_at: Instant,
    pub is_cancelled: bool,
    /// Another cluster has handed it in, and may want it still.
    pub is_foreign: bool,
    pub done: u64,
}

impl Known {
    /// A batch that is first looked at then.
    pub fn new(name: Option<String>, look_at: Instant, now: Instant) -> Self {
        Self {
            name,
            planned: now,
            age: Duration::ZERO,
            looks: Backoff::new(LOOK.0, LOOK.1),
            look_at,
            is_cancelled: false,
            is_foreign: false,
            done: 0,
        }
    }
}

/// A batch that an earlier process has planned. Without a name it may have been handed in a moment ago.
pub fn resumed(noted: Noted, now: Instant) -> Known {
    let Noted { name, age, is_foreign, .. } = noted;
    let look_at = if name.is_some() { now } else { now + FIND_AFTER };
    let mut batch = Known { age, is_foreign, ..Known::new(name, look_at, now) };
    if age >= LOOK.1 {
        // A worker that often leaves its slot to others does not begin with short pauses each time.
        batch.looks.raise(LONG_AFTER);
    }
    batch
}
