//! What becomes of a request's texts when it has come to its end.

use std::time::{Duration, Instant};

use embedd_wire::{Failure, FailureClass, LogLevel, Mishap, Priority, Usage};

use super::desk::{Desk, Flight, GroupKey, Probe};
use super::failure;
use super::http::{Reached, Response};
use super::line::{Batch, Text};
use crate::job::lock;
use crate::providers::{Answer, Refusal, RefusalKind};

/// How often texts are sent in vain before their askers are told.
const ATTEMPTS: u32 = 3;

/// The status of a service that fell over a request: a text may be to blame.
const INTERNAL_ERROR: u16 = 500;

/// How long documents are kept for an account that takes no more for a while; askers are told of a longer time.
const DOCUMENTS_WAIT: Duration = Duration::from_secs(15);

/// How long it counts that a service has taken a text.
const PROVEN: Duration = Duration::from_secs(60);

impl Desk {
    /// Deals with what a request has brought.
    pub(super) fn land(&mut self, flight: Flight, response: Response) {
        let now = Instant::now();
        self.pacer.told(&response.pace, now);
        if let Some(rest) = self.pacer.blocked_for(now)
            && self.trouble.is_none()
        {
            let said = "no requests are left for now";
            self.trouble = Some(failure::limited(&self.provider, said, rest));
        }
        self.count(&flight, &response);
        if flight.is_probe
            && let Some(group) = self.groups.get_mut(&flight.key)
        {
            group.probe_attempts += 1;
        }
        let sent = response.sent;
        match response.outcome {
            Reached::Answer(answer) => self.answered(flight, answer, response.latency, now),
            Reached::Refusal(refusal) => self.refused(flight, refusal, sent, now),
            Reached::Unreachable(reason) => self.unreachable(flight, &reason, None, sent, now),
            Reached::Nonsense(reason) => {
                let failure = failure::nonsense(&self.provider, &reason);
                self.doubt(flight, &reason, &failure, now);
            }
            Reached::Unsent(failure) => self.fail_all(&failure),
        }
        self.give_up(now);
    }

    /// Vectors have come.
    fn answered(&mut self, flight: Flight, answer: Answer, latency: Duration, now: Instant) {
        self.works_again(now, Some(latency));
        let Flight { key, batch, is_probe } = flight;
        let cap = self.caps(&key.0).texts;
        let Some(group) = self.groups.get_mut(&key) else { return };
        let wanted = key.0.dimensions as usize;
        let fits = |vector: &Vec<f32>| wanted == 0 || vector.len() == wanted;
        if !answer.vectors.iter().any(fits) {
            let came = answer.vectors.first().map_or(0, Vec::len);
            let failure = failure::wrong_size(&self.provider, &key.0, came);
            return self.fail_group(&key, &failure, batch);
        }
        group.proven = Some(now);
        group.probe_attempts = 0;
        if !is_probe {
            group.size.answered(batch.texts.len(), cap, batch.half, now);
        }
        for (mut suspect, reason) in std::mem::take(&mut group.suspects) {
            if suspect.outdone() {
                self.split(&key, suspect, &reason, now);
            } else if let Some(group) = self.groups.get_mut(&key) {
                group.line.push_again(suspect);
            }
        }
        if is_probe {
            return;
        }
        for (text, vector) in batch.texts.into_iter().zip(answer.vectors) {
            if !fits(&vector) {
                let reason =
                    format!("the provider returned a vector of {} dimensions for it", vector.len());
                self.refuse(&text, &reason);
            } else if !vector.iter().all(|number| number.is_finite()) {
                self.refuse(&text, "the provider returned a vector with a value that is no number");
            } else if vector.iter().all(|number| *number == 0.0) {
                self.refuse(
                    &text,
                    "the provider returned a vector of zeros, which has no direction",
                );
            } else {
                self.deliver(&text, vector);
            }
        }
    }

    /// The service says no.
    fn refused(&mut self, flight: Flight, refusal: Refusal, sent: Instant, now: Instant) {
        let said = refusal.message.as_str();
        match refusal.kind {
            RefusalKind::RateLimited => {
                let wait = match flight.batch.is_suspect() {
                    true => self.pacer.refrain(now, refusal.retry_after),
                    false => self.pacer.limited(sent, now, refusal.retry_after),
                };
                self.trouble = Some(failure::limited(&self.provider, said, wait));
                self.send_later(flight, said);
            }
            RefusalKind::Unavailable if refusal.status == INTERNAL_ERROR => {
                let wait = refusal.retry_after.unwrap_or_default();
                let failure = failure::unavailable(&self.provider, said, wait);
                self.doubt(flight, said, &failure, now);
            }
            RefusalKind::Unavailable => {
                self.unreachable(flight, said, refusal.retry_after, sent, now);
            }
            RefusalKind::Input => {
                self.works_again(now, None);
                if flight.is_probe {
                    // The service takes nothing at all, so it is not the texts.
                    let model = &flight.key.0;
                    let failure = failure::refused(&self.provider, model, refusal.kind, said);
                    return self.fail_group(&flight.key, &failure, flight.batch);
                }
                self.suspect(flight, said, now);
            }
            kind => {
                self.works_again(now, None);
                let failure = failure::refused(&self.provider, &flight.key.0, kind, said);
                match kind {
                    RefusalKind::KeyRejected | RefusalKind::QuotaExhausted => {
                        self.fail_all(&failure);
                    }
                    _ => self.fail_group(&flight.key, &failure, flight.batch),
                }
            }
        }
    }

