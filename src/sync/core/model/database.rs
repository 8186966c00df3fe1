//! A database in memory for one vector table, as far as a sync worker sees it: source, vectors, queue, task, position.

use crate::sync::core::{BulkChange, HandedOut};
use crate::task::{Kind, Phase, Task};

/// Rows of the source, by number; their keys are `k0`, `k1` ..
pub const ROWS: usize = 5;

/// The key of a row.
pub fn key(row: usize) -> String {
    format!("k{row}")
}

/// Workers that share the keys.
pub const WORKERS: usize = 2;

/// The worker of a row.
pub fn worker_of(row: usize) -> usize {
    row % WORKERS
}

/// The row of a key.
pub fn row_of(key: &str) -> usize {
    key[1..].parse().unwrap_or(0)
}

/// A row of the source: versions of its text and of its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRow {
    pub text: u32,
    pub metadata: u32,
    pub flaw: Flaw,
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    #[default]
    None,
    /// No document can be made of it.
    Unreadable,
    /// The vector table does not accept it.
    Unstorable,
    /// Its transaction always takes too long.
    Slow,
    /// The embedder ends over it.
    Poison,
    /// The provider refuses its text.
    Refused,
}

/// A row of the vector table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorRow {
    pub text: u32,
    pub metadata: u32,
    /// The text that its vector is of; none when the text was refused.
    pub vector: Option<u32>,
}

/// What a queue row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Keys(Vec<usize>),
    /// Keys that the scan of the owner has found.
    Paged(Vec<usize>),
    Bulk(BulkChange),
}

/// A row of the queue.
#[derive(Clone, Debug)]
pub struct QueueRow {
    pub id: i64,
    pub transaction: u64,
    pub worker: usize,
    pub change: Change,
}

/// A transaction of a session that has not ended: the source as it leaves it, and its queue row.
#[derive(Clone, Debug)]
pub struct OpenTransaction {
    pub number: u64,
    pub writes: Vec<(usize, Option<SourceRow>)>,
}

/// The row of embedd.tasks that is open.
#[derive(Clone, Debug)]
pub struct OpenTask {
    pub id: i64,
    pub kind: Kind,
    pub phase: Phase,
    pub last_key: Option<String>,
    pub attempts: i32,
    pub is_begun: bool,
    /// It also finds changes that no row trigger saw.
    pub owes_comparison: bool,
}

/// What was committed.
#[derive(Clone, Debug, Default)]
pub struct Database {
    pub source: [Option<SourceRow>; ROWS],
    pub vectors: [Option<VectorRow>; ROWS],
    pub failed: [bool; ROWS],
    /// The queue row and the transaction that have deleted a row of the source.
    pub deleted_by: [Option<(i64, u64)>; ROWS],
    pub queue: Vec<QueueRow>,
    pub last_id: i64,
    pub last_transaction: u64,
    pub open: Vec<OpenTransaction>,
    pub task: Option<OpenTask>,
    pub last_task: i64,
    pub has_loaded: bool,
    /// The first load was cancelled: nothing is synced before another one.
    pub is_pending: bool,
    /// What a cancelled backfill would have found is not known to anything.
    pub is_unknown: bool,
    /// embedd.sync_state: what is complete for each worker, and the transactions that had not ended.
    pub positions: [(i64, Vec<u64>); WORKERS],
    pub is_paused: bool,
    /// Whether the vectors are those of a shadow.
    pub is_shadow: bool,
    /// Transactions that had not ended when the shadow began to capture changes: it does not get theirs.
    pub awaits: Vec<u64>,
    /// Transactions that may read the table that was replaced, while it is there.
    pub old_readers: Option<Vec<u64>>,
    /// The status says that something is wrong.
    pub has_error: bool,
}

impl Database {
    /// Whether a row of the vector table is what the source says.
    pub fn is_equal(&self, row: usize) -> bool {
        match (self.source[row], self.vectors[row]) {
            (None, None) => true,
            (Some(source), Some(vector)) => {
                let has_vector = vector.vector == Some(source.text);
                (source.text, source.metadata) == (vector.text, vector.metadata) && has_vector
            }
            _ => false,
        }
    }

