//! Derives the status of a vector table from what is stored and what is observed.

use crate::catalog::Status;

/// The observations.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Why its source cannot be kept in sync, with the remedy.
    pub failure: Option<String>,
    /// Whether it came from another cluster and has not been compared yet.
    pub is_foreign: bool,
    /// Changes in the queue.
    pub pending: i64,
    /// Whether a comparison is requested or running.
    pub is_compared: bool,
    /// The rows of source and vector table, if both were counted exactly.
    pub counts: Option<Counts>,
    /// Whether the source has lost the unique index on its key.
    pub has_lost_key: bool,
}

/// Row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub source: i64,
    pub stored: i64,
    pub failed: i64,
}

impl Counts {
    /// Whether the vector table has as many rows as its source, apart from failed ones.
    pub fn agree(self) -> bool {
        (self.source - self.failed..=self.source).contains(&self.stored)
    }
}

/// The status, and why it is not `synced` if nothing else says so.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub word: &'static str,
    pub reason: Option<String>,
}

/// Changes are waiting, or a comparison is running.
const SYNCING: &str = "syncing";

/// Whether a difference may only come from counting at two moments, because nothing else explains it.
pub fn is_doubtful(stored: Status, facts: &Facts) -> bool {
    stored == Status::Synced
        && facts.failure.is_none()
        && !facts.is_foreign
        && facts.pending == 0
        && !facts.is_compared
        && facts.counts.is_some_and(|counts| !counts.agree())
}

/// The status of a vector table.
pub fn verdict(stored: Status, name: &str, facts: &Facts) -> Verdict {
    let plain = |word| Verdict { word, reason: None };
    match (stored, &facts.failure) {
        (Status::Paused | Status::Pending, None) => plain(stored.as_str()),
        // A requested action keeps its status; it will fail by itself.
        (Status::Paused | Status::Pending, Some(reason)) => {
            Verdict { word: stored.as_str(), reason: Some(reason.clone()) }
        }
        (_, Some(reason)) => Verdict { word: Status::Error.as_str(), reason: Some(reason.clone()) },
        (Status::Synced, None) => synced(name, facts),
        (other, None) => plain(other.as_str()),
    }
}

/// The status of a table that is stored as `synced`.
fn synced(name: &str, facts: &Facts) -> Verdict {
    if facts.is_foreign {
        let reason = "the vector table came from another cluster and has not been compared with its source yet";
        return Verdict { word: SYNCING, reason: Some(reason.to_string()) };
    }
    if facts.pending > 0 || facts.is_compared {
        return Verdict { word: SYNCING, reason: None };
    }
    match facts.counts.filter(|counts| !counts.agree()) {
        Some(_) if facts.has_lost_key => Verdict {
            word: Status::Error.as_str(),
            reason: Some(format!(
                "rows of the source have the same key, because its unique index no longer exists. Create it or a primary key, and compare: SELECT embedd.reconcile({}).",
                crate::name::quote_literal(name)
            )),
        },
        Some(Counts { source, stored, .. }) => Verdict {
            word: Status::Error.as_str(),
            reason: Some(format!(
                "the source has {source} rows and the vector table {stored}, but no change is waiting. Compare them: SELECT embedd.reconcile({}).",
                crate::name::quote_literal(name)
            )),
        },
        None => Verdict { word: Status::Synced.as_str(), reason: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(stored: Status, facts: &Facts) -> &'static str {
        verdict(stored, "t", facts).word
    }

    #[test]
    fn synced_requires_an_empty_queue_and_equal_counts() {
        let agree = Counts { source: 10, stored: 8, failed: 2 };
        let cases = [
            (Facts::default(), "synced"),
            (Facts { counts: Some(agree), ..Facts::default() }, "synced"),
            (Facts { counts: Some(Counts { stored: 10, ..agree }), ..Facts::default() }, "synced"),
            (Facts { counts: Some(Counts { stored: 7, ..agree }), ..Facts::default() }, "error"),
            (Facts { counts: Some(Counts { stored: 11, ..agree }), ..Facts::default() }, "error"),
            (Facts { pending: 1, ..Facts::default() }, "syncing"),
            (Facts { is_compared: true, ..Facts::default() }, "syncing"),
            (Facts { is_foreign: true, ..Facts::default() }, "syncing"),
            (Facts { failure: Some("x".to_string()), ..Facts::default() }, "error"),
        ];
        for (facts, expected) in cases {
            assert_eq!(word(Status::Synced, &facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn other_statuses_stay_except_for_errors() {
        let failure = Facts { failure: Some("x".to_string()), ..Facts::default() };
        let waits = Facts { pending: 5, ..Facts::default() };
        for (stored, expected) in [
            (Status::Pending, "pending"),
            (Status::Paused, "paused"),
            (Status::Backfilling, "error"),
            (Status::Error, "error"),
        ] {
            assert_eq!(word(stored, &waits), stored.as_str());
            assert_eq!(word(stored, &failure), expected);
            assert_eq!(verdict(stored, "t", &failure).reason.as_deref(), Some("x"));
        }
    }

    #[test]
    fn an_unexplained_difference_is_counted_again() {
        let differ = Some(Counts { source: 2, stored: 1, failed: 0 });
        assert!(is_doubtful(Status::Synced, &Facts { counts: differ, ..Facts::default() }));
        let explained = Facts { counts: differ, pending: 1, ..Facts::default() };
        assert!(!is_doubtful(Status::Synced, &explained));
        assert!(!is_doubtful(Status::Paused, &Facts { counts: differ, ..Facts::default() }));
    }
}
