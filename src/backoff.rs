//! Exponential backoff: a pause after a failure that doubles with each further one, up to a limit. Pure.

use std::time::{Duration, Instant};

/// The pause after a failure, and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// A backoff whose first and longest pause are these.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0, until: None }
    }

    /// Notes a failure. The pause begins now, and is no shorter than what the other side asks for.
    pub fn fail(&mut self, now: Instant, asked_for: Option<Duration>) {
        let pause = self.next_pause();
        self.until = Some(now + asked_for.map_or(pause, |asked| asked.max(self.first)));
    }

    /// Notes a failure, and returns the pause for a caller that waits by itself.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Makes the next pause at least as long as the one after so many failures.
    pub fn raise(&mut self, failures: u32) {
        self.failures = self.failures.max(failures);
    }

    /// Forgets the failures and ends the pause.
    pub fn reset(&mut self) {
        (self.failures, self.until) = (0, None);
    }

    /// Ends the pause and remembers the failures: the next pause is longer.
    pub fn end_pause(&mut self) {
        self.until = None;
    }

    /// Whether the pause lasts.
    pub fn is_waiting(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    /// When the pause ends, or has ended; none when there was no failure since it was last ended.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_limit() {
        let (mut backoff, mut now) = (Backoff::new(SECOND, 10 * SECOND), Instant::now());
        for seconds in [1, 2, 4, 8, 10, 10] {
            backoff.fail(now, None);
            assert!(backoff.is_waiting(now + seconds * SECOND - Duration::from_millis(1)));
            now += seconds * SECOND;
            assert!(!backoff.is_waiting(now));
        }
        backoff.reset();
        assert_eq!(backoff, Backoff::new(SECOND, 10 * SECOND));
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept() {
        let (mut backoff, now) = (Backoff::new(SECOND, 10 * SECOND), Instant::now());
        backoff.fail(now, Some(30 * SECOND));
        assert_eq!(backoff.until(), Some(now + 30 * SECOND));
        backoff.fail(now, Some(Duration::ZERO));
        assert_eq!(backoff.until(), Some(now + SECOND));
    }
}
