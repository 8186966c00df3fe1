//! What the embedder has of a worker: batches are sent to it, and what it answers is stored.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use embedd_wire::{Embeddings, Failure, InputType, Priority, Provider, Reply, Request, account};
use pgrx::prelude::*;

use super::backlog::Taken;
use super::load::Document;
use super::outstanding::Share;
use super::{Engine, TROUBLE, batch, finish};
use crate::client::{self, Client};
use crate::error::Error;
use crate::fdw;
use crate::transaction::RolledBack;

/// Pause after the embedder has ended: the next one is started at once, and its socket is open already.
const AFTER_END: Duration = Duration::from_millis(50);

/// Longest text sent to the embedder, in bytes: no model reads that far.
pub(super) const LONGEST_TEXT: usize = 1024 * 1024;

/// A request that the embedder works on.
pub(super) struct Flight {
    pub(super) table_id: i32,
    keys: Vec<Taken>,
    documents: Vec<Document>,
    share: Share,
    bytes: usize,
}

impl Engine {
    /// Sends a batch to the embedder.
    pub(super) fn send(
        &mut self,
        id: i32,
        keys: Vec<Taken>,
        documents: Vec<Document>,
        provider: Provider,
        priority: Priority,
    ) {
        let Some(work) = self.tables.get_mut(&id) else { return };
        self.last_request += 1;
        let is_local = provider.kind.is_inside();
        let share = Share { account: account(&provider), priority, is_local };
        let texts: Vec<String> = documents.iter().map(|d| beginning(&d.text).to_string()).collect();
        let model = fdw::model(&work.table, provider.kind);
        let vectors = texts.len() * model.dimensions as usize * size_of::<f32>();
        // The documents are held until they are stored, with all of their text.
        let held = documents.iter().map(|d| d.text.len() + d.metadata.len()).sum::<usize>();
        let bytes = vectors + held;
        work.share = Some(share);
        self.outstanding.add(share, texts.len(), bytes);
        let waiting = match priority {
            Priority::Backfill => work.backlog.paged_len(),
            _ => work.backlog.fresh_len(),
        };
        let request = Request {
            id: self.last_request,
            provider,
            model,
            input_type: InputType::Document,
            priority,
            more: waiting > 0 && self.outstanding.has_room(share),
            patience_ms: 0,
            is_test: false,
            texts,
        };
        let flight = Flight { table_id: id, keys, documents, share, bytes };
        self.flights.insert(self.last_request, flight);
        let sent = match &mut self.client {
            Some(client) => client.send(request),
            None => Client::connect().and_then(|mut client| {
                client.send(request)?;
                self.client = Some(client);
                Ok(())
            }),
        };
        if let Err(error) = sent {
            self.lose_embedder(&error, TROUBLE);
        }
    }

    /// The connection broke: everything that was sent is work again, after a rest.
    fn lose_embedder(&mut self, error: &Error, rest: Duration) {
        debug1!("lost the embedder: {error}");
        self.client = None;
        self.rest_until = Some(Instant::now() + rest);
        self.outstanding.clear();
        // What has come is stored all the same.
        let (there, lost): (HashMap<u64, Flight>, HashMap<u64, Flight>) =
            std::mem::take(&mut self.flights)
                .into_iter()
                .partition(|(id, _)| self.arrived.iter().any(|reply| reply.id == *id));
        self.flights = there;
        for flight in lost.into_values() {
            if let Some(work) = self.tables.get_mut(&flight.table_id) {
                work.backlog.give_back(flight.keys);
            }
        }
    }

