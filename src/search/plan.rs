//! Decides whether a question is answered through the vector index or by reading every row that matches. Pure.
//!
//! An index over vectors is approximate: it visits the neighbours of the question, and a filter then drops most of them.
//! Where it would drop nearly all, reading the rows that match is both exact and hardly slower. The constants were measured
//! with hnsw over 60,000 package descriptions of 384 dimensions; docs/benchmarks.md has the figures.

/// The range of hnsw.ef_search (pgvector).
pub const EF_SEARCH: std::ops::RangeInclusive<i32> = 1..=1000;

/// The least hnsw.ef_search, that of an index whose recall was not measured, and how it grows with each of the nearest rows that
/// have to be found: recall 0.98 of 20,000 and 100,000 rows.
const EF_LEAST: f64 = 160.0;
const EF_UNMEASURED: f64 = 240.0;
const EF_PER_ROW: f64 = 1.6;
/// The least hnsw.ef_search with each row that was visited, up to the farthest one that is wanted.
const EF_PER_VISIT: f64 = 1.5;
/// How many rows that match are visited for each one that is wanted, where a filter drops others and nothing is checked.
const EF_PER_MATCH: f64 = 8.0;
/// Of a filter that keeps less than this part, the rows may lie where the question does not lead: where nothing is checked, an
/// index finds 0.93 of them, at any hnsw.ef_search.
pub const RARE: f64 = 0.15;
/// A higher recall than this is that of an exact answer.
const HIGHEST: f64 = 0.999;
/// The least hnsw.ef_search for a low recall.
const EF_FLOOR: f64 = 40.0;
/// So many rows with the same text surround each other in a graph, and hide others from it.
const MANY_EQUAL: f64 = 300.0;

/// Microseconds to read a row in passing and test it, to compute a distance of 384 dimensions, and to visit a row through an index.
const READ: f64 = 0.8;
const DISTANCE: f64 = 0.4;
/// Microseconds to read a row that an index on a field has found.
const READ_AT: f64 = 3.0;
const VISIT: f64 = 13.0;
/// Microseconds more to fetch a vector that is too long to be stored in its row, of more dimensions than this.
const FETCH: f64 = 8.0;
const IN_ROW: f64 = 480.0;
/// Exact answers that take longer than these microseconds are left to the index where that is faster.
const LONGEST_EXACT: f64 = 300_000.0;
/// Exact answers that take no longer than these microseconds are not left to an index.
const SHORT_EXACT: f64 = 2000.0;

/// What is known of a vector table and of a filter before a question is answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// Rows of the vector table, about.
    pub rows: f64,
    pub dimensions: f64,
    /// The part of its rows that the filter and the policies for the reader keep, from 0 to 1; None where nothing is dropped.
    pub kept: Option<f64>,
    /// Whether an index on a field finds the rows that the filter keeps.
    pub is_served: bool,
    /// Whether an index can order its vectors.
    pub has_index: bool,
    /// Whether what an index brings is checked by the rows that it has visited, and answered exactly where it may miss some.
    pub is_checked: bool,
    /// The rows of the text that most rows have, about.
    pub equal: f64,
    /// The part of the nearest rows that is to be found.
    pub target: f64,
    /// The hnsw.ef_search that this needs for ten rows, as it was measured: 0 where it was not, infinite where none is enough.
    pub ef_search: f64,
}

impl Known {
    /// What is known of a table with an index of which only the size is.
    pub const fn of(rows: f64, dimensions: i32) -> Known {
        Known {
            rows,
            dimensions: dimensions as f64,
            kept: None,
            is_served: false,
            has_index: true,
            is_checked: false,
            equal: 1.0,
            target: 0.98,
            ef_search: 0.0,
        }
    }

    /// The part of the rows that match.
    fn part(&self) -> f64 {
        self.kept.unwrap_or(1.0).clamp(0.0, 1.0)
    }
}

/// How a question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Through the index, with this hnsw.ef_search; and exactly if that brings fewer rows than are wanted.
    Index { ef_search: i32 },
    /// By reading every row that matches.
    Exact,
}

/// The plan for a question of so many rows. A given hnsw.ef_search asks for the index.
pub fn choose(known: &Known, limit: i32, ef_search: Option<i32>) -> Plan {
    let kept = known.part();
    match ef_search {
        _ if !known.has_index => return Plan::Exact,
        Some(ef_search) => return Plan::Index { ef_search },
        None if known.target >= 1.0 => return Plan::Exact,
        None => {}
    }
    let wanted = f64::from(limit);
    // So many rows are about as near as the rows that are wanted.
    let nearer = match known.kept {
        Some(_) if !known.is_checked => wanted + EF_PER_MATCH * wanted / kept.max(1e-6),
        _ => EF_PER_ROW * wanted / kept.max(1e-6),
    };
    let needed = least(known) + nearer;
    let exact = time_of_exact(known);
    let index = VISIT * (known.dimensions / 384.0).max(0.3) * needed;
    let is_doubtful = known.target > HIGHEST
        || (kept < RARE && !known.is_checked)
        || known.equal >= MANY_EQUAL
        || needed > f64::from(*EF_SEARCH.end());
    let prefers_exact =
        exact <= SHORT_EXACT.max(index) || (is_doubtful && is_exact_affordable(known));
    if prefers_exact {
        return Plan::Exact;
    }
    Plan::Index { ef_search: needed.clamp(EF_FLOOR, f64::from(*EF_SEARCH.end())).round() as i32 }
}

