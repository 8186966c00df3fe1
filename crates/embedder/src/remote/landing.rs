//! What becomes of a request's texts when it has come to its end.

use std::time::{Duration, Instant};

use embedd_wire::{Failure, FailureClass, LogLevel, Priority};

use super::desk::{Desk, Flight};
use super::failure;
use super::group::GroupKey;
use super::http::{Reached, Response};
use super::line::{Batch, Text};
use crate::providers::{Answer, Refusal, RefusalKind};

/// How often texts are sent in vain before their askers are told.
pub(super) const ATTEMPTS: u32 = 3;

/// The status of a service that fell over a request: a text may be to blame.
const INTERNAL_ERROR: u16 = 500;

/// How long documents are kept for an account that takes no more for a while; askers are told of a longer time.
const DOCUMENTS_WAIT: Duration = Duration::from_secs(15);

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
            Reached::Unreachable(reason) => {
                self.unreachable(flight, &reason, None, sent, now, false);
            }
            Reached::TimedOut(reason) => {
                self.timed_out(&flight, sent, now);
                self.unreachable(flight, &reason, None, sent, now, true);
            }
            Reached::Nonsense(reason) => self.useless(flight, &reason, now),
            Reached::Unsent(failure) => self.fail_all(&failure),
        }
        self.give_up(now);
    }

    /// Vectors have come.
    fn answered(&mut self, flight: Flight, answer: Answer, latency: Duration, now: Instant) {
        self.works_again(now, Some(latency));
        let wanted = flight.key.model.dimensions as usize;
        let first = answer.vectors.first().map_or(0, Vec::len);
        if wanted == 0
            && let Some(other) = answer.vectors.iter().map(Vec::len).find(|len| *len != first)
        {
            let reason = format!("provider returned vectors of {first} and of {other} dimensions");
            return self.useless(flight, &reason, now);
        }
        let Flight { key, batch, is_probe } = flight;
        let cap = self.caps(&key.model);
        let Some(group) = self.groups.get_mut(&key) else { return };
        let fits = |vector: &Vec<f32>| wanted == 0 || vector.len() == wanted;
        if !answer.vectors.iter().any(fits) {
            let failure = failure::wrong_size(&self.provider, &key.model, first);
            return self.fail_group(&key, &failure, batch);
        }
        group.proven = Some(now);
        group.probe_attempts = 0;
        let lessons = match is_probe {
            true => Vec::new(),
            false => group.size.answered(batch.load(), cap, batch.half, now),
        };
        let suspects = std::mem::take(&mut group.suspects);
        for lesson in lessons {
            self.learn(&key, lesson);
        }
        for mut suspect in suspects {
            if suspect.batch.outdone() {
                self.split(&key, suspect.batch, &suspect.no, now);
            } else if let Some(group) = self.groups.get_mut(&key) {
                group.line.push_again(suspect.batch);
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
            RefusalKind::Loading => {
                let wait = self.pacer.refrain(now, refusal.retry_after);
                self.trouble = Some(failure::loading(&self.provider, said, wait));
                self.send_again(flight);
            }
            RefusalKind::Unavailable if refusal.status == INTERNAL_ERROR => {
                let wait = refusal.retry_after.unwrap_or_default();
                let failure = failure::unavailable(&self.provider, said, wait);
                self.doubt(flight, said, &failure, now);
            }
            RefusalKind::Unavailable => {
                self.unreachable(flight, said, refusal.retry_after, sent, now, false);
            }
            RefusalKind::Input => {
                self.works_again(now, None);
                if flight.is_probe || flight.key.is_test {
                    // The service takes nothing at all, so it is not the texts.
                    let model = &flight.key.model;
                    let failure = failure::refused(&self.provider, model, refusal.kind, said);
                    return self.fail_group(&flight.key, &failure, flight.batch);
                }
                self.too_much(flight, &refusal, now);
            }
            kind => {
                self.works_again(now, None);
                let failure = failure::refused(&self.provider, &flight.key.model, kind, said);
                match kind {
                    RefusalKind::KeyRejected | RefusalKind::QuotaExhausted => {
                        self.fail_all(&failure);
                    }
                    _ => self.fail_group(&flight.key, &failure, flight.batch),
                }
            }
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
        timed_out: bool,
    ) {
        let was_broken = self.pacer.is_broken();
        let wait = self.pacer.failed(sent, now, wait);
        let failure = match timed_out {
            true => failure::too_slow(&self.provider, reason, wait),
            false => failure::unavailable(&self.provider, reason, wait),
        };
        if self.pacer.is_broken() && !was_broken {
            let name = &self.provider.name;
            let line =
                format!("provider \"{name}\" does not answer, it is tried now and then: {reason}");
            self.shared.log.send(LogLevel::Warning, line);
        }
        self.trouble = Some(failure.clone());
        self.try_again(flight, &failure);
    }

    /// A request got no answer in time: the next one gets more of it, for the service may be loading its model.
    fn timed_out(&mut self, flight: &Flight, sent: Instant, now: Instant) {
        if flight.batch.priority == Priority::Question || !self.timeouts.timed_out(sent, now) {
            return;
        }
        let usual = Duration::from_millis(self.provider.limits.timeout_ms.into());
        let line = format!(
            "provider \"{}\" gave no answer in time, the next request of a worker waits {} s for one",
            self.provider.name,
            self.timeouts.next(usual).as_secs()
        );
        self.shared.log.send(LogLevel::Log, line);
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
    pub(super) fn refuse(&mut self, text: &Text, reason: &str) {
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
            group.clear();
        }
    }

    /// Fails everything of one kind that waits, and a batch.
    pub(super) fn fail_group(&mut self, key: &GroupKey, failure: &Failure, batch: Batch) {
        let mut tickets: Vec<u64> = batch.tickets().collect();
        if let Some(group) = self.groups.get_mut(key) {
            tickets.extend(group.line.tickets());
            tickets.extend(group.suspects.iter().flat_map(|suspect| suspect.batch.tickets()));
            group.clear();
        }
        self.fail(&tickets, failure);
    }

    /// The service is there, whatever it says.
    fn works_again(&mut self, now: Instant, latency: Option<Duration>) {
        if let Some(latency) = latency {
            let usual = Duration::from_millis(self.provider.limits.timeout_ms.into());
            self.timeouts.answered(latency, usual);
        }
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
        let hopeless = self.tickets.iter().filter(|(id, ticket)| {
            broken && !self.has_time(**id)
                || match ticket.priority {
                    Priority::Question => now + rest >= ticket.deadline,
                    Priority::Change | Priority::Backfill => rest > DOCUMENTS_WAIT,
                }
        });
        let hopeless: Vec<u64> = hopeless.map(|(id, _)| *id).collect();
        self.fail(&hopeless, &failure);
    }
}
