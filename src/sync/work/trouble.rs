//! What a failure means for a vector table: a pause before the next try, a word in its status, one line in the log.

use std::time::{Duration, Instant};

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::{RETRY, Work};
use crate::catalog::{self, Culprit, Status};
use crate::error::Result;
use crate::extension;
use crate::name::quote_ident;
use crate::rights;
use crate::transaction::{self, RolledBack};
use crate::{guc, task};

/// How long another reason for the same trouble is not worth a line in the log.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// As many failures as make for a rest of half a minute.
const SLOW: u32 = 6;

impl Work {
    /// Whether nothing may be sent to the provider for a while.
    pub fn waits_for_provider(&self, now: Instant) -> bool {
        self.embed_at.is_some_and(|at| at > now)
    }

    /// Takes back what waits for the provider: a batch to see whether it is there again, and the rest when it is.
    pub fn take_back_parked(&mut self, now: Instant) {
        if self.waits_for_provider(now) || self.backlog.parked_len() == 0 {
            return;
        }
        match self.embedding_failed {
            false => self.backlog.unpark(usize::MAX),
            true if self.backlog.in_work().is_empty() => self.backlog.unpark(guc::batch_texts()),
            true => {}
        }
    }

    /// The embedder has brought vectors.
    pub fn embedder_answered(&mut self) {
        self.embedding_failed = false;
        self.embed_at = None;
    }

    /// The embedder brought no vectors: nothing is sent for a while, and the status tells why; `stuck` when somebody has
    /// to act. `wait` is how long the provider wants to be left alone.
    pub fn embedding_failed(&mut self, reason: &str, stuck: bool, wait: Option<Duration>) {
        // What was in flight together fails together, which is one failure.
        if !self.waits_for_provider(Instant::now()) {
            self.embed_at = Some(self.next_try(wait));
        } else if self.last_reason.as_deref() == Some(reason) {
            return;
        }
        self.embedding_failed = true;
        self.has_got_on = true;
        self.note_failure(Culprit::Provider, reason, stuck);
    }

    /// When it is tried again: when the provider wants it, or later each time.
    pub(super) fn next_try(&mut self, wait: Option<Duration>) -> Instant {
        let rest = RETRY.0.saturating_mul(1 << self.failures.min(7)).min(RETRY.1);
        self.failures += 1;
        Instant::now() + wait.map_or(rest, |wait| wait.max(RETRY.0))
    }

    /// A failure of the table itself: it rests, and its status tells why; `stuck` when somebody has to act.
    pub(super) fn failed(&mut self, reason: &str, stuck: bool) {
        if !self.is_resting(Instant::now()) {
            self.retry_at = Some(self.next_try(None));
        } else if self.last_reason.as_deref() == Some(reason) {
            return;
        }
        self.note_failure(Culprit::Table, reason, stuck);
    }

    /// Writes down why the table is not in sync.
    pub fn note_failure(&mut self, culprit: Culprit, reason: &str, stuck: bool) {
        let id = self.table.id;
        let noted = transaction::run(|| {
            if extension::oid().is_none() {
                return Ok(false);
            }
            Spi::connect_mut(|client| {
                task::set_error(client, id, reason)?;
                catalog::set_error(client, id, culprit, reason, stuck)
            })
        });
        match noted {
            // Dropped in the middle of the work: that is no failure.
            Ok(false) => return,
            Ok(true) => {}
            Err(failure) => {
                log!("could not note an error of vector table {id}: {}", failure.message);
            }
        }
        self.has_error = true;
        // One line when it begins; a reason that changes with every try says nothing new for a while.
        let is_news = self.last_reason.as_deref() != Some(reason)
            && self.last_logged.is_none_or(|at| at.elapsed() >= LOG_AGAIN);
        if is_news {
            ereport!(
                PgLogLevel::LOG,
                PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
                format!("sync of vector table \"{}\" failed: {reason}", self.table.name)
            );
            self.last_logged = Some(Instant::now());
        }
        self.last_reason = Some(reason.to_string());
    }

    /// A transaction of the table's own that was rolled back.
    pub fn rolled_back(&mut self, failure: &RolledBack) {
        if failure.is_cancelled() {
            // The others get at least as much of the worker's time as this one had.
            self.failures = self.failures.max(SLOW);
        }
        let mut reason = failure.message.clone();
        if failure.sqlstate == PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE
            && let Some(source) = &self.table.source_name
            && let Ok(role) = transaction::run(|| Ok(rights::role_name(self.table.owner)))
        {
            reason += &format!(
                ". Let the owner of the vector table read its source: GRANT SELECT ON {source} TO {}.",
                quote_ident(&role)
            );
        }
        self.failed(&reason, !failure.is_transient());
    }

    /// Part of a transaction that brings changes in: an error is over, and now and then the time is noted.
    pub fn note_success(&mut self, client: &mut SpiClient<'_>) -> Result<()> {
        let now = Instant::now();
        // What was in flight when the source went is no sign that it is there again.
        let resting = self.is_in_trouble(now);
        if self.has_error
            && !self.embedding_failed
            && !resting
            && !self.has_reservations()
            && self.table.status != Status::Paused
        {
            catalog::set_working_status(client, self.table.id)?;
        }
        Ok(())
    }

    /// The same, after that transaction has committed.
    pub fn succeeded(&mut self) {
        self.progress.has_synced = true;
        self.has_got_on = true;
        // Another batch has failed a moment ago, and is not tried again any sooner because this one went well.
        let now = Instant::now();
        if self.embedding_failed || self.is_in_trouble(now) || self.has_reservations() {
            return;
        }
        if self.has_error {
            ereport!(
                PgLogLevel::LOG,
                PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
                format!("sync of vector table \"{}\" works again", self.table.name)
            );
        }
        self.has_error = false;
        self.last_reason = None;
        self.last_logged = None;
        self.failures = 0;
        self.retry_at = None;
        self.embed_at = None;
    }
}
