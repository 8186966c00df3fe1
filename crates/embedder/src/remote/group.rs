//! The texts of one account that may be sent together, and what is known about the service's limits for them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use embedd_wire::{InputType, Model, Priority};

use super::fair_queue::{Batch, FairQueue};
use super::size::Size;

/// Question requests in flight for one model; questions that arrive meanwhile are sent together next.
pub const QUESTIONS_AT_ONCE: usize = 4;

/// What texts of one batch have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupKey {
    pub model: Model,
    pub input_type: InputType,
    /// Whether the request is a test of the provider, which is not retried or bisected.
    pub is_test: bool,
}

/// The texts with one key.
#[derive(Default)]
pub struct Group {
    pub queue: FairQueue,
    /// When the service last accepted a text of this group.
    pub last_accepted: Option<Instant>,
    /// Batches that the service rejected before it was known to be good.
    pub quarantine: VecDeque<Quarantined>,
    pub probe: Probe,
    /// How often the probe failed.
    pub probe_attempts: u32,
    /// The learned limits of a batch.
    pub size: Size,
    /// Whether the log has mentioned invalid replies.
    pub has_logged_bad_replies: bool,
    pub questions_in_flight: usize,
    pub hold_until: Option<Instant>,
}

/// A rejected batch, and why.
pub struct Quarantined {
    pub batch: Batch,
    pub rejection: Rejection,
}

/// Why a batch was rejected.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// The service's message, or what is wrong with its reply.
    pub reason: String,
    /// The measure that exceeds a limit, where the service says so.
    pub hint: Option<crate::providers::Measure>,
}

impl Rejection {
    /// A rejection that does not mention a limit.
    pub fn because(reason: &str) -> Rejection {
        Rejection { reason: reason.to_string(), hint: None }
    }
}

/// The state of the probe, a harmless text that shows whether the service accepts anything of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Probe {
    #[default]
    Idle,
    Needed,
    InFlight,
}

impl Group {
    /// Drops quarantined batches without waiters, so that a probe for them is not paid for.
    pub fn retain_quarantine(&mut self, is_awaited: impl Fn(u64) -> bool) {
        self.quarantine.retain_mut(|quarantined| {
            quarantined.batch.retain(&is_awaited);
            !quarantined.batch.texts.is_empty()
        });
        if self.quarantine.is_empty() {
            self.probe = Probe::Idle;
        }
    }

    /// Keeps a batch back until a probe shows whether the service accepts anything.
    pub fn quarantine(&mut self, batch: Batch, rejection: Rejection, now: Instant) {
        self.size.refused_untested(now);
        self.quarantine.push_back(Quarantined { batch, rejection });
        if self.probe == Probe::Idle {
            self.probe = Probe::Needed;
        }
    }

    /// Whether the service accepted a text lately, or since the batch was first sent.
    pub fn is_known_good(&self, batch: &Batch, within: Duration, now: Instant) -> bool {
        self.last_accepted.is_some_and(|at| {
            now.saturating_duration_since(at) < within
                || batch.first_sent.is_some_and(|since| at > since)
        })
    }

    /// Whether a request of this priority may be sent now.
    pub fn takes(&self, priority: Priority) -> bool {
        priority != Priority::Question || self.questions_in_flight < QUESTIONS_AT_ONCE
    }

    /// Drops everything that waits.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.size.forget();
        self.quarantine.clear();
        self.probe = Probe::Idle;
        self.probe_attempts = 0;
    }
}
