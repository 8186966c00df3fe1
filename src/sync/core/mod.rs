//! What a sync worker does next for a vector table, decided without I/O: no SPI, no socket, no clock of its own.
//!
//! `TableSync::next(now)` returns an action, the worker runs it in a transaction, and `done(action, outcome, now)` tells how it
//! ended. So every schedule of events is a test of milliseconds, and `model` runs a million of them.

mod action;
mod backlog;
mod cursor;
mod done;
mod health;
mod in_flight;
mod limits;
mod loops;
mod next;
mod planted;
mod progress;
mod provider_batch;
mod quarantine;
mod scan;
mod swap;

#[cfg(test)]
mod model;

use std::time::{Duration, Instant};

use embedd_wire::{Embeddings, Failure as EmbedFailure};

pub use self::action::{
    Action, Blame, Document, Failure, FoundPage, Loaded, Lookup, Outcome, ScanStep, Then,
};
pub use self::backlog::{Backlog, TakenKey};
pub use self::cursor::Cursor;
pub use self::health::{Health, Report, SourceState};
pub use self::in_flight::{Batch, BatchId, Stage};
pub use self::limits::{InFlightLimits, Room, Share};
pub use self::provider_batch::{BatchNews, BatchOutcome, BatchStep, ProviderBatches, most_texts};
pub use self::quarantine::Quarantine;
pub use self::scan::{Find, HandedOut};
pub use self::swap::lock_wait;

pub use crate::queue::BulkChange;

use self::in_flight::InFlight;
use self::loops::Loops;
use self::planted::{Fault, is_planted};
use self::progress::Progress;
use self::scan::Scan;
use self::swap::Swap;

/// What the catalog says of a vector table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Whether its status allows work: it is neither paused nor waits for a first backfill.
    pub is_active: bool,
    /// Whether it was paused.
    pub is_paused: bool,
    /// Whether it waits for a first backfill.
    pub is_pending: bool,
    /// Whether a batch run works on it, which compares it once.
    pub is_run: bool,
    /// Whether this worker does what is done once for the table; the others share its keys.
    pub is_owner: bool,
    /// Keys of a page of a scan.
    pub page: usize,
    /// Whether the table that its last swap replaced is there still.
    pub has_old: bool,
}

/// What has to be put right before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixKind {
    /// The provider has another name, or the table does not depend on it yet.
    Provider,
    /// The source is gone, and what waits for it will never be done.
    Clear,
    /// Names, triggers, or changes that may have been missed.
    Other,
}

/// The process that builds the indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Builder {
    #[default]
    None,
    Running,
    Ended,
}

/// One vector table at work.
#[derive(Clone, Debug)]
pub struct TableSync {
    config: Config,
    pub cursor: Cursor,
    pub health: Health,
    backlog: Backlog,
    in_flight: InFlight,
    /// The open task.
    task: Option<i64>,
    scan: Option<Scan>,
    /// Bulk changes that wait to be made a task.
    bulk_changes: Vec<(i64, BulkChange)>,
    /// Since when the bulk changes wait.
    bulk_since: Option<Instant>,
    /// Bulk changes that the owner of the table waits for this worker to acknowledge.
    unacknowledged: Vec<i64>,
    fix: Option<FixKind>,
    builder: Builder,
    swap: Swap,
    loops: Loops,
    progress: Progress,
    /// Whether all of its queue was read the last time.
    is_queue_read: bool,
    /// Keys loaded at once at most; shrinks where documents are large or a transaction took too long.
    window: usize,
    /// The account that its texts were sent to the last time.
    share: Option<Share>,
}

impl TableSync {
    /// The state of a table that was not known before.
    pub fn new(config: Config, cursor: Cursor, health: Health) -> Self {
        Self {
            config,
            cursor,
            health,
            backlog: Backlog::default(),
            in_flight: InFlight::default(),
            task: None,
            scan: None,
            bulk_changes: Vec::new(),
            bulk_since: None,
            unacknowledged: Vec::new(),
            fix: None,
            builder: Builder::None,
            swap: Swap::default(),
            loops: Loops::default(),
            progress: Progress::default(),
            is_queue_read: false,
            window: usize::MAX,
            share: None,
        }
    }

    /// Follows the catalog.
    pub fn set_config(&mut self, config: Config) {
        if self.config.is_paused && !config.is_paused {
            self.health.retry_table();
        }
        self.config = config;
    }

    /// Another provider, another key of it, or a permission that is there again: it is tried at once.
    pub fn provider_changed(&mut self) {
        self.health.retry_all();
        // Nothing is in flight for the new account, whatever is for the old one.
        self.share = None;
    }

