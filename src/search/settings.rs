//! Settings of pgvector that hold for one statement.

use std::ffi::CStr;

use pgrx::prelude::*;

/// Settings for one statement; dropping the value restores the previous ones.
pub struct LocalSettings {
    level: i32,
}

impl LocalSettings {
    /// Sets them, in this order.
    pub fn set(values: &[(&CStr, &CStr)]) -> Self {
        // SAFETY: main thread, inside a transaction. The settings exist once pgvector's library is loaded; after an
        // error the nest level ends with the transaction.
        unsafe {
            pg_sys::load_external_function(
                c"$libdir/vector".as_ptr(),
                c"vector_in".as_ptr(),
                true,
                std::ptr::null_mut(),
            );
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in values {
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
            Self { level }
        }
    }
}

impl Drop for LocalSettings {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: ends the level that set() began, in the same transaction.
            unsafe { pg_sys::AtEOXact_GUC(true, self.level) }
        }
    }
}
