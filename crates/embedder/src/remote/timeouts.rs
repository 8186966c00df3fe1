//! How long a request may take after others took too long: a service that loads its model for minutes, and gives that up with
//! the request, gets ever more time. Pure.

use std::time::{Duration, Instant};

/// The longest time that a request gets, unless the provider's own timeout is longer.
const LONGEST: Duration = Duration::from_secs(600);

/// What has been seen of an account.
#[derive(Debug, Default)]
pub struct Timeouts {
    /// Rounds of requests that took too long, since the last answer.
    in_a_row: u32,
    /// When that was last noted: what was sent before belongs to the same round.
    noted: Option<Instant>,
    /// How long an answer took that came only after such requests: the next time begins with that.
    needed: Option<Duration>,
}

impl Timeouts {
    /// Whether requests of documents get more time than usual, and so go one at a time.
    pub fn are_extended(&self) -> bool {
        self.in_a_row > 0
    }

    /// How long a request of documents may take, where the provider's timeout is `usual`.
    pub fn next(&self, usual: Duration) -> Duration {
        if self.in_a_row == 0 {
            return usual;
        }
        let doubled = usual.saturating_mul(1 << self.in_a_row.min(16));
        let needed = self.needed.map_or(Duration::ZERO, |needed| needed.saturating_mul(2));
        doubled.max(needed).min(LONGEST.max(usual))
    }

    /// A request that went out at this time got no answer in time; true when it was the first of its round.
    pub fn timed_out(&mut self, sent: Instant, now: Instant) -> bool {
        let is_next = self.noted.is_none_or(|noted| sent >= noted);
        if is_next {
            self.in_a_row = self.in_a_row.saturating_add(1);
            self.noted = Some(now);
        }
        is_next
    }

    /// An answer has come.
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
    fn each_round_gets_twice_the_time_and_a_service_that_needed_it_gets_it_at_once() {
        let (mut timeouts, mut now) = (Timeouts::default(), Instant::now());
        let mut given = Vec::new();
        for _ in 0..7 {
            let sent = now;
            now += timeouts.next(USUAL);
            assert!(timeouts.timed_out(sent, now));
            // One that was sent together with it is of the same round.
            assert!(!timeouts.timed_out(sent, now));
            given.push(timeouts.next(USUAL).as_secs());
        }
        assert_eq!(given, [60, 120, 240, 480, 600, 600, 600]);
        timeouts.answered(Duration::from_secs(290), USUAL);
        assert!(!timeouts.are_extended());
        assert_eq!(timeouts.next(USUAL), USUAL);
        timeouts.timed_out(now, now);
        assert_eq!(timeouts.next(USUAL).as_secs(), 580);
        // A longer time of the provider's own stays.
        let hour = Duration::from_secs(3600);
        assert_eq!(timeouts.next(hour), hour);
    }
}
