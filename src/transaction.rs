//! One transaction of a background process from start to end: committed when all went well, rolled back with the reason when not.

mod blame;

use std::ffi::c_int;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use pgrx::PgTryBuilder;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

pub use self::blame::Blame;
use crate::error::{Error, Result};

/// Why a transaction was rolled back.
#[derive(Debug)]
pub struct TxError {
    pub sqlstate: PgSqlErrorCode,
    pub message: String,
    /// Whether it was at work on the rows of a batch, and not on the tables as a whole.
    pub is_at_rows: bool,
}

impl TxError {
    /// Whether the same work may succeed a moment later by itself: locks, deadlocks, cancelled, resources.
    pub fn is_transient(&self) -> bool {
        use PgSqlErrorCode::*;
        matches!(
            self.sqlstate,
            ERRCODE_LOCK_NOT_AVAILABLE
                | ERRCODE_T_R_DEADLOCK_DETECTED
                | ERRCODE_T_R_SERIALIZATION_FAILURE
                | ERRCODE_QUERY_CANCELED
                | ERRCODE_OUT_OF_MEMORY
                | ERRCODE_DISK_FULL
                | ERRCODE_INSUFFICIENT_RESOURCES
                | ERRCODE_TOO_MANY_CONNECTIONS
        )
    }
}

impl TxError {
    /// What has to change before it can succeed.
    pub fn blame(&self) -> Blame {
        use PgSqlErrorCode::*;
        match self.sqlstate {
            _ if self.is_of_data() => Blame::Row,
            ERRCODE_LOCK_NOT_AVAILABLE | ERRCODE_T_R_DEADLOCK_DETECTED if self.is_at_rows => {
                Blame::LockedRow
            }
            ERRCODE_QUERY_CANCELED => Blame::Slow,
            _ => Blame::Table,
        }
    }

    /// Whether the data of a row may be to blame, so that it is worth to try the others without it.
    fn is_of_data(&self) -> bool {
        // An SQLSTATE is five characters of six bits each, the first in the lowest bits; its class is the first two.
        let code = self.sqlstate as u32;
        let character = |n: u32| char::from(((code >> (6 * n)) & 0x3f) as u8 + b'0');
        let class = [character(0), character(1)];
        matches!(
            class,
            ['2', '1' | '2' | '3'] | ['3', '8' | '9'] | ['5', '4'] | ['P', '0'] | ['X', 'X']
        )
    }
}

impl TxError {
    /// Whether it took too long, or was canceled.
    pub fn is_canceled(&self) -> bool {
        self.sqlstate == PgSqlErrorCode::ERRCODE_QUERY_CANCELED
    }
}

impl From<Error> for TxError {
    fn from(error: Error) -> Self {
        Self { sqlstate: error.sqlstate(), message: error.with_remedy(), is_at_rows: false }
    }
}

impl From<TxError> for Error {
    fn from(failure: TxError) -> Self {
        Self::Failed { sqlstate: failure.sqlstate, message: failure.message }
    }
}

/// PostgreSQL's own timer of a statement (utils/timeout.h); its number is the same in every version.
const STATEMENT_TIMEOUT: c_int = 3;

unsafe extern "C-unwind" {
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
}

/// Milliseconds for one transaction of [`bounded`]; 0: as long as it takes.
static BOUND: AtomicI32 = AtomicI32::new(0);

/// How long one transaction may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// What some rows need.
    Usual,
    /// What it needs to read all rows of a source, for a row that cannot be found otherwise.
    FullScan,
}

/// Bounds what this process does for a single vector table from now on.
pub fn set_bound(bound: Duration) {
    BOUND.store(i32::try_from(bound.as_millis()).unwrap_or(i32::MAX), Ordering::Relaxed);
}

/// Runs `work` for one vector table in a transaction of its own. A trigger, a cast or a type of its owner runs in it, and
/// must not keep the other tables waiting for ever: after the process's bound it is cancelled.
pub fn bounded<R>(
    timeout: Timeout,
    work: impl FnOnce() -> Result<R>,
) -> std::result::Result<R, TxError> {
    let bound = BOUND.load(Ordering::Relaxed);
    let bound = if timeout == Timeout::FullScan { bound.saturating_mul(4) } else { bound };
    if bound == 0 {
        return run(work);
    }
    // SAFETY: InitPostgres has registered the timer for this process; its signal is that of a cancelled query.
    unsafe { enable_timeout_after(STATEMENT_TIMEOUT, bound) };
    let outcome = run(work);
    // SAFETY: outside of a transaction, in the main thread. A signal that came too late must cancel nothing else.
    unsafe {
        disable_timeout(STATEMENT_TIMEOUT, false);
        (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
    }
    outcome
}

/// Runs `work` in a transaction of its own, with a snapshot.
pub fn run<R>(work: impl FnOnce() -> Result<R>) -> std::result::Result<R, TxError> {
    // SAFETY: no transaction is open in a background process outside this function, and each path ends it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, std::ptr::null());
        pg_sys::StartTransactionCommand();
    }
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: inside the transaction started above.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        let result = work().map_err(TxError::from)?;
        // SAFETY: the snapshot pushed above is the one on top, since nested ones were popped by SPI.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(result)
    }))
    .catch_others(|caught| Err(rolled_back(&caught)))
    .execute();
    // SAFETY: as above; after a commit there is nothing left to abort.
    unsafe {
        if outcome.is_err() {
            pg_sys::AbortCurrentTransaction();
        }
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    outcome
}

