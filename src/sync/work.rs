//! What a sync worker holds in memory for one vector table: backlog, scan, errors and the pause after them.

mod scanning;
mod trouble;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use embedd_wire::Provider;
use pgrx::prelude::*;

use super::backlog::{Backlog, Taken};
use super::follow::{Look, Mend};
use super::loops::{LOOP, Loops};
use super::noting::Noting;
use super::outstanding::Share;
use super::reader::Position;
use super::scan::Scan;
use crate::catalog::{self, Culprit, Progress, Status, VectorTable};
use crate::fdw;
use crate::process::Process;
use crate::queue::Sweep;
use crate::shared::Portion;
use crate::transaction;

/// First and longest pause of a table after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// A row of the queue that stands for a change of any number of rows.
#[derive(Clone, Debug)]
pub struct Mark {
    pub id: i64,
    pub sweep: Sweep,
    /// The page of the backlog with what was in work when it was read.
    pub recheck: u64,
}

/// One vector table at work.
pub struct Work {
    pub table: VectorTable,
    pub backlog: Backlog,
    /// The task that is open and this worker's to do.
    pub task: Option<i64>,
    pub scan: Option<Scan>,
    /// Those that wait for a scan.
    pub marks: Vec<Mark>,
    /// Marks have had a scan: until then the task goes before others.
    owes_task: Option<Instant>,
    /// The key that took too long by itself the last time.
    slow_key: Option<String>,
    pub portion: Portion,
    /// How far the queue is read.
    pub position: Position,
    /// What has to be put right before anything else.
    pub mend: Option<Mend>,
    /// Why nothing can be done for the table as its source is now, and whether that is to be noted.
    broken: Option<String>,
    /// Why its changes may be missed, though they are worked on.
    missed: Option<String>,
    is_unseen: bool,
    is_news: bool,
    /// Keys loaded at once at most; halved to find a row that breaks its batch.
    pub batch: usize,
    /// The last answer of the embedder was a failure: work that needs no embedding is no sign that it is over.
    embedding_failed: bool,
    /// Until then nothing is sent to the provider; what needs none goes on.
    embed_at: Option<Instant>,
    /// The process that builds the indexes.
    builder: Option<Process>,
    /// When the next one may begin, after one has failed.
    build_at: Option<Instant>,
    /// Who embeds, as it was when the table was read; none when nobody may.
    provider: Option<Provider>,
    /// Whose account its texts were sent to the last time.
    pub share: Option<Share>,
    failures: u32,
    retry_at: Option<Instant>,
    last_reason: Option<String>,
    last_logged: Option<Instant>,
    has_error: bool,
    /// Keys of rows that wait for a lock of another session.
    pub locked: HashSet<String>,
    pub loops: Loops,
    /// Whether anything has come of its work since this process began: something went well, or the provider has failed.
    pub has_got_on: bool,
    progress: Noting,
}

impl Work {
    /// Work for a table that was not known before.
    pub fn new(table: VectorTable, portion: Portion, position: Position) -> Self {
        // After a start nobody knows whether an old error is over; the first success tells.
        let last_reason = table.stored.last_error.clone();
        Self {
            has_error: last_reason.is_some() || table.status == Status::Error,
            last_reason,
            provider: fdw::provider(&table).ok(),
            table,
            backlog: Backlog::default(),
            task: None,
            scan: None,
            marks: Vec::new(),
            owes_task: None,
            slow_key: None,
            portion,
            locked: HashSet::new(),
            loops: Loops::default(),
            has_got_on: false,
            progress: Noting::default(),
            position,
            mend: None,
            broken: None,
            missed: None,
            is_unseen: false,
            is_news: false,
            batch: usize::MAX,
            embedding_failed: false,
            embed_at: None,
            builder: None,
            build_at: None,
            share: None,
            failures: 0,
            retry_at: None,
            last_logged: None,
        }
    }

    /// Takes over a changed configuration or status.
    pub fn update(&mut self, table: VectorTable) {
        if self.table.status == Status::Paused && table.status != Status::Paused {
            self.retry_at = None;
        }
        self.table = table;
        // Another key, another address or a right that is there again: whoever changed it wants to see it work.
        let provider = fdw::provider(&self.table).ok();
        if self.provider != provider {
            self.retry_at = None;
            self.embed_at = None;
            self.failures = 0;
            // Nothing of the new account is outstanding, whatever is of the old one.
            self.share = None;
            self.provider = provider;
        }
    }

    /// Takes over what was found of the source: what has to be put right, and why nothing can be done meanwhile.
    pub fn found(mut self, look: Look) -> Self {
        let Look { mend, broken, missed, is_unseen } = look;
        // Once for each time that it goes; one that is not done yet is still to be done.
        let is_left = self.mend == Some(Mend::Clear);
        self.mend = mend.filter(|mend| *mend != Mend::Clear || self.broken != broken || is_left);
        self.is_news = self.broken != broken || self.missed != missed;
        self.broken = broken;
        self.missed = missed;
        self.is_unseen = is_unseen;
        self
    }

    /// Notes what was found, in a transaction of its own.
    pub fn report_found(&mut self) {
        if !std::mem::take(&mut self.is_news) {
            return;
        }
        if self.is_unseen {
            self.note_unseen();
        }
        match self.broken.clone().or_else(|| self.missed.clone()) {
            Some(reason) => self.note_failure(Culprit::Table, &reason, true),
            None => {
                let id = self.table.id;
                self.retry_at = None;
                self.failures = 0;
                let noted = transaction::run(|| {
                    Spi::connect_mut(|client| catalog::set_working_status(client, id))
                });
                match noted {
                    Ok(()) => self.succeeded(),
                    Err(failure) => self.rolled_back(&failure),
                }
            }
        }
    }

