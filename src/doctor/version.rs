//! Known bugs of pgvector versions.

use crate::extension::is_older;
use crate::index::PARALLEL_SINCE;

/// The first version without any of these bugs.
pub const SOUND: &str = "0.8.4";

/// Bugs, each with the version that fixes it.
const FAULTS: [(&str, &str); 3] = [
    (
        PARALLEL_SINCE,
        "a parallel build of an hnsw index overflows a buffer, which can expose rows of other tables or crash the server (CVE-2026-3172)",
    ),
    ("0.8.3", "vacuum can corrupt an hnsw index"),
    (
        SOUND,
        "vacuum of an hnsw index can fail with \"hnsw graph not repaired\", and so can inserts meanwhile",
    ),
];

/// The bugs of a version, as a sentence; None if none is known.
pub fn faults(version: &str) -> Option<String> {
    let known: Vec<String> = FAULTS
        .iter()
        .filter(|(fixed, _)| is_older(version, fixed))
        .map(|(fixed, fault)| format!("{fault}, fixed in {fixed}"))
        .collect();
    (!known.is_empty()).then(|| known.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bug_is_reported_until_the_version_that_fixes_it() {
        let count =
            |version: &str| faults(version).map_or(0, |text| text.matches("fixed in").count());
        assert_eq!(
            ["0.8.0", "0.8.1", "0.8.2", "0.8.3", "0.8.4", "0.8.10", "1.0.0"].map(count),
            [3, 3, 2, 1, 0, 0, 0]
        );
    }
}
