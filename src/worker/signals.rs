//! Signal handlers of the background processes: PostgreSQL's own, installed the way PostgreSQL does.

use pgrx::pg_sys;

// pg_sys has only guarded wrappers of these, but a signal handler must be the function itself.
unsafe extern "C-unwind" {
    fn die(signal: core::ffi::c_int);
    fn SignalHandlerForConfigReload(signal: core::ffi::c_int);
    fn SignalHandlerForShutdownRequest(signal: core::ffi::c_int);
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
    // SAFETY: the handlers are PostgreSQL's own, and this is the main thread of a background worker.
    unsafe {
        handle(libc::SIGHUP, SignalHandlerForConfigReload);
        handle(
            libc::SIGTERM,
            match terminate {
                Terminate::AtOnce => die,
                Terminate::Flag => SignalHandlerForShutdownRequest,
            },
        );
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
