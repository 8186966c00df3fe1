//! The recall of a vector index at several values of hnsw.ef_search, as it was measured. Pure.

use serde::{Deserialize, Serialize};

/// The values of hnsw.ef_search that are measured.
pub const MEASURED: [i32; 9] = [40, 80, 160, 230, 320, 450, 640, 800, 1000];

/// Tables with fewer rows than this are answered exactly.
const FEWEST_ROWS: f64 = 2000.0;
/// Microseconds that an exact answer may take for a table to be measured: a lock on it waits as long.
const LONGEST_EXACT: f64 = 2_000_000.0;
/// Microseconds of all exact answers of a measurement, about.
const ALL_EXACT: f64 = 30_000_000.0;
/// The fewest and the most questions of a measurement.
const QUESTIONS: (f64, f64) = (20.0, 100.0);
/// How many times more or fewer rows make another measurement due.
const GROWTH: f64 = 2.0;
/// The part of what may be missed that is left as a margin, because questions were drawn by chance.
const MARGIN: f64 = 0.25;

/// What was measured of an index; the column measured_recall of embedd.vector_tables.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecallCurve {
    /// The oid of the index, and the rows of the table at that time.
    pub index: u32,
    pub rows: f64,
    pub questions: i32,
    /// The recall at each of [`MEASURED`].
    pub recall: Vec<f64>,
}

impl RecallCurve {
    /// The least measured hnsw.ef_search that reaches a recall; infinite where none did. Nothing is read between two of them:
    /// from some value on PostgreSQL reads every row instead, and the recall is 1 at once.
    pub fn ef_search(&self, target: f64) -> f64 {
        let target = target + MARGIN * (1.0 - target);
        let mut measured = MEASURED.into_iter().zip(&self.recall);
        let enough = measured.find(|(_, recall)| **recall >= target);
        enough.map_or(f64::INFINITY, |(ef_search, _)| f64::from(ef_search))
    }
}

/// Whether an index over so many rows is to be measured, where an exact answer takes so many microseconds.
pub fn is_due(measured: Option<&RecallCurve>, index: u32, rows: f64, exact: f64) -> bool {
    if rows < FEWEST_ROWS || exact > LONGEST_EXACT {
        return false;
    }
    measured.is_none_or(|curve| {
        curve.index != index || rows > curve.rows * GROWTH || rows < curve.rows / GROWTH
    })
}

/// How many questions a measurement asks.
pub fn questions(exact: f64) -> i32 {
    (ALL_EXACT / exact.max(1.0)).clamp(QUESTIONS.0, QUESTIONS.1) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(recall: &[f64]) -> RecallCurve {
        RecallCurve { index: 1, rows: 10_000.0, questions: 100, recall: recall.into() }
    }

    #[test]
    fn the_effort_is_the_least_that_was_enough() {
        let hard = curve(&[0.73, 0.78, 0.84, 0.88, 0.92, 0.95, 0.963, 0.98, 0.986]);
        let of = [0.7, 0.75, 0.9, 0.98, 0.99].map(|target| hard.ef_search(target));
        assert_eq!(of, [80.0, 160.0, 450.0, 1000.0, f64::INFINITY]);
        assert_eq!(curve(&[0.99; 9]).ef_search(0.98), 40.0);
        // From 1000 on every row is read.
        let broken = curve(&[0.2, 0.3, 0.4, 0.4, 0.5, 0.5, 0.6, 0.7, 1.0]);
        assert_eq!(broken.ef_search(0.98), 1000.0);
    }

    #[test]
    fn a_curve_that_is_short_or_makes_no_sense_is_survived() {
        assert_eq!(RecallCurve::default().ef_search(0.98), f64::INFINITY);
        assert_eq!(curve(&[f64::NAN; 9]).ef_search(0.98), f64::INFINITY);
        assert_eq!(curve(&[1.0; 9]).ef_search(1.0), 40.0);
        assert_eq!(curve(&[1.0; 20]).ef_search(2.0), f64::INFINITY);
    }

    #[test]
    fn an_index_is_measured_when_it_is_new_or_has_grown() {
        let measured = curve(&[1.0; 9]);
        assert!(is_due(None, 1, 2000.0, 1e4) && !is_due(None, 1, 1999.0, 1e4));
        assert!(!is_due(None, 1, 1e8, 1e8), "an exact answer takes too long");
        assert!(!is_due(Some(&measured), 1, 20_000.0, 1e4));
        assert!(is_due(Some(&measured), 1, 20_001.0, 1e4));
        assert!(is_due(Some(&measured), 1, 4000.0, 1e4));
        assert!(is_due(Some(&measured), 2, 10_000.0, 1e4));
        assert_eq!((questions(1e3), questions(1e6), questions(2e6)), (100, 30, 20));
    }
}
