//! What is in flight for one vector table: batches of keys, each at one stage between the backlog and the vector table.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use embedd_wire::{Embeddings, Priority};

use super::action::{Document, Lookup};
use super::backlog::TakenKey;
use crate::backoff::Backoff;

/// First and longest pause before a row that another session has locked is tried again.
const LOCKED: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// The number of a batch among those of its vector table.
pub type BatchId = u64;

/// Where a batch is.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Its documents are to be read.
    Load(Lookup),
    /// Its documents are to be sent to the embedder.
    Send(Vec<Document>),
    /// The embedder has its texts.
    Embed(Vec<Document>),
    /// Its vectors have come and are to be stored. They are paid for.
    Store(Vec<Document>, Embeddings),
    /// Its only row is to be noted as failed, for this reason.
    Fail(String),
}

/// Keys that go together.
#[derive(Clone, Debug)]
pub struct Batch {
    pub keys: Vec<TakenKey>,
    pub priority: Priority,
    pub stage: Stage,
    /// The pause after its only row was found locked.
    lock: Backoff,
    /// A locked row is looked for in it: a short wait for the lock tells enough.
    pub looks_for_lock: bool,
    /// Why its only row could not be found by its key.
    pub reason: Option<String>,
    /// It is not touched before then.
    hold_until: Option<Instant>,
    /// Its only row took too long the last time.
    pub was_slow: bool,
}

impl Batch {
    /// A batch that is to be loaded.
    pub fn new(keys: Vec<TakenKey>, priority: Priority) -> Self {
        Self::at(keys, priority, Stage::Load(Lookup::Index))
    }

    /// A batch at a stage.
    pub fn at(keys: Vec<TakenKey>, priority: Priority, stage: Stage) -> Self {
        Self {
            keys,
            priority,
            stage,
            lock: Backoff::new(LOCKED.0, LOCKED.1),
            looks_for_lock: false,
            reason: None,
            hold_until: None,
            was_slow: false,
        }
    }

    /// Whether it can be acted on.
    fn is_ready(&self, now: Instant) -> bool {
        !self.lock.is_waiting(now) && self.hold_until.is_none_or(|until| until <= now)
    }

    /// When it can be acted on, where that is later.
    fn due(&self) -> Option<Instant> {
        self.lock.until().max(self.hold_until)
    }

    /// Notes that its only row is locked.
    pub fn is_locked(&mut self, now: Instant) {
        self.looks_for_lock = true;
        self.lock.fail(now, None);
    }

    /// Has its only row noted as failed: for the first reason, if it could not be found by its key.
    pub fn fail(&mut self, reason: &str) {
        self.stage = Stage::Fail(self.reason.take().unwrap_or_else(|| reason.to_string()));
    }

    /// Has it wait.
    pub fn hold(&mut self, until: Instant) {
        self.hold_until = Some(until);
    }

    /// Splits it in two at a key.
    fn split(mut self, at: usize) -> [Self; 2] {
        let keys = self.keys.split_off(at);
        let (first, second) = match self.stage {
            Stage::Store(mut documents, embeddings) => {
                let rest = documents.split_off(at);
                let count = embeddings.count();
                (
                    Stage::Store(documents, embeddings.part(0..at)),
                    Stage::Store(rest, embeddings.part(at..count)),
                )
            }
            Stage::Load(lookup) => (Stage::Load(lookup), Stage::Load(lookup)),
            // The others are never split.
            other => (other, Stage::Load(Lookup::Index)),
        };
        [(self.keys, first), (keys, second)].map(|(keys, stage)| Self {
            looks_for_lock: self.looks_for_lock,
            ..Self::at(keys, self.priority, stage)
        })
    }
}

/// The batches of one vector table.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    batches: BTreeMap<BatchId, Batch>,
    last: BatchId,
}

impl InFlight {
    /// Adds a batch.
    pub fn add(&mut self, batch: Batch) -> BatchId {
        self.last += 1;
        self.batches.insert(self.last, batch);
        self.last
    }

    /// A batch, if it is still there.
    pub fn get(&self, id: BatchId) -> Option<&Batch> {
        self.batches.get(&id)
    }

    /// A batch to be changed.
    pub fn get_mut(&mut self, id: BatchId) -> Option<&mut Batch> {
        self.batches.get_mut(&id)
    }

    /// Takes a batch out.
    pub fn remove(&mut self, id: BatchId) -> Option<Batch> {
        self.batches.remove(&id)
    }

    /// Takes out the batches that a condition is true of.
    pub fn remove_where(&mut self, is_wanted: impl Fn(&Batch) -> bool) -> Vec<Batch> {
        let ids: Vec<BatchId> =
            self.batches.iter().filter(|(_, batch)| is_wanted(batch)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.batches.remove(&id)).collect()
    }

    /// Bisects a batch, to find the row that makes it fail. One of a single row stays as it is.
    pub fn bisect(&mut self, id: BatchId) {
        let Some(batch) = self.batches.remove(&id) else { return };
        if batch.keys.len() < 2 {
            self.batches.insert(id, batch);
            return;
        }
        let half = batch.keys.len() / 2;
        for part in batch.split(half) {
            self.add(part);
        }
    }

    /// The first batch at one of these stages that can be acted on.
    pub fn ready(&self, now: Instant, is_wanted: impl Fn(&Stage) -> bool) -> Option<BatchId> {
        let ready =
            |(_, batch): &(&BatchId, &Batch)| batch.is_ready(now) && is_wanted(&batch.stage);
        self.batches.iter().find(ready).map(|(id, _)| *id)
    }

    /// Whether there is no batch.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The batches that the embedder has.
    pub fn at_embedder(&self) -> impl Iterator<Item = (BatchId, &Batch)> {
        let has = |(_, batch): &(&BatchId, &Batch)| matches!(batch.stage, Stage::Embed(..));
        self.batches.iter().filter(has).map(|(id, batch)| (*id, batch))
    }

    /// Whether the embedder has a batch, or is about to be sent one: its answer tells how the provider is.
    pub fn has_trial(&self) -> bool {
        self.batches.values().any(|batch| matches!(batch.stage, Stage::Send(_) | Stage::Embed(..)))
    }

    /// Whether a batch waits to be stored, or holds a row that waits.
    pub fn has_results(&self) -> bool {
        self.batches.values().any(|batch| matches!(batch.stage, Stage::Store(..) | Stage::Fail(_)))
    }

    /// When a batch that waits can be acted on.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        self.batches.values().filter_map(Batch::due).filter(|at| *at > now).min()
    }
}