    /// Writes rows of the source with their queue row, as one transaction that commits.
    pub fn write(&mut self, writes: &[(usize, Option<SourceRow>)]) {
        let number = self.begin(writes);
        self.end(number, true);
    }

    /// Begins a transaction that writes rows of the source. Its queue row has its number already.
    pub fn begin(&mut self, writes: &[(usize, Option<SourceRow>)]) -> u64 {
        self.last_transaction += 1;
        let number = self.last_transaction;
        for worker in 0..WORKERS {
            let rows = writes.iter().map(|(row, _)| *row).filter(|row| worker_of(*row) == worker);
            let rows: Vec<usize> = rows.collect();
            if !rows.is_empty() {
                self.enqueue(number, worker, Change::Keys(rows));
            }
        }
        self.open.push(OpenTransaction { number, writes: writes.to_vec() });
        number
    }

    /// Ends a transaction.
    pub fn end(&mut self, number: u64, commits: bool) {
        let Some(at) = self.open.iter().position(|open| open.number == number) else { return };
        let open = self.open.remove(at);
        if !commits {
            return self.queue.retain(|row| row.transaction != number);
        }
        for (row, written) in open.writes {
            let has_row = |queued: &&QueueRow| {
                queued.transaction == number && queued.worker == worker_of(row)
            };
            let queued = self.queue.iter().find(has_row).filter(|_| written.is_none());
            self.deleted_by[row] = queued.map(|queued| (queued.id, number));
            self.source[row] = written;
        }
    }

    fn enqueue(&mut self, transaction: u64, worker: usize, change: Change) -> i64 {
        self.last_id += 1;
        self.queue.push(QueueRow { id: self.last_id, transaction, worker, change });
        self.last_id
    }

    /// A worker has acknowledged a bulk change while it had these rows in flight.
    pub fn acknowledge(&mut self, worker: usize, rows: Vec<usize>) {
        if !rows.is_empty() {
            self.last_transaction += 1;
            self.enqueue(self.last_transaction, worker, Change::Keys(rows));
        }
    }

    /// Gives the other workers their rows of a page; comes back with the queue rows.
    pub fn hand_out(&mut self, rows: &[usize]) -> Vec<(u16, i64)> {
        let mut handed_out = Vec::new();
        for worker in 1..WORKERS {
            let rows: Vec<usize> =
                rows.iter().copied().filter(|row| worker_of(*row) == worker).collect();
            if !rows.is_empty() {
                self.last_transaction += 1;
                let id = self.enqueue(self.last_transaction, worker, Change::Paged(rows));
                handed_out.push((worker as u16, id));
            }
        }
        handed_out
    }

    /// Changes a row without a trigger: to what the vector table has, where that is something else.
    pub fn change_unseen(&mut self, row: usize) {
        let Some(source) = &mut self.source[row] else { return };
        match self.vectors[row] {
            Some(vector) if (vector.text, vector.metadata) != (source.text, source.metadata) => {
                (source.text, source.metadata) = (vector.text, vector.metadata);
            }
            _ => source.metadata += 1000,
        }
    }

    /// TRUNCATE of some rows, or a type that is altered: any number of rows without their keys.
    pub fn bulk_change(&mut self, has_changed: bool, rows: &[usize]) {
        self.last_transaction += 1;
        let change = if has_changed { BulkChange::Changed } else { BulkChange::Gone };
        for worker in 0..WORKERS {
            self.enqueue(self.last_transaction, worker, Change::Bulk(change));
        }
        for row in rows {
            match &mut self.source[*row] {
                _ if has_changed => self.change_unseen(*row),
                source => *source = None,
            }
            self.deleted_by[*row] = None;
        }
    }

    /// Whether a queue row can be seen.
    pub fn is_visible(&self, row: &QueueRow) -> bool {
        self.open.iter().all(|open| open.number != row.transaction)
    }

