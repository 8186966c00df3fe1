//! When the swap of a shadow is tried again, and how long it may wait for its locks. Pure.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// First and longest pause before a task is looked at again that waits for transactions of other sessions.
const BEGIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// First and longest pause before the replaced table is tried to be dropped again.
const OLD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Tries that do not wait for a lock: what is free for a moment is taken then, and no session waits behind the swap.
const WITHOUT_WAIT: u32 = 100;
/// Pause before a shadow is looked at again that is behind.
const BEHIND: Duration = Duration::from_millis(200);
/// Pause between those tries.
const PAUSE: Duration = Duration::from_millis(20);
/// First and longest wait for a lock after them. Sessions that come later wait behind it, so each wait is followed by a
/// pause of many times its length.
const LOCK_WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How many times longer than the wait the pause after it is.
const PAUSE_FACTOR: u32 = 10;

/// What waits for other sessions around a swap.
#[derive(Clone, Debug)]
pub struct Swap {
    /// The pause before the task is begun.
    pub begin: Backoff,
    /// The pause before the replaced table is dropped.
    pub old: Backoff,
    tries: u32,
    until: Option<Instant>,
}

impl Default for Swap {
    fn default() -> Self {
        let (begin, old) = (Backoff::new(BEGIN.0, BEGIN.1), Backoff::new(OLD.0, OLD.1));
        Self { begin, old, tries: 0, until: None }
    }
}

/// How long the locks of a swap may be waited for after so many tries; none: not at all.
pub fn lock_wait(tries: u32) -> Option<Duration> {
    let waits = tries.checked_sub(WITHOUT_WAIT)?;
    Some(LOCK_WAIT.0.saturating_mul(1 << waits.min(16)).min(LOCK_WAIT.1))
}

impl Swap {
    /// A try found a lock of another session in the way.
    pub fn was_locked(&mut self, tries: u32, now: Instant) {
        let pause = lock_wait(tries).map_or(PAUSE, |wait| wait * PAUSE_FACTOR);
        self.tries = tries.saturating_add(1);
        self.until = Some(now + pause);
    }

    /// A try found that too many changes wait for the shadow.
    pub fn was_behind(&mut self, now: Instant) {
        self.until = Some(now + BEHIND);
    }

    /// Whether the swap is not to be tried yet.
    pub fn is_waiting(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    /// How often a lock was in the way.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// The swap is done, or has to wait for something else than a lock.
    pub fn reset(&mut self) {
        (self.tries, self.until) = (0, None);
    }

    /// When a pause ends.
    pub fn due(&self) -> Option<Instant> {
        [self.until, self.begin.until(), self.old.until()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_session_waits_behind_the_first_tries_and_for_a_tenth_of_the_time_later() {
        let (mut swap, mut now) = (Swap::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..WITHOUT_WAIT + 10 {
            let tries = swap.tries();
            let wait = lock_wait(tries).unwrap_or_default();
            swap.was_locked(tries, now);
            assert!(swap.is_waiting(now + wait * 9));
            now = swap.due().unwrap();
            assert!(!swap.is_waiting(now));
            waits.push(wait);
        }
        assert_eq!(waits[..WITHOUT_WAIT as usize], vec![Duration::ZERO; WITHOUT_WAIT as usize]);
        assert_eq!(waits[WITHOUT_WAIT as usize], LOCK_WAIT.0);
        assert_eq!(waits.last(), Some(&LOCK_WAIT.1));
        swap.reset();
        assert_eq!((swap.tries(), swap.due()), (0, None));
    }
}
