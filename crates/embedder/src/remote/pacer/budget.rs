//! A budget a minute that an administrator has set: what may be saved up of it, and when there is something left.

use std::time::{Duration, Instant};

/// What may be saved up of a budget a minute: ten seconds' worth, but one whole request.
pub fn saved_up(per_minute: u32) -> u32 {
    (per_minute / 6).max(1)
}

/// What documents leave of the requests saved up: so many questions go at once while a backfill uses the budget up.
///
/// Of a single one nothing can be left.
pub fn left_for_questions(requests_per_minute: u32) -> u32 {
    saved_up(requests_per_minute) / 2
}

/// A budget a minute; it may be overdrawn by one request and is then waited for.
#[derive(Debug)]
pub struct Budget {
    pub per_minute: u32,
    left: f64,
    counted: Instant,
}

impl Budget {
    /// A budget that is saved up.
    pub fn new(per_minute: u32, now: Instant) -> Budget {
        Budget { per_minute, left: f64::from(saved_up(per_minute)), counted: now }
    }

    /// When there is something left again besides what is to be kept; none is now.
    pub fn wait(&mut self, now: Instant, kept: u32) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        let a_second = f64::from(self.per_minute) / 60.0;
        self.left = (self.left + passed * a_second).min(saved_up(self.per_minute).into());
        self.counted = now;
        let missing = 1.0 + f64::from(kept) - self.left;
        // Up to a rounding error: a wait that is over has to be over.
        (missing > 1e-6).then(|| now + Duration::from_secs_f64(missing / a_second))
    }

    /// Takes so much out.
    pub fn take(&mut self, amount: f64) {
        self.left -= amount;
    }
}