    /// The embedder has ended while it worked: a row that makes it end is looked for, and set aside when it is found.
    fn embedder_ended(&mut self, error: &Error) {
        let has_come = |id: u64| self.arrived.iter().any(|reply| reply.id == id);
        let at_work: Vec<u64> = self.flights.keys().copied().filter(|id| !has_come(*id)).collect();
        let alone = match at_work[..] {
            [id] => self
                .flights
                .get(&id)
                .filter(|flight| flight.keys.len() == 1)
                .map(|flight| (id, flight)),
            _ => None,
        };
        let row = alone.map(|(id, flight)| (id, flight.table_id, flight.keys[0].key.clone()));
        let proven =
            self.caution.on_end(row.as_ref().map(|(_, table, key)| (*table, key.as_str())));
        let flight = row.filter(|_| proven).and_then(|(id, ..)| self.flights.remove(&id));
        self.lose_embedder(error, AFTER_END);
        if let Some(flight) = flight {
            let failure = RolledBack {
                sqlstate: PgSqlErrorCode::ERRCODE_SYSTEM_ERROR,
                message: "the embedder ended each time it worked on the text of this row alone"
                    .to_string(),
                is_at_rows: false,
            };
            self.set_aside(flight.table_id, flight.keys, &failure);
        }
    }

    /// Takes what the embedder has answered off the connection; it is stored after the next reading of the queue.
    pub(super) fn receive(&mut self) {
        if !self.flights.is_empty()
            && let Err(error) = client::check_startable()
        {
            return self.cannot_start(&error);
        }
        let Some(client) = &mut self.client else { return };
        match client.receive() {
            Ok(replies) => self.arrived.extend(replies),
            Err(error) => self.embedder_ended(&error),
        }
    }

    /// Something keeps the embedder from starting: the tables that wait for it say so.
    fn cannot_start(&mut self, error: &Error) {
        let waiting: HashSet<i32> = self.flights.values().map(|flight| flight.table_id).collect();
        self.lose_embedder(error, TROUBLE);
        for id in waiting {
            if let Some(work) = self.tables.get_mut(&id) {
                work.embedding_failed(&error.to_string(), true, None);
            }
        }
    }

    /// Brings what has arrived into the vector tables.
    pub(super) fn land_arrived(&mut self) {
        std::mem::take(&mut self.arrived).into_iter().for_each(|reply| self.land(reply));
    }

    /// Brings one answer into its vector table.
    fn land(&mut self, reply: Reply) {
        let Some(flight) = self.flights.remove(&reply.id) else { return };
        self.caution.on_answer();
        let Flight { table_id, keys, documents, share, bytes } = flight;
        self.outstanding.remove(share, documents.len(), bytes);
        // A vector table that was dropped meanwhile takes its keys with it.
        let Some(work) = self.tables.get_mut(&table_id) else { return };
        match reply.outcome {
            Ok(embeddings) => self.take_in(table_id, keys, documents, embeddings),
            Err(failure) => {
                work.backlog.park(keys);
                let wait = failure.retry_after_ms.map(Duration::from_millis);
                work.embedding_failed(&in_full(&failure), !failure.is_transient(), wait);
            }
        }
    }

    /// Stores what has come; what is missing waits for the provider.
    fn take_in(
        &mut self,
        id: i32,
        keys: Vec<Taken>,
        documents: Vec<Document>,
        embeddings: Embeddings,
    ) {
        let Some(failure) = embeddings.failure.as_ref() else {
            return self.store(Unstored::new(id, keys, documents, embeddings));
        };
        let Some(work) = self.tables.get_mut(&id) else { return };
        let is_missing = |number: &usize| embeddings.unanswered.contains(&(*number as u32));
        let (missing, there): (Vec<usize>, Vec<usize>) = (0..keys.len()).partition(is_missing);
        work.backlog.park(missing.iter().map(|n| keys[*n].clone()).collect());
        let wait = failure.retry_after_ms.map(Duration::from_millis);
        work.embedding_failed(&in_full(failure), !failure.is_transient(), wait);
        self.store(Unstored::new(
            id,
            there.iter().map(|n| keys[*n].clone()).collect(),
            there.iter().map(|n| documents[*n].clone()).collect(),
            embeddings.only(&there),
        ));
    }

    /// Tries again to store vectors whose table was locked, or could not be written for another reason.
    pub(super) fn store_again(&mut self) {
        let now = Instant::now();
        for vectors in std::mem::take(&mut self.unstored) {
            match self.tables.get_mut(&vectors.id) {
                None => {}
                Some(work) if !work.is_active() => {
                    vectors.keys.iter().for_each(|taken| work.forget_locked(&taken.key));
                    work.backlog.give_back(vectors.keys);
                }
                Some(_) if vectors.not_before.is_some_and(|at| at > now) => {
                    self.unstored.push(vectors);
                }
                Some(_) => self.store(vectors),
            }
        }
    }

