//! Hides the text of a statement that holds a key from everybody who could see it after the fact.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::error::Result;

/// What is shown in place of the text of a call or of CREATE and ALTER USER MAPPING.
const SHOWN: &CStr = c"<hidden by embedd: this statement can hold an API key>";

/// Does the work of a call whose text may hold a key.
///
/// From here on pg_stat_activity and the STATEMENT line of the log have no text of it; and when the work fails, the
/// functions and statements around the call do not add theirs as CONTEXT.
pub fn during<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    statement();
    // SAFETY: a global of the process. After an error PostgreSQL's handlers put back what they have saved themselves, so
    // that it stays empty until the error has been told.
    unsafe {
        let context = std::ptr::replace(&raw mut pg_sys::error_context_stack, std::ptr::null_mut());
        let outcome = work();
        if outcome.is_ok() {
            pg_sys::error_context_stack = context;
        }
        outcome
    }
}

/// Hides the text of the running statement of the client.
pub fn statement() {
    // SAFETY: the text lives for ever; PostgreSQL sets both again with the next statement.
    unsafe {
        pg_sys::debug_query_string = SHOWN.as_ptr();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, SHOWN.as_ptr());
    }
}
