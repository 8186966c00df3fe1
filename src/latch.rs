//! Waits of a PostgreSQL process: for its latch, a socket, a timeout, or the death of the postmaster.

use std::time::Duration;

use pgrx::pg_sys;

/// Waits until the latch is set, `socket` is ready, or the timeout expires.
pub fn wait(timeout: Duration, socket: Option<(i32, bool)>) {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let mut descriptor = pg_sys::PGINVALID_SOCKET;
    if let Some((fd, wants_write)) = socket {
        descriptor = fd;
        events |= pg_sys::WL_SOCKET_READABLE;
        if wants_write {
            events |= pg_sys::WL_SOCKET_WRITEABLE;
        }
    }
    // SAFETY: MyLatch is this process's own; the socket is open for the duration of the call.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            descriptor,
            timeout.as_millis().min(i32::MAX as u128) as std::ffi::c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}
