//! Counts what was sent, for those who asked for it.

use std::time::Duration;

use embedd_wire::{Mishap, Usage};

use super::desk::{Desk, Flight};
use super::http::{Reached, Response};
use super::line::Text;
use crate::job::lock;
use crate::providers::RefusalKind;

impl Desk {
    /// Counts a request for those it was made for.
    pub(super) fn count(&self, flight: &Flight, response: &Response) {
        if matches!(response.outcome, Reached::Unsent(_)) {
            return;
        }
        let own = (self.provider.database, self.provider.server);
        let account_of = |text: &Text| {
            let ticket = text.takers.first().and_then(|(id, _)| self.tickets.get(id));
            ticket.map_or(own, |ticket| ticket.account_of)
        };
        let mut ledger = lock(&self.shared.ledger);
        for text in &flight.batch.texts {
            ledger.today(account_of(text)).texts += 1;
        }
        let first = flight.batch.texts.first().map_or(own, account_of);
        let usage: &mut Usage = ledger.today(first);
        usage.add_request(response.latency);
        match &response.outcome {
            Reached::Answer(answer) => {
                usage.tokens += answer.tokens.unwrap_or_else(|| flight.batch.tokens());
            }
            Reached::Refusal(refusal) => usage.add_mishap(match refusal.kind {
                RefusalKind::RateLimited | RefusalKind::QuotaExhausted => Mishap::RateLimited,
                RefusalKind::Unavailable | RefusalKind::Loading => Mishap::Unavailable,
                RefusalKind::KeyRejected => Mishap::KeyRejected,
                _ => Mishap::Refused,
            }),
            Reached::Unreachable(_) | Reached::TimedOut(_) => {
                usage.add_mishap(Mishap::Unavailable);
            }
            // The service has done its work all the same.
            Reached::Nonsense(_) => {
                usage.tokens += flight.batch.tokens();
                usage.add_mishap(Mishap::BadReply);
            }
            Reached::Unsent(_) => {}
        }
    }

    /// Counts a request that was given up because its askers have gone.
    pub(super) fn count_given_up(&self, texts: u64, latency: Duration) {
        let mut ledger = lock(&self.shared.ledger);
        let usage = ledger.today((self.provider.database, self.provider.server));
        usage.add_request(latency);
        usage.texts += texts;
    }
}
