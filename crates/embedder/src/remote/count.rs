//! Counts the usage of a provider.

use std::time::Duration;

use embedd_wire::Usage;

use super::dispatcher::{Dispatcher, InFlightBatch};
use super::fair_queue::Text;
use super::http::{HttpOutcome, Response};
use crate::job::lock;

impl Dispatcher {
    /// Counts a request for the foreign servers of its texts.
    pub(super) fn count(&self, flight: &InFlightBatch, response: &Response) {
        if matches!(response.outcome, HttpOutcome::NotSent(_)) {
            return;
        }
        let own = (self.provider.database, self.provider.server);
        let account_of = |text: &Text| {
            let request = text.waiters.first().and_then(|(id, _)| self.pending.get(id));
            request.map_or(own, |request| request.account_of)
        };
        let mut ledger = lock(&self.shared.ledger);
        for text in &flight.batch.texts {
            ledger.today(account_of(text)).texts += 1;
        }
        let first = flight.batch.texts.first().map_or(own, account_of);
        let usage: &mut Usage = ledger.today(first);
        usage.add_request(response.latency);
        match &response.outcome {
            HttpOutcome::Answer(answer) => {
                usage.tokens += answer.tokens.unwrap_or_else(|| flight.batch.tokens());
            }
            // The service did the work, so its tokens are paid for.
            HttpOutcome::InvalidReply(_) => usage.tokens += flight.batch.tokens(),
            _ => {}
        }
        if let Some(error) = response.outcome.error() {
            usage.add_error(error);
        }
    }

    /// Counts a request that was aborted because its clients have gone.
    pub(super) fn count_given_up(&self, texts: u64, latency: Duration) {
        let mut ledger = lock(&self.shared.ledger);
        let usage = ledger.today((self.provider.database, self.provider.server));
        usage.add_request(latency);
        usage.texts += texts;
    }
}
