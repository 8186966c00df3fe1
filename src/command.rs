//! Runs one statement that changes objects, so that event triggers, logs and pg_stat_activity see what it is.

use std::cell::Cell;
use std::ffi::CString;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::error::{Error, Result};

/// What current_query() returns while the value lives; an error on the way puts back what it was, too.
struct Shown {
    before: *const std::ffi::c_char,
    _text: CString,
}

impl Drop for Shown {
    fn drop(&mut self) {
        // SAFETY: the main thread; what was shown before lives longer than this value.
        unsafe { pg_sys::debug_query_string = self.before };
    }
}

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a statement of embedd's own runs, and not one of a user.
pub fn is_running() -> bool {
    RUNNING.get()
}

/// Marks a statement of embedd's own while it lives, also on the way of an error.
struct Running;

impl Running {
    fn begin() -> Self {
        RUNNING.set(true);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(false);
    }
}

/// Runs a statement. A background process has no query of a client, so it shows this one; a session shows its own.
pub fn run(client: &mut SpiClient<'_>, statement: &str) -> Result<()> {
    let text = CString::new(statement)
        .map_err(|_| Error::Damaged { what: "a statement with a zero byte".to_string() })?;
    // SAFETY: the main thread; the text lives as long as it is shown.
    let _shown = unsafe {
        let before = pg_sys::debug_query_string;
        before.is_null().then(|| {
            pg_sys::debug_query_string = text.as_ptr();
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr());
            Shown { before, _text: text }
        })
    };
    let _running = Running::begin();
    client.update(statement, None, &[])?;
    Ok(())
}
