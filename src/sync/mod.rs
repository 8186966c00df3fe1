//! Makes every vector table of a database equal to its source: the engine that a sync worker runs round by round.

mod apply;
mod backlog;
mod batch;
mod follow;
mod load;
mod noting;
mod outstanding;
mod reader;
mod run;
mod scan;
mod schedule;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use pgrx::prelude::*;

use self::backlog::{Origin, Taken};
use self::batch::Loaded;
use self::follow::Mend;
use self::load::{By, Document};
use self::outstanding::{Outstanding, Share};
use self::reader::{Reader, Seen};
use self::schedule::Schedule;
use self::work::Work;
use crate::embedder::account::account;
use crate::embedder::client::Client;
use crate::embedder::wire::{Embeddings, Failure, InputType, Priority, Reply, Request};
use crate::error::Error;
use crate::provider::{Kind, Provider};
use crate::shared::Portion;
use crate::worker::transaction::{self, RolledBack};
use crate::{foreign, guc, shared};

/// Pause after the embedder could not be reached or the catalog could not be read.
const TROUBLE: Duration = Duration::from_secs(1);
/// Batches loaded before the worker looks at its signals, its queue and its replies again.
const LOADS_PER_ROUND: usize = 8;
/// Longest text sent to the embedder, in bytes: no model reads that far.
const LONGEST_TEXT: usize = 1024 * 1024;

/// What a round ends with.
pub enum Round {
    /// The extension is not (or no longer) in this database.
    NoExtension,
    /// Nothing more to do before something happens or this time is over.
    Wait(Duration),
    /// Nothing is to be done at all before somebody wakes the worker, or before this time is over.
    Idle(Option<Duration>),
}

/// A request that the embedder works on.
struct Flight {
    table_id: i32,
    keys: Vec<Taken>,
    documents: Vec<Document>,
    share: Share,
    bytes: usize,
}

/// The engine of one portion of a database's keys, or of one batch run.
pub struct Engine {
    portion: Portion,
    /// The vector table of the batch run.
    only: Option<i32>,
    schedule: Schedule,
    tables: BTreeMap<i32, Work>,
    reader: Reader,
    client: Option<Client>,
    flights: HashMap<u64, Flight>,
    outstanding: Outstanding,
    last_request: u64,
    /// The table that was served last; the next one goes first.
    last_served: i32,
    rest_until: Option<Instant>,
    /// Why the queue could not be read the last time, logged once.
    read_trouble: Option<String>,
}

impl Engine {
    /// The engine of a sync worker.
    pub fn new(portion: Portion) -> Self {
        Self::with(portion, None)
    }

    /// The engine of a batch run of one vector table.
    pub fn of_run(table_id: i32) -> Self {
        Self::with(Portion { index: 0, count: 1 }, Some(table_id))
    }

    fn with(portion: Portion, only: Option<i32>) -> Self {
        Self {
            portion,
            only,
            schedule: Schedule::default(),
            tables: BTreeMap::new(),
            reader: Reader::new(portion, only),
            client: None,
            flights: HashMap::new(),
            outstanding: Outstanding::default(),
            last_request: 0,
            last_served: 0,
            rest_until: None,
            read_trouble: None,
        }
    }

    /// Whether a batch run is over: done, or in trouble, and then another one begins anew.
    pub fn is_run_over(&self) -> bool {
        let now = Instant::now();
        self.only.and_then(|id| self.tables.get(&id)).is_none_or(|work| {
            work.is_in_trouble(now)
                || !work.is_active()
                || (work.scan.is_none() && work.backlog.is_empty())
        })
    }

    /// Takes replies in, reads what has changed, and gives out work.
    pub fn round(&mut self) -> Round {
        self.receive();
        let unread = match self.reader.read(&mut self.tables) {
            Ok(Seen::NoExtension) => return Round::NoExtension,
            Ok(Seen::AnotherExtension) => {
                *self = Self::with(self.portion, self.only);
                return Round::Wait(Duration::ZERO);
            }
            Ok(Seen::OldInstallation) => {
                let error = Error::OldInstallation;
                self.could_not_read(format!("{error}: {}", error.hint().unwrap_or_default()));
                return Round::Wait(guc::poll_interval());
            }
            Ok(Seen::Read { more }) => {
                self.read_trouble = None;
                more
            }
            Err(failure) => {
                self.could_not_read(failure.message);
                return Round::Wait(TROUBLE);
            }
        };
        self.mend();
        for work in self.tables.values_mut() {
            work.report_found();
            work.note_if_due();
        }
        if self.only.is_none() {
            if self.schedule.look_after(self.reader.batch_tables()) {
                self.reader.look_again();
                return Round::Wait(Duration::ZERO);
            }
        }
        let more = self.give_out();
        match more || unread {
            true => Round::Wait(Duration::ZERO),
            false if self.is_idle() => Round::Idle(self.schedule.due()),
            false => Round::Wait(self.pause()),
        }
    }

