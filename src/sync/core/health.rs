//! The health of one vector table: what keeps it from being in sync, when it is tried again, and what its status has to say.
//!
//! It is the only source of `last_error` and of the log lines about it. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// First and longest pause after a failure.
pub const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Failures after which the pause is half a minute: so long pauses a table whose transaction took too long.
const SLOW: u32 = 6;
/// After so many failures in a row, about half a minute, a reason that could pass by itself is no longer taken for a passing one.
const LASTING: u32 = 7;
/// For so long another reason of the same trouble is not worth a log line.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// What the status of a vector table is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It is not in sync.
    Failed {
        reason: String,
        /// Whether the provider is to blame, and not the table.
        is_of_provider: bool,
        /// Whether it stays so until a user acts.
        is_stuck: bool,
        /// Whether its changes may be missed from now on.
        is_unseen: bool,
        /// Whether it is worth a log line.
        is_news: bool,
    },
    /// It works.
    Works {
        /// Whether it did not work before.
        is_news: bool,
    },
}

/// What was found of the source of a vector table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Why nothing can be done for the table as its source is now.
    pub broken: Option<String>,
    /// Why its changes may be missed, though they are worked on.
    pub missed: Option<String>,
    /// Whether it has to be compared when that is over.
    pub is_unseen: bool,
}

/// The health of one vector table.
#[derive(Clone, Debug)]
pub struct Health {
    source: SourceState,
    /// The pause after a failure of the table itself.
    table: Backoff,
    /// Failures of the table itself since it last worked.
    failures: u32,
    /// The pause after a failure of the provider; what needs none goes on.
    provider: Backoff,
    /// The last answer of the embedder was a failure: work that needs no embedding is no sign that it is over.
    has_provider_failed: bool,
    /// The batch API of the provider has failed and has not answered since.
    has_batch_failed: bool,
    /// The pause after the indexes could not be built, or a shadow could not be swapped in.
    pub index: Backoff,
    /// Keys of rows that wait for a lock of another session, or are slowed down as a loop.
    held: BTreeSet<String>,
    has_error: bool,
    /// The error was there when this process began: another worker may have ended it since.
    is_inherited: bool,
    reason: Option<String>,
    report: Option<Report>,
    /// The pause after the report could not be written.
    reporting: Backoff,
    logged_at: Option<Instant>,
    /// Whether anything has come of its work since this process began: a success, or a failure of the provider.
    pub has_progressed: bool,
}

impl Health {
    /// The health of a table with this `last_error`; the first success tells whether that is over.
    pub fn new(last_error: Option<String>, has_error: bool) -> Self {
        Self {
            source: SourceState::default(),
            table: Backoff::new(RETRY.0, RETRY.1),
            failures: 0,
            provider: Backoff::new(RETRY.0, RETRY.1),
            has_provider_failed: false,
            has_batch_failed: false,
            index: Backoff::new(RETRY.1, RETRY.1),
            held: BTreeSet::new(),
            has_error: has_error || last_error.is_some(),
            is_inherited: true,
            reason: last_error,
            report: None,
            reporting: Backoff::new(RETRY.0, RETRY.1),
            logged_at: None,
            has_progressed: false,
        }
    }

    /// Follows what was found of the source.
    pub fn set_source(&mut self, source: SourceState) {
        let is_news = self.source.broken != source.broken || self.source.missed != source.missed;
        self.source = source;
        if !is_news {
            return;
        }
        let is_unseen = self.source.is_unseen;
        match self.source.broken.clone().or_else(|| self.source.missed.clone()) {
            Some(reason) => {
                self.set_report(reason, false, true, None);
                if let Some(Report::Failed { is_unseen: unseen, .. }) = &mut self.report {
                    *unseen = is_unseen;
                }
            }
            None => {
                self.reset_table();
                self.has_error = true;
                self.succeeded(None);
            }
        }
    }

    /// What was found of the source the last time.
    pub fn source(&self) -> &SourceState {
        &self.source
    }

