//! Decides when an account may send: how many requests at once, how many a minute, and how long to back off after
//! failures.

mod token_bucket;
mod window;

use std::time::{Duration, Instant};

pub use self::token_bucket::{burst, reserved_for_questions};

use self::token_bucket::TokenBucket;
use self::window::Window;
use embedd_wire::{Limits, Priority};

use crate::providers::Pace;

/// Question requests that may be in flight beyond the window, so that a backfill does not delay them.
const QUESTIONS_BEYOND: usize = 2;

/// The circuit breaker opens after this many failures in a row.
const OPEN_CIRCUIT_AFTER: u32 = 5;

/// First and longest backoff; it doubles with each failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// The longest wait accepted from a service.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    Yes,
    /// Not before this time.
    At(Instant),
    /// When another request has completed.
    Later,
}

/// The pacing of an account.
#[derive(Debug)]
pub struct Pacer {
    most: usize,
    window: Window,
    in_flight: usize,
    /// When a request last completed.
    completed: Option<Instant>,
    /// No request is sent before this time.
    blocked_until: Option<Instant>,
    /// Failures, and rate limits, since the last success.
    failures: u32,
    limits: u32,
    requests: Option<TokenBucket>,
    tokens: Option<TokenBucket>,
    /// Tokens left according to the service, and until when that holds.
    tokens_left: Option<(u64, Instant)>,
    /// Whether a request with an extended timeout is in flight, because the service may be loading its model.
    has_long_request: bool,
}

impl Pacer {
    /// A pacer with a provider's limits.
    pub fn new(limits: &Limits, now: Instant) -> Pacer {
        let mut pacer = Pacer {
            most: 1,
            window: Window::new(now),
            in_flight: 0,
            completed: None,
            blocked_until: None,
            failures: 0,
            limits: 0,
            requests: None,
            tokens: None,
            tokens_left: None,
            has_long_request: false,
        };
        pacer.limit(limits, now);
        pacer
    }

    /// Applies changed limits.
    pub fn limit(&mut self, limits: &Limits, now: Instant) {
        self.most = limits.max_in_flight.max(1) as usize;
        self.window.bound(self.most);
        for (budget, per_minute) in [
            (&mut self.requests, limits.requests_per_minute),
            (&mut self.tokens, limits.tokens_per_minute),
        ] {
            let known = budget.as_ref().map(|budget| budget.per_minute);
            if known != per_minute {
                *budget = per_minute.map(|per_minute| TokenBucket::new(per_minute.max(1), now));
            }
        }
    }

    /// Whether a request with this many tokens may be sent now.
    pub fn permit(&mut self, now: Instant, priority: Priority, tokens: u64) -> Permit {
        // With the circuit breaker open one request tests the service; a request with an extended timeout does not
        // keep a question from doing so.
        let beside = usize::from(self.has_long_request && priority == Priority::Question);
        if self.is_circuit_open() && self.in_flight > beside {
            return Permit::Later;
        }
        let mut room = self.window.room();
        if priority == Priority::Question && self.most > 1 {
            room += QUESTIONS_BEYOND;
        }
        if self.in_flight >= room {
            return Permit::Later;
        }
        self.tokens_left = self.tokens_left.filter(|(_, until)| *until > now);
        let stated = self.tokens_left.filter(|(left, _)| *left < tokens).map(|(_, until)| until);
        let requests = self.requests.as_mut().and_then(|budget| {
            let kept = match priority {
                Priority::Question => 0,
                Priority::Change | Priority::Backfill => reserved_for_questions(budget.per_minute),
            };
            budget.wait(now, kept)
        });
        let own = self.tokens.as_mut().and_then(|budget| budget.wait(now, 0));
        // A question has few tokens, so it does not wait for a large request's tokens to be refilled.
        let tokens = stated.max(own).filter(|_| priority != Priority::Question);
        let blocked = self.blocked_until.filter(|until| *until > now);
        let spaced = self.window.spaced(now, priority == Priority::Question);
        match blocked.max(spaced).max(requests).max(tokens) {
            Some(until) => Permit::At(until),
            None => Permit::Yes,
        }
    }

