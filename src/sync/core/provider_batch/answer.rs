//! What follows from an answer of the embedder about a batch API. Pure.

use std::time::{Duration, Instant};

use embedd_wire::{BatchAnswer, BatchOrder, BatchState, Failure, FailureClass};

use super::{BELIEVE_GONE, BatchNews, BatchStep, FIND_AFTER, LOOK, ProviderBatches};

impl ProviderBatches {
    /// The connection to the embedder broke: what became of the order is not known.
    pub fn lost(&mut self, now: Instant) {
        match self.asked.take() {
            Some(BatchOrder::Submit { token, .. }) => self.look_for(&token, now),
            Some(_) => self.pause.fail(now, None),
            None => {}
        }
    }

    /// A batch may have been handed in: it is looked for when it must be in the provider's list.
    fn look_for(&mut self, token: &str, now: Instant) {
        self.to_submit.take_if(|(submitted, _)| submitted == token);
        if let Some(batch) = self.batch(token) {
            batch.look_at = now + FIND_AFTER;
        }
    }

    /// The embedder has answered.
    pub fn on_answer(&mut self, answer: Result<BatchAnswer, Failure>, now: Instant) -> BatchNews {
        let Some(order) = self.asked.take() else { return BatchNews::Works };
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return self.failed(order, &failure, now),
        };
        self.pause.reset();
        match (order, answer) {
            (BatchOrder::Submit { token, .. }, BatchAnswer::Submitted { batch, texts }) => {
                let left_out = match self.to_submit.take() {
                    Some((_, sent)) => {
                        sent.into_iter().skip(texts as usize).map(|text| text.id).collect()
                    }
                    None => Vec::new(),
                };
                self.to_write.push_back(BatchStep::SetName { token, name: batch, left_out });
            }
            (BatchOrder::Find { token }, BatchAnswer::Found { batch }) => {
                self.to_write.push_back(match batch {
                    Some(name) => BatchStep::SetName { token, name, left_out: Vec::new() },
                    None => BatchStep::Forget { token },
                });
            }
            (BatchOrder::Collect { batch: name }, answer) => {
                return self.collected(&name, answer, now);
            }
            (BatchOrder::Cancel { batch: name }, _) => self.cancelled(&name, now),
            (BatchOrder::Delete { batch: name }, _) => {
                self.to_delete.retain(|known| *known != name)
            }
            _ => {}
        }
        BatchNews::Works
    }

    fn cancelled(&mut self, name: &str, now: Instant) {
        let token = self.token_of(name);
        if let Some(batch) = token.and_then(|token| self.batch(&token)) {
            batch.is_cancelled = true;
            batch.looks.reset();
            batch.look_at = now + LOOK.0;
        }
    }

    fn collected(&mut self, name: &str, answer: BatchAnswer, now: Instant) -> BatchNews {
        let Some(token) = self.token_of(name) else { return BatchNews::Works };
        let is_wanted = self.is_wanted;
        let Some(batch) = self.batch(&token) else { return BatchNews::Works };
        let pause = batch.looks.next_pause();
        batch.look_at = now + pause;
        match answer {
            BatchAnswer::Working { done, .. } => {
                if std::mem::replace(&mut batch.done, done) != done {
                    self.to_write.push_back(BatchStep::SetDone { token, done });
                }
                BatchNews::Works
            }
            BatchAnswer::Ended(end) => {
                let age = batch.age + now.saturating_duration_since(batch.planned);
                let reason = end.reason.clone().unwrap_or_else(|| "no reason given".to_string());
                let is_gone = end.state == BatchState::Gone;
                if is_gone && is_wanted && age < BELIEVE_GONE {
                    let reason = format!(
                        "the provider does not know batch \"{name}\" any more ({reason}). Check its base_url and its key; cancel_backfill() gives the batch up"
                    );
                    return BatchNews::Fails { reason, is_stuck: true };
                }
                let has_failed = end.ids.is_empty() && end.refused.is_empty();
                self.to_write.push_back(BatchStep::Store { token, end });
                if has_failed && is_wanted {
                    let reason = format!(
                        "batch \"{name}\" has brought nothing: {reason}. Its texts are handed in again"
                    );
                    return BatchNews::Fails { reason, is_stuck: false };
                }
                BatchNews::Works
            }
            _ => BatchNews::Works,
        }
    }

    /// An order has failed: it is given again after a pause, but for one that may have handed in a batch.
    fn failed(&mut self, order: BatchOrder, failure: &Failure, now: Instant) -> BatchNews {
        let wait = failure.retry_after_ms.map(Duration::from_millis);
        match order {
            // What is at the provider is collected meanwhile.
            BatchOrder::Submit { token, .. } => {
                self.hand_in.fail(now, wait);
                self.look_for(&token, now);
            }
            // It has ended by itself, and cannot be cancelled any more.
            BatchOrder::Cancel { batch } if failure.class == FailureClass::Refused => {
                self.cancelled(&batch, now);
                return BatchNews::Works;
            }
            BatchOrder::Delete { batch } => {
                // It is tidiness, which nothing waits for.
                self.to_delete.retain(|known| *known != batch);
                return BatchNews::Works;
            }
            BatchOrder::Cancel { .. } | BatchOrder::Find { .. } | BatchOrder::Collect { .. } => {
                self.pause.fail(now, wait);
            }
        }
        BatchNews::Fails { reason: failure.reason(), is_stuck: !failure.is_transient() }
    }
}