    /// A failure of the table itself; `is_stuck` when a user has to act. A failure that could pass by itself, and has not
    /// for half a minute, is one that a user has to know of.
    pub fn table_failed(&mut self, reason: &str, is_stuck: bool, now: Instant) {
        if !self.table.is_waiting(now) {
            self.table.fail(now, None);
            self.failures = self.failures.saturating_add(1);
        } else if self.reason.as_deref() == Some(reason) {
            return;
        }
        let is_stuck = is_stuck || self.failures >= LASTING;
        self.set_report(reason.to_string(), false, is_stuck, Some(now));
    }

    /// A transaction that took too long: the other tables get at least as much of the worker's time as this one had.
    pub fn was_slow(&mut self) {
        self.table.raise(SLOW);
    }

    /// The embedder brought no vectors. `wait` is how long the provider wants to be left alone.
    pub fn provider_failed(
        &mut self,
        reason: &str,
        is_stuck: bool,
        wait: Option<Duration>,
        now: Instant,
    ) {
        // What was in flight together fails together, which is one failure.
        if !self.provider.is_waiting(now) {
            self.provider.fail(now, wait);
        } else if self.reason.as_deref() == Some(reason) {
            return;
        }
        self.has_provider_failed = true;
        self.has_progressed = true;
        self.set_report(reason.to_string(), true, is_stuck, Some(now));
    }

    /// The embedder has brought vectors.
    pub fn provider_answered(&mut self) {
        self.has_provider_failed = false;
        self.provider.reset();
    }

    /// The batch API of the provider could not be used; what works otherwise does not end this trouble.
    pub fn batch_failed(&mut self, reason: &str, is_stuck: bool, now: Instant) {
        (self.has_batch_failed, self.has_progressed) = (true, true);
        if self.reason.as_deref() != Some(reason) {
            self.set_report(reason.to_string(), true, is_stuck, Some(now));
        }
    }

    /// The batch API has answered, or nothing is wanted of it any more.
    pub fn batch_answered(&mut self, now: Instant) {
        if std::mem::take(&mut self.has_batch_failed) {
            self.succeeded(Some(now));
        }
    }

    /// The indexes could not be built, or a shadow could not be swapped in. The process that tried has said why, or this is the reason.
    pub fn index_failed(&mut self, reason: Option<&str>, is_stuck: bool, now: Instant) {
        self.index.fail(now, None);
        self.has_error = true;
        if let Some(reason) = reason {
            self.set_report(reason.to_string(), false, is_stuck, Some(now));
        }
    }

    /// A row waits for a lock of another session, or is slowed down. The other rows go on, and the status says so.
    pub fn hold_row(&mut self, key: String, reason: &str, now: Instant) {
        if self.held.insert(key) || self.reason.as_deref() != Some(reason) {
            self.set_report(reason.to_string(), false, false, Some(now));
        }
    }

    /// A row waits no longer.
    pub fn release_row(&mut self, key: &str) {
        self.held.remove(key);
    }

    /// Rows wait no longer that nothing is known of: what they waited for was dropped.
    pub fn release_unknown(&mut self, is_known: impl Fn(&str) -> bool) {
        self.held.retain(|key| is_known(key));
    }

    /// Whether a row is held.
    pub fn has_held_rows(&self) -> bool {
        !self.held.is_empty()
    }

    /// The provider is another one, or its key is: it is tried at once.
    pub fn retry_all(&mut self) {
        self.reset_table();
        self.provider.reset();
    }

    /// The sync was resumed: what waits for nothing but time is tried at once.
    pub fn retry_table(&mut self) {
        self.table.end_pause();
    }

    fn reset_table(&mut self) {
        self.table.reset();
        self.failures = 0;
    }

    fn set_report(
        &mut self,
        reason: String,
        of_provider: bool,
        is_stuck: bool,
        now: Option<Instant>,
    ) {
        // A reason that changes with every try says nothing new for a while.
        let may_log = match (self.logged_at, now) {
            (Some(at), Some(now)) => now.saturating_duration_since(at) >= LOG_AGAIN,
            _ => true,
        };
        let was_news = matches!(&self.report, Some(Report::Failed { reason: r, is_news: true, .. }) if *r == reason);
        let is_news = was_news || (self.reason.as_ref() != Some(&reason) && may_log);
        if is_news {
            self.logged_at = now.or(self.logged_at);
        }
        (self.has_error, self.is_inherited) = (true, false);
        self.reason = Some(reason.clone());
        self.report = Some(Report::Failed {
            reason,
            is_of_provider: of_provider,
            is_stuck,
            is_unseen: false,
            is_news,
        });
    }

