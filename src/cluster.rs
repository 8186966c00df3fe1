//! The cluster's identity, and whether it accepts writes.

use pgrx::pg_sys;

use crate::error::{Error, Result};

/// An error if the server is read-only, before the statement needs a transaction id.
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