    /// Notes that changes may be missed from now on.
    fn note_unseen(&mut self) {
        let id = self.table.id;
        let noted = transaction::run(|| Spi::connect_mut(|client| catalog::set_unseen(client, id)));
        if let Err(failure) = noted {
            self.rolled_back(&failure);
        }
    }

    /// Notes that a row waits for a lock of another session. The status says so, and the other rows go on.
    pub fn note_locked(&mut self, key: String, reason: &str) {
        let is_news = self.locked.insert(key) || self.last_reason.as_deref() != Some(reason);
        if is_news {
            self.note_failure(Culprit::Table, reason, false);
        }
    }

    /// Notes that a row changes again each time it is stored.
    pub fn note_loop(&mut self, key: &str) {
        let reason = format!(
            "row \"{key}\" has changed more than {LOOP} times, each time just after it was stored: a loop, as a trigger on the vector table makes that writes to the source. It is stored every few seconds now."
        );
        self.note_locked(key.to_string(), &reason);
    }

    /// Forgets loops that have ended; the status says so with the next success.
    pub fn forget_ended_loops(&mut self, now: Instant) {
        for key in self.loops.ended(now) {
            self.forget_locked(&key);
        }
    }

    /// A row no longer waits for a lock.
    pub fn forget_locked(&mut self, key: &str) {
        self.locked.remove(key);
    }

    /// Whether its status keeps an error although its work goes well.
    pub(super) fn has_reservations(&self) -> bool {
        self.missed.is_some() || !self.locked.is_empty()
    }

    /// Whether its changes are read and worked on now.
    pub fn is_active(&self) -> bool {
        self.broken.is_none()
            && matches!(
                self.table.status,
                Status::Backfilling | Status::Synced | Status::Error | Status::PendingRebackfill
            )
    }

    /// Whether nothing waits for it, and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.mend.is_none()
            && (!self.is_active()
                || (self.task.is_none() && self.scan.is_none() && self.marks.is_empty()))
            && self.backlog.is_empty()
            && !self.has_error
    }

    /// Whether any number of rows may have gone.
    pub fn is_swept(&self) -> bool {
        !self.marks.is_empty() || self.scan.as_ref().is_some_and(|scan| scan.is_of_marks())
    }

    /// Whether it failed, and waits for another try.
    pub fn is_in_trouble(&self, now: Instant) -> bool {
        let lacks_index = self.build_at.is_some() && self.builder.is_none();
        self.broken.is_some() || self.is_resting(now) || self.waits_for_provider(now) || lacks_index
    }

    /// Whether keys that took too long are one that did so before.
    pub fn is_slow(&mut self, keys: &[Taken]) -> bool {
        let [one] = keys else { return false };
        let is_known = self.slow_key.as_ref() == Some(&one.key);
        self.slow_key = (!is_known).then(|| one.key.clone());
        is_known
    }

    /// Its rests that are over are forgotten, so that nothing is due for them any more.
    pub fn has_rested(&mut self, now: Instant) {
        self.retry_at = self.retry_at.filter(|at| *at > now);
        self.embed_at = self.embed_at.filter(|at| *at > now);
    }

    /// Whether it rests after a failure.
    pub fn is_resting(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at > now)
    }

    /// When something is to be done without anybody asking: the end of a rest, or a note that is due.
    pub fn due(&self) -> Option<Instant> {
        let note = self.progress.due();
        let owed = self.owes_task.filter(|_| !self.marks.is_empty());
        let owed = owed.map(|at| self.retry_at.map_or(at, |retry_at| at.max(retry_at)));
        let retry = [self.retry_at, self.embed_at, self.build_at, owed].into_iter().flatten().min();
        let retry = retry.filter(|_| self.is_active() || self.mend.is_some());
        match (note, retry) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether the indexes are being built, or will be as soon as nothing is in work. After a failure changes go on.
    pub fn builds_indexes(&self, now: Instant) -> bool {
        self.scan.as_ref().is_some_and(Scan::waits_for_indexes)
            && (self.builder.is_some() || self.build_at.is_none_or(|at| at <= now))
    }

    /// Whether a process builds its indexes.
    pub fn has_builder(&self) -> bool {
        self.builder.is_some()
    }

    /// Ends the process that builds the indexes, another one begins anew; and notes what nobody will note later.
    pub fn leave(&mut self) {
        if self.progress.due().is_some() {
            self.note();
        }
        if let Some(builder) = self.builder.take() {
            builder.terminate();
        }
    }

    /// Counts rows that are done, for the rate.
    pub fn count_done(&mut self, rows: usize) {
        self.progress.rows += rows;
    }

    /// Notes how far the table is once that is due.
    pub fn note_if_due(&mut self) {
        let is_idle = self.backlog.is_empty() && self.scan.is_none();
        if self.progress.is_due(is_idle) {
            self.note();
        }
    }

    fn note(&mut self) {
        // Before the oldest row that is not done everything is.
        let marks = self.marks.iter().map(|mark| mark.id);
        let scanned = self.scan.iter().flat_map(|scan| scan.marks().iter().map(|mark| mark.id));
        let lowest = self.backlog.lowest_row().into_iter().chain(marks).chain(scanned).min();
        let done = lowest.map_or(self.position.after, |id| (id - 1).min(self.position.after));
        let (id, portion, open) = (self.table.id, self.portion, self.position.open.clone());
        let progress = Progress {
            done,
            open: &open,
            has_synced: self.progress.has_synced,
            rate: self.progress.rate(),
        };
        let noted = transaction::run(|| {
            Spi::connect_mut(|client| catalog::set_progress(client, id, portion, &progress))
        });
        if let Err(failure) = noted {
            debug1!("could not note how far vector table {id} is: {}", failure.message);
        }
        self.progress.noted();
    }
}
