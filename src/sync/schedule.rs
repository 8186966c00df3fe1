//! Starts the batch runs of a database, each in a process of its own, so that a slow view or a foreign server that hangs
//! does not block other tables.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::backoff::Backoff;
use crate::catalog::{self, BATCH_INTERVALS, ErrorSource, Status, SyncMode, VectorTable};
use crate::error::Result;
use crate::process::{HelperKind, Process};
use crate::task::{self, Kind};
use crate::transaction::{self, TxError};

/// Runs of one database at the same time.
const AT_ONCE: usize = 2;
/// First and longest pause before a run that failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Failures after which a run that found no slot is tried again: a minute later.
const NO_SLOT: u32 = 6;

/// A vector table of sync mode batch, which is compared every batch_interval.
#[derive(Clone, Debug)]
pub struct BatchTable {
    pub id: i32,
    name: String,
    is_active: bool,
    interval: Duration,
    /// A task waits for a run.
    has_task: bool,
    /// How long ago the last run ended, at this moment.
    last: Option<(Duration, Instant)>,
}

impl BatchTable {
    /// Those of some vector tables, with their tasks.
    pub fn all<'a>(
        client: &SpiClient<'_>,
        tables: impl Iterator<Item = &'a VectorTable>,
    ) -> Result<Vec<Self>> {
        let mut batches = Vec::new();
        for table in tables.filter(|t| t.stored.sync_mode == SyncMode::Batch) {
            let (has_task, ago, has_failed) = task::last_run(client, table.id)?;
            // A task that fails although its source is there has ended its process each time: a user has to ask for another.
            let is_hopeless = has_failed && table.source_name.is_some();
            batches.push(Self {
                id: table.id,
                name: table.name.clone(),
                is_active: !is_hopeless
                    && !matches!(table.status, Status::Pending | Status::Paused),
                interval: interval(table.batch_interval.unwrap_or(300.0)),
                has_task,
                last: ago.map(|ago| (Duration::from_secs_f64(ago.max(0.0)), Instant::now())),
            });
        }
        Ok(batches)
    }

    /// When its next run is due; none while the table is paused or was never backfilled.
    fn due(&self, now: Instant) -> Option<Instant> {
        match self.last {
            _ if !self.is_active => None,
            _ if self.has_task => Some(now),
            Some((ago, seen)) => Some(seen + self.interval.saturating_sub(ago)),
            None => Some(now),
        }
    }
}

/// Time between two comparisons. Whatever is stored, it is one that can be waited for.
fn interval(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(*BATCH_INTERVALS.start(), *BATCH_INTERVALS.end()))
}

/// What is known of the runs of one table.
struct Runs {
    process: Option<Process>,
    retry: Backoff,
    trouble: Trouble,
}

impl Default for Runs {
    fn default() -> Self {
        let retry = Backoff::new(RETRY.0, RETRY.1);
        Self { process: None, retry, trouble: Trouble::default() }
    }
}

/// Why the last attempt to begin a run failed; none when it went well.
#[derive(Default)]
struct Trouble(Option<String>);

impl Trouble {
    /// Notes how an attempt has ended; true when that is news, and bad.
    fn is_bad_news(&mut self, reason: Option<&str>) -> bool {
        let is_news = reason.is_some() && self.0.as_deref() != reason;
        self.0 = reason.map(str::to_string);
        is_news
    }
}

/// Has a run begun for a table, with its task; an error says why there is none.
fn begin(table: &BatchTable) -> std::result::Result<Process, TxError> {
    if !table.has_task {
        transaction::run(|| {
            Spi::connect_mut(|client| task::restart_or_ask(client, table.id, Kind::Reconcile))
        })?;
    }
    HelperKind::BatchWorker.start(table.id, &table.name).ok_or_else(|| TxError {
        sqlstate: PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
        message: "no place for a batch run: increase max_worker_processes".to_string(),
        is_at_rows: false,
    })
}

