//! The congestion window of an account: requests in flight, or requests a second where even one in flight is too many.

use std::time::{Duration, Instant};

/// The window before anything is known about the service.
const FIRST_SIZE: f64 = 2.0;

/// A window below this is not halved: it becomes 1, and a rate is learned.
const SMALL: f64 = 2.5;

/// Answers without a rate limit before window and rate grow again, and the most that add up.
const COOLDOWN: (f64, f64) = (10.0, 30.0);

/// Where answers are rare, this time without a rate limit counts as one answer.
const COOLDOWN_SECONDS: f64 = 10.0;

/// The largest growth of window and rate with each answer.
const GROWTH: f64 = 0.125;

/// The time constant of that growth: they grow by at most 1/90 a second, so that of several accounts that share a
/// service a large one does not outgrow the others.
const GROWTH_TIME: f64 = 90.0;

/// The lowest rate, in requests a second.
const LEAST_RATE: f64 = 1.0 / 60.0;

/// A rate grows at least by this much a second with each second, by at most this factor an answer; a low rate would
/// recover too slowly otherwise.
const ADDED: (f64, f64) = (0.01, 1.5);

/// The lowest first rate in requests a second, unless a quarter of the sequential rate is lower.
const FIRST_RATE: f64 = 1.0;

/// How far a question may go ahead of the rate: so many requests, or so long after the last.
const QUESTION_AHEAD: (f64, Duration) = (2.0, Duration::from_secs(1));

/// The congestion window of an account, and its rate once that is learned.
#[derive(Debug)]
pub struct Window {
    most: f64,
    size: f64,
    /// The slow-start threshold: below it the window grows by one with each answer.
    slow_start_threshold: f64,
    /// Requests a second; learned when a window of one was too many.
    rate: Option<f64>,
    /// Answers still to come before window and rate grow.
    cooldown: f64,
    /// The average latency of an answer, in seconds.
    latency: Option<f64>,
    /// When the window last shrank: requests sent before that do not shrink it again.
    last_shrunk: Option<Instant>,
    /// Answers since `counted_from`.
    answers: u32,
    counted_from: Instant,
    last_answer: Instant,
    last_sent: Option<Instant>,
    /// When the rate allows the next request.
    next: Option<Instant>,
}

impl Window {
    /// The window of a new account.
    pub fn new(now: Instant) -> Window {
        Window {
            most: 1.0,
            size: FIRST_SIZE,
            slow_start_threshold: f64::INFINITY,
            rate: None,
            cooldown: 0.0,
            latency: None,
            last_shrunk: None,
            answers: 0,
            counted_from: now,
            last_answer: now,
            last_sent: None,
            next: None,
        }
    }

    /// Applies another maximum.
    pub fn bound(&mut self, most: usize) {
        self.most = most.max(1) as f64;
    }

    /// How many requests may be in flight.
    pub fn room(&self) -> usize {
        self.size.min(self.most).max(1.0) as usize
    }

    /// When the rate allows the next request; none is now.
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

    /// A request is sent. If no other is in flight, `idle` is since when the account has been idle.
    pub fn sent(&mut self, now: Instant, idle: Option<Instant>) {
        // Idle time shows nothing about the service's capacity.
        if let Some(idle) = idle.max(self.next.filter(|_| idle.is_some())) {
            self.counted_from += now.saturating_duration_since(idle);
        }
        self.last_sent = Some(now);
        if let Some(rate) = self.rate {
            // Jitter, so that clients which share a service do not stay in step.
            let space = (0.9 + 0.2 * fastrand::f64()) / rate;
            self.next =
                Some(self.next.map_or(now, |at| at.max(now)) + Duration::from_secs_f64(space));
        }
    }

    /// The service responded; the latency is known when it did the work.
    pub fn answered(&mut self, now: Instant, latency: Option<Duration>) {
        if let Some(latency) = latency.map(|latency| latency.as_secs_f64()) {
            let mean = self.latency.get_or_insert(latency);
            *mean += (latency - *mean) / 8.0;
        }
        let passed = now.saturating_duration_since(self.last_answer).as_secs_f64();
        (self.last_answer, self.answers) = (now, self.answers.saturating_add(1));
        if self.rate.is_none() && self.size < self.slow_start_threshold {
            self.size = (self.size + 1.0).min(self.most);
            return;
        }
        if self.cooldown > 0.0 {
            self.cooldown -= (passed / COOLDOWN_SECONDS).max(1.0);
            return;
        }
        let grown = 1.0 + (passed / GROWTH_TIME).min(GROWTH);
        match &mut self.rate {
            None => self.size = (self.size * grown).min(self.most),
            Some(rate) => {
                let added = (*rate + ADDED.0 * passed).min(*rate * ADDED.1);
                *rate = added.max(*rate * grown);
                // Back to a window of one: sequential requests are not faster than this rate.
                if self.latency.is_some_and(|latency| *rate * latency >= 1.0) {
                    (self.rate, self.next, self.size) = (None, None, 1.0);
                }
            }
        }
    }

    /// A request was rate limited: halves the window, once for all requests that were in flight together.
    pub fn limited(&mut self, sent: Instant, now: Instant) {
        self.cooldown = (self.cooldown.max(0.0) + COOLDOWN.0).min(COOLDOWN.1);
        self.slow_start_threshold = 0.0;
        if self.last_shrunk.is_some_and(|at| sent <= at) {
            return;
        }
        if self.size >= SMALL {
            self.size = (self.size.min(self.most) / 2.0).max(1.0);
        } else {
            self.size = 1.0;
            // Without an answer since the last time nothing new is known; the backoff grows instead.
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
        (self.last_shrunk, self.counted_from, self.answers) = (Some(now), now, 0);
    }

    /// The service is down: halves the window. Slow start brings half of the old window back soon.
    pub fn failed(&mut self, sent: Instant, now: Instant) {
        if self.last_shrunk.is_some_and(|at| sent <= at) {
            return;
        }
        let half = (self.size.min(self.most) / 2.0).max(1.0);
        if self.size > self.slow_start_threshold || self.slow_start_threshold.is_infinite() {
            self.slow_start_threshold = half;
        }
        self.size = half;
        (self.last_shrunk, self.counted_from, self.answers) = (Some(now), now, 0);
    }

    /// Forgets what was learned from refusals that the rate did not cause.
    pub fn forget_rate(&mut self) {
        (self.rate, self.next, self.cooldown) = (None, None, 0.0);
    }

    /// The learned rate, in requests a second.
    #[cfg(test)]
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }
}
