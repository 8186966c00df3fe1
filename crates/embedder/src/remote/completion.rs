//! What happens to the texts of a request when it completes.

use std::time::{Duration, Instant};

use embedd_wire::{Failure, FailureClass, LogLevel, Priority};

use super::caps::caps;
use super::dispatcher::{Dispatcher, InFlightBatch};
use super::failure;
use super::fair_queue::{Batch, Text};
use super::group::GroupKey;
use super::http::{HttpOutcome, Response};
use crate::providers::{Answer, Refusal, RefusalKind, flaw};

/// How often texts are sent before their requests fail.
pub(super) const ATTEMPTS: u32 = 3;

/// The status of a service that failed on a request: one of the texts may be the cause.
const INTERNAL_ERROR: u16 = 500;

/// How long documents wait for an account that is blocked; if it is blocked for longer, their requests fail.
pub(super) const DOCUMENTS_WAIT: Duration = Duration::from_secs(15);

impl Dispatcher {
    /// Handles the response to a request.
    pub(super) fn on_response(&mut self, flight: InFlightBatch, response: Response) {
        let now = Instant::now();
        self.pacer.observe(&response.pace, now);
        if let Some(rest) = self.pacer.blocked_for(now)
            && self.block_reason.is_none()
        {
            let said = "no requests are left for now";
            self.block_reason = Some(failure::limited(&self.provider, said, rest));
        }
        self.count(&flight, &response);
        if flight.is_probe
            && let Some(group) = self.groups.get_mut(&flight.key)
        {
            group.probe_attempts += 1;
        }
        let sent = response.sent;
        match response.outcome {
            HttpOutcome::Answer(answer) => self.answered(flight, answer, response.latency, now),
            HttpOutcome::Refusal(refusal) => self.refused(flight, refusal, sent, now),
            HttpOutcome::Unreachable(reason) => {
                self.unreachable(flight, &reason, None, sent, now, false);
            }
            HttpOutcome::TimedOut(reason) => {
                self.timed_out(&flight, sent, now);
                self.unreachable(flight, &reason, None, sent, now, true);
            }
            HttpOutcome::InvalidReply(reason) => self.on_invalid_reply(flight, &reason, now),
            HttpOutcome::NotSent(failure) => self.fail_all(&failure),
        }
        self.fail_hopeless(now);
    }

    /// The response has vectors.
    fn answered(&mut self, flight: InFlightBatch, answer: Answer, latency: Duration, now: Instant) {
        self.on_service_up(now, Some(latency));
        let wanted = flight.key.model.dimensions as usize;
        let first = answer.vectors.first().map_or(0, Vec::len);
        if wanted == 0
            && let Some(other) = answer.vectors.iter().map(Vec::len).find(|len| *len != first)
        {
            let reason = format!("provider returned vectors of {first} and of {other} dimensions");
            return self.on_invalid_reply(flight, &reason, now);
        }
        let InFlightBatch { key, batch, is_probe } = flight;
        let cap = caps(&self.provider, &key.model);
        let Some(group) = self.groups.get_mut(&key) else { return };
        let fits = |vector: &Vec<f32>| wanted == 0 || vector.len() == wanted;
        if !answer.vectors.iter().any(fits) {
            let failure = failure::wrong_size(&self.provider, &key.model, first);
            return self.fail_group(&key, &failure, batch);
        }
        group.last_accepted = Some(now);
        group.probe_attempts = 0;
        let changes = match is_probe {
            true => Vec::new(),
            false => group.size.answered(batch.load(), cap, batch.half, now),
        };
        let quarantine = std::mem::take(&mut group.quarantine);
        for change in changes {
            self.learn(&key, change);
        }
        for mut quarantined in quarantine {
            if quarantined.batch.others_accepted() {
                self.split(&key, quarantined.batch, &quarantined.rejection, now);
            } else if let Some(group) = self.groups.get_mut(&key) {
                group.queue.push_again(quarantined.batch);
            }
        }
        if is_probe {
            return;
        }
        for (text, vector) in batch.texts.into_iter().zip(answer.vectors) {
            if let Some(flaw) = flaw(&vector, wanted) {
                self.refuse(&text, &flaw);
            } else {
                self.deliver(&text, vector);
            }
        }
    }

