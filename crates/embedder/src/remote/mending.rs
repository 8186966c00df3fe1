//! What becomes of texts that a service did not take together: cut to a limit that is known, or halved until it is.

use std::time::{Duration, Instant};

use embedd_wire::{Failure, LogLevel, quote_literal};

use super::desk::{Desk, Flight};
use super::failure;
use super::group::{GroupKey, No, Probe};
use super::landing::ATTEMPTS;
use super::line::Batch;
use super::size::Lesson;
use crate::providers::{Measure, Refusal};

/// How long it counts that a service has taken a text.
const PROVEN: Duration = Duration::from_secs(60);

impl Desk {
    /// A request that may have been too much at once, or have held a text that the service does not take.
    pub(super) fn too_much(&mut self, mut flight: Flight, refusal: &Refusal, now: Instant) {
        let load = flight.batch.load();
        let Some(group) = self.groups.get_mut(&flight.key) else { return };
        if load.texts > 1 && group.size.exceeds(load) {
            group.size.tried_in_vain(load, now);
            group.size.found(flight.batch.half.take());
            return self.send_again(flight);
        }
        let lesson = refusal.limit.as_ref().filter(|_| load.texts > 1);
        if let Some(lesson) = lesson.and_then(|limit| group.size.stated(load, limit, now)) {
            group.size.found(flight.batch.half.take());
            self.learn(&flight.key, lesson);
            return self.send_again(flight);
        }
        let hint = refusal.limit.as_ref().map(|limit| limit.measure);
        self.suspect(flight, No { reason: refusal.message.clone(), hint }, now);
    }

    /// A reply that is of no use. The log says so once: what passes in smaller requests after all is not seen otherwise.
    pub(super) fn useless(&mut self, flight: Flight, reason: &str, now: Instant) {
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
        let failure = failure::nonsense(&self.provider, reason);
        self.doubt(flight, reason, &failure, now);
    }

    /// Keeps a limit for as long as the service has it, and says so when it is a new one.
    pub(super) fn learn(&mut self, key: &GroupKey, lesson: Lesson) {
        self.shared.learn(&self.provider, &key.model, lesson);
        let Lesson { measure, most: Some(most), is_new: true } = lesson else { return };
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

    /// Texts that the service does not take: halved, once it is known to take anything at all.
    fn suspect(&mut self, flight: Flight, no: No, now: Instant) {
        let Flight { key, batch, .. } = flight;
        let Some(group) = self.groups.get_mut(&key) else { return };
        match group.is_proven(&batch, PROVEN, now) {
            true => self.split(&key, batch, &no, now),
            false => group.suspect(batch, no, now),
        }
    }

    /// The service fell over something that may be one of the texts, or may have nothing to do with them.
    pub(super) fn doubt(
        &mut self,
        mut flight: Flight,
        reason: &str,
        failure: &Failure,
        now: Instant,
    ) {
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
        if flight.key.is_test {
            return self.fail_group(&flight.key, failure, flight.batch);
        }
        // Its halves are sent once each: whatever passes by itself has had its time.
        flight.batch.attempts = ATTEMPTS - 1;
        self.suspect(flight, No::because(reason), now);
    }

    /// Puts texts back that came too early. Their number stays: fewer texts a request would only be more requests.
    pub(super) fn send_later(&mut self, mut flight: Flight, reason: &str) {
        flight.batch.limited += 1;
        if flight.is_probe || !flight.batch.is_suspect() {
            return self.send_again(flight);
        }
        let Some(group) = self.groups.get_mut(&flight.key) else { return };
        group.suspect(flight.batch, No::because(reason), Instant::now());
    }

    /// Puts texts back in front of the others.
    pub(super) fn send_again(&mut self, flight: Flight) {
        let Some(group) = self.groups.get_mut(&flight.key) else { return };
        if flight.is_probe {
            group.probe = Probe::Wanted;
        } else {
            group.line.push_again(flight.batch);
        }
    }

    /// Halves a batch that was refused; a single text is the one that the service does not take.
    pub(super) fn split(&mut self, key: &GroupKey, mut batch: Batch, no: &No, now: Instant) {
        let Some(group) = self.groups.get_mut(key) else { return };
        if let [text] = batch.texts.as_slice() {
            group.size.found(batch.half);
            return self.refuse(&text.clone(), &no.reason);
        }
        if batch.is_suspect() {
            self.pacer.relieve();
        }
        if group.size.exceeds(batch.load()) {
            // A limit has been learned since: it is cut to that when it is sent.
            group.size.found(batch.half);
            batch.half = None;
            return group.line.push_again(batch);
        }
        batch.half = Some(group.size.halve(batch.load(), no.hint, batch.half, now));
        for half in batch.halves() {
            if !half.texts.is_empty() {
                group.line.push_again(half);
            }
        }
    }
}
