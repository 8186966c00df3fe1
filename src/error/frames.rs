//! Keeps the frames of Rust out of the errors that a client sees.

use std::backtrace::Backtrace;

/// Names of the variables of the environment that make Rust capture the frames of an error.
const VARIABLES: [&str; 2] = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"];

/// Makes sure that this library captures no frames, whatever the environment of the server says: pgrx would put them, with
/// the paths of the build, into the DETAIL of an error.
///
/// Rust reads the environment at the first capture and remembers it for the life of the process, so that one capture without these
/// variables decides. They are put back for other libraries.
///
/// # Safety
/// To be called in a process with one thread, before any error.
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
