//! When a worker notes how far it is with a vector table: every few seconds while there is something to note.

use std::time::{Duration, Instant};

/// How often it is written while changes keep arriving.
const EVERY: Duration = Duration::from_secs(5);

/// What has happened since the last note.
#[derive(Default)]
pub struct Noting {
    noted_at: Option<Instant>,
    since: Option<Instant>,
    /// Rows done since then.
    pub rows: usize,
    /// Whether changes were brought into the vector table since then.
    pub has_synced: bool,
    had_rate: bool,
}

impl Noting {
    fn has_something(&self) -> bool {
        self.has_synced || self.rows > 0 || self.had_rate
    }

    /// When it is due without anything else happening.
    pub fn due(&self) -> Option<Instant> {
        self.has_something().then(|| self.noted_at.map_or_else(Instant::now, |at| at + EVERY))
    }

    /// Whether it is due now.
    pub fn is_due(&mut self, is_idle: bool) -> bool {
        if !self.has_something() {
            if is_idle {
                self.since = Some(Instant::now());
            }
            return false;
        }
        self.noted_at.is_none_or(|at| at.elapsed() >= EVERY)
    }

    /// Rows a second since the last note; none when there were none.
    pub fn rate(&self) -> Option<f64> {
        let seconds = self.since.map_or(1.0, |since| since.elapsed().as_secs_f64()).max(0.001);
        (self.rows > 0).then(|| self.rows as f64 / seconds)
    }

    /// It was written.
    pub fn noted(&mut self) {
        self.noted_at = Some(Instant::now());
        self.since = Some(Instant::now());
        self.had_rate = self.rows > 0;
        self.rows = 0;
        self.has_synced = false;
    }
}
