//! The embedder's side of a worker: requests that are sent, answers that come, and its end.

use std::time::Instant;

use embedd_wire::{AccountId, Embeddings, Failure as EmbedFailure, FailureClass};

use super::super::database::{Database, Flaw, key, row_of};
use super::{Trouble, Worker};
use crate::sync::core::*;

/// A request that the embedder has.
#[derive(Clone, Debug)]
pub struct Request {
    batch: BatchId,
    rows: Vec<usize>,
    texts: Vec<u32>,
    share: Share,
}

impl Worker {
    pub(super) fn send(&mut self, id: BatchId, database: &Database) -> Outcome {
        let Some(batch) = self.sync.batch(id) else { return Outcome::Done };
        let Stage::Send(documents) = &batch.stage else { return Outcome::Done };
        let share =
            Share { account: AccountId::default(), priority: batch.priority, is_local: false };
        let rows: Vec<usize> = batch.keys.iter().map(|taken| row_of(&taken.key)).collect();
        let texts: Vec<u32> = documents.iter().map(|d| d.text.parse().unwrap_or(0)).collect();
        for (row, text) in rows.iter().zip(&texts) {
            let is_stored = database.vectors[*row].is_some_and(|v| v.vector == Some(*text));
            // Rows that cannot be stored are tried again with each change of them.
            let is_sound = database.source[*row]
                .is_some_and(|source| source.flaw == Flaw::None && source.text == *text);
            if is_sound && (is_stored || self.answered[*row] == Some(*text)) {
                self.broken = Some("7: a vector that has come is paid for again");
            }
            if self.requests.iter().any(|request| request.rows.contains(row)) {
                self.broken = Some("3: a key is in two requests");
            }
        }
        self.limits.add(share, texts.len(), 1);
        self.requests.push_back(Request { batch: id, rows, texts, share });
        Outcome::Sent(share)
    }

    /// The embedder answers a request, as the rows let it; `part` leaves the first text without an answer.
    pub fn answer(
        &mut self,
        number: usize,
        database: &Database,
        trouble: &Trouble,
        part: bool,
        now: Instant,
    ) {
        let Some(request) = self.requests.remove(number) else { return };
        let flaw = |row: &usize| database.source[*row].map_or(Flaw::None, |source| source.flaw);
        if request.rows.iter().any(|row| flaw(row) == Flaw::Poison) {
            self.requests.insert(number, request);
            return self.end_embedder();
        }
        let alone = (request.rows.len() == 1 && !part && !trouble.provider_is_down)
            .then(|| key(request.rows[0]));
        self.quarantine.on_answer(alone.as_ref().map(|key| (1, key.as_str())));
        self.limits.remove(request.share, request.texts.len(), 1);
        let failure =
            EmbedFailure::new(FailureClass::Unavailable, "the provider is down".to_string());
        if trouble.provider_is_down {
            return self.sync.on_answer(request.batch, Err(failure), now);
        }
        let unanswered: Vec<u32> = if part { vec![0] } else { vec![] };
        let refused = (0..).zip(&request.rows).filter(|(_, row)| flaw(row) == Flaw::Refused);
        let refused: Vec<(u32, String)> =
            refused.map(|(n, _)| (n, "refused".to_string())).collect();
        for (n, (row, text)) in (0..).zip(request.rows.iter().zip(&request.texts)) {
            if !unanswered.contains(&n) && !refused.iter().any(|(r, _)| *r == n) {
                self.answered[*row] = Some(*text);
                self.paid.push(*text);
            }
        }
        let embeddings = Embeddings {
            dimensions: 1,
            values: request.texts.iter().map(|text| *text as f32).collect(),
            truncated: vec![false; request.texts.len()],
            refused,
            failure: part.then_some(failure),
            unanswered,
        };
        self.sync.on_answer(request.batch, Ok(embeddings), now);
    }

    /// The embedder ends.
    pub fn end_embedder(&mut self) {
        let alone = match self.requests.make_contiguous() {
            [request] if request.rows.len() == 1 => Some((request.batch, key(request.rows[0]))),
            _ => None,
        };
        let is_poison = self.quarantine.on_end(alone.as_ref().map(|(_, key)| (1, key.as_str())));
        if let Some((batch, _)) = alone.filter(|_| is_poison) {
            self.sync.set_aside(batch, "the embedder ended each time");
        }
        self.requests.clear();
        self.limits.clear();
        self.sync.embedder_lost();
    }
}
