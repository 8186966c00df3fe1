//! Makes every vector table of a database equal to its source: the engine that a sync worker runs round by round.

mod apply;
mod backlog;
mod load;
mod reader;
mod scan;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use pgrx::prelude::*;

use self::backlog::Taken;
use self::load::{Document, Need};
use self::reader::{Reader, Seen};
use self::scan::{Scan, Step};
use self::work::Work;
use crate::embedder::client::Client;
use crate::embedder::wire::{
    Embeddings, Failure, FailureClass, InputType, Priority, Reply, Request,
};
use crate::provider::{Model, Provider};
use crate::worker::transaction::{self, RolledBack};
use crate::{catalog, guc, queue};

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
}

/// A request that the embedder works on.
struct Flight {
    table_id: i32,
    keys: Vec<Taken>,
    documents: Vec<Document>,
    is_paged: bool,
}

/// The engine of one database.
#[derive(Default)]
pub struct Engine {
    tables: BTreeMap<i32, Work>,
    reader: Reader,
    client: Option<Client>,
    flights: HashMap<u64, Flight>,
    last_request: u64,
    /// The table that was served last; the next one goes first.
    last_served: i32,
    rest_until: Option<Instant>,
    /// Why the queue could not be read the last time, logged once.
    read_trouble: Option<String>,
}

impl Engine {
    /// Takes replies in, reads what has changed, and gives out work.
    pub fn round(&mut self) -> Round {
        self.receive();
        let unread = match self.reader.read(&mut self.tables) {
            Ok(Seen::NoExtension) => return Round::NoExtension,
            Ok(Seen::AnotherExtension) => {
                *self = Self::default();
                return Round::Wait(Duration::ZERO);
            }
            Ok(Seen::Read { more }) => {
                self.read_trouble = None;
                more
            }
            Err(failure) => {
                if self.read_trouble.as_ref() != Some(&failure.message) {
                    log!("could not read the queue: {}", failure.message);
                    self.read_trouble = Some(failure.message);
                }
                return Round::Wait(TROUBLE);
            }
        };
        for work in self.tables.values_mut() {
            work.note_if_due();
        }
        let more = self.give_out();
        Round::Wait(if more || unread { Duration::ZERO } else { self.pause() })
    }

    /// The connection to the embedder, to be waited for: its socket, and whether there is more to be sent.
    pub fn socket(&self) -> Option<(i32, bool)> {
        self.client.as_ref().map(|client| (client.fd(), client.wants_write()))
    }

