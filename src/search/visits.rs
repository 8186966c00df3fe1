//! Counts the rows that a search reads from the indexes of a vector table, by the statistics of this transaction.

use pgrx::direct_function_call;
use pgrx::prelude::*;

use super::measure::Extent;

impl Extent {
    /// Whether the rows that an index brings are counted: not for partitions, whose indexes are not known here, and not where
    /// track_counts is off.
    pub fn is_counted(&self) -> bool {
        // SAFETY: a plain read of the process's own state.
        self.method() == Some("hnsw")
            && !self.serving.is_empty()
            && unsafe { pg_sys::pgstat_track_counts }
    }

    /// The rows that this transaction has read so far from the indexes that order the vectors, those that match no filter too.
    pub fn visited(&self) -> i64 {
        let read = |index: &pg_sys::Oid| {
            let argument = [index.into_datum()];
            // SAFETY: a function of an oid that returns a bigint, in a transaction.
            unsafe {
                direct_function_call::<i64>(pg_sys::pg_stat_get_xact_tuples_returned, &argument)
            }
        };
        self.serving.iter().filter_map(read).sum()
    }
}