/// The hnsw.ef_search for very few rows.
fn least(known: &Known) -> f64 {
    let effort = effort(known.target);
    // More than an index can visit, where no value was enough.
    let beyond = f64::from(*EF_SEARCH.end()) + 1.0;
    match known.ef_search {
        measured if measured > 0.0 => measured.min(beyond).max(EF_LEAST * effort),
        _ => EF_UNMEASURED * effort,
    }
}

/// How much more than for a recall of 0.98 an index has to visit for another one. What it misses falls a little slower than
/// hnsw.ef_search grows.
fn effort(target: f64) -> f64 {
    let missed = (1.0 - target).clamp(1e-6, 0.5);
    (0.02 / missed).powf(0.8)
}

/// Whether an index with this hnsw.ef_search has found the nearest rows reliably, up to one for which it visited so many: those at
/// the border of what it visits it finds less often.
pub fn is_reliable(visited: i64, ef_search: i32) -> bool {
    visited as f64 * EF_PER_VISIT <= f64::from(ef_search)
}

/// How many rows an index over bits brings for so many that are wanted, to be compared exactly.
pub fn candidates_by_bits(limit: i32) -> i32 {
    const LEAST: i32 = 200;
    const PER_ROW: i32 = 8;
    limit.saturating_mul(PER_ROW).max(LEAST)
}

/// The same for an index over the vectors as halfvec, where rounding swaps rows that are about equally near.
pub fn candidates_by_halfvec(limit: i32) -> i32 {
    const MORE: i32 = 10;
    limit.saturating_add(limit / 5).saturating_add(MORE)
}

/// About how many microseconds it takes to read every row that matches.
pub fn time_of_exact(known: &Known) -> f64 {
    let kept = known.part();
    let fetch = if known.dimensions > IN_ROW { FETCH } else { 0.0 };
    let read = if known.is_served { kept * READ_AT } else { READ };
    known.rows * (read + kept * (DISTANCE * known.dimensions / 384.0 + fetch))
}

/// Whether every row that matches is read where an index may have missed some.
pub fn is_exact_affordable(known: &Known) -> bool {
    time_of_exact(known) <= LONGEST_EXACT
}

/// The rows of a sample that tell how many rows match.
const SAMPLED: f64 = 1000.0;
/// The same where a policy is tested for each of them, which takes much longer.
const SAMPLED_BY_POLICY: f64 = 300.0;

/// How to learn which part of a table's rows a filter keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    /// By reading this percentage of its pages.
    Percent(f64),
    /// Not at all: this part is assumed.
    Assume(f64),
}

/// The sample of a table of about so many rows: infinitely many where it cannot be read. Of a small table none, because
/// reading all rows is as cheap.
pub fn sample(rows: f64, has_policies: bool) -> Sample {
    let sampled = if has_policies { SAMPLED_BY_POLICY } else { SAMPLED };
    match rows {
        _ if rows < 2.0 * SAMPLED => Sample::Assume(0.0),
        _ if rows.is_finite() => Sample::Percent(100.0 * sampled / rows),
        _ => Sample::Assume(RARE),
    }
}

/// The part of all rows that match, after `matching` of about `read` rows did.
pub fn kept(matching: i64, read: f64) -> f64 {
    // One more than were seen: of a sample without a match it is not known that no row matches.
    ((matching as f64 + 1.0) / read.max(1.0)).min(1.0)
}

