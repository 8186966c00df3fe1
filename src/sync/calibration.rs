//! Starts the calibrator for vector tables whose index is to be measured, one at a time in a database.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::prelude::*;

use crate::backoff::Backoff;
use crate::catalog::{RecallCurve, VectorTable};
use crate::process::{HelperKind, Process};
use crate::search::calibrate;
use crate::transaction;

/// How soon a measurement that was interrupted, or has failed, begins again.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The calibrator of a database, and the vector tables that it was started for.
#[derive(Default)]
pub struct Calibration {
    process: Option<Process>,
    begun: HashMap<i32, Begun>,
    /// When the worker last looked at its tables: what is due changes only then.
    looked_at: Option<Instant>,
}

/// The last measurement of a vector table.
struct Begun {
    /// What was known before. As long as nothing else is, nothing has come of it.
    before: Option<RecallCurve>,
    pause: Backoff,
}

impl Begun {
    fn has_to_wait(&self, table: &VectorTable) -> bool {
        self.before == table.stored.measured_recall && self.pause.is_waiting(Instant::now())
    }
}

impl Calibration {
    /// Starts the calibrator where a measurement is due, if the worker has looked at its tables since, at `looked_at`.
    pub fn start_due(&mut self, looked_at: Option<Instant>) {
        if self.process.as_ref().is_some_and(Process::has_ended) {
            self.process = None;
        }
        if self.process.is_some() || self.looked_at == looked_at {
            return;
        }
        self.looked_at = looked_at;
        let begun = &self.begun;
        let has_to_wait =
            |table: &VectorTable| begun.get(&table.id).is_some_and(|b| b.has_to_wait(table));
        let next = transaction::run(|| Spi::connect(|client| calibrate::next(client, has_to_wait)));
        match next {
            Ok(Some(table)) => {
                self.process = HelperKind::Calibrator.start(table.id, &table.name);
                let before = table.stored.measured_recall;
                let known = self.begun.remove(&table.id).filter(|begun| begun.before == before);
                let pause = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
                let mut begun = known.unwrap_or(Begun { before, pause });
                begun.pause.fail(Instant::now(), None);
                self.begun.insert(table.id, begun);
            }
            Ok(None) => {}
            Err(error) => debug1!("could not look for an index to measure: {}", error.message),
        }
    }

    /// Whether the calibrator runs.
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.has_ended())
    }

    /// Ends the calibrator; the next worker starts it again.
    pub fn end(&mut self) {
        if let Some(process) = self.process.take() {
            process.terminate();
        }
    }
}