    /// Time until something is due without anybody waking the worker.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let due = self.tables.values().filter_map(Work::due).chain(self.rest_until);
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
        let limit = guc::batches_in_flight();
        let mut idle = 0;
        for _ in 0..LOADS_PER_ROUND {
            if self.flights.len() >= limit {
                return false;
            }
            // Fair share: tables take turns, and the turn goes on where the last round ended.
            let ids: Vec<i32> = self.tables.keys().copied().collect();
            let next = ids.iter().find(|id| **id > self.last_served).or(ids.first());
            let Some(id) = next.copied() else { return false };
            self.last_served = id;
            if self.serve(id, limit, now) {
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
    fn serve(&mut self, id: i32, limit: usize, now: Instant) -> bool {
        let paged = self.flights.values().filter(|f| f.is_paged).count();
        let Some(work) = self.tables.get_mut(&id) else { return false };
        if !work.is_active() || work.is_resting(now) {
            return false;
        }
        let mut served = advance_scan(work);
        // One request is kept for changes, so that a backfill does not make them wait.
        let paged_too = paged + 1 < limit || limit == 1;
        let keys = work.backlog.take(guc::batch_texts().min(work.batch), paged_too);
        if !keys.is_empty() {
            served = true;
            self.load(id, keys);
        }
        served
    }

    /// Reads the documents of a batch, does what needs no provider, and sends off the rest.
    fn load(&mut self, id: i32, keys: Vec<Taken>) {
        let Some(work) = self.tables.get_mut(&id) else { return };
        match load_and_do(work, &keys) {
            Ok(Loaded { done, unread, to_embed, documents }) => {
                if to_embed.is_empty() {
                    work.batch = work.batch.saturating_mul(2);
                }
                work.backlog.finish(&done);
                work.backlog.give_back(unread);
                if !done.is_empty() {
                    work.succeeded();
                }
                if !to_embed.is_empty() {
                    self.send(id, to_embed, documents);
                }
            }
            Err(failure) if failure.is_of_a_row() && keys.len() > 1 => {
                work.batch = keys.len() / 2;
                work.backlog.give_back(keys);
            }
            Err(failure) if failure.is_of_a_row() => set_aside(work, keys, &failure),
            Err(failure) => {
                work.backlog.give_back(keys);
                work.rolled_back(&failure);
            }
        }
    }

    /// Sends a batch to the embedder.
    fn send(&mut self, id: i32, keys: Vec<Taken>, documents: Vec<Document>) {
        let Some(work) = self.tables.get_mut(&id) else { return };
        self.last_request += 1;
        let request = Request {
            id: self.last_request,
            provider: Provider::local(),
            model: Model::of_unknown_limits(&work.table.model, work.table.dimensions as u32),
            input_type: InputType::Document,
            priority: Priority::Change,
            more: false,
            patience_ms: 0,
            texts: documents.iter().map(|d| beginning(&d.text).to_string()).collect(),
        };
        let is_paged = keys.iter().all(|k| k.origins.iter().all(|o| *o == backlog::Origin::Page));
        let flight = Flight { table_id: id, keys, documents, is_paged };
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
        // A vector table that was dropped meanwhile takes its keys with it.
        let Some(work) = self.tables.get_mut(&flight.table_id) else { return };
        match reply.outcome {
            Ok(embeddings) => match store(work, &flight, &embeddings) {
                Ok(()) => {
                    work.batch = work.batch.saturating_mul(2);
                    work.backlog.finish(&flight.keys);
                    work.succeeded();
                }
                Err(failure) if failure.is_of_a_row() && flight.keys.len() > 1 => {
                    work.batch = flight.keys.len() / 2;
                    work.backlog.give_back(flight.keys);
                }
                Err(failure) if failure.is_of_a_row() => set_aside(work, flight.keys, &failure),
                Err(failure) => {
                    work.backlog.give_back(flight.keys);
                    work.embedding_failed = true;
                    work.rolled_back(&failure);
                }
            },
            Err(failure) => {
                work.backlog.give_back(flight.keys);
                work.embedding_failed = true;
                let stuck = failure.class != FailureClass::Unavailable;
                work.failed(&in_full(&failure), stuck);
            }
        }
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

/// Goes on with the scan of a table when its page is done; false when there is nothing to go on with.
fn advance_scan(work: &mut Work) -> bool {
    if work.scan.is_none() && !work.marks.is_empty() {
        work.scan = Some(Scan::of_marks(std::mem::take(&mut work.marks)));
        // What was loaded before the TRUNCATE may be stored after the scan has passed: it is looked at again.
        work.backlog.add_page(work.backlog.in_work());
    }
    let Some(scan) = &work.scan else { return false };
    if !work.backlog.is_page_done() {
        return false;
    }
    let table = &work.table;
    match transaction::run(|| Spi::connect_mut(|client| scan.step(client, table))) {
        Ok((Step::Page(keys), next)) => {
            work.backlog.add_page(keys);
            work.scan = Some(next);
        }
        Ok((Step::Done, _)) => {
            work.scan = None;
            work.succeeded();
        }
        Err(failure) => work.rolled_back(&failure),
    }
    true
}

/// A batch after its documents were read.
struct Loaded {
    done: Vec<Taken>,
    /// Not read for lack of room.
    unread: Vec<Taken>,
    to_embed: Vec<Taken>,
    documents: Vec<Document>,
}

/// Reads the documents and does all that needs no provider, in one transaction.
fn load_and_do(work: &mut Work, keys: &[Taken]) -> Result<Loaded, RolledBack> {
    transaction::run(|| {
        Spi::connect_mut(|client| {
            let names: Vec<&str> = keys.iter().map(|k| k.key.as_str()).collect();
            let needs = load::needs(client, &work.table, &names)?;
            let mut loaded =
                Loaded { done: vec![], unread: vec![], to_embed: vec![], documents: vec![] };
            let (mut gone, mut rewritten) = (Vec::new(), Vec::new());
            for (taken, need) in keys.iter().zip(needs) {
                match need {
                    None => {
                        loaded.unread.push(taken.clone());
                        continue;
                    }
                    Some(Need::Embed(document)) => {
                        loaded.to_embed.push(taken.clone());
                        loaded.documents.push(document);
                        continue;
                    }
                    Some(Need::Nothing) => {}
                    Some(Need::Remove(pk_value)) => gone.push(pk_value),
                    Some(Need::Rewrite(document)) => rewritten.push(document),
                }
                loaded.done.push(taken.clone());
            }
            if !loaded.done.is_empty() {
                apply::remove(client, &work.table, &gone)?;
                apply::rewrite(client, &work.table, &rewritten)?;
                forget_failed(client, work, &loaded.done)?;
                finish(client, work, &loaded.done)?;
            }
            Ok(loaded)
        })
    })
}

/// Stores the vectors of a flight.
fn store(work: &mut Work, flight: &Flight, embeddings: &Embeddings) -> Result<(), RolledBack> {
    work.embedding_failed = false;
    transaction::run(|| {
        Spi::connect_mut(|client| {
            apply::store(client, &work.table, &flight.documents, embeddings)?;
            forget_failed(client, work, &flight.keys)?;
            finish(client, work, &flight.keys)
        })
    })
}

/// Forgets that these keys once failed.
fn forget_failed(
    client: &mut pgrx::spi::SpiClient<'_>,
    work: &Work,
    keys: &[Taken],
) -> crate::error::Result<()> {
    let keys: Vec<String> = keys.iter().map(|k| work.table.shown(&k.key)).collect();
    catalog::forget_failed(client, work.table.id, &keys)
}

/// Removes the rows of the queue that are done with these keys, in the transaction that did them.
fn finish(
    client: &mut pgrx::spi::SpiClient<'_>,
    work: &mut Work,
    keys: &[Taken],
) -> crate::error::Result<()> {
    queue::remove(client, work.table.id, &work.backlog.rows_done_with(keys))?;
    work.note_success(client)
}

/// A row that cannot be read or stored stands aside with its reason, so that the others go on.
fn set_aside(work: &mut Work, keys: Vec<Taken>, failure: &RolledBack) {
    let noted = transaction::run(|| {
        Spi::connect_mut(|client| {
            for taken in &keys {
                let key = work.table.shown(&taken.key);
                catalog::set_failed(client, work.table.id, &key, &failure.message)?;
            }
            finish(client, work, &keys)
        })
    });
    match noted {
        Ok(()) => {
            work.backlog.finish(&keys);
            work.batch = guc::batch_texts();
        }
        Err(failure) => {
            work.backlog.give_back(keys);
            work.rolled_back(&failure);
        }
    }
}