    fn could_not_read(&mut self, reason: String) {
        if self.read_trouble.as_ref() != Some(&reason) {
            log!("could not read the queue: {reason}");
            self.read_trouble = Some(reason);
        }
    }

    /// Whether nothing is under way, and nothing waits for it.
    fn is_idle(&self) -> bool {
        self.flights.is_empty()
            && self.rest_until.is_none()
            && !self.schedule.is_running()
            && !self.reader.waits_for_restore()
            && self.tables.values().all(Work::is_idle)
    }

    /// Puts right what was found of the sources, each in a transaction of its own.
    fn mend(&mut self) {
        let now = Instant::now();
        for work in self.tables.values_mut() {
            let Some(mend) = work.mend.clone().filter(|_| !work.is_resting(now)) else { continue };
            let table = work.table.clone();
            match transaction::run(|| Spi::connect_mut(|c| follow::mend(c, &table, &mend))) {
                Ok(_) => work.mend = None,
                Err(failure) => work.rolled_back(&failure),
            }
            if mend != Mend::Clear {
                self.reader.look_again();
            }
        }
    }

    /// The connection to the embedder, to be waited for: its socket, and whether there is more to be sent.
    pub fn socket(&self) -> Option<(i32, bool)> {
        self.client.as_ref().map(|client| (client.fd(), client.wants_write()))
    }

    /// Time until something is due without anybody waking the worker.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let due = self.tables.values().filter_map(Work::due).chain(self.rest_until);
        let due = due.chain(self.schedule.due_at());
        due.map(|at| at.saturating_duration_since(now) + Duration::from_millis(1))
            .min()
            .unwrap_or(Duration::MAX)
            .min(guc::poll_interval())
    }

    /// Gives out work until every request is taken or nothing is left; true when it stopped in between.
    fn give_out(&mut self) -> bool {
        let now = Instant::now();
        if self.rest_until.is_some_and(|until| until > now) {
            return false;
        }
        self.rest_until = None;
        let mut idle = 0;
        for _ in 0..LOADS_PER_ROUND {
            // Fair share: tables take turns, and the turn goes on where the last round ended.
            let ids: Vec<i32> = self.tables.keys().copied().collect();
            let next = ids.iter().find(|id| **id > self.last_served).or(ids.first());
            let Some(id) = next.copied() else { return false };
            self.last_served = id;
            if self.serve(id, now) {
                idle = 0;
            } else {
                idle += 1;
                if idle >= ids.len() {
                    return false;
                }
            }
        }
        true
    }

    /// One batch of one table; false when it has nothing to do.
    fn serve(&mut self, id: i32, now: Instant) -> bool {
        let Some(work) = self.tables.get_mut(&id) else { return false };
        if !work.is_active() || work.is_resting(now) {
            return false;
        }
        let mut served = work.advance_scan(now);
        if work.builds_indexes(now) {
            // Its rows are locked against writing, so its changes wait for the end.
            return served;
        }
        work.take_back_parked(now);
        let count = guc::batch_texts().min(work.batch);
        for priority in [Priority::Change, Priority::Backfill] {
            let Some(work) = self.tables.get_mut(&id) else { return served };
            // Before the first batch nobody knows the account, and nothing is outstanding.
            let share = work.share.map(|share| Share { priority, ..share });
            if share.is_some_and(|share| !self.outstanding.has_room(share)) {
                continue;
            }
            let keys = match priority {
                Priority::Backfill => work.backlog.take_paged(count),
                _ => work.backlog.take_fresh(count),
            };
            if !keys.is_empty() {
                served = true;
                self.load(id, keys, priority);
            }
        }
        served
    }

    /// Reads the documents of a batch, does what needs no provider, and sends off the rest.
    fn load(&mut self, id: i32, keys: Vec<Taken>, priority: Priority) {
        let Some(work) = self.tables.get_mut(&id) else { return };
        match batch::load(work, &keys, By::Key) {
            Ok(Loaded { done, unread, to_embed, documents, provider }) => {
                if to_embed.is_empty() {
                    work.batch = work.batch.saturating_mul(2);
                }
                finish(work, &done);
                work.backlog.give_back(unread);
                if !done.is_empty() {
                    work.succeeded();
                }
                match provider {
                    _ if work.waits_for_provider(Instant::now()) => work.backlog.park(to_embed),
                    Some(Ok(provider)) => self.send(id, to_embed, documents, provider, priority),
                    // It is the provider that is to blame, and never a row.
                    Some(Err(failure)) => {
                        work.backlog.park(to_embed);
                        let stuck = !failure.is_transient();
                        work.embedding_failed(&failure.message, stuck, None);
                    }
                    None => {}
                }
            }
            Err(failure) if failure.is_of_a_row() => self.narrow(id, keys, &failure),
            Err(failure) => {
                work.backlog.give_back(keys);
                work.rolled_back(&failure);
            }
        }
    }

    /// A row of these is to blame for a failure: it is looked for in half of them, or found.
    fn narrow(&mut self, id: i32, keys: Vec<Taken>, failure: &RolledBack) {
        let Some(work) = self.tables.get_mut(&id) else { return };
        if keys.len() > 1 {
            work.batch = keys.len() / 2;
            return work.backlog.give_back(keys);
        }
        // A key that its type does not take (any more) is found by its text, mostly to be removed.
        if let Ok(Loaded { done, to_embed, .. }) = batch::load(work, &keys, By::Text)
            && to_embed.is_empty()
        {
            finish(work, &done);
            work.batch = guc::batch_texts();
            return;
        }
        match batch::set_aside(work, &keys, failure) {
            Ok(()) => {
                finish(work, &keys);
                work.batch = guc::batch_texts();
            }
            Err(failure) => {
                work.backlog.give_back(keys);
                work.rolled_back(&failure);
            }
        }
    }

    /// Sends a batch to the embedder.
    fn send(
        &mut self,
        id: i32,
        keys: Vec<Taken>,
        documents: Vec<Document>,
        provider: Provider,
        priority: Priority,
    ) {
        let Some(work) = self.tables.get_mut(&id) else { return };
        self.last_request += 1;
        let is_local = provider.kind == Kind::Local;
        let share = Share { account: account(&provider), priority, is_local };
        let texts: Vec<String> = documents.iter().map(|d| beginning(&d.text).to_string()).collect();
        let model = foreign::model(&work.table, provider.kind);
        let vectors = texts.len() * model.dimensions as usize * size_of::<f32>();
        let bytes = vectors + texts.iter().map(String::len).sum::<usize>();
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
            self.lose_embedder(&error.to_string());
        }
    }

    /// The connection broke: everything that was sent is work again, after a rest.
    fn lose_embedder(&mut self, reason: &str) {
        debug1!("lost the embedder: {reason}");
        self.client = None;
        self.rest_until = Some(Instant::now() + TROUBLE);
        self.outstanding.clear();
        for flight in std::mem::take(&mut self.flights).into_values() {
            if let Some(work) = self.tables.get_mut(&flight.table_id) {
                work.backlog.give_back(flight.keys);
            }
        }
    }

    /// Takes in what the embedder has answered.
    fn receive(&mut self) {
        let Some(client) = &mut self.client else { return };
        match client.receive() {
            Ok(replies) => replies.into_iter().for_each(|reply| self.land(reply)),
            Err(error) => self.lose_embedder(&error.to_string()),
        }
    }

    /// Brings one answer into its vector table.
    fn land(&mut self, reply: Reply) {
        let Some(flight) = self.flights.remove(&reply.id) else { return };
        let Flight { table_id, keys, documents, share, bytes } = flight;
        self.outstanding.remove(share, documents.len(), bytes);
        // A vector table that was dropped meanwhile takes its keys with it.
        let Some(work) = self.tables.get_mut(&table_id) else { return };
        match reply.outcome {
            Ok(embeddings) => self.store(table_id, keys, &documents, &embeddings),
            Err(failure) => {
                work.backlog.park(keys);
                let wait = failure.retry_after_ms.map(Duration::from_millis);
                work.embedding_failed(&in_full(&failure), !failure.is_transient(), wait);
            }
        }
    }
}

