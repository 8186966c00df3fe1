//! A sync worker over a database in memory: it runs each action as the effects do, and fails where it is told to.

mod embedder;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::embedder::Request;
use super::database::{Change, Database, Flaw, OpenTask, QueueRow, ROWS, VectorRow, key, row_of};
use super::scan::{self, failed};
use super::swap;
use crate::sync::core::backlog::Origin;
use crate::sync::core::*;
use crate::task::Phase;

/// Rows of a page.
pub const MODEL_PAGE: usize = 2;
/// Keys of a batch.
pub const BATCH: usize = 3;

/// What is wrong around a worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// Rows of the vector table that another session has locked.
    pub locked: [bool; ROWS],
    /// The next transaction is rolled back for this reason.
    pub next: Option<Blame>,
    /// The provider answers nothing.
    pub provider_is_down: bool,
    /// Documents are so large that one is read at a time.
    pub is_large: bool,
    /// Another session reads the table that a shadow replaces.
    pub swap_is_locked: bool,
}

/// A worker and the embedder's side of it.
pub struct Worker {
    number: usize,
    pub sync: TableSync,
    limits: InFlightLimits,
    quarantine: Quarantine,
    pub requests: VecDeque<Request>,
    /// Texts that have come for a row in this worker's life, until the row changes.
    pub answered: [Option<u32>; ROWS],
    /// The last rule that was broken.
    pub broken: Option<&'static str>,
    /// The texts that were paid for.
    pub paid: Vec<u32>,
}

fn config(database: &Database, worker: usize) -> Config {
    Config {
        is_active: !database.is_paused && !database.is_pending,
        is_paused: database.is_paused,
        is_pending: database.is_pending && !database.is_paused,
        is_run: false,
        is_owner: worker == 0,
        page: MODEL_PAGE,
        has_old: database.old_readers.is_some(),
    }
}

impl Worker {
    /// A worker that has just started.
    pub fn new(database: &Database, number: usize) -> Self {
        let (after, open) = database.positions[number].clone();
        let cursor = Cursor::new(after, open);
        let health = Health::new(None, database.has_error);
        Self {
            number,
            sync: TableSync::new(config(database, number), cursor, health),
            limits: InFlightLimits::new(2 * BATCH),
            quarantine: Quarantine::default(),
            requests: VecDeque::new(),
            answered: [None; ROWS],
            broken: None,
            paid: Vec::new(),
        }
    }

    /// Reads the catalog and the queue. What is read before the first backfill is removed.
    pub fn read(&mut self, database: &mut Database, now: Instant) {
        self.sync.begin_round();
        let config = config(database, self.number);
        self.sync.set_config(config);
        self.sync.set_task(database.task.as_ref().map(|task| (task.id, task.attempts)));
        let is_read = self.sync.is_active() && self.sync.has_room(2 * ROWS, 4 * ROWS);
        if !is_read && !config.is_pending {
            return;
        }
        let open: Vec<u64> = database.open.iter().map(|open| open.number).collect();
        let (late, above) = self.sync.cursor.late(&open);
        let after = self.sync.cursor.after;
        let seen = |row: &&QueueRow| row.worker == self.number && database.is_visible(row);
        let mut last_late = None;
        let late_rows: Vec<_> = (database.queue.iter())
            .filter(|row| row.id > above && row.id <= after && late.contains(&row.transaction))
            .filter(seen)
            .take(2)
            .collect();
        if late_rows.len() == 2 {
            last_late = late_rows.last().map(|row| row.id);
        }
        let rows: Vec<_> =
            database.queue.iter().filter(|row| row.id > after).filter(seen).take(2).collect();
        let last = rows.last().map(|row| row.id);
        let mut unneeded = Vec::new();
        for row in late_rows.into_iter().chain(rows) {
            match &row.change {
                _ if config.is_pending => unneeded.push(row.id),
                Change::Keys(rows) | Change::Paged(rows) => {
                    let is_paged = matches!(row.change, Change::Paged(_));
                    self.sync.add_row(row.id, rows.iter().map(|row| key(*row)).collect(), is_paged);
                }
                Change::Bulk(change) => self.sync.add_bulk_change(row.id, *change, now),
            }
        }
        let cursor = self.sync.cursor.advanced(last, last_late, &open);
        let is_end = database.queue.iter().filter(seen).all(|row| row.id <= cursor.after);
        self.sync.queue_read(cursor, is_end && last_late.is_none());
        database.queue.retain(|row| !unneeded.contains(&row.id));
    }

