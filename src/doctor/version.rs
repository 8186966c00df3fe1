//! The faults that are known of versions of pgvector.

use crate::extension::is_older;
use crate::index::PARALLEL_SINCE;

/// The first version without any of the faults.
pub const SOUND: &str = "0.8.4";

/// Faults, each with the version in which it is gone.
const FAULTS: [(&str, &str); 3] = [
    (
        PARALLEL_SINCE,
        "a parallel build of an hnsw index overflows a buffer, which can show rows of other tables or end the server (CVE-2026-3172)",
    ),
    ("0.8.3", "vacuum can damage an hnsw index"),
    (
        SOUND,
        "vacuum of an hnsw index can fail with \"hnsw graph not repaired\", and so can inserts meanwhile",
    ),
];

/// What is wrong with a version, as a sentence; none where nothing is known.
pub fn faults(version: &str) -> Option<String> {
    let known: Vec<String> = FAULTS
        .iter()
        .filter(|(fixed, _)| is_older(version, fixed))
        .map(|(fixed, fault)| format!("{fault}, until {fixed}"))
        .collect();
    (!known.is_empty()).then(|| known.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_told_until_it_is_gone() {
        let count = |version: &str| faults(version).map_or(0, |text| text.matches("until").count());
        assert_eq!(
            ["0.8.0", "0.8.1", "0.8.2", "0.8.3", "0.8.4", "0.8.10", "1.0.0"].map(count),
            [3, 3, 2, 1, 0, 0, 0]
        );
    }
}
