//! What happens to a batch that a service does not accept: it is split to a known limit, or bisected to find the text
//! or the limit.

use std::time::{Duration, Instant};

use embedd_wire::{Failure, LogLevel, quote_literal};

use super::completion::ATTEMPTS;
use super::dispatcher::{Dispatcher, InFlightBatch};
use super::failure;
use super::fair_queue::Batch;
use super::group::{GroupKey, Probe, Rejection};
use super::size::LimitChange;
use crate::providers::{Measure, Refusal};

/// How long a service counts as known good after it accepted a text.
const KNOWN_GOOD_FOR: Duration = Duration::from_secs(60);

impl Dispatcher {
    /// A batch that may be too large, or may hold a text that the service rejects.
    pub(super) fn too_much(&mut self, mut flight: InFlightBatch, refusal: &Refusal, now: Instant) {
        let load = flight.batch.load();
        let Some(group) = self.groups.get_mut(&flight.key) else { return };
        if load.texts > 1 && group.size.exceeds(load) {
            group.size.larger_refused(load, now);
            group.size.half_explained(flight.batch.half.take());
            return self.send_again(flight);
        }
        let change = refusal.limit.as_ref().filter(|_| load.texts > 1);
        if let Some(change) = change.and_then(|limit| group.size.stated(load, limit, now)) {
            group.size.half_explained(flight.batch.half.take());
            self.learn(&flight.key, change);
            return self.send_again(flight);
        }
        let hint = refusal.limit.as_ref().map(|limit| limit.measure);
        self.quarantine(flight, Rejection { reason: refusal.message.clone(), hint }, now);
    }

    /// The reply is not valid. The log mentions it once: a problem that disappears in smaller batches would not be
    /// seen otherwise.
    pub(super) fn on_invalid_reply(&mut self, flight: InFlightBatch, reason: &str, now: Instant) {
        let texts = flight.batch.texts.len();
        if let Some(group) = self.groups.get_mut(&flight.key)
            && texts > 1
            && !flight.key.is_test
            && !std::mem::replace(&mut group.has_logged_bad_replies, true)
        {
            let line = format!(
                "provider \"{}\" gave no usable answer to a request of {texts} texts: {reason}",
                self.provider.name
            );
            self.shared.log.send(LogLevel::Warning, line);
        }
        let failure = failure::invalid_reply(&self.provider, reason);
        self.possible_poison(flight, reason, &failure, now);
    }

    /// Stores a learned limit, and logs a new one.
    pub(super) fn learn(&mut self, key: &GroupKey, change: LimitChange) {
        self.shared.learn(&self.provider, &key.model, change);
        let LimitChange { measure, most: Some(most), is_new: true } = change else { return };
        let (name, model) = (&self.provider.name, &key.model.name);
        let line = match measure {
            Measure::Texts => format!(
                "provider \"{name}\" takes at most {most} texts of model \"{model}\" a request; set texts_per_request: \
                 SELECT embedd.update_provider({}, options => '{{\"texts_per_request\": {most}}}')",
                quote_literal(name)
            ),
            Measure::Tokens => format!(
                "provider \"{name}\" takes at most about {most} tokens of model \"{model}\" a request"
            ),
            Measure::Bytes => format!(
                "provider \"{name}\" takes at most about {most} bytes of text of model \"{model}\" a request"
            ),
        };
        self.shared.log.send(LogLevel::Log, line);
    }

    /// Bisects a batch that the service rejects; a service not known to be good is probed first.
    fn quarantine(&mut self, flight: InFlightBatch, rejection: Rejection, now: Instant) {
        let InFlightBatch { key, batch, .. } = flight;
        let Some(group) = self.groups.get_mut(&key) else { return };
        match group.is_known_good(&batch, KNOWN_GOOD_FOR, now) {
            true => self.split(&key, batch, &rejection, now),
            false => group.quarantine(batch, rejection, now),
        }
    }

    /// The service failed, and a text may be the cause (a poison text), or the service itself.
    pub(super) fn possible_poison(
        &mut self,
        mut flight: InFlightBatch,
        reason: &str,
        failure: &Failure,
        now: Instant,
    ) {
        flight.batch.attempts += 1;
        let attempts = flight.batch.attempts;
        self.pacer.pause_before_retry(attempts, now);
        if attempts < ATTEMPTS {
            return self.send_again(flight);
        }
        if flight.is_probe {
            // It fails on the probe too, so the service is down.
            self.pacer.failed(now, now, None);
            self.block_reason = Some(failure.clone());
            return self.fail_group(&flight.key, failure, flight.batch);
        }
        if flight.key.is_test {
            return self.fail_group(&flight.key, failure, flight.batch);
        }
        // Each half is sent once: it has had its retries as part of the whole.
        flight.batch.attempts = ATTEMPTS - 1;
        self.quarantine(flight, Rejection::because(reason), now);
    }

    /// Queues a rate-limited batch again. Its size stays: smaller batches would only mean more requests.
    pub(super) fn on_rate_limited(&mut self, mut flight: InFlightBatch, reason: &str) {
        flight.batch.limited += 1;
        if flight.is_probe || !flight.batch.may_be_too_large() {
            return self.send_again(flight);
        }
        let Some(group) = self.groups.get_mut(&flight.key) else { return };
        group.quarantine(flight.batch, Rejection::because(reason), Instant::now());
    }

    /// Queues a batch again, in front of the others.
    pub(super) fn send_again(&mut self, flight: InFlightBatch) {
        let Some(group) = self.groups.get_mut(&flight.key) else { return };
        if flight.is_probe {
            group.probe = Probe::Needed;
        } else {
            group.queue.push_again(flight.batch);
        }
    }

    /// Bisects a rejected batch; a single text is the one that the service rejects.
    pub(super) fn split(
        &mut self,
        key: &GroupKey,
        mut batch: Batch,
        rejection: &Rejection,
        now: Instant,
    ) {
        let Some(group) = self.groups.get_mut(key) else { return };
        if let [text] = batch.texts.as_slice() {
            group.size.half_explained(batch.half);
            return self.refuse(&text.clone(), &rejection.reason);
        }
        if batch.may_be_too_large() {
            self.pacer.forget_rate();
        }
        if group.size.exceeds(batch.load()) {
            // A limit was learned since: the batch is split to it when it is sent.
            group.size.half_explained(batch.half);
            batch.half = None;
            return group.queue.push_again(batch);
        }
        batch.half = Some(group.size.bisect(batch.load(), rejection.hint, batch.half, now));
        for half in batch.halves() {
            if !half.texts.is_empty() {
                group.queue.push_again(half);
            }
        }
    }
}