    /// Asks for a task, or restarts the open one.
    pub fn ask(&mut self, kind: Kind) {
        let kind = if self.is_pending { Kind::Rebackfill } else { kind };
        (self.is_pending, self.is_unknown) = (false, false);
        match &mut self.task {
            Some(task) => {
                task.owes_comparison |= task.kind == Kind::Reconcile;
                task.phase = Phase::Orphans;
                task.last_key = None;
                task.attempts += 1;
                task.is_begun = false;
                if task.kind == Kind::Reconcile {
                    task.kind = kind;
                }
            }
            None => {
                self.last_task += 1;
                self.task = Some(OpenTask {
                    id: self.last_task,
                    kind,
                    phase: Phase::Orphans,
                    last_key: None,
                    attempts: 0,
                    is_begun: false,
                    owes_comparison: false,
                });
            }
        }
    }

    /// Makes bulk changes a task; there is none when the first load was cancelled.
    pub fn compare_again(&mut self) -> Option<i64> {
        if self.is_pending {
            return None;
        }
        self.ask(if self.has_loaded { Kind::Reconcile } else { Kind::Backfill });
        let task = self.task.as_mut()?;
        task.owes_comparison = true;
        Some(task.id)
    }

    /// Cancels the open backfill, if there is one.
    pub fn cancel(&mut self) {
        let Some(task) = self.task.take_if(|task| task.kind != Kind::Reconcile) else { return };
        self.queue.retain(|row| !matches!(row.change, Change::Paged(_)));
        if !self.has_loaded {
            self.is_pending = true;
            return;
        }
        match task.owes_comparison {
            true => drop(self.compare_again()),
            false => self.is_unknown = true,
        }
    }

    /// Begins or resumes the open task.
    pub fn begin_task(&mut self, id: i64) -> Option<(Task, Vec<HandedOut>)> {
        let task = self.task.as_mut().filter(|task| task.id == id)?;
        task.attempts += 1;
        let begun = Task {
            id,
            kind: task.kind,
            phase: task.phase,
            last_key: task.last_key.clone(),
            attempt: task.attempts,
            fills: task.kind == Kind::Backfill,
            // Some of each kind, the first load among them.
            is_batch_price: id % 3 == 1,
        };
        if !task.is_begun && !begun.is_first_load() {
            self.last_transaction += 1;
            for worker in 1..WORKERS {
                self.enqueue(self.last_transaction, worker, Change::Bulk(BulkChange::Recheck));
            }
        }
        if let Some(task) = &mut self.task {
            task.is_begun = true;
        }
        let is_bulk = |row: &&QueueRow| row.worker > 0 && matches!(row.change, Change::Bulk(_));
        let others = self.queue.iter().filter(is_bulk).filter(|row| self.is_visible(row));
        Some((begun, others.map(|row| (row.worker as u16, row.id)).collect()))
    }

    /// Whether the open task will look at a row.
    pub fn is_covered_by_task(&self, row: usize) -> bool {
        let Some(task) = &self.task else { return false };
        match task.phase {
            Phase::Orphans => true,
            // A row that has gone is seen by the phase before.
            Phase::ProviderBatch => self.source[row].is_some(),
            Phase::Source => {
                self.source[row].is_some()
                    && task.last_key.as_ref().is_none_or(|last| key(row) > *last)
            }
            Phase::Index | Phase::Swap => false,
        }
    }

    /// A shadow is to be filled. The vector table keeps its own queue.
    pub fn begin_shadow(&mut self) {
        self.is_shadow = true;
        self.awaits = self.open.iter().map(|open| open.number).collect();
        self.queue.clear();
        self.vectors = Default::default();
        self.failed = Default::default();
        self.deleted_by = Default::default();
        self.has_loaded = false;
        self.task = None;
        self.ask(Kind::Backfill);
    }

    /// Whether a row that is not equal will be looked at: it has a queue row.
    pub fn is_queued(&self, row: usize) -> bool {
        let has = |queued: &QueueRow| match &queued.change {
            Change::Keys(rows) | Change::Paged(rows) => rows.contains(&row),
            Change::Bulk(_) => worker_of(row) == queued.worker,
        };
        self.queue.iter().any(has)
    }
}
