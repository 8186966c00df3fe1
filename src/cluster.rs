//! Which cluster this is, and whether it takes writes.

use pgrx::pg_sys;

use crate::error::{Error, Result};

/// An error where the server is read-only, before anything asks for a transaction id.
pub fn check_writable(action: &'static str) -> Result<()> {
    // SAFETY: reads shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return Err(Error::InRecovery { action });
    }
    Ok(())
}

/// The system identifier of this cluster.
pub fn system_id() -> i64 {
    // SAFETY: reads the control data in shared memory.
    unsafe { pg_sys::GetSystemIdentifier() as i64 }
}