    /// Texts that the service does not take: halved, once it is known to take anything at all.
    fn suspect(&mut self, flight: Flight, reason: &str, now: Instant) {
        let Flight { key, batch, .. } = flight;
        let Some(group) = self.groups.get_mut(&key) else { return };
        let since = batch.first_sent;
        let proven = group.proven.is_some_and(|at| {
            now.saturating_duration_since(at) < PROVEN || since.is_some_and(|since| at > since)
        });
        if proven {
            return self.split(&key, batch, reason, now);
        }
        group.suspects.push_back((batch, reason.to_string()));
        if group.probe == Probe::No {
            group.probe = Probe::Wanted;
        }
    }

    /// The service fell over something that may be one of the texts, or may have nothing to do with them.
    fn doubt(&mut self, mut flight: Flight, reason: &str, failure: &Failure, now: Instant) {
        flight.batch.attempts += 1;
        let attempts = flight.batch.attempts;
        self.pacer.doubted(attempts, now);
        if attempts < ATTEMPTS {
            return self.send_again(flight);
        }
        if flight.is_probe {
            // It falls over anything, so it is out of order.
            self.pacer.failed(now, now, None);
            self.trouble = Some(failure.clone());
            return self.fail_group(&flight.key, failure, flight.batch);
        }
        // Its halves are sent once each: whatever passes by itself has had its time.
        flight.batch.attempts = ATTEMPTS - 1;
        self.suspect(flight, reason, now);
    }

    /// Puts texts back that came too early. Their number stays: fewer texts a request would only be more requests.
    fn send_later(&mut self, mut flight: Flight, reason: &str) {
        flight.batch.limited += 1;
        if flight.is_probe || !flight.batch.is_suspect() {
            return self.send_again(flight);
        }
        let Some(group) = self.groups.get_mut(&flight.key) else { return };
        group.suspects.push_back((flight.batch, reason.to_string()));
        if group.probe == Probe::No {
            group.probe = Probe::Wanted;
        }
    }

    /// The service could not be reached, or broke off.
    fn unreachable(
        &mut self,
        flight: Flight,
        reason: &str,
        wait: Option<Duration>,
        sent: Instant,
        now: Instant,
    ) {
        let was_broken = self.pacer.is_broken();
        let wait = self.pacer.failed(sent, now, wait);
        let failure = failure::unavailable(&self.provider, reason, wait);
        if self.pacer.is_broken() && !was_broken {
            let name = &self.provider.name;
            let line =
                format!("provider \"{name}\" does not answer, it is tried now and then: {reason}");
            self.shared.log.send(LogLevel::Warning, line);
        }
        self.trouble = Some(failure.clone());
        self.try_again(flight, &failure);
    }

    /// Sends texts once more, unless that was done often enough.
    fn try_again(&mut self, mut flight: Flight, failure: &Failure) {
        flight.batch.attempts += 1;
        if flight.batch.attempts < ATTEMPTS && !self.pacer.is_broken() {
            return self.send_again(flight);
        }
        if flight.is_probe {
            return self.fail_group(&flight.key, failure, flight.batch);
        }
        let tickets: Vec<u64> = flight.batch.tickets().collect();
        self.fail(&tickets, failure);
    }

    /// Puts texts back in front of the others.
    fn send_again(&mut self, flight: Flight) {
        let Some(group) = self.groups.get_mut(&flight.key) else { return };
        if flight.is_probe {
            group.probe = Probe::Wanted;
        } else {
            group.line.push_again(flight.batch);
        }
    }

    /// Halves a batch that was refused; a single text is the one that the service does not take.
    fn split(&mut self, key: &GroupKey, mut batch: Batch, reason: &str, now: Instant) {
        if let [text] = batch.texts.as_slice() {
            return self.refuse(&text.clone(), reason);
        }
        if batch.is_suspect() {
            self.pacer.relieve();
        }
        let Some(group) = self.groups.get_mut(key) else { return };
        batch.half = Some(group.size.halve(batch.texts.len(), batch.half, now));
        for half in batch.halves() {
            if !half.texts.is_empty() {
                group.line.push_again(half);
            }
        }
    }

