//! How far a worker is with a vector table, and when it writes that down: every few seconds while there is something to write.

use std::time::{Duration, Instant};

/// How often it is written while changes keep arriving.
const EVERY: Duration = Duration::from_secs(5);

/// What has happened since it was written the last time.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    written_at: Option<Instant>,
    since: Option<Instant>,
    rows: usize,
    has_synced: bool,
    had_rate: bool,
}

impl Progress {
    /// Rows are complete.
    pub fn add_rows(&mut self, rows: usize) {
        self.rows += rows;
    }

    /// Changes were brought into the vector table.
    pub fn has_synced(&mut self) {
        self.has_synced = true;
    }

    fn has_something(&self) -> bool {
        self.has_synced || self.rows > 0 || self.had_rate
    }

    /// When it is to be written, without anything else happening.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        self.has_something().then(|| self.written_at.map_or(now, |at| at + EVERY))
    }

    /// Whether it is to be written now.
    pub fn is_due(&mut self, is_idle: bool, now: Instant) -> bool {
        if is_idle && !self.has_something() {
            self.since = Some(now);
        }
        self.due(now).is_some_and(|at| at <= now)
    }

    /// What is to be written: whether changes were brought in, and rows a second, none when there were none.
    pub fn to_write(&self, now: Instant) -> (bool, Option<f64>) {
        let since =
            self.since.map_or(Duration::from_secs(1), |at| now.saturating_duration_since(at));
        let rate = self.rows as f64 / since.as_secs_f64().max(0.001);
        (self.has_synced, (self.rows > 0).then_some(rate))
    }

    /// It was written.
    pub fn written(&mut self, now: Instant) {
        *self = Self {
            written_at: Some(now),
            since: Some(now),
            had_rate: self.rows > 0,
            ..Self::default()
        };
    }
}