    /// Follows what was found of the source, and what has to be put right.
    pub fn set_source(&mut self, source: SourceState, fix: Option<FixKind>) {
        // Once for each time that the source goes; what is not put right yet still has to be.
        let is_news = self.health.source().broken != source.broken;
        let is_left = self.fix == Some(FixKind::Clear);
        self.fix = fix.filter(|fix| *fix != FixKind::Clear || is_news || is_left);
        self.health.set_source(source);
    }

    /// Follows embedd.tasks: the open task, and how often it was begun or restarted. Only the owner of the table scans for
    /// it; without one no worker goes on with what a scan has found.
    pub fn set_task(&mut self, open: Option<(i64, i32)>) {
        let task = open.filter(|_| self.config.is_owner);
        self.task = task.map(|(id, _)| id);
        let is_overtaken = |scan: &Scan| {
            let own = scan.task();
            task.is_none_or(|(id, attempt)| id != own.id || attempt > own.attempt)
        };
        if self.builder == Builder::None && self.scan.as_ref().is_some_and(is_overtaken) {
            // A session has restarted or ended it.
            self.scan = None;
        }
        if self.config.is_pending {
            self.forget_changes();
        } else if (open.is_none() || is_planted(Fault::DropsFound)) && self.backlog.has_found() {
            self.take_back_unsent(|batch| batch.priority == embedd_wire::Priority::Backfill);
            self.backlog.drop_found();
        }
        let (backlog, loops) = (&self.backlog, &self.loops);
        self.health.release_unknown(|key| backlog.has_key(key) || loops.is_loop(key));
    }

    /// The table waits for its first backfill, which reads every row as it is then: its queue is read again from where it
    /// is not complete, and what is read is not needed.
    fn forget_changes(&mut self) {
        self.take_back_unsent(|_| true);
        let complete_to = self.complete_to();
        if complete_to < self.cursor.after {
            self.cursor = Cursor::new(complete_to, self.cursor.open.clone());
        }
        self.backlog.drop_waiting();
        self.bulk_changes.clear();
        self.bulk_since = None;
        self.unacknowledged.clear();
    }

    /// A row of the queue was read that has keys; `is_paged` when the scan of another worker has found them.
    pub fn add_row(&mut self, id: i64, keys: Vec<String>, is_paged: bool) {
        self.backlog.add_row(id, keys, is_paged);
    }

    /// A row of the queue was read that stands for a bulk change.
    ///
    /// What is in flight may be older: it is loaded again. Only the owner of the table makes a task of it.
    pub fn add_bulk_change(&mut self, id: i64, change: BulkChange, now: Instant) {
        let is_known = self.bulk_changes.iter().any(|(known, _)| *known == id)
            || self.unacknowledged.contains(&id);
        if is_known {
            return;
        }
        // Until then no row of them is stored that has gone.
        self.backlog.add_page(self.backlog.in_flight());
        if self.config.is_owner && change != BulkChange::Recheck {
            self.bulk_changes.push((id, change));
            self.bulk_since.get_or_insert(now);
        } else {
            self.unacknowledged.push(id);
        }
    }

    /// The queue was read, up to `cursor`; `is_end` when there is no more of it.
    pub fn queue_read(&mut self, cursor: Cursor, is_end: bool) {
        self.cursor = cursor;
        self.is_queue_read = is_end;
    }

    /// A round begins: other workers may have done their parts of a scan.
    pub fn begin_round(&mut self) {
        if let Some(scan) = &mut self.scan {
            scan.look_again();
        }
    }

    /// The embedder has answered for a batch: for all of it or for a part.
    pub fn on_answer(
        &mut self,
        id: BatchId,
        answer: Result<Embeddings, EmbedFailure>,
        now: Instant,
    ) {
        let Some(Batch { keys, priority, stage: Stage::Embed(documents), .. }) =
            self.in_flight.remove(id)
        else {
            return;
        };
        let embeddings = match answer {
            Ok(embeddings) => embeddings,
            Err(failure) => {
                self.backlog.await_provider(keys);
                return self.provider_failed(&failure, now);
            }
        };
        let Some(failure) = &embeddings.failure else {
            self.health.provider_answered();
            self.in_flight.add(Batch::at(keys, priority, Stage::Store(documents, embeddings)));
            return;
        };
        let is_missing = |number: &usize| embeddings.unanswered.contains(&(*number as u32));
        let (missing, there): (Vec<usize>, Vec<usize>) = (0..keys.len()).partition(is_missing);
        let some = |numbers: &[usize]| numbers.iter().map(|n| keys[*n].clone()).collect();
        self.backlog.await_provider(some(&missing));
        self.provider_failed(failure, now);
        if !there.is_empty() {
            let documents = there.iter().map(|n| documents[*n].clone()).collect();
            let stage = Stage::Store(documents, embeddings.only(&there));
            self.in_flight.add(Batch::at(some(&there), priority, stage));
        }
    }

    fn provider_failed(&mut self, failure: &EmbedFailure, now: Instant) {
        let wait = failure.retry_after_ms.map(Duration::from_millis);
        self.health.provider_failed(&failure.reason(), !failure.is_transient(), wait, now);
    }