impl Engine {
    /// Stores vectors. Where a row is to blame for a failure, the halves are stored each for itself: they are paid for.
    fn store(
        &mut self,
        id: i32,
        mut keys: Vec<Taken>,
        documents: &[Document],
        embeddings: &Embeddings,
    ) {
        let Some(work) = self.tables.get_mut(&id) else { return };
        match batch::store(work, &keys, documents, embeddings) {
            Ok(()) => {
                work.batch = work.batch.saturating_mul(2);
                finish(work, &keys);
                work.succeeded();
            }
            Err(failure) if failure.is_of_a_row() && keys.len() > 1 => {
                let half = keys.len() / 2;
                let rest = keys.split_off(half);
                let (first, second) = documents.split_at(half);
                self.store(id, keys, first, &embeddings.part(0..half));
                self.store(id, rest, second, &embeddings.part(half..documents.len()));
            }
            Err(failure) if failure.is_of_a_row() => self.narrow(id, keys, &failure),
            Err(failure) => {
                work.backlog.give_back(keys);
                work.rolled_back(&failure);
            }
        }
    }

    /// Ends what works for this process elsewhere, because it is about to leave the database.
    pub fn leave(&mut self) {
        self.tables.values_mut().for_each(Work::end_builder);
        self.schedule.end_all();
    }
}

/// Keys are done: so are their rows of the queue.
fn finish(work: &mut Work, keys: &[Taken]) {
    work.backlog.finish(keys);
    work.count_done(keys.len());
    let is_paged = |taken: &Taken| taken.origins.iter().any(|o| matches!(o, Origin::PagedRow(_)));
    if keys.iter().any(is_paged) {
        // The worker whose scan has found them waits for it.
        // SAFETY: a plain global of the process.
        shared::wake_worker(unsafe { pg_sys::MyDatabaseId });
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
