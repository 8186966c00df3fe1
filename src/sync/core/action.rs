//! The actions that the state machine of a vector table asks for, and their outcomes.

use super::health::Report;
use super::in_flight::BatchId;
use super::scan::{Find, HandedOut};
use crate::task::{Checkpoint, Task};
pub use crate::transaction::Blame;

/// A source row as it is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub pk_value: String,
    pub text: String,
    /// jsonb in its text form.
    pub metadata: String,
    pub row_hash: String,
}

/// How rows of the source are found by their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// By the index of the key.
    Index,
    /// By comparing texts, for a key that its type does not accept (any more). Reads the whole source.
    FullScan,
}

/// Something to be done. Each is at most one transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Puts right what was found of the source.
    FixSource,
    /// Writes what the status has to say.
    Report(Report),
    /// Writes how far the table is: every queue row up to `complete_to` is complete.
    WriteProgress { complete_to: i64, has_synced: bool, rate: Option<f64> },
    /// Makes bulk changes a task, and removes their queue rows with it. The outcome is that task, begun.
    TakeBulkChanges { rows: Vec<i64>, has_changed: bool },
    /// Removes the bulk changes of a worker that does not own the table, and writes a queue row with the keys it has in
    /// flight: they are loaded again. What it has stored before is seen by the owner's scan, which waits for this.
    Acknowledge { rows: Vec<i64>, keys: Vec<String> },
    /// Begins or resumes a task.
    BeginTask(i64),
    /// Drops the vector indexes before a first load that is large enough.
    DeferIndexes,
    /// One step of a scan.
    Scan(ScanStep),
    /// Starts the process that builds the indexes.
    BuildIndexes,
    /// Looks whether that process has built them all.
    CheckIndexes { task: i64, attempt: i32 },
    /// Puts a shadow that is complete in the place of the vector table that it replaces; `tries` is how often a lock was in
    /// the way.
    Swap { task: i64, attempt: i32, tries: u32 },
    /// Drops the table that the last swap replaced, when no session can read it any more.
    DropOld,
    /// Reads the documents of a batch and does what needs no provider.
    Load(BatchId),
    /// Sends the texts of a batch to the embedder.
    Send(BatchId),
    /// Stores the vectors of a batch.
    Store(BatchId),
    /// Notes the only row of a batch as failed.
    Fail(BatchId),
}

/// One step of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanStep {
    pub task: Task,
    /// How far the task is, when that has changed.
    pub checkpoint: Option<Checkpoint>,
    pub then: Then,
}

/// What a step does after its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing more.
    Rest,
    /// Looks which of these queue rows for other workers are still there.
    LookAt(Vec<HandedOut>),
    /// Reads the next page.
    Read(Find),
    /// Compares source and vector table by one statement, in a batch run.
    Compare,
    /// Ends the task, or leaves it to the indexes that are to be built.
    Finish,
}

/// What a scan has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundPage {
    /// The keys that are to be loaded.
    pub keys: Vec<String>,
    /// The last key of all that were read; none when there are no more.
    pub last: Option<String>,
    /// How many rows of the source were read.
    pub rows: i64,
    /// How many of them differ, those of other workers included.
    pub different: i64,
    /// The queue rows for other workers, where some of the keys are theirs.
    pub handed_out: Vec<HandedOut>,
}

/// A batch after its documents were read. Numbers are places among its keys.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What needed no provider, and is complete.
    pub complete: Vec<usize>,
    /// What was not read for lack of memory.
    pub unread: Vec<usize>,
    pub to_embed: Vec<(usize, Document)>,
    /// Why the provider cannot be used, when there is something to embed.
    pub provider: Option<Failure>,
}

/// How an action has ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It went well.
    Done,
    /// Its transaction was rolled back.
    Failed(Failure),
    /// The task that was begun, and the queue rows that other workers have to acknowledge before it is scanned; none when
    /// it has ended.
    Task(Option<(Task, Vec<HandedOut>)>),
    /// A page was read.
    Page(FoundPage),
    /// Those of the queue rows for other workers that are still there.
    Left(Vec<HandedOut>),
    /// The task has ended, or was restarted by a session.
    Overtaken,
    /// The task is complete but for its indexes, or they are not all built.
    AwaitsIndexes,
    /// The shadow is complete, and is to be swapped in.
    AwaitsSwap,
    /// Another session is in the way for the moment: it is tried again after a pause.
    NotYet,
    /// More changes wait for the shadow than for the vector table that it replaces.
    IsBehind,
    /// The batch was read.
    Loaded(Loaded),
    /// The batch is at the embedder, for this account.
    Sent(super::limits::Share),
}

/// Why a transaction was rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub blame: Blame,
    pub reason: String,
    /// Whether it may succeed later by itself.
    pub is_transient: bool,
}
