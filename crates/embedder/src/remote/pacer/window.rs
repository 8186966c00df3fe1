//! How much of a service an account takes: requests in flight, and requests a second where one in flight is too many.

use std::time::{Duration, Instant};

/// Requests in flight before anything is known of a service.
const FIRST_SIZE: f64 = 2.0;

/// A window below this is not halved any more: one request is in flight, and a rate is learned.
const SMALL: f64 = 2.5;

/// Answers that must come after a rate limit before window and rate grow again, and the most that add up.
const OWED: (f64, f64) = (10.0, 30.0);

/// Where answers are rare, this time without a rate limit counts like one.
const OWED_TIME: f64 = 10.0;

/// The part by which window and rate grow with each answer, at most.
const GROWTH: f64 = 0.125;

/// Seconds in which they grow by themselves, at most: of those who share a service the greater does not outgrow the others,
/// and leaves them room for a while.
const GROWTH_TIME: f64 = 90.0;

/// Requests a second that are learned, at least.
const LEAST_RATE: f64 = 1.0 / 60.0;

/// A rate grows at least by this much a second with each second, up to this factor an answer: a slow one would take too long.
const ADDED: (f64, f64) = (0.01, 1.5);

/// The first rate that is learned, in requests a second, is not less than this, or a quarter of one request after another.
const FIRST_RATE: f64 = 1.0;

/// How far a question may go ahead of the spacing: so many requests, or so long after the last.
const QUESTION_AHEAD: (f64, Duration) = (2.0, Duration::from_secs(1));

/// The window of an account, and its rate once that is learned.
#[derive(Debug)]
pub struct Window {
    most: f64,
    size: f64,
    /// Up to here the window grows by one with each answer.
    eased: f64,
    /// Requests a second; learned when a window of one was too many.
    rate: Option<f64>,
    /// Answers owed before anything grows.
    owed: f64,
    /// Seconds an answer takes, on average.
    latency: Option<f64>,
    /// Requests sent before this time do not make the window smaller again.
    narrowed: Option<Instant>,
    /// Answers since the time from which they are counted.
    answers: u32,
    counted_from: Instant,
    last_answer: Instant,
    last_sent: Option<Instant>,
    /// When the spacing lets the next request go.
    next: Option<Instant>,
}

impl Window {
    /// The window of a service that nothing is known of.
    pub fn new(now: Instant) -> Window {
        Window {
            most: 1.0,
            size: FIRST_SIZE,
            eased: f64::INFINITY,
            rate: None,
            owed: 0.0,
            latency: None,
            narrowed: None,
            answers: 0,
            counted_from: now,
            last_answer: now,
            last_sent: None,
            next: None,
        }
    }

    /// Takes another bound on.
    pub fn bound(&mut self, most: usize) {
        self.most = most.max(1) as f64;
    }

    /// Requests that may be in flight.
    pub fn room(&self) -> usize {
        self.size.min(self.most).max(1.0) as usize
    }

    /// When the learned rate lets the next request go; none is now.
    pub fn spaced(&self, now: Instant, is_question: bool) -> Option<Instant> {
        let (rate, next) = (self.rate?, self.next?);
        if !is_question {
            return Some(next).filter(|at| *at > now);
        }
        let ahead = Duration::from_secs_f64(QUESTION_AHEAD.0 / rate);
        let last = self.last_sent.map(|at| at + QUESTION_AHEAD.1);
        let at = next.checked_sub(ahead).into_iter().chain(last).min();
        at.filter(|at| *at > now)
    }

    /// A request goes out. Where no other is in flight, `idle` is since when one could have been, but for the spacing.
    pub fn sent(&mut self, now: Instant, idle: Option<Instant>) {
        // Time in which nothing was asked says nothing about what the service would have taken.
        if let Some(idle) = idle.max(self.next.filter(|_| idle.is_some())) {
            self.counted_from += now.saturating_duration_since(idle);
        }
        self.last_sent = Some(now);
        if let Some(rate) = self.rate {
            // Those who share a service must not stay in step.
            let space = (0.9 + 0.2 * fastrand::f64()) / rate;
            self.next =
                Some(self.next.map_or(now, |at| at.max(now)) + Duration::from_secs_f64(space));
        }
    }

    /// The service has answered; how long that took is known where it has done its work.
    pub fn answered(&mut self, now: Instant, latency: Option<Duration>) {
        if let Some(latency) = latency.map(|latency| latency.as_secs_f64()) {
            let mean = self.latency.get_or_insert(latency);
            *mean += (latency - *mean) / 8.0;
        }
        let passed = now.saturating_duration_since(self.last_answer).as_secs_f64();
        (self.last_answer, self.answers) = (now, self.answers.saturating_add(1));
        if self.rate.is_none() && self.size < self.eased {
            self.size = (self.size + 1.0).min(self.most);
            return;
        }
        if self.owed > 0.0 {
            self.owed -= (passed / OWED_TIME).max(1.0);
            return;
        }
        let grown = 1.0 + (passed / GROWTH_TIME).min(GROWTH);
        match &mut self.rate {
            None => self.size = (self.size * grown).min(self.most),
            Some(rate) => {
                let added = (*rate + ADDED.0 * passed).min(*rate * ADDED.1);
                *rate = added.max(*rate * grown);
                // One request after another is not faster.
                if self.latency.is_some_and(|latency| *rate * latency >= 1.0) {
                    (self.rate, self.next, self.size) = (None, None, 1.0);
                }
            }
        }
    }

    /// A request was too many: half as much from now on, once for all that were in flight together.
    pub fn limited(&mut self, sent: Instant, now: Instant) {
        self.owed = (self.owed.max(0.0) + OWED.0).min(OWED.1);
        self.eased = 0.0;
        if self.narrowed.is_some_and(|at| sent <= at) {
            return;
        }
        if self.size >= SMALL {
            self.size = (self.size.min(self.most) / 2.0).max(1.0);
        } else {
            self.size = 1.0;
            // Without an answer since the last time nothing new is known; the pauses grow instead.
            if self.rate.is_none() || self.answers > 0 {
                let passed = now.saturating_duration_since(self.counted_from).as_secs_f64();
                let went_well = f64::from(self.answers.max(1)) / passed.max(1e-3);
                let rate = match self.rate {
                    None => {
                        let least = 0.25 / self.latency.unwrap_or(1.0).max(1e-3);
                        (went_well / 2.0).max(least.min(FIRST_RATE))
                    }
                    Some(rate) => (rate.min(went_well) / 2.0).max(rate / 4.0).max(LEAST_RATE),
                };
                self.rate = Some(rate);
            }
        }
        (self.narrowed, self.counted_from, self.answers) = (Some(now), now, 0);
    }

    /// The service is out of order: half as much from now on. Half of what went well is soon reached again.
    pub fn failed(&mut self, sent: Instant, now: Instant) {
        if self.narrowed.is_some_and(|at| sent <= at) {
            return;
        }
        let half = (self.size.min(self.most) / 2.0).max(1.0);
        if self.size > self.eased || self.eased.is_infinite() {
            self.eased = half;
        }
        self.size = half;
        (self.narrowed, self.counted_from, self.answers) = (Some(now), now, 0);
    }

    /// Forgets what was learned from refusals that were not about the pace.
    pub fn relieve(&mut self) {
        (self.rate, self.next, self.owed) = (None, None, 0.0);
    }

    /// The rate that was learned, in requests a second.
    #[cfg(test)]
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }
}
