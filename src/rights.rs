//! Roles: names, membership, and running code with the rights of another role.

use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::relation;
use crate::settings::{Level, Others};

/// The name of a role, or its oid if it does not exist.
pub fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: a syscache look-up in a transaction; the name is copied.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        match name.is_null() {
            true => role.to_string(),
            false => std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned(),
        }
    }
}

/// Whether the current role has the rights of pg_monitor.
pub fn is_monitor() -> bool {
    // SAFETY: look-ups of roles in a transaction.
    unsafe {
        pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::Oid::from(pg_sys::ROLE_PG_MONITOR))
    }
}

/// Switches to another role until it is dropped, after an error too.
pub struct RoleSwitch {
    user: pg_sys::Oid,
    context: i32,
    /// Settings changed meanwhile are reverted with the role: what a user's code sets must not outlive it.
    settings: Option<Level>,
}

impl RoleSwitch {
    /// Switches to the owner of embedd, to access embedd's own tables on behalf of a caller.
    pub fn of_extension() -> Result<Self> {
        let queue = relation::own(c"queue");
        let owner = queue.and_then(relation::owner_of);
        let owner = owner.ok_or(Error::Damaged { what: "no queue".to_string() })?;
        Ok(Self::switch(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE))
    }

    /// Switches to the owner of a vector table, for everything that may run a user's code.
    pub fn of_owner(owner: pg_sys::Oid) -> Self {
        let mut rights = Self::switch(
            owner,
            pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION,
        );
        rights.settings = Some(Level::begin(Others::Revert));
        rights
    }

    fn switch(role: pg_sys::Oid, restriction: u32) -> Self {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: plain reads and writes of the process's own state.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            pg_sys::SetUserIdAndSecContext(role, context | restriction as i32);
        }
        Self { user, context, settings: None }
    }
}

impl Drop for RoleSwitch {
    fn drop(&mut self) {
        // The settings are reverted with the rights under which they were set.
        drop(self.settings.take());
        // SAFETY: puts back what was there before.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) }
    }
}

/// Fixes the search_path until it is dropped, after an error too: for a function without a search_path of its own,
/// because it runs SQL of its caller too.
pub fn pin_path() -> Level {
    Level::with(Others::Revert, &[(c"search_path", c"pg_catalog, pg_temp")])
}