    /// Stores vectors. They are paid for: where a row is to blame for a failure, the halves are stored each for itself, and
    /// where the table is, they are kept until it can be written.
    fn store(&mut self, vectors: Unstored) {
        let Some(work) = self.tables.get_mut(&vectors.id) else { return };
        if work.is_resting(Instant::now()) {
            return self.unstored.push(vectors);
        }
        let Unstored { id, keys, documents, embeddings, tries, .. } = &vectors;
        let id = *id;
        // The transaction that stores it clears the error; if it cannot, the row is noted as locked again.
        keys.iter().for_each(|taken| work.forget_locked(&taken.key));
        match batch::store(work, keys, documents, embeddings, *tries > 0) {
            Ok(()) => {
                work.batch = work.batch.saturating_mul(2);
                finish(work, keys);
                work.succeeded();
            }
            Err(failure) if failure.is_of_a_row() && keys.len() > 1 => {
                vectors.halves().into_iter().for_each(|half| self.store(half));
            }
            Err(failure) if failure.is_of_a_row() => self.narrow(id, vectors.keys, &failure),
            // Another session has locked a row: the others are stored, and it waits alone.
            Err(failure) if failure.is_of_a_locked_row() && keys.len() > 1 => {
                vectors.bisected().into_iter().for_each(|half| self.store(half));
            }
            Err(failure) if failure.is_of_a_locked_row() => {
                let key = keys[0].key.clone();
                let reason = batch::locked_reason(work, &key, &failure);
                work.note_locked(key, &reason);
                self.unstored.push(vectors.later());
            }
            Err(failure) => {
                if !failure.is_cancelled() {
                    work.rolled_back(&failure);
                    return self.unstored.push(vectors);
                }
                if work.is_slow(keys) {
                    return self.set_aside(id, vectors.keys, &failure);
                }
                // It takes too long at once.
                work.batch = (keys.len() / 2).max(1);
                work.rolled_back(&failure);
                match keys.len() {
                    1 => self.unstored.push(vectors),
                    _ => self.unstored.extend(vectors.halves()),
                }
            }
        }
    }
}

/// Vectors that have come and are not stored yet.
pub(super) struct Unstored {
    id: i32,
    keys: Vec<Taken>,
    documents: Vec<Document>,
    embeddings: Embeddings,
    /// How often a lock of another session was in the way, and when it is tried again for that.
    tries: u32,
    not_before: Option<Instant>,
}

/// First and longest pause before a row that another session has locked is tried again.
const LOCKED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

impl Unstored {
    fn new(id: i32, keys: Vec<Taken>, documents: Vec<Document>, embeddings: Embeddings) -> Self {
        Self { id, keys, documents, embeddings, tries: 0, not_before: None }
    }

    /// When it is to be tried again, where it waits for a lock.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before
    }

    /// The halves, to find the row that is locked.
    fn bisected(self) -> [Self; 2] {
        self.halves().map(|half| Self { tries: half.tries.max(1), ..half })
    }

    /// To be tried again after a pause.
    fn later(mut self) -> Self {
        let pause = LOCKED.0.saturating_mul(1 << self.tries.min(8)).min(LOCKED.1);
        self.tries += 1;
        self.not_before = Some(Instant::now() + pause);
        self
    }

    fn halves(mut self) -> [Self; 2] {
        let half = self.keys.len() / 2;
        let second = Self {
            id: self.id,
            keys: self.keys.split_off(half),
            documents: self.documents.split_off(half),
            embeddings: self.embeddings.part(half..self.embeddings.count()),
            tries: self.tries,
            not_before: None,
        };
        self.embeddings = self.embeddings.part(0..half);
        [self, second]
    }
}

/// A failure of the provider with its detail, for the status.
fn in_full(failure: &Failure) -> String {
    match &failure.detail {
        Some(detail) => format!("{}: {detail}", failure.message),
        None => failure.message.clone(),
    }
}

/// The part of a text that is sent: whole, or its first megabyte.
fn beginning(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