    /// Runs the next action; false when there is none.
    pub fn act(&mut self, database: &mut Database, trouble: &mut Trouble, now: Instant) -> bool {
        self.step(database, trouble, now, false)
    }

    /// The batches that the scan waits for are back; false when it waits for none.
    fn end_provider_batch(&mut self, database: &mut Database) -> bool {
        let Some((id, attempt)) = self.sync.awaits_provider_batch() else { return false };
        let is_it = |task: &&mut OpenTask| task.id == id && task.attempts == attempt;
        let Some(task) = database.task.as_mut().filter(is_it) else { return false };
        if !self.sync.is_active() {
            return false;
        }
        if self.sync.may_store_phase() {
            (task.phase, task.last_key) = (Phase::Source, None);
        }
        self.sync.provider_batch_ended();
        true
    }

    fn step(
        &mut self,
        database: &mut Database,
        trouble: &mut Trouble,
        now: Instant,
        is_draining: bool,
    ) -> bool {
        let room = Room {
            limits: &self.limits,
            batch_texts: BATCH,
            is_draining,
            is_closed: false,
            quarantine_texts: self.quarantine.most_texts(),
            has_requests: !self.requests.is_empty(),
        };
        let Some(action) = self.sync.next(now, &room) else {
            if !is_draining && self.end_provider_batch(database) {
                return true;
            }
            if self.sync.due(now).is_some_and(|at| at <= now) {
                self.broken = Some("10: the worker is woken for nothing");
            }
            return false;
        };
        let outcome = match trouble.next.take() {
            Some(blame) if !matches!(action, Action::Send(_)) => {
                if matches!(blame, Blame::Row | Blame::Slow) {
                    // A row that is blamed for it is paid for again when it is tried again.
                    self.forget_answers();
                }
                let is_of_batch = matches!(action, Action::Load(_) | Action::Store(_));
                let blame = if is_of_batch { blame } else { Blame::Table };
                failed(blame, "the transaction was rolled back")
            }
            _ => self.run(&action, database, trouble),
        };
        if super::is_traced() {
            eprintln!("worker {}: {action:?} -> {outcome:?}", self.number);
        }
        self.sync.done(action, outcome, now);
        true
    }

    fn run(&mut self, action: &Action, database: &mut Database, trouble: &Trouble) -> Outcome {
        match action {
            Action::Report(report) => {
                database.has_error = matches!(report, Report::Failed { .. });
                Outcome::Done
            }
            Action::WriteProgress { complete_to, .. } => {
                database.positions[self.number] = (*complete_to, self.sync.cursor.open.clone());
                Outcome::Done
            }
            Action::TakeBulkChanges { rows, .. } => {
                let task = database.compare_again();
                database.queue.retain(|row| !rows.contains(&row.id));
                Outcome::Task(task.and_then(|id| database.begin_task(id)))
            }
            Action::Acknowledge { rows, keys } => {
                database.queue.retain(|row| !rows.contains(&row.id));
                database.acknowledge(self.number, keys.iter().map(|key| row_of(key)).collect());
                Outcome::Done
            }
            Action::BeginTask(id) => swap::begin_task(database, *id),
            Action::Swap { task, attempt, .. } => {
                let (outcome, broken) = swap::swap(database, trouble, *task, *attempt);
                self.broken = self.broken.or(broken);
                outcome
            }
            Action::DropOld => swap::drop_old(database),
            Action::Scan(step) => scan::step(step, database),
            Action::Load(id) => self.load(*id, database, trouble),
            Action::Send(id) => self.send(*id, database),
            Action::Store(id) => self.store(*id, database, trouble),
            Action::Fail(id) => {
                let Some(batch) = self.sync.batch(*id) else { return Outcome::Done };
                database.failed[row_of(&batch.keys[0].key)] = true;
                self.remove_rows(database, &batch.keys);
                Outcome::Done
            }
            Action::FixSource
            | Action::DeferIndexes
            | Action::BuildIndexes
            | Action::CheckIndexes { .. } => Outcome::Done,
        }
    }

    fn remove_rows(&self, database: &mut Database, keys: &[TakenKey]) {
        let rows = self.sync.rows_complete_with(keys);
        database.queue.retain(|row| !rows.contains(&row.id));
    }