    /// The embedder has ended, or the connection to it: what it had waits again.
    pub fn embedder_lost(&mut self) {
        let lost = self.in_flight.remove_where(|batch| matches!(batch.stage, Stage::Embed(..)));
        for batch in lost.into_iter().rev() {
            self.backlog.give_back(batch.keys);
        }
    }

    /// The embedder cannot start, for this reason; true when the table has texts there.
    pub fn embedder_unavailable(&mut self, reason: &str, now: Instant) {
        if self.in_flight.at_embedder().next().is_some() {
            self.embedder_lost();
            self.health.provider_failed(reason, true, None, now);
        }
    }

    /// The embedder ends each time it works on the only row of a batch.
    pub fn set_aside(&mut self, id: BatchId, reason: &str) {
        if let Some(batch) = self.in_flight.get_mut(id) {
            batch.stage = Stage::Fail(reason.to_string());
        }
    }

    /// The process that builds the indexes has ended.
    pub fn builder_ended(&mut self) {
        self.builder = Builder::Ended;
    }

    /// The batch that is to be sent to the embedder, if there is one.
    pub fn to_send(&self, now: Instant) -> Option<BatchId> {
        self.in_flight.ready(now, |stage| matches!(stage, Stage::Send(_)))
    }

    /// A batch.
    pub fn batch(&self, id: BatchId) -> Option<&Batch> {
        self.in_flight.get(id)
    }

    /// Queue rows that are complete once these keys of a batch are.
    pub fn rows_complete_with<'a>(&self, keys: impl IntoIterator<Item = &'a TakenKey>) -> Vec<i64> {
        self.backlog.rows_complete_with(keys)
    }

    /// Keys of a batch whose rows may have gone since they were loaded.
    pub fn doubtful_keys(&self, batch: &Batch) -> Vec<String> {
        let is_doubtful = |key: &&TakenKey| self.backlog.has_newer(&key.key);
        if is_planted(Fault::StoreTrustsOldKeys) {
            return Vec::new();
        }
        batch.keys.iter().filter(is_doubtful).map(|taken| taken.key.clone()).collect()
    }

    /// Whether more texts wait that would go with those of a batch.
    pub fn has_more(&self, batch: &Batch) -> bool {
        match batch.priority {
            embedd_wire::Priority::Backfill => self.backlog.paged_len() > 0,
            _ => self.backlog.changed_len() > 0,
        }
    }

    /// Whether its changes are read and worked on now.
    pub fn is_active(&self) -> bool {
        self.config.is_active && !self.health.is_broken()
    }

    /// Whether more of its queue may be read: what awaits the provider must not hide a change that needs none.
    pub fn has_room(&self, enough: usize, too_many: usize) -> bool {
        let waiting = self.backlog.waiting_len();
        waiting - self.backlog.awaiting_provider_len() < enough && waiting < too_many
    }

    /// Whether a task or a bulk change waits.
    fn has_work(&self) -> bool {
        let has_rows = !self.bulk_changes.is_empty() || !self.unacknowledged.is_empty();
        self.task.is_some() || self.scan.is_some() || has_rows
    }

    /// Whether nothing waits and nothing is in flight. A worker that waits for others, or for a batch API, gives up its slot.
    pub fn is_idle(&self) -> bool {
        let awaits_workers = self.scan.as_ref().is_some_and(Scan::awaits_workers)
            || self.awaits_provider_batch().is_some();
        self.fix.is_none()
            && (!self.is_active() || !self.has_work() || awaits_workers)
            && self.backlog.is_empty()
            && !self.health.has_error()
    }

    /// Whether a batch run is over: all is done, or it is in trouble, and then another one begins.
    pub fn is_run_over(&self, now: Instant) -> bool {
        // What is paid for is stored, also when that takes as long as a session holds the table.
        (self.health.is_in_trouble(now) && self.is_drained() && !self.health.has_held_rows())
            || !self.is_active()
            || (self.scan.is_none() && self.task.is_none() && self.backlog.is_empty())
    }

    /// Whether nothing of it is at the embedder, and no vectors wait to be stored.
    pub fn is_drained(&self) -> bool {
        self.in_flight.at_embedder().next().is_none() && !self.in_flight.has_results()
    }

    /// Whether a process builds its indexes.
    pub fn has_builder(&self) -> bool {
        self.builder == Builder::Running
    }

    /// The oldest queue row that is not complete: before it everything is.
    fn complete_to(&self) -> i64 {
        let bulk =
            self.bulk_changes.iter().map(|(id, _)| *id).chain(self.unacknowledged.iter().copied());
        let lowest = self.backlog.lowest_row().into_iter().chain(bulk).min();
        lowest.map_or(self.cursor.after, |id| (id - 1).min(self.cursor.after))
    }
}