    /// Hands a vector to everybody who wants it.
    fn deliver(&mut self, text: &Text, vector: Vec<f32>) {
        let mut vector = Some(vector);
        for (place, (id, number)) in text.takers.iter().enumerate() {
            let last = place + 1 == text.takers.len();
            let copy = if last { vector.take() } else { vector.clone() };
            let Some(ticket) = self.tickets.get_mut(id) else { continue };
            if ticket.take(*number, copy.unwrap_or_default()) {
                ticket.complete(None);
                self.tickets.remove(id);
            }
        }
    }

    /// Tells everybody who wants a text's vector that there is none.
    fn refuse(&mut self, text: &Text, reason: &str) {
        for (id, number) in &text.takers {
            let Some(ticket) = self.tickets.get_mut(id) else { continue };
            if ticket.refuse(*number, reason) {
                ticket.complete(None);
                self.tickets.remove(id);
            }
        }
    }

    /// Fails everything that waits or is in flight.
    fn fail_all(&mut self, failure: &Failure) {
        let all: Vec<u64> = self.tickets.keys().copied().collect();
        self.fail(&all, failure);
        for group in self.groups.values_mut() {
            group.line.clear();
            group.size.forget();
            group.suspects.clear();
            group.probe = Probe::No;
            group.probe_attempts = 0;
        }
    }

    /// Fails everything of one kind that waits, and a batch.
    fn fail_group(&mut self, key: &GroupKey, failure: &Failure, batch: Batch) {
        let mut tickets: Vec<u64> = batch.tickets().collect();
        if let Some(group) = self.groups.get_mut(key) {
            tickets.extend(group.line.tickets());
            tickets.extend(group.suspects.iter().flat_map(|(batch, _)| batch.tickets()));
            group.line.clear();
            group.size.forget();
            group.suspects.clear();
            group.probe = Probe::No;
            group.probe_attempts = 0;
        }
        self.fail(&tickets, failure);
    }

    /// The service is there, whatever it says.
    fn works_again(&mut self, now: Instant, latency: Option<Duration>) {
        if self.pacer.succeeded(now, latency) {
            let line = format!("provider \"{}\" answers again", self.provider.name);
            self.shared.log.send(LogLevel::Log, line);
        }
        self.trouble = None;
    }

    /// Tells those who would have to wait too long.
    pub(super) fn give_up(&mut self, now: Instant) {
        let (Some(rest), Some(trouble)) = (self.pacer.blocked_for(now), &self.trouble) else {
            return;
        };
        let failure = trouble.clone().with_retry_after(rest);
        let broken = self.pacer.is_broken() && trouble.class == FailureClass::Unavailable;
        let hopeless = self.tickets.iter().filter(|(_, ticket)| {
            broken
                || match ticket.priority {
                    Priority::Question => now + rest >= ticket.deadline,
                    Priority::Change | Priority::Backfill => rest > DOCUMENTS_WAIT,
                }
        });
        let hopeless: Vec<u64> = hopeless.map(|(id, _)| *id).collect();
        self.fail(&hopeless, &failure);
    }

    /// Counts a request for those it was made for.
    fn count(&self, flight: &Flight, response: &Response) {
        if matches!(response.outcome, Reached::Unsent(_)) {
            return;
        }
        let own = (self.provider.database, self.provider.server);
        let account_of = |text: &Text| {
            let ticket = text.takers.first().and_then(|(id, _)| self.tickets.get(id));
            ticket.map_or(own, |ticket| ticket.account_of)
        };
        let mut ledger = lock(&self.shared.ledger);
        let first = flight.batch.texts.first().map_or(own, account_of);
        let usage: &mut Usage = ledger.today(first);
        usage.add_request(response.latency);
        match &response.outcome {
            Reached::Answer(answer) => {
                let tokens = answer.tokens.unwrap_or_else(|| flight.batch.tokens());
                usage.tokens += tokens;
                for text in &flight.batch.texts {
                    ledger.today(account_of(text)).texts += 1;
                }
            }
            Reached::Refusal(refusal) => usage.add_mishap(match refusal.kind {
                RefusalKind::RateLimited | RefusalKind::QuotaExhausted => Mishap::RateLimited,
                RefusalKind::Unavailable => Mishap::Unavailable,
                RefusalKind::KeyRejected => Mishap::KeyRejected,
                _ => Mishap::Refused,
            }),
            Reached::Unreachable(_) => usage.add_mishap(Mishap::Unavailable),
            Reached::Nonsense(_) => usage.add_mishap(Mishap::BadReply),
            Reached::Unsent(_) => {}
        }
    }
}
