//! Extends the timeout of requests after timeouts: a service may need minutes to load its model, and may abandon the
//! load with the request. Pure.

use std::time::{Duration, Instant};

/// The longest extended timeout, unless the provider's own timeout is longer.
const LONGEST: Duration = Duration::from_secs(600);

/// The timeouts seen for an account.
#[derive(Debug, Default)]
pub struct Timeouts {
    /// Rounds of timeouts since the last answer.
    in_a_row: u32,
    /// When the last round was counted: a request sent before that belongs to it.
    noted: Option<Instant>,
    /// The latency of an answer that needed an extended timeout: the next extension starts from it.
    needed: Option<Duration>,
}

impl Timeouts {
    /// Whether document requests have an extended timeout, and so are sent one at a time.
    pub fn are_extended(&self) -> bool {
        self.in_a_row > 0
    }

    /// The timeout of the next document request, where the provider's timeout is `usual`.
    pub fn next(&self, usual: Duration) -> Duration {
        if self.in_a_row == 0 {
            return usual;
        }
        let doubled = usual.saturating_mul(1 << self.in_a_row.min(16));
        let needed = self.needed.map_or(Duration::ZERO, |needed| needed.saturating_mul(2));
        doubled.max(needed).min(LONGEST.max(usual))
    }

    /// A request sent at this time timed out; true when it was the first of its round.
    pub fn timed_out(&mut self, sent: Instant, now: Instant) -> bool {
        let is_next = self.noted.is_none_or(|noted| sent >= noted);
        if is_next {
            self.in_a_row = self.in_a_row.saturating_add(1);
            self.noted = Some(now);
        }
        is_next
    }

    /// An answer arrived.
    pub fn answered(&mut self, latency: Duration, usual: Duration) {
        if self.in_a_row > 0 && latency > usual {
            self.needed = Some(latency);
        }
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_secs(30);

    #[test]
    fn each_round_doubles_the_timeout_and_the_next_extension_starts_from_the_latency_needed() {
        let (mut timeouts, mut now) = (Timeouts::default(), Instant::now());
        let mut given = Vec::new();
        for _ in 0..7 {
            let sent = now;
            now += timeouts.next(USUAL);
            assert!(timeouts.timed_out(sent, now));
            // A request sent together with it belongs to the same round.
            assert!(!timeouts.timed_out(sent, now));
            given.push(timeouts.next(USUAL).as_secs());
        }
        assert_eq!(given, [60, 120, 240, 480, 600, 600, 600]);
        timeouts.answered(Duration::from_secs(290), USUAL);
        assert!(!timeouts.are_extended());
        assert_eq!(timeouts.next(USUAL), USUAL);
        timeouts.timed_out(now, now);
        assert_eq!(timeouts.next(USUAL).as_secs(), 580);
        // A longer timeout of the provider is kept.
        let hour = Duration::from_secs(3600);
        assert_eq!(timeouts.next(hour), hour);
    }
}
