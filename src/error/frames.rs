//! Keeps Rust backtraces out of the errors that clients see.

use std::backtrace::Backtrace;

/// The environment variables that enable Rust backtraces.
const VARIABLES: [&str; 2] = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"];

/// Disables backtraces for this library, whatever the environment of the server is: pgrx would put them, with paths of
/// the build machine, into the DETAIL of an error.
///
/// Rust reads the environment at the first capture and caches the result for the life of the process, so one capture
/// without these variables is sufficient. The variables are restored for other libraries.
///
/// # Safety
/// Must be called in a process with one thread, before any error.
pub unsafe fn keep_out() {
    let before = VARIABLES.map(|name| (name, std::env::var_os(name)));
    // SAFETY: the caller says that there is no other thread.
    unsafe { VARIABLES.iter().for_each(|name| std::env::remove_var(name)) };
    drop(Backtrace::capture());
    for (name, value) in before {
        if let Some(value) = value {
            // SAFETY: the caller says that there is no other thread.
            unsafe { std::env::set_var(name, value) };
        }
    }
}
