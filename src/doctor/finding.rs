//! Findings: the list of checks, and the order in which their findings are returned.

/// The severity of a finding, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Changes are not synced, questions fail, or something is about to be lost.
    Problem,
    /// It works, but badly, or not for long.
    Warning,
    /// No problem was found.
    Ok,
}

impl State {
    /// The value of the column state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Ok => "ok",
        }
    }
}

/// A row of embedd.doctor().
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub check: &'static str,
    pub state: State,
    /// The affected object; None is the server or the database as a whole.
    pub object: Option<String>,
    pub meaning: String,
    /// A statement that can be pasted into psql, or a sentence if no statement helps.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(check: &'static str, state: State, object: &str, meaning: String) -> Self {
        let object = (!object.is_empty()).then(|| object.to_string());
        Self { check, state, object, meaning, remedy: None }
    }

    /// A problem.
    pub fn problem(check: &'static str, object: &str, meaning: impl Into<String>) -> Self {
        Self::new(check, State::Problem, object, meaning.into())
    }

    /// A warning.
    pub fn warning(check: &'static str, object: &str, meaning: impl Into<String>) -> Self {
        Self::new(check, State::Warning, object, meaning.into())
    }

    /// An explicit result of a check without a problem.
    pub fn fine(check: &'static str, object: &str, meaning: impl Into<String>) -> Self {
        Self::new(check, State::Ok, object, meaning.into())
    }

    /// Adds the remedy.
    pub fn with(mut self, remedy: impl Into<Option<String>>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

/// The checks in order, each with the text for no finding.
const CHECKS: [(&str, &str); 37] = [
    ("preload", "the server was started with embedd"),
    ("extension", "the library and the SQL objects have the same version"),
    ("pgvector", "its version has no known bugs"),
    ("worker_slots", "every sync worker has a slot"),
    ("launcher", "the launcher is running"),
    ("settings", "no setting is unsuitable"),
    ("locks", "max_locks_per_transaction is sufficient for all partitions"),
    ("embedder", "the embedder answers"),
    ("local_model", "the files of the local model are readable"),
    ("provider", "each vector table may use its provider"),
    (
        "provider_call",
        "no provider was called: SELECT * FROM embedd.doctor(call_providers => true) calls each of them",
    ),
    ("model", "no model in use retires within a year"),
    ("vector_table", "the table of each vector table exists"),
    ("source", "the source of each vector table exists"),
    ("columns", "every configured column exists"),
    ("key", "the key of each source is unique, with unchanged types"),
    ("policies", "no policy hides rows of a source from embedd"),
    ("children", "no source has inheritance children whose changes would be missed"),
    ("view", "no view depends on the session that reads it"),
    ("triggers", "the triggers of each source exist and fire"),
    ("unlogged", "no source or vector table is unlogged"),
    ("subscription", "no vector table is filled by a subscription"),
    ("sync", "no vector table has status error"),
    ("backfill", "every vector table is backfilled"),
    ("paused", "no vector table is paused"),
    ("queue", "no change has waited for more than five minutes"),
    ("failed_rows", "no row has failed"),
    ("truncated_rows", "no text was truncated"),
    ("vector_index", "each vector table has an index that queries can use"),
    ("invalid_index", "no vector index is invalid"),
    ("unused_index", "queries can use every vector index"),
    ("deferred_index", "no deferred index lacks a process to build it"),
    ("statistics", "every large table is analyzed"),
    ("dead_rows", "no table has more dead rows than live ones"),
    ("orphaned_table", "every table of vectors belongs to a vector table"),
    ("orphaned_trigger", "every trigger of embedd belongs to a vector table"),
    ("sequence", "every sequence of embedd is ahead of its table and far from its maximum"),
];

/// The position of a check in the order.
fn place(check: &str) -> usize {
    CHECKS.iter().position(|(name, _)| *name == check).unwrap_or(CHECKS.len())
}

/// Sorts problems first, then warnings, then the rest, each in the order of the checks. A check without a finding is
/// reported as fine if all checks could read everything.
pub fn in_order(mut findings: Vec<Finding>, is_complete: bool) -> Vec<Finding> {
    for (check, fine) in CHECKS {
        if is_complete && !findings.iter().any(|finding| finding.check == check) {
            findings.push(Finding::fine(check, "", fine));
        }
    }
    findings.sort_by(|one, other| {
        let key = |f: &Finding| (f.state, place(f.check), f.object.clone());
        key(one).cmp(&key(other))
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_every_check_has_a_row() {
        let found = in_order(
            vec![
                Finding::warning("paused", "b", "x"),
                Finding::fine("preload", "", "x"),
                Finding::warning("paused", "a", "x"),
                Finding::problem("sequence", "s", "x"),
                Finding::problem("queue", "q", "x"),
                Finding::warning("pgvector", "", "x"),
            ],
            true,
        );
        let first: Vec<(&str, Option<&str>)> =
            found.iter().take(6).map(|f| (f.check, f.object.as_deref())).collect();
        assert_eq!(
            first,
            [
                ("queue", Some("q")),
                ("sequence", Some("s")),
                ("pgvector", None),
                ("paused", Some("a")),
                ("paused", Some("b")),
                ("preload", None),
            ]
        );
        assert!(CHECKS.iter().all(|(name, _)| found.iter().any(|f| f.check == *name)));
        assert_eq!(found.len(), CHECKS.len() + 1);
        assert!(found.iter().filter(|f| f.state == State::Ok).all(|f| f.remedy.is_none()));
    }

    #[test]
    fn what_could_not_be_checked_is_not_fine() {
        let found = in_order(vec![Finding::warning("vector_table", "", "x")], false);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn checks_have_different_names() {
        assert!((0..CHECKS.len()).all(|n| place(CHECKS[n].0) == n));
    }
}