/// Whether so many rows at the same distance show that equal texts may hide other rows from the index.
pub fn has_hidden(distances: &[f64]) -> bool {
    const MANY: usize = 10;
    distances.windows(MANY).any(|equal| equal.iter().all(|distance| *distance == equal[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Known = Known::of(100_000.0, 384);

    fn is_exact(known: Known, limit: i32) -> bool {
        choose(&known, limit, None) == Plan::Exact
    }

    #[test]
    fn a_large_table_is_searched_through_its_index() {
        assert_eq!(choose(&LARGE, 10, None), Plan::Index { ef_search: 256 });
        assert_eq!(choose(&LARGE, 100, None), Plan::Index { ef_search: 400 });
        let half = Known { kept: Some(0.5), ..LARGE };
        assert_eq!(choose(&half, 10, None), Plan::Index { ef_search: 410 });
        assert_eq!(choose(&half, 10, Some(7)), Plan::Index { ef_search: 7 });
    }

    #[test]
    fn an_index_that_is_checked_serves_rarer_filters() {
        let of = |kept, limit| {
            choose(&Known { kept: Some(kept), is_checked: true, ..LARGE }, limit, None)
        };
        assert_eq!(of(0.5, 10), Plan::Index { ef_search: 272 });
        assert_eq!(of(0.05, 10), Plan::Index { ef_search: 560 });
        // The index would have to visit more than it can.
        assert_eq!([of(0.01, 10), of(0.05, 100), of(0.0, 10)], [Plan::Exact; 3]);
        // Ten rows of 5 % lie among 200, about.
        assert!(is_reliable(10, 40) && is_reliable(200, 560) && !is_reliable(400, 560));
    }

    #[test]
    fn what_an_index_cannot_answer_well_is_answered_exactly() {
        for known in [
            Known { rows: 1000.0, ..LARGE },
            Known { has_index: false, rows: 1e9, ..LARGE },
            Known { kept: Some(0.05), ..LARGE },
            Known { kept: Some(0.0), ..LARGE },
            Known { equal: 5000.0, ..LARGE },
        ] {
            assert!(is_exact(known, 10), "{known:?}");
        }
        // The index visits at most a thousand rows at a time.
        assert!(is_exact(LARGE, 1000));
        assert_eq!(choose(&Known { has_index: false, ..LARGE }, 10, Some(7)), Plan::Exact);
    }

    #[test]
    fn what_would_take_too_long_is_left_to_the_index() {
        let huge = Known { rows: 1e7, kept: Some(0.01), ..LARGE };
        assert_eq!(choose(&huge, 10, None), Plan::Index { ef_search: 1000 });
        // A filter so rare that the index would visit more.
        assert!(is_exact(Known { kept: Some(1e-7), ..huge }, 10));
        // An index on the field reads only what matches.
        assert!(is_exact(Known { is_served: true, kept: Some(0.005), ..huge }, 10));
        assert!(!is_exact(Known { is_served: true, kept: Some(0.5), ..huge }, 10));
        assert!(is_exact_affordable(&LARGE) && !is_exact_affordable(&Known { rows: 1e6, ..LARGE }));
    }

    #[test]
    fn a_target_moves_what_an_index_visits() {
        let of = |target| choose(&Known { target, ..LARGE }, 10, None);
        let ef_search = |target| match of(target) {
            Plan::Index { ef_search } => ef_search,
            Plan::Exact => i32::MAX,
        };
        let all = [0.5, 0.9, 0.95, 0.98, 0.99, 1.0].map(ef_search);
        assert!(all.is_sorted() && all[0] >= 40 && all[1] < 120 && all[3] == 256, "{all:?}");
        assert_eq!(of(1.0), Plan::Exact);
        assert_eq!(choose(&Known { rows: 1e8, target: 1.0, ..LARGE }, 10, None), Plan::Exact);
        // Where an exact answer would take too long, the index visits as much as it can.
        let huge = Known { rows: 1e8, target: 0.9999, ..LARGE };
        assert_eq!(choose(&huge, 10, None), Plan::Index { ef_search: 1000 });
    }

    #[test]
    fn what_was_measured_raises_what_an_index_visits() {
        let of = |ef_search, rows| choose(&Known { ef_search, rows, ..LARGE }, 10, None);
        assert_eq!(of(40.0, 1e6), Plan::Index { ef_search: 176 });
        assert_eq!(of(500.0, 1e6), Plan::Index { ef_search: 516 });
        // Where the index finds too little, every row is read, as long as that is affordable.
        assert_eq!(of(f64::INFINITY, 1e5), Plan::Exact);
        assert_eq!(of(f64::INFINITY, 1e7), Plan::Index { ef_search: 1000 });
    }

    #[test]
    fn numbers_that_make_no_sense_are_survived() {
        for value in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            for known in [
                Known { rows: value, ..LARGE },
                Known { kept: Some(value), ..LARGE },
                Known { equal: value, ..LARGE },
            ] {
                if let Plan::Index { ef_search } = choose(&known, 1000, None) {
                    assert!(EF_SEARCH.contains(&ef_search));
                }
            }
        }
    }

    #[test]
    fn samples_are_read_from_large_tables_only() {
        assert_eq!(sample(1999.0, false), Sample::Assume(0.0));
        assert_eq!(sample(100_000.0, false), Sample::Percent(1.0));
        assert_eq!(sample(100_000.0, true), Sample::Percent(0.3));
        assert_eq!(sample(f64::INFINITY, true), Sample::Assume(RARE));
        assert!(kept(0, 2000.0) > 0.0 && kept(5000, 2000.0) == 1.0 && kept(99, 2000.0) == 0.05);
    }

    #[test]
    fn equal_distances_are_noticed() {
        assert!(!has_hidden(&[]) && !has_hidden(&[0.5; 9]) && has_hidden(&[0.5; 10]));
        let mut distances = [0.25; 12];
        (distances[2], distances[9]) = (0.3, 0.4);
        assert!(!has_hidden(&distances));
    }
}
