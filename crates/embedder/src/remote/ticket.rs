//! A request on its way through a service: its texts, what has come back of them, and who waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use embedd_wire::{Embeddings, Failure, Kind, Priority, Request};
use tokio::sync::oneshot;

use crate::job::Outcome;
use crate::providers::measure;

/// The number of a ticket, and of one of its different texts.
pub type Taker = (u64, u32);

/// A text that waits to be sent.
#[derive(Debug, Clone)]
pub struct Item {
    /// Whom its vector is for.
    pub taker: Taker,
    /// The text as it is sent.
    pub text: Arc<str>,
    /// How many tokens it has, or about.
    pub tokens: u32,
}

/// A request on its way.
pub struct Ticket {
    /// Whom it came from.
    pub lane: u64,
    /// How urgent it is.
    pub priority: Priority,
    /// Database and foreign server it is counted for.
    pub account_of: (u32, u32),
    /// When the asker gives up.
    pub deadline: Instant,
    dimensions: usize,
    /// For each text of the request, its number among the different ones.
    slots: Vec<u32>,
    truncated: Vec<bool>,
    vectors: Vec<Vec<f32>>,
    refused: HashMap<u32, String>,
    missing: usize,
    reply: Option<oneshot::Sender<Outcome>>,
}

/// A ticket and what is to be sent for it.
pub struct Submitted {
    pub ticket: Ticket,
    pub items: Vec<Item>,
}

/// Prepares a request: equal texts become one, each is measured and cut where the model would not take it.
pub fn submit(
    id: u64,
    lane: u64,
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
            items.push(Item { taker: (id, number), text: text.into(), tokens: tokens.count });
        }
    }
    let missing = items.len();
    let ticket = Ticket {
        lane,
        priority: request.priority,
        account_of: (request.provider.database, request.provider.server),
        // A patience beyond all measure is that of a day.
        deadline: Instant::now() + Duration::from_millis(request.patience_ms.min(86_400_000)),
        dimensions: request.model.dimensions as usize,
        slots,
        truncated,
        vectors: vec![Vec::new(); missing],
        refused: HashMap::new(),
        missing,
        reply: Some(reply),
    };
    Submitted { ticket, items }
}

impl Ticket {
    /// Whether somebody still waits for the outcome.
    pub fn is_awaited(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// Tells the outcome.
    pub fn answer(&mut self, outcome: Outcome) {
        if let Some(reply) = self.reply.take() {
            // Nobody may be waiting any more, and then nobody misses it.
            let _ = reply.send(outcome);
        }
    }

    /// Tells why there will be no more vectors. Those that have come are paid for, and go to a worker all the same.
    pub fn fail(&mut self, failure: &Failure) {
        let has_some = self.vectors.iter().any(|vector| !vector.is_empty());
        match self.priority == Priority::Question || !has_some {
            true => self.answer(Err(failure.clone())),
            false => self.complete(Some(failure)),
        }
    }

    /// Takes a text's vector; true when it was the last that was missing.
    pub fn take(&mut self, number: u32, vector: Vec<f32>) -> bool {
        if let Some(slot) = self.vectors.get_mut(number as usize) {
            *slot = vector;
        }
        self.missing = self.missing.saturating_sub(1);
        self.missing == 0
    }

    /// Notes that the service does not take a text; true when it was the last that was missing.
    pub fn refuse(&mut self, number: u32, reason: &str) -> bool {
        self.refused.insert(number, reason.to_string());
        self.take(number, Vec::new())
    }

    /// Answers with everything that has come; what is missing has failed for this reason.
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
