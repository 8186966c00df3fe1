//! When the embedder is started again after it has ended. Pure.

use std::time::Duration;

/// A program that served for so long starts with a clean slate.
const STEADY: Duration = Duration::from_secs(10);
/// First and longest pause after a program that served has ended, but for the first time, when there is none.
const AFTER_END: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// First and longest pause after a program that could not serve.
const AFTER_TROUBLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It had served for this time.
    Served(Duration),
    /// It could not be started, or ended before it served.
    NeverServed,
}

/// Counts how often the program has ended lately.
#[derive(Debug, Default)]
pub struct Restarts {
    ended: u32,
    failed: u32,
}

impl Restarts {
    /// How long to wait before the next start: at once for the first time, then longer each time up to a limit.
    pub fn pause(&mut self, end: End) -> Duration {
        match end {
            End::Served(lived) => {
                self.failed = 0;
                self.ended = if lived >= STEADY { 1 } else { self.ended + 1 };
                match self.ended {
                    1 => Duration::ZERO,
                    more => doubled(AFTER_END, more - 2),
                }
            }
            End::NeverServed => {
                self.failed += 1;
                doubled(AFTER_TROUBLE, self.failed - 1)
            }
        }
    }

    /// The settings were changed: what failed may work now.
    pub fn forget_failures(&mut self) {
        self.failed = 0;
    }
}

/// A pause doubled so often, up to the longest.
fn doubled((first, longest): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_the_next_ones_wait_longer() {
        let mut restarts = Restarts::default();
        let brief = End::Served(Duration::from_millis(5));
        let pauses: Vec<u128> = (0..8).map(|_| restarts.pause(brief).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(restarts.pause(End::Served(STEADY)), Duration::ZERO);
        assert_eq!(restarts.pause(brief).as_millis(), 100);
    }

    #[test]
    fn a_program_that_cannot_serve_is_tried_less_and_less_often() {
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
