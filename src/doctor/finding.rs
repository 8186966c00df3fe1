//! What a check has found, the checks there are, and the order in which their findings are shown.

/// How bad it is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Changes do not arrive, questions fail, or something is about to be lost.
    Problem,
    /// It works, and not as well as it could, or not for long.
    Warning,
    /// Nothing is wrong.
    Ok,
}

impl State {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Ok => "ok",
        }
    }
}

/// A row of doctor().
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub check: &'static str,
    pub state: State,
    /// What it is about; none is the server or the database as a whole.
    pub object: Option<String>,
    pub meaning: String,
    /// A statement that can be pasted into psql, or a sentence where no statement helps.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(check: &'static str, state: State, object: &str, meaning: String) -> Self {
        let object = (!object.is_empty()).then(|| object.to_string());
        Self { check, state, object, meaning, remedy: None }
    }

    /// Something does not work.
    pub fn problem(check: &'static str, object: &str, meaning: impl Into<String>) -> Self {
        Self::new(check, State::Problem, object, meaning.into())
    }

    /// Something works badly.
    pub fn warning(check: &'static str, object: &str, meaning: impl Into<String>) -> Self {
        Self::new(check, State::Warning, object, meaning.into())
    }

    /// Something is as it should be, and worth a word.
    pub fn fine(check: &'static str, object: &str, meaning: impl Into<String>) -> Self {
        Self::new(check, State::Ok, object, meaning.into())
    }

    /// With what helps.
    pub fn with(mut self, remedy: impl Into<Option<String>>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

/// The checks in their order, each with what it means that nothing was found.
const CHECKS: [(&str, &str); 37] = [
    ("preload", "the server was started with embedd"),
    ("extension", "library and objects are of one version"),
    ("pgvector", "no fault of its version is known"),
    ("worker_slots", "every sync worker has a place"),
    ("launcher", "the launcher is there and starts sync workers"),
    ("settings", "no setting is in the way"),
    ("locks", "there are locks for all partitions"),
    ("embedder", "the embedder answers"),
    ("local_model", "the files of the local model are there"),
    ("provider", "each vector table may use its provider"),
    (
        "provider_call",
        "no call was made: SELECT * FROM embedd.doctor(call_providers => true) makes one to each",
    ),
    ("model", "no model in use retires within a year"),
    ("vector_table", "each vector table has its table"),
    ("source", "each vector table has its source"),
    ("columns", "every configured column exists"),
    ("key", "the key of each source is unique and has the type it had"),
    ("policies", "no policy hides rows of a source from embedd"),
    ("children", "no source has children whose changes are missed"),
    ("view", "no view depends on the session that reads it"),
    ("triggers", "the triggers of each source are there and fire"),
    ("unlogged", "no crash empties a source or a vector table"),
    ("subscription", "no subscription fills a vector table"),
    ("sync", "no vector table is in error"),
    ("backfill", "every vector table is backfilled"),
    ("paused", "no vector table is paused"),
    ("queue", "no change has waited for more than five minutes"),
    ("failed_rows", "no row has failed"),
    ("truncated_rows", "no text was cut"),
    ("vector_index", "each vector table has an index that serves questions"),
    ("invalid_index", "no vector index is invalid"),
    ("unused_index", "no vector index is of no use for questions"),
    ("deferred_index", "no index waits to be built without a process that builds it"),
    ("statistics", "every large table is analyzed"),
    ("dead_rows", "no table has more dead rows than live ones"),
    ("orphaned_table", "every table of vectors belongs to a vector table"),
    ("orphaned_trigger", "every trigger of embedd belongs to a vector table"),
    ("sequence", "every sequence of embedd is ahead of its table and far from its end"),
];

/// The place of a check in the order.
fn place(check: &str) -> usize {
    CHECKS.iter().position(|(name, _)| *name == check).unwrap_or(CHECKS.len())
}

/// Problems, then warnings, then what is fine, each in the order of the checks; a check without a finding is fine, where all
/// of them could look at everything.
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
    fn the_worst_comes_first_and_every_check_is_told() {
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
    fn what_could_not_be_looked_at_is_not_fine() {
        let found = in_order(vec![Finding::warning("vector_table", "", "x")], false);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn checks_have_different_names() {
        assert!((0..CHECKS.len()).all(|n| place(CHECKS[n].0) == n));
    }
}
