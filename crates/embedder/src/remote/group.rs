//! The texts of one account that may be sent together, and what is known of how the service takes them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use embedd_wire::{InputType, Model, Priority};

use super::line::{Batch, Line};
use super::size::Size;

/// Requests of questions at the same time, for one model; what comes meanwhile goes together after them.
pub const QUESTIONS_AT_ONCE: usize = 4;

/// What texts that are sent together have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupKey {
    pub model: Model,
    pub input_type: InputType,
    /// Whether the request shows what the service makes of it, and is not mended when it goes wrong.
    pub is_test: bool,
}

/// The texts of one kind.
#[derive(Default)]
pub struct Group {
    pub line: Line,
    /// When the service last took a text of this kind.
    pub proven: Option<Instant>,
    /// Batches that the service refused before it was known to take anything, and why.
    pub suspects: VecDeque<Suspect>,
    pub probe: Probe,
    /// How often the probe was sent in vain.
    pub probe_attempts: u32,
    /// What a request may hold, where the service has not taken more.
    pub size: Size,
    /// Whether the log has a line on replies that were of no use.
    pub has_logged_bad_replies: bool,
    pub questions_in_flight: usize,
    pub hold_until: Option<Instant>,
}

/// A batch that was refused, and why.
pub struct Suspect {
    pub batch: Batch,
    pub no: No,
}

/// Why a batch was refused.
#[derive(Debug, Clone)]
pub struct No {
    /// In the service's words, or in ours on its reply.
    pub reason: String,
    /// What it is too much of, where the service says so.
    pub hint: Option<crate::providers::Measure>,
}

impl No {
    /// A refusal that does not speak of a limit.
    pub fn because(reason: &str) -> No {
        No { reason: reason.to_string(), hint: None }
    }
}

/// Whether a harmless text finds out if the service takes anything of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Probe {
    #[default]
    No,
    Wanted,
    InFlight,
}

impl Group {
    /// Drops suspects whose askers have gone: the answer of the probe would be paid for in vain.
    pub fn retain_suspects(&mut self, is_awaited: impl Fn(u64) -> bool) {
        self.suspects.retain_mut(|suspect| {
            suspect.batch.retain(&is_awaited);
            !suspect.batch.texts.is_empty()
        });
        if self.suspects.is_empty() {
            self.probe = Probe::No;
        }
    }

    /// Puts a batch aside until it is known whether the service takes anything.
    pub fn suspect(&mut self, batch: Batch, no: No, now: Instant) {
        self.size.suspected(now);
        self.suspects.push_back(Suspect { batch, no });
        if self.probe == Probe::No {
            self.probe = Probe::Wanted;
        }
    }

    /// Whether the service has taken a text lately, or since the batch was first sent.
    pub fn is_proven(&self, batch: &Batch, within: Duration, now: Instant) -> bool {
        self.proven.is_some_and(|at| {
            now.saturating_duration_since(at) < within
                || batch.first_sent.is_some_and(|since| at > since)
        })
    }

    /// Whether questions of this kind may go out now.
    pub fn takes(&self, priority: Priority) -> bool {
        priority != Priority::Question || self.questions_in_flight < QUESTIONS_AT_ONCE
    }

    /// Forgets everything that waits.
    pub fn clear(&mut self) {
        self.line.clear();
        self.size.forget();
        self.suspects.clear();
        self.probe = Probe::No;
        self.probe_attempts = 0;
    }
}
