//! How far a worker has read the queue of one table.

use super::planted::{Fault, is_planted};

/// How far a worker has read the queue of one table.
///
/// A transaction takes the id of its queue row while it runs, so a lower id may become visible after a higher one. The
/// transactions that ran at the last reading are remembered, and when one has ended its rows are looked up by its number:
/// what is before `after` is never read again, however long the transaction or snapshot of a session lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub after: i64,
    /// Transactions that may still bring rows with ids up to `after`.
    pub open: Vec<u64>,
    /// Of these the ones that have ended and whose rows are being read, and the id up to which they are.
    pub late: Option<(Vec<u64>, i64)>,
}

impl Cursor {
    /// A cursor from which a table is read on.
    pub fn new(after: i64, open: Vec<u64>) -> Self {
        Self { after, open, late: None }
    }

    /// Those of the open transactions that have ended by now.
    pub fn ended(&self, open_now: &[u64]) -> Vec<u64> {
        self.open.iter().copied().filter(|x| !open_now.contains(x)).collect()
    }

    /// Those of the ended transactions whose rows are read now, and the id above which they are.
    pub fn late(&self, open_now: &[u64]) -> (Vec<u64>, i64) {
        self.late.clone().unwrap_or_else(|| (self.ended(open_now), 0))
    }

    /// The cursor behind the last row that was read, and behind the last of the late ones where there may be more.
    pub fn advanced(&self, last: Option<i64>, last_late: Option<i64>, open_now: &[u64]) -> Self {
        let (read, _) = self.late(open_now);
        let mut left = self.ended(open_now);
        if last_late.is_none() {
            left.retain(|x| !read.contains(x));
        }
        Self {
            after: last.unwrap_or(self.after),
            open: match is_planted(Fault::CursorForgetsOpen) {
                true => Vec::new(),
                false => open_now.iter().copied().chain(left).collect(),
            },
            late: last_late.map(|id| (read, id)),
        }
    }
}