/// Runs `work` in a transaction inside the one that is open: an error in it is rolled back to where it began.
pub fn nested<R>(work: impl FnOnce() -> Result<R>) -> std::result::Result<R, TxError> {
    inside(work, true)
}

/// The same for work that only reads: whatever becomes of it, its locks are given back at once.
pub fn nested_read<R>(look: impl FnOnce() -> Result<R>) -> std::result::Result<R, TxError> {
    inside(look, false)
}

/// Tries the rows of a range, and where one of them is to blame for a failure the halves, down to single rows. Comes back
/// with the rows that fail, and why; a failure that no row is to blame for ends it.
pub fn isolate(
    rows: Range<i64>,
    mut attempt: impl FnMut(Range<i64>) -> std::result::Result<(), TxError>,
) -> std::result::Result<Vec<(i64, String)>, TxError> {
    let (mut bad, mut left) = (Vec::new(), vec![rows]);
    while let Some(rows) = left.pop() {
        let Err(failure) = attempt(rows.clone()) else { continue };
        if failure.blame() != Blame::Row {
            return Err(failure);
        }
        if rows.end - rows.start <= 1 {
            bad.push((rows.start, failure.message));
            continue;
        }
        let middle = rows.start + (rows.end - rows.start) / 2;
        left.extend([middle..rows.end, rows.start..middle]);
    }
    Ok(bad)
}

fn inside<R>(work: impl FnOnce() -> Result<R>, keeps: bool) -> std::result::Result<R, TxError> {
    // SAFETY: inside a transaction; each path below ends the inner one and puts back what it has changed.
    let (memory, owner) = unsafe {
        let before = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(before.0);
        before
    };
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
        let result = work().map_err(TxError::from)?;
        if keeps {
            // SAFETY: the inner transaction begun above.
            unsafe { pg_sys::ReleaseCurrentSubTransaction() };
        }
        Ok(result)
    }))
    .catch_others(|caught| Err(rolled_back(&caught)))
    .execute();
    // SAFETY: as above; after a release there is nothing left to roll back.
    unsafe {
        if outcome.is_err() || !keeps {
            pg_sys::MemoryContextSwitchTo(memory);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
    }
    outcome
}

fn rolled_back(caught: &CaughtError) -> TxError {
    let report = match caught {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
        CaughtError::RustPanic { ereport, .. } => ereport,
    };
    let message = match report.hint() {
        Some(hint) => format!("{}. {hint}", report.message()),
        None => report.message().to_string(),
    };
    TxError { sqlstate: report.sql_error_code(), message, is_at_rows: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(sqlstate: PgSqlErrorCode) -> TxError {
        TxError { sqlstate, message: "no".to_string(), is_at_rows: false }
    }

    #[test]
    fn rows_that_fail_are_isolated_from_the_others() {
        for bad in [vec![], vec![3], vec![0, 1, 9], (0..10).collect()] {
            let (mut good, mut tries) = (Vec::new(), 0);
            let found = isolate(0..10, |rows| {
                tries += 1;
                if rows.clone().any(|row| bad.contains(&row)) {
                    return Err(fails(PgSqlErrorCode::ERRCODE_RAISE_EXCEPTION));
                }
                good.extend(rows);
                Ok(())
            });
            let found: Vec<i64> = found.unwrap().into_iter().map(|(row, _)| row).collect();
            assert_eq!(found, bad);
            let others: Vec<i64> = (0..10).filter(|row| !bad.contains(row)).collect();
            assert_eq!(good, others);
            assert!(tries <= 1 + bad.len() * 10, "{tries}");
        }
        assert!(isolate(0..0, |_| Ok(())).unwrap().is_empty());
        let slow = isolate(0..10, |_| Err(fails(PgSqlErrorCode::ERRCODE_QUERY_CANCELED)));
        assert_eq!(slow.unwrap_err().blame(), Blame::Slow);
    }
}
