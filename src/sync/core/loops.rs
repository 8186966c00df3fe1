//! Slows down rows that change again each time they are stored: a trigger on the vector table that writes to the source makes
//! such a loop, which would keep a processor busy for ever. Pure.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// A change this soon after the row was stored may be made by storing it.
const SOON: Duration = Duration::from_secs(1);
/// So many in a row are a loop.
const LOOP: u32 = 40;
/// First and longest pause of a row in a loop.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Rows remembered beyond which old ones are forgotten.
const REMEMBERED: usize = 10_000;

#[derive(Clone, Debug)]
struct Row {
    stored: Instant,
    /// Changes in a row that came soon after it was stored.
    returns: u32,
    pause: Backoff,
    /// It has had its pause for the change that is taken next.
    has_paused: bool,
}

/// What the status says of a row in a loop.
pub fn reason(key: &str) -> String {
    format!(
        "row \"{key}\" has changed more than {LOOP} times, each time just after it was stored: a loop, as a trigger on the vector table makes that writes to the source. It is stored every few seconds now."
    )
}

/// The rows of one vector table that were stored a moment ago.
#[derive(Clone, Debug, Default)]
pub struct Loops {
    rows: HashMap<String, Row>,
    /// Those that are in a loop.
    in_loop: HashSet<String>,
    /// When old rows were last forgotten for lack of room.
    swept: Option<Instant>,
}

impl Loops {
    /// A change of a row is stored.
    pub fn on_stored(&mut self, key: &str, now: Instant) {
        if let Some(row) = self.rows.get_mut(key) {
            row.stored = now;
            return;
        }
        let is_full = self.rows.len() >= REMEMBERED;
        // Not for each row of a load, of which there may be more in that time than are remembered.
        if is_full && self.swept.is_none_or(|at| now.duration_since(at) >= SOON) {
            self.swept = Some(now);
            self.rows.retain(|_, row| row.returns >= LOOP || now.duration_since(row.stored) < SOON);
        }
        if self.rows.len() < REMEMBERED {
            let row = Row {
                stored: now,
                returns: 0,
                has_paused: false,
                pause: Backoff::new(PAUSE.0, PAUSE.1),
            };
            self.rows.insert(key.to_string(), row);
        }
    }

    /// A change of a row is about to be worked on; comes back with the pause that it makes first.
    pub fn on_change(&mut self, key: &str, now: Instant) -> Option<Duration> {
        let row = self.rows.get_mut(key)?;
        if std::mem::take(&mut row.has_paused) {
            return None;
        }
        if now.duration_since(row.stored) >= SOON {
            row.returns = 0;
            row.pause.reset();
            return None;
        }
        row.returns += 1;
        if row.returns < LOOP {
            return None;
        }
        row.has_paused = true;
        if !self.in_loop.contains(key) {
            self.in_loop.insert(key.to_string());
        }
        row.pause.fail(now, None);
        row.pause.until().map(|until| until - now)
    }

    /// Whether a row is in a loop.
    pub fn is_loop(&self, key: &str) -> bool {
        self.in_loop.contains(key)
    }

    /// The rows whose loops have ended, which are forgotten with it.
    pub fn ended(&mut self, now: Instant) -> Vec<String> {
        let is_over = |row: &Row| {
            let quiet = now.saturating_duration_since(row.stored);
            row.returns < LOOP || (!row.has_paused && quiet >= PAUSE.1 * 2)
        };
        let has_ended = |key: &&String| self.rows.get(*key).is_none_or(is_over);
        let over: Vec<String> = self.in_loop.iter().filter(has_ended).cloned().collect();
        for key in &over {
            self.in_loop.remove(key);
            self.rows.remove(key);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_changes_each_time_it_is_stored_is_slowed_down() {
        let (mut loops, mut now) = (Loops::default(), Instant::now());
        for n in 1..LOOP {
            loops.on_stored("1", now);
            now += Duration::from_millis(1);
            assert_eq!(loops.on_change("1", now), None, "{n}");
        }
        let mut pauses = Vec::new();
        for _ in 0..4 {
            loops.on_stored("1", now);
            now += Duration::from_millis(1);
            let pause = loops.on_change("1", now).unwrap_or_default();
            pauses.push(pause.as_secs());
            now += pause;
            assert_eq!(loops.on_change("1", now), None, "it has paused");
        }
        assert_eq!(pauses, [1, 2, 4, 5]);
        assert!(loops.is_loop("1"));
        loops.on_stored("1", now);
        assert!(loops.ended(now + Duration::from_secs(9)).is_empty());
        assert_eq!(loops.ended(now + Duration::from_secs(10)), ["1"]);
        assert!(!loops.is_loop("1"));
    }

    #[test]
    fn a_load_of_many_rows_is_not_gone_through_for_each_of_them() {
        let (mut loops, now) = (Loops::default(), Instant::now());
        for n in 0..REMEMBERED * 2 {
            loops.on_stored(&n.to_string(), now);
        }
        assert_eq!((loops.rows.len(), loops.swept), (REMEMBERED, Some(now)));
        loops.on_stored("later", now + SOON);
        assert_eq!((loops.rows.len(), loops.swept), (1, Some(now + SOON)));
    }

    #[test]
    fn rows_that_change_now_and_then_are_not() {
        let (mut loops, mut now) = (Loops::default(), Instant::now());
        for _ in 0..LOOP * 3 {
            loops.on_stored("1", now);
            now += SOON;
            assert_eq!(loops.on_change("1", now), None);
        }
        assert_eq!(loops.on_change("2", now), None);
    }
}