    /// Records whether a request with an extended timeout is in flight.
    pub fn expect_long(&mut self, has_long_request: bool) {
        self.has_long_request = has_long_request;
    }

    /// A request was sent; the service may count it as several requests.
    pub fn sent(&mut self, now: Instant, requests: usize, tokens: u64) {
        let idle = self.blocked_until.max(self.completed).filter(|_| self.in_flight == 0);
        self.window.sent(now, idle);
        self.in_flight += 1;
        if let Some(budget) = &mut self.requests {
            budget.take(requests as f64);
        }
        if let Some(budget) = &mut self.tokens {
            budget.take(tokens as f64);
        }
        if let Some((left, _)) = &mut self.tokens_left {
            *left = left.saturating_sub(tokens);
        }
    }

    /// A request completed, whatever the outcome.
    pub fn completed(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.completed = Some(now);
    }

    /// The service responded; the latency is known when it did the work. True when that closes the circuit breaker.
    pub fn succeeded(&mut self, now: Instant, latency: Option<Duration>) -> bool {
        let was_open = self.is_circuit_open();
        self.failures = 0;
        self.limits = 0;
        self.window.answered(now, latency);
        was_open
    }

    /// Applies the rate limits in the headers of a reply.
    pub fn observe(&mut self, pace: &Pace, now: Instant) {
        if let (Some(0), Some(reset)) = (pace.remaining_requests, pace.reset_requests) {
            self.block(now + reset.min(LONGEST_WAIT));
        }
        if let (Some(left), Some(reset)) = (pace.remaining_tokens, pace.reset_tokens) {
            self.tokens_left = Some((left, now + reset.min(LONGEST_WAIT)));
        }
    }

    /// The service rate limited a request; returns the backoff.
    pub fn limited(&mut self, sent: Instant, now: Instant, wait: Option<Duration>) -> Duration {
        self.window.limited(sent, now);
        self.back_off(now, wait)
    }

    /// The same, where the rate is not the cause: the window stays as it is.
    pub fn back_off(&mut self, now: Instant, wait: Option<Duration>) -> Duration {
        self.limits = self.limits.saturating_add(1);
        // A zero wait does not count, and jitter keeps clients with the same wait from returning all at once.
        let wait = match wait.filter(|wait| !wait.is_zero()) {
            Some(wait) => {
                wait.min(LONGEST_WAIT).mul_f64(1.0 + 0.1 * fastrand::f64()).max(jittered(PAUSE.0))
            }
            None => jittered(pause(self.limits)),
        };
        self.block(now + wait);
        wait
    }

    /// A request failed, possibly because of one of its texts; backs off before the retry.
    pub fn pause_before_retry(&mut self, attempts: u32, now: Instant) {
        self.block(now + jittered(pause(attempts)));
    }

    /// The service could not be reached or is down; returns the backoff.
    pub fn failed(&mut self, sent: Instant, now: Instant, wait: Option<Duration>) -> Duration {
        self.window.failed(sent, now);
        self.failures = self.failures.saturating_add(1);
        let wait = wait.unwrap_or_default().min(LONGEST_WAIT).max(jittered(pause(self.failures)));
        self.block(now + wait);
        wait
    }

    /// Whether the circuit breaker is open: so many requests failed in a row that none should wait for the next.
    pub fn is_circuit_open(&self) -> bool {
        self.failures >= OPEN_CIRCUIT_AFTER
    }

    /// How long nothing will be sent; none when something may be.
    pub fn blocked_for(&self, now: Instant) -> Option<Duration> {
        let until = self.blocked_until.filter(|until| *until > now)?;
        Some(until.saturating_duration_since(now))
    }

    /// Forgets the rate learned from refusals that the size of the batches caused.
    pub fn forget_rate(&mut self) {
        self.window.forget_rate();
    }

    fn block(&mut self, until: Instant) {
        self.blocked_until = self.blocked_until.max(Some(until));
    }
}

/// The backoff after so many failures in a row.
fn pause(failures: u32) -> Duration {
    PAUSE.0.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE.1)
}

/// Adds jitter: between half of it and all of it.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod sharing;
#[cfg(test)]
mod tests;
