//! What a worker has at the embedder: batches are sent to it, and its answers are given to the core.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use embedd_wire::{InputType, Reply, Request, account};
use pgrx::prelude::*;

use super::Engine;
use super::core::{Action, BatchId, Outcome, Share, Stage};
use crate::client::{self, Client, Received, beginning};
use crate::error::{Error, Result};
use crate::fdw;

/// Pause after the embedder could not be reached.
const UNREACHABLE: Duration = Duration::from_secs(1);
/// Pause after the embedder has ended: the next one is started at once, and its socket is open already.
const AFTER_END: Duration = Duration::from_millis(50);

/// A request that the embedder has.
pub struct InFlightRequest {
    table_id: i32,
    batch: BatchId,
    share: Share,
    texts: usize,
    bytes: usize,
}

/// The connection to the embedder, and the requests that it has.
#[derive(Default)]
pub struct Link {
    client: Option<Client>,
    requests: HashMap<u64, InFlightRequest>,
    /// The vector tables whose orders for a batch API it has.
    pub(super) orders: HashMap<u64, i32>,
    last_request: u64,
    /// Nothing is loaded before then: the embedder was lost.
    closed_until: Option<Instant>,
}

impl Link {
    /// The socket to be waited for, and whether there is more to be sent.
    pub fn socket(&self) -> Option<(i32, bool)> {
        self.client.as_ref().map(|client| (client.fd(), client.wants_write()))
    }

    /// Whether the embedder has texts.
    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Whether the embedder has texts or orders.
    pub fn is_busy(&self) -> bool {
        self.has_requests() || !self.orders.is_empty()
    }

    /// The number of the next request.
    pub fn next_request(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    /// The client, connected where it is not yet.
    pub fn connected(&mut self) -> Result<&mut Client> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::connect()?,
        };
        Ok(self.client.insert(client))
    }

    /// Whether nothing is loaded because the embedder was lost a moment ago.
    pub fn is_closed(&mut self, now: Instant) -> bool {
        self.closed_until = self.closed_until.filter(|until| *until > now);
        self.closed_until.is_some()
    }

    /// When that is over.
    pub fn due(&self) -> Option<Instant> {
        self.closed_until
    }
}

impl Engine {
    /// Sends the texts of a batch to the embedder.
    pub(super) fn send(&mut self, table_id: i32, id: BatchId) {
        let Some(table) = self.tables.get_mut(&table_id) else { return };
        let action = Action::Send(id);
        let (Some(batch), Some(provider)) = (table.sync.batch(id), table.to_send.clone()) else {
            return table.done(action, Outcome::Done);
        };
        let Stage::Send(documents) = &batch.stage else { return };
        let share = Share {
            account: account(&provider),
            priority: batch.priority,
            is_local: provider.kind.is_inside(),
        };
        let texts: Vec<String> = documents.iter().map(|d| beginning(&d.text).to_string()).collect();
        let model = fdw::model(&table.config, provider.kind);
        let vectors = texts.len() * model.dimensions as usize * size_of::<f32>();
        // The documents are held until they are stored, with all of their text.
        let held: usize = documents.iter().map(|d| d.text.len() + d.metadata.len()).sum();
        let (count, bytes) = (texts.len(), vectors + held);
        self.limits.add(share, count, bytes);
        let request = Request {
            id: self.link.next_request(),
            provider,
            model,
            input_type: InputType::Document,
            priority: batch.priority,
            more: table.sync.has_more(batch) && self.limits.has_room(share),
            timeout_ms: 0,
            is_test: false,
            texts,
        };
        table.done(action, Outcome::Sent(share));
        let known = InFlightRequest { table_id, batch: id, share, texts: count, bytes };
        self.link.requests.insert(request.id, known);
        if let Err(error) = self.link.connected().and_then(|client| client.send(request)) {
            self.embedder_unreachable(&error);
        }
    }

    /// The embedder could not be reached.
    pub(super) fn embedder_unreachable(&mut self, error: &Error) {
        self.lose_embedder(error, UNREACHABLE);
    }

    /// Takes what the embedder has answered off the connection. It is stored after the queue was read, so that what had
    /// changed by then is known.
    pub(super) fn receive(&mut self) {
        if self.link.is_busy()
            && let Err(error) = client::check_startable()
        {
            return self.embedder_unavailable(&error);
        }
        let Some(client) = &mut self.link.client else { return };
        match client.receive() {
            Ok(replies) => replies.into_iter().for_each(|reply| match reply {
                Received::Texts(reply) => self.on_reply(reply),
                Received::Batch(reply) => self.on_batch_reply(reply),
            }),
            Err(error) => self.embedder_ended(&error),
        }
    }

    fn on_reply(&mut self, reply: Reply) {
        let Some(request) = self.link.requests.remove(&reply.id) else { return };
        let InFlightRequest { table_id, batch, share, texts, bytes } = request;
        let is_embedded =
            matches!(&reply.outcome, Ok(embeddings) if embeddings.unanswered.is_empty());
        let known = self.tables.get(&table_id).and_then(|table| table.sync.batch(batch));
        let alone = known.filter(|known| is_embedded && known.keys.len() == 1);
        self.quarantine.on_answer(alone.map(|known| (table_id, known.keys[0].key.as_str())));
        self.limits.remove(share, texts, bytes);
        // A vector table that was dropped meanwhile takes its batches with it.
        if let Some(table) = self.tables.get_mut(&table_id) {
            table.sync.on_answer(batch, reply.outcome, Instant::now());
        }
    }

    /// The connection broke: everything that was sent waits again, after a pause.
    fn lose_embedder(&mut self, error: &Error, pause: Duration) {
        debug1!("lost the embedder: {error}");
        self.link.client = None;
        self.link.requests.clear();
        self.link.orders.clear();
        self.link.closed_until = Some(Instant::now() + pause);
        self.limits.clear();
        let now = Instant::now();
        for table in self.tables.values_mut() {
            table.sync.embedder_lost();
            table.batches.lost(now);
        }
    }

    /// The embedder has ended while it worked: a text over which it ends is looked for, and its row is noted as failed.
    fn embedder_ended(&mut self, error: &Error) {
        let requests: Vec<&InFlightRequest> = self.link.requests.values().collect();
        let alone = match requests[..] {
            [InFlightRequest { table_id, batch, .. }] => self
                .tables
                .get(table_id)
                .and_then(|table| table.sync.batch(*batch))
                .filter(|known| known.keys.len() == 1)
                .map(|known| (*table_id, *batch, known.keys[0].key.clone())),
            _ => None,
        };
        let row = alone.as_ref().map(|(table_id, _, key)| (*table_id, key.as_str()));
        let is_poison = self.quarantine.on_end(row);
        if let Some((table_id, batch, _)) = alone.filter(|_| is_poison)
            && let Some(table) = self.tables.get_mut(&table_id)
        {
            let reason = "the embedder ended each time it worked on the text of this row alone";
            table.sync.set_aside(batch, reason);
        }
        self.lose_embedder(error, AFTER_END);
    }

    /// Something keeps the embedder from starting: the tables that wait for it say so.
    fn embedder_unavailable(&mut self, error: &Error) {
        let now = Instant::now();
        for table in self.tables.values_mut() {
            table.sync.embedder_unavailable(&error.to_string(), now);
        }
        self.lose_embedder(error, UNREACHABLE);
    }
}
