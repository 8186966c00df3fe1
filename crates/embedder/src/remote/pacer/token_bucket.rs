//! A token bucket for a limit a minute that an administrator has set.

use std::time::{Duration, Instant};

/// The burst of a limit a minute, which is the capacity of the bucket: ten seconds' worth, but at least one request.
pub fn burst(per_minute: u32) -> u32 {
    (per_minute / 6).max(1)
}

/// The part of the burst that documents leave to questions, so that questions are sent at once during a backfill. A
/// burst of one leaves nothing.
pub fn reserved_for_questions(requests_per_minute: u32) -> u32 {
    burst(requests_per_minute) / 2
}

/// A token bucket. One request may overdraw it; the next one then waits for the refill.
#[derive(Debug)]
pub struct TokenBucket {
    pub per_minute: u32,
    left: f64,
    counted: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(per_minute: u32, now: Instant) -> TokenBucket {
        TokenBucket { per_minute, left: f64::from(burst(per_minute)), counted: now }
    }

    /// When something beyond the reserve is left; none is now.
    pub fn wait(&mut self, now: Instant, reserve: u32) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        let a_second = f64::from(self.per_minute) / 60.0;
        self.left = (self.left + passed * a_second).min(burst(self.per_minute).into());
        self.counted = now;
        let missing = 1.0 + f64::from(reserve) - self.left;
        // The tolerance is for rounding: a wait that is over has to be over.
        (missing > 1e-6).then(|| now + Duration::from_secs_f64(missing / a_second))
    }

    /// Takes so much out.
    pub fn take(&mut self, amount: f64) {
        self.left -= amount;
    }
}
