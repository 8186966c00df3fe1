//! What a sync worker holds in memory for one vector table: backlog, scan, errors and the pause after them.

mod trouble;

use std::time::{Duration, Instant};

use pgrx::prelude::*;

use super::backlog::Backlog;
use super::follow::Mend;
use super::noting::Noting;
use super::outstanding::Share;
use super::reader::Position;
use super::scan::{Scan, Step};
use crate::catalog::{self, Progress, Status, VectorTable};
use crate::provider::Provider;
use crate::queue::Sweep;
use crate::shared::{self, Portion};
use crate::task::{self, Task};
use crate::worker::index_builder;
use crate::worker::process::Process;
use crate::worker::transaction::{self, Patience};
use crate::{foreign, index, queue};

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
    /// Marks have had a scan, and the task goes on before they have another one.
    owes_task: bool,
    pub portion: Portion,
    /// How far the queue is read.
    pub position: Position,
    /// What has to be put right before anything else.
    pub mend: Option<Mend>,
    /// Why nothing can be done for the table as its source is now, and whether that is to be noted.
    broken: Option<String>,
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
            provider: foreign::provider(&table).ok(),
            table,
            backlog: Backlog::default(),
            task: None,
            scan: None,
            marks: Vec::new(),
            owes_task: false,
            portion,
            progress: Noting::default(),
            position,
            mend: None,
            broken: None,
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
        let provider = foreign::provider(&self.table).ok();
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
    pub fn found(mut self, mend: Option<Mend>, broken: Option<String>) -> Self {
        self.mend = mend.filter(|mend| *mend != Mend::Clear || self.broken != broken);
        self.is_news = self.broken != broken;
        self.broken = broken;
        self
    }

    /// Notes what was found, in a transaction of its own.
    pub fn report_found(&mut self) {
        if !std::mem::take(&mut self.is_news) {
            return;
        }
        match self.broken.clone() {
            Some(reason) => self.note_failure(&reason, true),
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

    /// Whether it rests after a failure.
    pub fn is_resting(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at > now)
    }

    /// When something is to be done without anybody asking: the end of a rest, or a note that is due.
    pub fn due(&self) -> Option<Instant> {
        let note = self.progress.due();
        let retry = [self.retry_at, self.embed_at, self.build_at].into_iter().flatten().min();
        let retry = retry.filter(|_| self.is_active());
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

    /// Sees to it that a process builds the indexes; when it has ended, looks what came of it.
    pub fn look_after_builder(&mut self, now: Instant) {
        match &self.builder {
            Some(builder) if !builder.has_ended() => {}
            Some(_) => {
                self.builder = None;
                let id = self.table.id;
                match transaction::run(|| Spi::connect(|client| index::is_held(client, id))) {
                    Ok(false) => {
                        self.scan = None;
                        self.build_at = None;
                        self.succeeded();
                    }
                    // It has said why.
                    Ok(true) => {
                        self.has_error = true;
                        self.build_at = Some(now + RETRY.1);
                    }
                    Err(failure) => self.rolled_back(&failure),
                }
            }
            None if self.build_at.is_some_and(|at| at > now) => {}
            // What is in work now would be stored while the table is locked.
            None if !self.backlog.in_work().is_empty() => {}
            None => {
                self.builder = index_builder::start(self.table.id, &self.table.name);
                if self.builder.is_none() {
                    self.build_at = Some(now + RETRY.1);
                    let reason = "no place for a process that builds its index: increase max_worker_processes";
                    self.note_failure(reason, true);
                }
            }
        }
    }

    /// Begins a scan where one is asked for. Marks go before a task, which may take long: what was truncated is not to be
    /// found meanwhile.
    fn begin_scan(&mut self, now: Instant) {
        let makes_way = self.scan.as_ref().is_none_or(|scan| {
            scan.can_make_way() || (scan.waits_for_indexes() && self.builder.is_none())
        });
        let task_goes_first =
            self.owes_task && self.task.is_some() && !self.waits_for_provider(now);
        if !self.marks.is_empty() && makes_way && !task_goes_first {
            let before = self.scan.take().map(Scan::into_marks).unwrap_or_default();
            let marks = before.into_iter().chain(self.marks.drain(..)).collect();
            self.scan = Some(Scan::of_marks(marks, self.portion));
        }
        let (None, Some(task)) = (&self.scan, self.task) else { return };
        // A batch run compares what nobody is at work on.
        if self.table.reads_run && !self.backlog.is_empty() {
            return;
        }
        let (id, portion) = (self.table.id, self.portion);
        let begun = transaction::bounded(Patience::Some, || {
            Spi::connect_mut(|client| {
                let task = task::begin(client, task)?;
                if task.as_ref().is_some_and(Task::may_find_old_work) {
                    queue::write_for_others(id, portion, Sweep::Gone);
                }
                Ok(task)
            })
        });
        match begun {
            Ok(Some(task)) => {
                if task.may_find_old_work() && portion.count > 1 {
                    // SAFETY: a plain global of the process.
                    shared::wake_worker(unsafe { pg_sys::MyDatabaseId });
                }
                let mut scan = Scan::of_task(task, portion);
                // What is in work may be older than a change that nobody has noted.
                scan.wait_for(self.backlog.add_page(self.backlog.in_work()));
                self.scan = Some(scan);
            }
            Ok(None) => self.task = None,
            Err(failure) => self.rolled_back(&failure),
        }
    }

    /// Goes on with the scan of a table where it can; false when there is nothing to go on with.
    pub fn advance_scan(&mut self, now: Instant) -> bool {
        self.begin_scan(now);
        let Some(scan) = &mut self.scan else { return false };
        if scan.shall_look_at_indexes() {
            let table = &self.table;
            // Where a long transaction holds the table, the load goes on with its indexes.
            if let Err(failure) =
                transaction::bounded(Patience::Some, || Spi::connect_mut(|c| index::hold(c, table)))
            {
                debug1!("vector table \"{}\" keeps its indexes: {}", table.name, failure.message);
            }
        }
        if scan.waits_for_indexes() {
            self.look_after_builder(now);
            return false;
        }
        if !scan.can_step(&self.backlog) {
            return false;
        }
        let (table, backlog) = (&mut self.table, &self.backlog);
        let stepped = transaction::bounded(scan.by().patience(), || {
            if scan.reads_source(table) {
                table.pin()?;
            }
            Spi::connect_mut(|client| scan.step(client, table, backlog))
        });
        if let Ok((_, next)) = &stepped {
            self.owes_task &= !next.has_passed(scan);
        }
        match stepped {
            Ok((Step::Page(page), mut next)) => {
                if page.is_shared() {
                    // SAFETY: a plain global of the process.
                    shared::wake_worker(unsafe { pg_sys::MyDatabaseId });
                }
                let number = self.backlog.add_page(page.keys.clone());
                if page.has_gone {
                    // To be removed they need no provider.
                    self.backlog.unpark_keys(&page.keys);
                }
                next.add_page(number, page);
                self.scan = Some(next);
            }
            Ok((Step::Wait, next)) => {
                let has_got_on = next.is_newer_than(scan);
                self.scan = Some(next);
                return has_got_on;
            }
            Ok((Step::Done, next)) => {
                self.owes_task = next.is_of_marks();
                self.scan = None;
                if !next.is_of_marks() {
                    self.task = None;
                }
                self.succeeded();
            }
            // It begins as it is now.
            Ok((Step::Overtaken, _)) => self.scan = None,
            Err(failure) if failure.is_of_a_row() && scan.take_care() => {}
            Err(failure) => self.rolled_back(&failure),
        }
        true
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
