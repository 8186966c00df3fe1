//! Signal handlers of the background processes: PostgreSQL's own, installed the way PostgreSQL does.

use pgrx::pg_sys;

use crate::sync::last_step;

// pg_sys has only guarded wrappers of these, but a signal handler must be the function itself.
unsafe extern "C-unwind" {
    fn die(signal: core::ffi::c_int);
    fn SignalHandlerForConfigReload(signal: core::ffi::c_int);
    fn SignalHandlerForShutdownRequest(signal: core::ffi::c_int);
    fn SignalHandlerForCrashExit(signal: core::ffi::c_int);
}

/// SIGTERM: PostgreSQL's own handler, after a note that the process is asked to end.
unsafe extern "C-unwind" fn end_at_once(signal: core::ffi::c_int) {
    last_step::is_asked_to_end();
    // SAFETY: the handler of PostgreSQL, in a handler of the same signal.
    unsafe { die(signal) };
}

/// SIGQUIT: the same for an immediate shutdown, and after the crash of another process.
unsafe extern "C-unwind" fn quit(signal: core::ffi::c_int) {
    last_step::is_asked_to_end();
    // SAFETY: as above; it does not return.
    unsafe { SignalHandlerForCrashExit(signal) };
}

/// What SIGTERM does to a process.
pub enum Terminate {
    /// It exits at the next check for interrupts, even while it waits for a lock: for processes with a database.
    AtOnce,
    /// It sets a flag that the process checks itself.
    Flag,
}

/// Installs the handlers, and then unblocks signals.
pub fn accept(terminate: Terminate) {
    // SAFETY: the handlers are PostgreSQL's own, two of them after a write to a file, and this is the main thread of a background worker.
    unsafe {
        handle(libc::SIGHUP, SignalHandlerForConfigReload);
        handle(
            libc::SIGTERM,
            match terminate {
                Terminate::AtOnce => end_at_once,
                Terminate::Flag => SignalHandlerForShutdownRequest,
            },
        );
        handle(libc::SIGQUIT, quit);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Sets a handler.
///
/// # Safety
/// The handler must be safe to run at any moment.
unsafe fn handle(signal: i32, handler: unsafe extern "C-unwind" fn(core::ffi::c_int)) {
    // SAFETY: the caller vouches for the handler.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// Whether the process was asked to exit.
pub fn shutdown_requested() -> bool {
    is_pending(&raw const pg_sys::ShutdownRequestPending)
}

/// Reloads the configuration files after SIGHUP; true if it did.
pub fn reload_if_asked() -> bool {
    let asked = is_pending(&raw const pg_sys::ConfigReloadPending);
    if asked {
        // SAFETY: the main thread, no transaction is open; the signal handler sets the flag again.
        unsafe {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
    asked
}

/// Whether a signal handler has set a flag.
fn is_pending(flag: *const pg_sys::sig_atomic_t) -> bool {
    // SAFETY: the flags live as long as the process; handlers write them, so the read must not be left out.
    unsafe { flag.read_volatile() != 0 }
}