    /// Changes were brought in, or a task has ended.
    pub fn succeeded(&mut self, now: Option<Instant>) {
        (self.has_progressed, self.is_inherited) = (true, false);
        self.recovered(now);
    }

    /// Nothing is left to do: what it failed for was changed or has gone, and no success will tell that it is over.
    pub fn has_nothing_left(&mut self, now: Instant) {
        (self.is_inherited, self.has_batch_failed) = (false, false);
        self.provider_answered();
        self.recovered(Some(now));
    }

    /// A transaction of the table went well. That ends the trouble that this process has seen, unless another part of the
    /// table is in trouble still.
    pub fn recovered(&mut self, now: Option<Instant>) {
        if self.is_inherited {
            return;
        }
        let is_resting = now.is_some_and(|now| self.is_in_trouble(now));
        let is_broken = self.source.broken.is_some() || self.source.missed.is_some();
        let has_failed = self.has_provider_failed || self.has_batch_failed;
        if is_resting || is_broken || has_failed || self.has_held_rows() {
            return;
        }
        if self.has_error {
            self.report = Some(Report::Works { is_news: true });
        }
        self.has_error = false;
        self.reason = None;
        self.logged_at = None;
        self.reset_table();
        self.provider.reset();
    }

    /// What the status is to say now, if anything.
    pub fn report(&self, now: Instant) -> Option<&Report> {
        self.report.as_ref().filter(|_| !self.reporting.is_waiting(now))
    }

    /// A report was written.
    pub fn reported(&mut self, report: &Report) {
        self.reporting.reset();
        if self.report.as_ref() == Some(report) {
            self.report = None;
        }
    }

    /// A report could not be written: it is tried again after a pause.
    pub fn could_not_report(&mut self, now: Instant) {
        self.reporting.fail(now, None);
    }

    /// Ends the pauses that are over, so that nothing is due for them.
    pub fn end_pauses(&mut self, now: Instant) {
        for pause in [&mut self.table, &mut self.provider, &mut self.index, &mut self.reporting] {
            if !pause.is_waiting(now) {
                pause.end_pause();
            }
        }
    }

    /// Whether the source can be served.
    pub fn is_broken(&self) -> bool {
        self.source.broken.is_some()
    }

    /// Whether the table rests after a failure.
    pub fn is_resting(&self, now: Instant) -> bool {
        self.table.is_waiting(now)
    }

    /// Whether nothing may be sent to the provider for a while.
    pub fn is_provider_resting(&self, now: Instant) -> bool {
        self.provider.is_waiting(now)
    }

    /// Whether the provider has failed and has not answered since.
    pub fn has_provider_failed(&self) -> bool {
        self.has_provider_failed
    }

    /// Whether it failed, and waits for another try.
    pub fn is_in_trouble(&self, now: Instant) -> bool {
        self.is_broken()
            || self.is_resting(now)
            || self.is_provider_resting(now)
            || self.index.is_waiting(now)
    }

    /// Whether this process has said, or is to say, that it is not in sync, and not yet that this is over.
    pub fn has_error(&self) -> bool {
        (self.has_error && !self.is_inherited) || self.report.is_some()
    }

    /// Whether the status says that it is not in sync, whichever process has written that.
    pub fn says_error(&self) -> bool {
        self.has_error
    }

    /// When a pause ends.
    pub fn due(&self) -> Option<Instant> {
        let reporting = self.reporting.until().filter(|_| self.report.is_some());
        let pauses = [self.table.until(), self.provider.until(), self.index.until(), reporting];
        pauses.into_iter().flatten().min()
    }

    /// When the pause of the table ends.
    pub fn rest_until(&self) -> Option<Instant> {
        self.table.until()
    }
}

#[cfg(test)]
mod tests;
