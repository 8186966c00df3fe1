//! What the documents of a provider may still use today, by its caps of tokens a day and a month. Questions go on.

use std::time::Duration;

use embedd_wire::{Limits, Priority, Provider, Reached};

use super::Shared;
use super::completion::DOCUMENTS_WAIT;
use super::dispatcher::Dispatcher;
use super::failure;
use crate::job::lock;
use crate::usage::{self, DAY};

/// What documents may use now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// There is no cap.
    Any,
    /// So many tokens.
    Tokens(u64),
    /// Nothing until requests in flight have completed: they may use up the rest.
    Later,
    /// Nothing before this time has passed.
    Capped(Reached, Duration),
}

/// Decides what documents may use at this second since 1970-01-01; `used` are the tokens used since a day.
fn decide(limits: &Limits, second: u64, in_flight: u64, used: impl Fn(u32) -> u64) -> Allowance {
    let today = usage::day(second);
    if let Some(reached) = limits.reached(today, &used) {
        let rest = (u64::from(reached.until) * DAY).saturating_sub(second).max(1);
        return Allowance::Capped(reached, Duration::from_secs(rest));
    }
    match limits.tokens_left(today, used).saturating_sub(in_flight) {
        0 => Allowance::Later,
        left => Allowance::Tokens(left),
    }
}

/// What the documents of a provider may use now, of which so many tokens are in flight.
pub fn allowance(shared: &Shared, provider: &Provider, in_flight: u64) -> Allowance {
    let limits = &provider.limits;
    if !limits.has_caps() {
        return Allowance::Any;
    }
    let ledger = lock(&shared.ledger);
    let of = (provider.database, provider.server);
    decide(limits, usage::seconds(), in_flight, |since| ledger.tokens_since(of, since))
}

impl Dispatcher {
    /// What documents may use now.
    pub(super) fn allowance(&self) -> Allowance {
        allowance(&self.shared, &self.provider, self.tokens_in_flight())
    }

    /// Fails the documents that would wait long for the end of a cap. What is in flight is paid for: its requests
    /// fail when it has completed.
    pub(super) fn fail_capped(&mut self) {
        let Allowance::Capped(reached, rest) = self.allowance() else { return };
        if rest <= DOCUMENTS_WAIT {
            return;
        }
        let waiting = self.pending.iter().filter(|(id, request)| {
            request.priority != Priority::Question && !self.is_in_flight(**id)
        });
        let waiting: Vec<u64> = waiting.map(|(id, _)| *id).collect();
        if !waiting.is_empty() {
            self.fail(&waiting, &failure::capped(&self.provider, &reached, rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use embedd_wire::Period;

    use super::*;

    #[test]
    fn documents_use_what_is_left_and_then_wait_for_the_next_day() {
        let capped = |most| Limits { max_tokens_per_day: Some(most), ..Limits::DEFAULT };
        let noon = 3 * DAY + DAY / 2;
        let used = |since| if since == 3 { 70 } else { 1000 };
        assert_eq!(decide(&capped(100), noon, 0, used), Allowance::Tokens(30));
        assert_eq!(decide(&capped(100), noon, 29, used), Allowance::Tokens(1));
        assert_eq!(decide(&capped(100), noon, 30, used), Allowance::Later);
        let reached = Reached { period: Period::Day, most: 70, used: 70, until: 4 };
        let capped_until = |rest| Allowance::Capped(reached, Duration::from_secs(rest));
        assert_eq!(decide(&capped(70), noon, 5, used), capped_until(DAY / 2));
        assert_eq!(decide(&capped(70), 4 * DAY - 1, 0, used), capped_until(1));
        // The next day begins with nothing.
        assert_eq!(decide(&capped(70), 4 * DAY, 0, |_| 0), Allowance::Tokens(70));
    }
}
