//! The backoff for restarts of the embedder. Pure.

use std::time::Duration;

use crate::backoff::Backoff;

/// A program that ran for this long resets the backoff.
const STEADY: Duration = Duration::from_secs(10);
/// First and longest pause after a program that was ready ended; the first time there is no pause.
const AFTER_END: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// First and longest pause after a program that failed to start.
const AFTER_TROUBLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It had been ready for this time.
    Served(Duration),
    /// It could not be started, or ended before it was ready.
    NeverServed,
}

/// Counts recent ends of the program.
#[derive(Debug)]
pub struct Restarts {
    has_ended: bool,
    after_end: Backoff,
    after_trouble: Backoff,
}

impl Default for Restarts {
    fn default() -> Self {
        Self {
            has_ended: false,
            after_end: Backoff::new(AFTER_END.0, AFTER_END.1),
            after_trouble: Backoff::new(AFTER_TROUBLE.0, AFTER_TROUBLE.1),
        }
    }
}

impl Restarts {
    /// The pause before the next start: none the first time, then doubling up to a limit.
    pub fn pause(&mut self, end: End) -> Duration {
        let End::Served(lived) = end else { return self.after_trouble.next_pause() };
        self.after_trouble.reset();
        if lived >= STEADY {
            self.after_end.reset();
            self.has_ended = false;
        }
        match std::mem::replace(&mut self.has_ended, true) {
            false => Duration::ZERO,
            true => self.after_end.next_pause(),
        }
    }

    /// The settings have changed, so the next start may succeed.
    pub fn forget_failures(&mut self) {
        self.after_trouble.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_the_next_ones_back_off() {
        let mut restarts = Restarts::default();
        let brief = End::Served(Duration::from_millis(5));
        let pauses: Vec<u128> = (0..8).map(|_| restarts.pause(brief).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(restarts.pause(End::Served(STEADY)), Duration::ZERO);
        assert_eq!(restarts.pause(brief).as_millis(), 100);
    }

    #[test]
    fn a_program_that_cannot_start_is_retried_with_backoff() {
        let mut restarts = Restarts::default();
        let pauses: Vec<u64> = (0..7).map(|_| restarts.pause(End::NeverServed).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        restarts.forget_failures();
        assert_eq!(restarts.pause(End::NeverServed).as_secs(), 1);
        for _ in 0..100 {
            restarts.pause(End::NeverServed);
        }
        assert_eq!(restarts.pause(End::Served(Duration::ZERO)), Duration::ZERO);
    }
}
