//! Tells whether two calls of a function see the same database: in one statement, with one snapshot and one role.

use pgrx::prelude::*;

/// What makes two calls belong together: in one statement, with one snapshot and one role, the same arguments have the same
/// result. A snapshot that differs in none of these fields shows the same catalog, and so the same model and privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    statement: i64,
    snapshot: (u32, u32, u32, u64),
    user: pg_sys::Oid,
}

impl Moment {
    /// The present one; None outside a statement.
    pub fn now() -> Option<Moment> {
        // SAFETY: the main thread; the snapshot belongs to the running statement and is only read.
        unsafe {
            if !pg_sys::ActiveSnapshotSet() {
                return None;
            }
            let snapshot = &*pg_sys::GetActiveSnapshot();
            Some(Moment {
                statement: pg_sys::GetCurrentStatementStartTimestamp(),
                snapshot: (
                    snapshot.xmin.into(),
                    snapshot.xmax.into(),
                    snapshot.curcid,
                    snapshot.snapXactCompletionCount,
                ),
                user: pg_sys::GetUserId(),
            })
        }
    }
}
