//! What the status of a vector table is called, from what is stored of it and what is seen at this moment.

use crate::catalog::Status;

/// What was seen of a vector table.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Why its source cannot be kept in sync as it is now, with the remedy.
    pub trouble: Option<String>,
    /// Whether it came from another cluster and was not compared yet.
    pub is_foreign: bool,
    /// Changes in the queue.
    pub pending: i64,
    /// Whether a comparison is asked for or running.
    pub is_compared: bool,
    /// Rows of source and vector table, where both were counted one by one.
    pub counts: Option<Counts>,
    /// Whether the source has lost the unique index on its key.
    pub has_lost_key: bool,
}

/// Rows that were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub source: i64,
    pub stored: i64,
    pub failed: i64,
}

impl Counts {
    /// Whether the vector table has as many rows as its source, but for those that have failed.
    pub fn agree(self) -> bool {
        (self.source - self.failed..=self.source).contains(&self.stored)
    }
}

/// The word that users see, and why it is not `synced` where nothing else says so.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub word: &'static str,
    pub reason: Option<String>,
}

/// Changes wait, or source and vector table are compared.
const SYNCING: &str = "syncing";

/// Whether the counts could be those of two different moments: nothing else explains that they differ.
pub fn is_doubtful(stored: Status, facts: &Facts) -> bool {
    stored == Status::Synced
        && facts.trouble.is_none()
        && !facts.is_foreign
        && facts.pending == 0
        && !facts.is_compared
        && facts.counts.is_some_and(|counts| !counts.agree())
}

/// What the status is called.
pub fn verdict(stored: Status, name: &str, facts: &Facts) -> Verdict {
    let plain = |word| Verdict { word, reason: None };
    match (stored, &facts.trouble) {
        (Status::Paused | Status::Pending, None) => plain(stored.as_str()),
        // What was asked for stays the word; the trouble will meet it.
        (Status::Paused | Status::Pending, Some(reason)) => {
            Verdict { word: stored.as_str(), reason: Some(reason.clone()) }
        }
        (_, Some(reason)) => Verdict { word: Status::Error.as_str(), reason: Some(reason.clone()) },
        (Status::Synced, None) => synced(name, facts),
        (other, None) => plain(other.as_str()),
    }
}

/// What is behind a stored `synced`.
fn synced(name: &str, facts: &Facts) -> Verdict {
    if facts.is_foreign {
        let reason =
            "the vector table came from another cluster and is not compared with its source yet";
        return Verdict { word: SYNCING, reason: Some(reason.to_string()) };
    }
    if facts.pending > 0 || facts.is_compared {
        return Verdict { word: SYNCING, reason: None };
    }
    match facts.counts.filter(|counts| !counts.agree()) {
        Some(_) if facts.has_lost_key => Verdict {
            word: Status::Error.as_str(),
            reason: Some(format!(
                "rows of the source have the same key, which no unique index keeps apart any more. Add one, or the primary key, and compare: SELECT embedd.reconcile({}).",
                crate::name::quote_literal(name)
            )),
        },
        Some(Counts { source, stored, .. }) => Verdict {
            word: Status::Error.as_str(),
            reason: Some(format!(
                "the source has {source} rows and the vector table {stored}, and no change waits. Compare them: SELECT embedd.reconcile({}).",
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
    fn synced_needs_that_nothing_waits_and_the_rows_agree() {
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
            (Facts { trouble: Some("x".to_string()), ..Facts::default() }, "error"),
        ];
        for (facts, expected) in cases {
            assert_eq!(word(Status::Synced, &facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn other_words_stay_but_for_trouble() {
        let trouble = Facts { trouble: Some("x".to_string()), ..Facts::default() };
        let waits = Facts { pending: 5, ..Facts::default() };
        for (stored, in_trouble) in [
            (Status::Pending, "pending"),
            (Status::Paused, "paused"),
            (Status::Backfilling, "error"),
            (Status::Error, "error"),
        ] {
            assert_eq!(word(stored, &waits), stored.as_str());
            assert_eq!(word(stored, &trouble), in_trouble);
            assert_eq!(verdict(stored, "t", &trouble).reason.as_deref(), Some("x"));
        }
    }

    #[test]
    fn a_difference_that_nothing_explains_is_looked_at_again() {
        let differ = Some(Counts { source: 2, stored: 1, failed: 0 });
        assert!(is_doubtful(Status::Synced, &Facts { counts: differ, ..Facts::default() }));
        let explained = Facts { counts: differ, pending: 1, ..Facts::default() };
        assert!(!is_doubtful(Status::Synced, &explained));
        assert!(!is_doubtful(Status::Paused, &Facts { counts: differ, ..Facts::default() }));
    }
}
