//! Settings that hold in a level of their own (GUC nest level), and end with it.

use std::ffi::{CStr, c_int};

use pgrx::pg_sys;

/// What becomes, at the end of a level, of what other code has set in it for longer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// It stays, as after a function with a SET clause.
    Stay,
    /// It is reverted: what a user's code sets must not outlive the level.
    Revert,
}

/// A level of settings. It ends when the value is dropped, and after an error with the transaction.
pub struct Level {
    level: c_int,
    others: Others,
}

impl Level {
    /// Opens a level inside the open ones.
    pub fn begin(others: Others) -> Self {
        // SAFETY: the main thread in a transaction; the end of the value or of the transaction closes the level.
        Self { level: unsafe { pg_sys::NewGUCNestLevel() }, others }
    }

    /// Opens a level with these settings.
    pub fn with(others: Others, settings: &[(&CStr, &CStr)]) -> Self {
        let level = Self::begin(others);
        settings.iter().for_each(|(name, value)| set(name, value));
        level
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the level opened above; in an unwinding error the abort undoes the settings.
            unsafe { pg_sys::AtEOXact_GUC(self.others == Others::Stay, self.level) }
        }
    }
}

/// Sets a setting until the innermost level ends.
pub fn set(name: &CStr, value: &CStr) {
    // SAFETY: the main thread in a transaction, with terminated texts.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}