/// Tells in the status of a table, and in the log, why no run begins. The next run that goes well tells that it is over.
fn report(table: &BatchTable, failure: &TxError) {
    let (reason, stuck) = (&failure.message, !failure.is_transient());
    log!("sync of vector table \"{}\" failed: {reason}", table.name);
    let noted = transaction::run(|| {
        Spi::connect_mut(|client| {
            catalog::set_error(client, table.id, ErrorSource::Table, reason, stuck)?;
            task::set_error(client, table.id, reason)
        })
    });
    if let Err(failure) = noted {
        log!("could not note an error of vector table \"{}\": {}", table.name, failure.message);
    }
}

/// The runs of a database.
#[derive(Default)]
pub struct Schedule {
    runs: HashMap<i32, Runs>,
    due: Option<Instant>,
}

impl Schedule {
    /// Begins the runs that are due, and sees what became of those that have ended. True when the tables have to be read
    /// again.
    pub fn start_due(&mut self, tables: &[BatchTable]) -> bool {
        let now = Instant::now();
        let mut has_news = false;
        self.runs.retain(|id, runs| tables.iter().any(|t| t.id == *id) || runs.process.is_some());
        for runs in self.runs.values_mut() {
            if runs.process.as_ref().is_some_and(Process::has_ended) {
                runs.process = None;
                has_news = true;
                // Whether it went well the tables tell; until then it is not begun again.
                runs.retry.fail(now, None);
            }
        }
        if has_news {
            // The tables are as they were before the run.
            self.due = Some(now);
            return true;
        }
        self.due = None;
        for table in tables {
            let running = self.runs.values().filter(|runs| runs.process.is_some()).count();
            let runs = self.runs.entry(table.id).or_default();
            if !table.has_task && runs.process.is_none() {
                // The last run has ended well.
                runs.retry.reset();
            }
            let Some(due) = table.due(now).filter(|_| runs.process.is_none()) else { continue };
            let at = runs.retry.until().map_or(due, |until| due.max(until));
            if at > now || running >= AT_ONCE {
                let at = if at > now { at } else { now + RETRY.0 };
                self.due = Some(self.due.map_or(at, |due| due.min(at)));
                continue;
            }
            let begun = begin(table);
            let is_bad_news =
                runs.trouble.is_bad_news(begun.as_ref().err().map(|e| e.message.as_str()));
            match begun {
                Ok(process) => runs.process = Some(process),
                Err(failure) => {
                    runs.retry.raise(NO_SLOT);
                    runs.retry.fail(now, None);
                    let at = now + RETRY.1;
                    self.due = Some(self.due.map_or(at, |due| due.min(at)));
                    if is_bad_news {
                        report(table, &failure);
                    }
                }
            }
        }
        false
    }

    /// Whether a run is under way.
    pub fn is_running(&self) -> bool {
        self.runs.values().any(|runs| runs.process.is_some())
    }

    /// When something is to be done.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Ends every run where it stands; the next one compares from the beginning.
    pub fn end_all(&mut self) {
        for runs in self.runs.values_mut() {
            if let Some(process) = runs.process.take() {
                process.terminate();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_once() {
        let mut trouble = Trouble::default();
        let attempts = [
            (None, false),
            (Some("no place"), true),
            (Some("no place"), false),
            (Some("another reason"), true),
            (None, false),
            (Some("another reason"), true),
        ];
        for (reason, is_bad_news) in attempts {
            assert_eq!(trouble.is_bad_news(reason), is_bad_news, "{reason:?}");
        }
    }

    #[test]
    fn every_stored_interval_can_be_waited_for() {
        let year = 366 * 86_400;
        let cases = [(-9.2e18, 1), (0.0, 1), (300.0, 300), (9.2e18, year), (f64::INFINITY, year)];
        for (stored, seconds) in cases {
            assert_eq!(interval(stored), Duration::from_secs(seconds), "{stored}");
        }
    }
}