    /// The service refused the request.
    fn refused(&mut self, flight: InFlightBatch, refusal: Refusal, sent: Instant, now: Instant) {
        let said = refusal.message.as_str();
        match refusal.kind {
            RefusalKind::RateLimited => {
                let wait = match flight.batch.may_be_too_large() {
                    true => self.pacer.back_off(now, refusal.retry_after),
                    false => self.pacer.limited(sent, now, refusal.retry_after),
                };
                self.block_reason = Some(failure::limited(&self.provider, said, wait));
                self.on_rate_limited(flight, said);
            }
            RefusalKind::Loading => {
                let wait = self.pacer.back_off(now, refusal.retry_after);
                self.block_reason = Some(failure::loading(&self.provider, said, wait));
                self.send_again(flight);
            }
            RefusalKind::Unavailable if refusal.status == INTERNAL_ERROR => {
                let wait = refusal.retry_after.unwrap_or_default();
                let failure = failure::unavailable(&self.provider, said, wait);
                self.possible_poison(flight, said, &failure, now);
            }
            RefusalKind::Unavailable => {
                self.unreachable(flight, said, refusal.retry_after, sent, now, false);
            }
            RefusalKind::Input => {
                self.on_service_up(now, None);
                if flight.is_probe || flight.key.is_test {
                    // The service rejects even this request, so the texts are not the cause.
                    let model = &flight.key.model;
                    let failure = failure::refused(&self.provider, model, refusal.kind, said);
                    return self.fail_group(&flight.key, &failure, flight.batch);
                }
                self.too_much(flight, &refusal, now);
            }
            kind => {
                self.on_service_up(now, None);
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

    /// The service could not be reached, or the connection broke.
    fn unreachable(
        &mut self,
        flight: InFlightBatch,
        reason: &str,
        wait: Option<Duration>,
        sent: Instant,
        now: Instant,
        timed_out: bool,
    ) {
        let was_open = self.pacer.is_circuit_open();
        let wait = self.pacer.failed(sent, now, wait);
        let failure = match timed_out {
            true => failure::too_slow(&self.provider, reason, wait),
            false => failure::unavailable(&self.provider, reason, wait),
        };
        if self.pacer.is_circuit_open() && !was_open {
            let name = &self.provider.name;
            let line =
                format!("provider \"{name}\" does not answer, circuit breaker is open: {reason}");
            self.shared.log.send(LogLevel::Warning, line);
        }
        self.block_reason = Some(failure.clone());
        self.try_again(flight, &failure);
    }

    /// A request timed out: the next one gets a longer timeout, since the service may be loading its model.
    fn timed_out(&mut self, flight: &InFlightBatch, sent: Instant, now: Instant) {
        if flight.batch.priority == Priority::Question || !self.timeouts.timed_out(sent, now) {
            return;
        }
        let usual = Duration::from_millis(self.provider.limits.timeout_ms.into());
        let line = format!(
            "provider \"{}\" timed out, the next request of a worker has a timeout of {} s",
            self.provider.name,
            self.timeouts.next(usual).as_secs()
        );
        self.shared.log.send(LogLevel::Log, line);
    }

    /// Sends texts again, up to [`ATTEMPTS`] times.
    fn try_again(&mut self, mut flight: InFlightBatch, failure: &Failure) {
        flight.batch.attempts += 1;
        if flight.batch.attempts < ATTEMPTS && !self.pacer.is_circuit_open() {
            return self.send_again(flight);
        }
        if flight.is_probe {
            return self.fail_group(&flight.key, failure, flight.batch);
        }
        let request_ids: Vec<u64> = flight.batch.request_ids().collect();
        self.fail(&request_ids, failure);
    }

    /// Hands a vector to each waiter.
    fn deliver(&mut self, text: &Text, vector: Vec<f32>) {
        let mut vector = Some(vector);
        for (place, (id, number)) in text.waiters.iter().enumerate() {
            let last = place + 1 == text.waiters.len();
            let copy = if last { vector.take() } else { vector.clone() };
            let Some(request) = self.pending.get_mut(id) else { continue };
            if request.take(*number, copy.unwrap_or_default()) {
                request.complete(None);
                self.pending.remove(id);
            }
        }
    }

    /// Reports to each waiter of a text that the service rejects it.
    pub(super) fn refuse(&mut self, text: &Text, reason: &str) {
        for (id, number) in &text.waiters {
            let Some(request) = self.pending.get_mut(id) else { continue };
            if request.refuse(*number, reason) {
                request.complete(None);
                self.pending.remove(id);
            }
        }
    }

    /// Fails everything that waits or is in flight.
    fn fail_all(&mut self, failure: &Failure) {
        let all: Vec<u64> = self.pending.keys().copied().collect();
        self.fail(&all, failure);
        for group in self.groups.values_mut() {
            group.clear();
        }
    }

    /// Fails everything of a group that waits, and a batch.
    pub(super) fn fail_group(&mut self, key: &GroupKey, failure: &Failure, batch: Batch) {
        let mut request_ids: Vec<u64> = batch.request_ids().collect();
        if let Some(group) = self.groups.get_mut(key) {
            request_ids.extend(group.queue.request_ids());
            request_ids.extend(
                group.quarantine.iter().flat_map(|quarantined| quarantined.batch.request_ids()),
            );
            group.clear();
        }
        self.fail(&request_ids, failure);
    }

    /// The service responded, whatever the response is.
    fn on_service_up(&mut self, now: Instant, latency: Option<Duration>) {
        if let Some(latency) = latency {
            let usual = Duration::from_millis(self.provider.limits.timeout_ms.into());
            self.timeouts.answered(latency, usual);
        }
        if self.pacer.succeeded(now, latency) {
            let line = format!("provider \"{}\" answers again", self.provider.name);
            self.shared.log.send(LogLevel::Log, line);
        }
        self.block_reason = None;
    }

    /// Fails the requests that would wait too long.
    pub(super) fn fail_hopeless(&mut self, now: Instant) {
        self.fail_capped();
        let (Some(rest), Some(reason)) = (self.pacer.blocked_for(now), &self.block_reason) else {
            return;
        };
        let failure = reason.clone().with_retry_after(rest);
        let is_open = self.pacer.is_circuit_open() && reason.class == FailureClass::Unavailable;
        let hopeless = self.pending.iter().filter(|(id, request)| {
            is_open && !self.has_time(**id)
                || match request.priority {
                    Priority::Question => now + rest >= request.deadline,
                    Priority::Change | Priority::Backfill => rest > DOCUMENTS_WAIT,
                }
        });
        let hopeless: Vec<u64> = hopeless.map(|(id, _)| *id).collect();
        self.fail(&hopeless, &failure);
    }
}
