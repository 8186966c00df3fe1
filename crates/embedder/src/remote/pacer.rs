//! Decides when an account may be asked: how much at once, how much a minute, and how long not at all after trouble.

mod budget;
mod window;

use std::time::{Duration, Instant};

pub use self::budget::{left_for_questions, saved_up};

use self::budget::Budget;
use self::window::Window;
use embedd_wire::{Limits, Priority};

use crate::providers::Pace;

/// Requests of questions that may be in flight beyond the window, so that a backfill does not make them wait.
const QUESTIONS_BEYOND: usize = 2;

/// Failures in a row after which the account is left alone for a while.
const BREAK_AFTER: u32 = 5;

/// First and longest pause after trouble; it doubles with each failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// The longest time that a service's word is taken for.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    Yes,
    /// Not before this time.
    At(Instant),
    /// Not before another one has landed.
    Later,
}

/// The state of an account.
#[derive(Debug)]
pub struct Pacer {
    most: usize,
    window: Window,
    in_flight: usize,
    /// When a request last came to its end.
    landed: Option<Instant>,
    /// No request goes out before this time.
    blocked_until: Option<Instant>,
    /// Failures, and rate limits, since the last success.
    failures: u32,
    limits: u32,
    requests: Option<Budget>,
    tokens: Option<Budget>,
    /// Tokens the service says are left, until when.
    tokens_left: Option<(u64, Instant)>,
    /// Whether a request in flight may be long in coming back, for the service may be loading its model.
    has_long_request: bool,
}

impl Pacer {
    /// A pacer within the limits of a provider.
    pub fn new(limits: &Limits, now: Instant) -> Pacer {
        let mut pacer = Pacer {
            most: 1,
            window: Window::new(now),
            in_flight: 0,
            landed: None,
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

    /// Takes other limits on.
    pub fn limit(&mut self, limits: &Limits, now: Instant) {
        self.most = limits.max_in_flight.max(1) as usize;
        self.window.bound(self.most);
        for (budget, per_minute) in [
            (&mut self.requests, limits.requests_per_minute),
            (&mut self.tokens, limits.tokens_per_minute),
        ] {
            let known = budget.as_ref().map(|budget| budget.per_minute);
            if known != per_minute {
                *budget = per_minute.map(|per_minute| Budget::new(per_minute.max(1), now));
            }
        }
    }

    /// Whether a request of so many tokens may go out now.
    pub fn permit(&mut self, now: Instant, priority: Priority, tokens: u64) -> Permit {
        // One request finds out whether the service is back; one that may be long does not keep questions from it.
        let beside = usize::from(self.has_long_request && priority == Priority::Question);
        if self.is_broken() && self.in_flight > beside {
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
        let told = self.tokens_left.filter(|(left, _)| *left < tokens).map(|(_, until)| until);
        let requests = self.requests.as_mut().and_then(|budget| {
            let kept = match priority {
                Priority::Question => 0,
                Priority::Change | Priority::Backfill => left_for_questions(budget.per_minute),
            };
            budget.wait(now, kept)
        });
        let own = self.tokens.as_mut().and_then(|budget| budget.wait(now, 0));
        // A question is a few tokens: it does not wait until those of a great request are earned again.
        let tokens = told.max(own).filter(|_| priority != Priority::Question);
        let blocked = self.blocked_until.filter(|until| *until > now);
        let spaced = self.window.spaced(now, priority == Priority::Question);
        match blocked.max(spaced).max(requests).max(tokens) {
            Some(until) => Permit::At(until),
            None => Permit::Yes,
        }
    }

    /// Whether a request that is given more time than usual is in flight.
    pub fn expect_long(&mut self, has_long_request: bool) {
        self.has_long_request = has_long_request;
    }

    /// Something of so many tokens has gone out that the service counts as so many requests.
    pub fn sent(&mut self, now: Instant, requests: usize, tokens: u64) {
        let idle = self.blocked_until.max(self.landed).filter(|_| self.in_flight == 0);
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

    /// A request has come to its end, whichever.
    pub fn landed(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.landed = Some(now);
    }

    /// The service has answered; how long that took is told where it has done its work. True when that ends a time of trouble.
    pub fn succeeded(&mut self, now: Instant, latency: Option<Duration>) -> bool {
        let was_broken = self.is_broken();
        self.failures = 0;
        self.limits = 0;
        self.window.answered(now, latency);
        was_broken
    }

    /// What a service says of itself in the headers of a reply.
    pub fn told(&mut self, pace: &Pace, now: Instant) {
        if let (Some(0), Some(reset)) = (pace.remaining_requests, pace.reset_requests) {
            self.block(now + reset.min(LONGEST_WAIT));
        }
        if let (Some(left), Some(reset)) = (pace.remaining_tokens, pace.reset_tokens) {
            self.tokens_left = Some((left, now + reset.min(LONGEST_WAIT)));
        }
    }

    /// The service takes no more for a while; returns how long.
    pub fn limited(&mut self, sent: Instant, now: Instant, wait: Option<Duration>) -> Duration {
        self.window.limited(sent, now);
        self.refrain(now, wait)
    }

    /// The same, where the pace is not to blame.
    pub fn refrain(&mut self, now: Instant, wait: Option<Duration>) -> Duration {
        self.limits = self.limits.saturating_add(1);
        // No time at all is none to be taken for one, and those who were told the same must not come back all at once.
        let wait = match wait.filter(|wait| !wait.is_zero()) {
            Some(wait) => {
                wait.min(LONGEST_WAIT).mul_f64(1.0 + 0.1 * fastrand::f64()).max(jittered(PAUSE.0))
            }
            None => jittered(pause(self.limits)),
        };
        self.block(now + wait);
        wait
    }

    /// Something went wrong that may be the fault of a text; nothing is sent for a moment.
    pub fn doubted(&mut self, attempts: u32, now: Instant) {
        self.block(now + jittered(pause(attempts)));
    }

    /// The service could not be reached or broke down; returns how long it is left alone.
    pub fn failed(&mut self, sent: Instant, now: Instant, wait: Option<Duration>) -> Duration {
        self.window.failed(sent, now);
        self.failures = self.failures.saturating_add(1);
        let wait = wait.unwrap_or_default().min(LONGEST_WAIT).max(jittered(pause(self.failures)));
        self.block(now + wait);
        wait
    }

    /// Whether so many requests failed in a row that nobody should wait for the next.
    pub fn is_broken(&self) -> bool {
        self.failures >= BREAK_AFTER
    }

    /// How long nothing will be sent; none when something may be.
    pub fn blocked_for(&self, now: Instant) -> Option<Duration> {
        let until = self.blocked_until.filter(|until| *until > now)?;
        Some(until.saturating_duration_since(now))
    }

    /// Forgets what was learned from refusals that the size of the requests was to blame for.
    pub fn relieve(&mut self) {
        self.window.relieve();
    }

    fn block(&mut self, until: Instant) {
        self.blocked_until = self.blocked_until.max(Some(until));
    }
}

/// The pause after so many failures in a row.
fn pause(failures: u32) -> Duration {
    PAUSE.0.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE.1)
}

/// Between half of it and all of it.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod sharing;
#[cfg(test)]
mod tests;
