//! Runs one utility statement, so that event triggers, logs and pg_stat_activity show it.

use std::cell::Cell;
use std::ffi::CString;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::error::{Error, Result};

/// Sets what current_query() returns; dropping it restores the previous text, after an error too.
struct ShownStatement {
    before: *const std::ffi::c_char,
    _text: CString,
}

impl Drop for ShownStatement {
    fn drop(&mut self) {
        // SAFETY: the main thread; the previous text outlives this value.
        unsafe { pg_sys::debug_query_string = self.before };
    }
}

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Whether one of embedd's own statements is running, and not a user's.
pub fn is_running() -> bool {
    RUNNING.get()
}

/// Marks one of embedd's own statements as running until it is dropped, after an error too.
struct OwnStatement;

impl OwnStatement {
    fn begin() -> Self {
        RUNNING.set(true);
        Self
    }
}

impl Drop for OwnStatement {
    fn drop(&mut self) {
        RUNNING.set(false);
    }
}

/// Runs a statement. A background process has no client query, so it shows this statement; a session shows its own
/// query.
pub fn run(client: &mut SpiClient<'_>, statement: &str) -> Result<()> {
    let text = CString::new(statement)
        .map_err(|_| Error::Damaged { what: "a statement with a zero byte".to_string() })?;
    // SAFETY: the main thread; the text outlives its use.
    let _shown = unsafe {
        let before = pg_sys::debug_query_string;
        before.is_null().then(|| {
            pg_sys::debug_query_string = text.as_ptr();
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr());
            ShownStatement { before, _text: text }
        })
    };
    let _running = OwnStatement::begin();
    client.update(statement, None, &[])?;
    Ok(())
}
