//! Hides the text of a statement that may hold a key from logs and monitoring views.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::error::Result;

/// Replaces the text of a call, or of CREATE and ALTER USER MAPPING.
const SHOWN: &CStr = c"<hidden by embedd: this statement can hold an API key>";

/// Runs the body of a function whose call may hold a key in its text.
///
/// From here on pg_stat_activity and the STATEMENT line of the log do not have the text; if the work fails, the
/// surrounding functions and statements do not add their text as CONTEXT.
pub fn during<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    statement();
    // SAFETY: a global of the process. After an error PostgreSQL's handlers restore their saved value, so that it
    // stays empty until the error has been reported.
    unsafe {
        let context = std::ptr::replace(&raw mut pg_sys::error_context_stack, std::ptr::null_mut());
        let outcome = work();
        if outcome.is_ok() {
            pg_sys::error_context_stack = context;
        }
        outcome
    }
}

/// Hides the text of the client's current statement.
pub fn statement() {
    // SAFETY: the text is static; PostgreSQL resets both with the next statement.
    unsafe {
        pg_sys::debug_query_string = SHOWN.as_ptr();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, SHOWN.as_ptr());
    }
}
