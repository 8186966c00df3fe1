//! A request that waits for a service: its texts, the vectors that have come back, and where the reply goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use embedd_wire::{Embeddings, Failure, Kind, Priority, Request};
use tokio::sync::oneshot;

use crate::job::Outcome;
use crate::providers::measure;

/// The id of a pending request, and the number of one of its distinct texts.
pub type Waiter = (u64, u32);

/// A text to be sent.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where its vector goes.
    pub waiter: Waiter,
    /// The text as it is sent.
    pub text: Arc<str>,
    /// Its tokens, counted or estimated.
    pub tokens: u32,
}

/// A request that waits for vectors.
pub struct PendingRequest {
    /// The client that sent it.
    pub client_id: u64,
    /// Its priority.
    pub priority: Priority,
    /// The database and the foreign server that its usage is counted for.
    pub account_of: (u32, u32),
    /// When the client gives up.
    pub deadline: Instant,
    dimensions: usize,
    /// For each text of the request, its number among the distinct texts.
    slots: Vec<u32>,
    truncated: Vec<bool>,
    vectors: Vec<Vec<f32>>,
    refused: HashMap<u32, String>,
    missing: usize,
    reply: Option<oneshot::Sender<Outcome>>,
}

/// A pending request and the texts to be sent for it.
pub struct Submitted {
    pub request: PendingRequest,
    pub items: Vec<Item>,
}

/// Prepares a request: removes duplicates, counts the tokens of each text, and truncates what the model would not
/// accept.
pub fn submit(
    id: u64,
    client_id: u64,
    request: &Request,
    kind: Kind,
    reply: oneshot::Sender<Outcome>,
) -> Submitted {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut slots = Vec::with_capacity(request.texts.len());
    let (mut items, mut truncated) = (Vec::new(), Vec::new());
    for text in &request.texts {
        let next = numbers.len() as u32;
        let number = *numbers.entry(text).or_insert(next);
        slots.push(number);
        if number == next {
            let (tokens, text, cut) = measure(kind, &request.model, text);
            truncated.push(cut);
            items.push(Item { waiter: (id, number), text: text.into(), tokens: tokens.count });
        }
    }
    let missing = items.len();
    let request = PendingRequest {
        client_id,
        priority: request.priority,
        account_of: (request.provider.database, request.provider.server),
        // At most a day, so that the sum cannot overflow.
        deadline: Instant::now() + Duration::from_millis(request.timeout_ms.min(86_400_000)),
        dimensions: request.model.dimensions as usize,
        slots,
        truncated,
        vectors: vec![Vec::new(); missing],
        refused: HashMap::new(),
        missing,
        reply: Some(reply),
    };
    Submitted { request, items }
}

impl PendingRequest {
    /// Whether the client still waits for the outcome.
    pub fn is_awaited(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// Sends the outcome to the client.
    pub fn answer(&mut self, outcome: Outcome) {
        if let Some(reply) = self.reply.take() {
            // The client may have gone meanwhile.
            let _ = reply.send(outcome);
        }
    }

    /// Fails the request. Vectors that have arrived are paid for, so a worker gets them all the same.
    pub fn fail(&mut self, failure: &Failure) {
        let has_some = self.vectors.iter().any(|vector| !vector.is_empty());
        match self.priority == Priority::Question || !has_some {
            true => self.answer(Err(failure.clone())),
            false => self.complete(Some(failure)),
        }
    }

    /// Stores a text's vector; true when it was the last one missing.
    pub fn take(&mut self, number: u32, vector: Vec<f32>) -> bool {
        if let Some(slot) = self.vectors.get_mut(number as usize) {
            *slot = vector;
        }
        self.missing = self.missing.saturating_sub(1);
        self.missing == 0
    }

    /// Records that the service rejects a text; true when it was the last one missing.
    pub fn refuse(&mut self, number: u32, reason: &str) -> bool {
        self.refused.insert(number, reason.to_string());
        self.take(number, Vec::new())
    }

    /// Answers with everything that has arrived; what is missing has failed for this reason.
    pub fn complete(&mut self, failure: Option<&Failure>) {
        let dimensions = match self.dimensions {
            0 => self.vectors.iter().map(Vec::len).max().unwrap_or_default(),
            wanted => wanted,
        };
        let mut all = Embeddings { dimensions, ..Embeddings::default() };
        all.values.reserve_exact(self.slots.len() * dimensions);
        for (position, slot) in (0..).zip(&self.slots) {
            let number = *slot as usize;
            match self.refused.get(slot) {
                Some(reason) => {
                    all.refused.push((position, reason.clone()));
                    all.values.resize(all.values.len() + dimensions, 0.0);
                }
                None if self.vectors[number].is_empty() => {
                    all.unanswered.push(position);
                    all.values.resize(all.values.len() + dimensions, 0.0);
                }
                None => all.values.extend_from_slice(&self.vectors[number]),
            }
            all.truncated.push(self.truncated[number]);
        }
        all.failure = failure.filter(|_| !all.unanswered.is_empty()).cloned();
        self.answer(Ok(all));
    }
}