    fn load(&self, id: BatchId, database: &mut Database, trouble: &Trouble) -> Outcome {
        let Some(batch) = self.sync.batch(id) else { return Outcome::Done };
        let mut loaded = Loaded::default();
        let (mut writes, mut complete) = (Vec::new(), Vec::new());
        for (number, taken) in batch.keys.iter().enumerate() {
            let row = row_of(&taken.key);
            let source = database.source[row];
            match source.map(|source| source.flaw) {
                Some(Flaw::Unreadable) => return failed(Blame::Row, "unreadable"),
                Some(Flaw::Slow) => {
                    return failed(Blame::Slow, "canceling statement due to statement timeout");
                }
                _ => {}
            }
            if trouble.is_large && number > 0 {
                loaded.unread.push(number);
                continue;
            }
            let stored = database.vectors[row];
            let (Some(source), false) = (source, database.is_equal(row)) else {
                if source.is_none() && stored.is_some() {
                    writes.push((row, None));
                }
                complete.push(taken.clone());
                loaded.complete.push(number);
                continue;
            };
            let vector = VectorRow {
                text: source.text,
                metadata: source.metadata,
                vector: Some(source.text),
            };
            if stored.is_some_and(|stored| stored.vector == Some(source.text)) {
                writes.push((row, Some(vector)));
                complete.push(taken.clone());
                loaded.complete.push(number);
                continue;
            }
            let document = Document {
                pk_value: taken.key.clone(),
                text: source.text.to_string(),
                metadata: source.metadata.to_string(),
                row_hash: String::new(),
            };
            loaded.to_embed.push((number, document));
        }
        if writes.iter().any(|(row, _)| trouble.locked[*row]) {
            return failed(Blame::LockedRow, "a lock of another session");
        }
        for (row, vector) in writes {
            database.vectors[row] = vector;
        }
        complete.iter().for_each(|taken| database.failed[row_of(&taken.key)] = false);
        self.remove_rows(database, &complete);
        Outcome::Loaded(loaded)
    }

    /// Drains: takes in what is paid for, stores what can be stored, and writes how far it is.
    pub fn leave(&mut self, database: &mut Database, trouble: &mut Trouble, now: Instant) {
        while self.step(database, trouble, now, true) {}
        if let Some(action) = self.sync.last_action(now) {
            self.run(&action, database, trouble);
        }
    }

    /// Answers that have come count for nothing any more.
    pub fn forget_answers(&mut self) {
        self.answered = [None; ROWS];
    }

    fn store(&mut self, id: BatchId, database: &mut Database, trouble: &Trouble) -> Outcome {
        let Some(batch) = self.sync.batch(id) else { return Outcome::Done };
        let Stage::Store(documents, embeddings) = &batch.stage else { return Outcome::Done };
        let doubtful = self.sync.doubtful_keys(batch);
        let rows: Vec<usize> = batch.keys.iter().map(|taken| row_of(&taken.key)).collect();
        if rows.iter().any(|row| trouble.locked[*row]) {
            return failed(Blame::LockedRow, "a lock of another session");
        }
        let flaw = |row: &usize| database.source[*row].map_or(Flaw::None, |source| source.flaw);
        if rows.iter().any(|row| flaw(row) == Flaw::Unstorable) {
            return failed(Blame::Row, "unstorable");
        }
        for (number, row) in rows.iter().enumerate() {
            if doubtful.contains(&key(*row)) && database.source[*row].is_none() {
                continue;
            }
            let number = number as u32;
            let is_refused = embeddings.refused.iter().any(|(n, _)| *n == number);
            let document = &documents[number as usize];
            let text = document.text.parse().unwrap_or(0);
            if embeddings.vector(number as usize) != [text as f32] {
                self.broken = Some("3: a vector stands beside a text that is not its own");
            }
            let origins = &batch.keys[number as usize].origins;
            let is_known_gone = database.deleted_by[*row].is_some_and(|(id, transaction)| {
                !origins.contains(&Origin::QueueRow(id))
                    && id <= self.sync.cursor.after
                    && !self.sync.cursor.open.contains(&transaction)
            });
            if is_known_gone && database.vectors[*row].is_none() {
                self.broken = Some("3: a row that is known to be gone is stored");
            }
            database.vectors[*row] = Some(VectorRow {
                text,
                metadata: document.metadata.parse().unwrap_or(0),
                vector: (!is_refused).then_some(text),
            });
            database.failed[*row] = is_refused;
        }
        self.remove_rows(database, &batch.keys);
        Outcome::Done
    }
}

/// Time between two events.
pub const STEP: Duration = Duration::from_millis(300);
