//! What embedd asks the running server: where its own relations are, which cluster this is, and whose rights are in force.

use std::time::Duration;

use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::queue;

/// The quoted and qualified name of a relation; None when it is gone.
pub fn qualified_name(relation: pg_sys::Oid) -> Option<String> {
    // SAFETY: syscache look-ups in a transaction; the names are copied before their memory is reset with it.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        if name.is_null() || schema.is_null() {
            return None;
        }
        let qualified = pg_sys::quote_qualified_identifier(schema, name);
        Some(std::ffi::CStr::from_ptr(qualified).to_string_lossy().into_owned())
    }
}

/// An error where the server is read-only, before anything asks for a transaction id.
pub fn check_writable(action: &'static str) -> Result<()> {
    // SAFETY: reads shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return Err(Error::InRecovery { action });
    }
    Ok(())
}

/// The owner of a relation; None when it is gone.
pub fn owner_of(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache look-up in a transaction; the tuple is read before it is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relation),
        );
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// The name of a role, or its number when it is gone.
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

/// The quoted name of the schema of a type; None when the type is gone.
pub fn schema_of_type(oid: pg_sys::Oid) -> Option<String> {
    // SAFETY: syscache look-ups in a transaction; the tuple is read before it is released, the name copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::TYPEOID as i32,
            pg_sys::Datum::from(oid),
        );
        if tuple.is_null() {
            return None;
        }
        let schema = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>()).typnamespace;
        pg_sys::ReleaseSysCache(tuple);
        let name = pg_sys::get_namespace_name(schema);
        if name.is_null() {
            return None;
        }
        let quoted = pg_sys::quote_identifier(name);
        Some(std::ffi::CStr::from_ptr(quoted).to_string_lossy().into_owned())
    }
}

/// Oids of the queue and of its sequence; None when the extension is gone.
pub fn queue_relations() -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    // SAFETY: syscache look-ups in a transaction, with terminated constant names.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"embedd".as_ptr(), true);
        if schema == pg_sys::InvalidOid {
            return None;
        }
        let relation = pg_sys::get_relname_relid(queue::RELATION.as_ptr(), schema);
        let sequence = pg_sys::get_relname_relid(queue::SEQUENCE.as_ptr(), schema);
        (relation != pg_sys::InvalidOid && sequence != pg_sys::InvalidOid)
            .then_some((relation, sequence))
    }
}

/// Whether a relation is one of embedd's own tables.
pub fn is_own(relation: pg_sys::Oid) -> bool {
    // SAFETY: syscache look-ups in a transaction, with a terminated constant name.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"embedd".as_ptr(), true);
        schema != pg_sys::InvalidOid && pg_sys::get_rel_namespace(relation) == schema
    }
}

/// The oid of the extension, which tells it from one that was dropped and created again; None when it is not there.
pub fn extension() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up in a transaction.
    let oid = unsafe { pg_sys::get_extension_oid(c"embedd".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether the objects in the database are those of this library, which ALTER EXTENSION UPDATE brings.
pub fn is_updated(client: &pgrx::spi::SpiClient<'_>) -> Result<bool> {
    let rows = client.select(
        "select extversion = $1 from pg_catalog.pg_extension where extname = 'embedd'",
        None,
        &[env!("CARGO_PKG_VERSION").into()],
    )?;
    Ok(!rows.is_empty() && rows.first().get_one::<bool>()? == Some(true))
}

/// The system identifier of this cluster.
pub fn system_id() -> i64 {
    // SAFETY: reads the control data in shared memory.
    unsafe { pg_sys::GetSystemIdentifier() as i64 }
}

/// Another role's rights for as long as the value lives; an error on the way gives them back too.
pub struct Rights {
    user: pg_sys::Oid,
    context: i32,
    /// Settings changed since are undone with the rights: what a user's code sets must not outlive it.
    settings: Option<i32>,
}

impl Rights {
    /// The rights of embedd's own owner, to reach embedd's own tables on behalf of a caller.
    pub fn of_extension() -> Result<Self> {
        let (relation, _) =
            queue_relations().ok_or(Error::Damaged { what: "no queue".to_string() })?;
        let owner = owner_of(relation).ok_or(Error::Damaged { what: "no queue".to_string() })?;
        Ok(Self::switch(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE))
    }

    /// The rights of a vector table's owner, for everything that may run a user's code.
    pub fn of_owner(owner: pg_sys::Oid) -> Self {
        let mut rights = Self::switch(
            owner,
            pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION,
        );
        // SAFETY: opens a level of settings, which the end of the value or of the transaction closes.
        rights.settings = Some(unsafe { pg_sys::NewGUCNestLevel() });
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

impl Drop for Rights {
    fn drop(&mut self) {
        // SAFETY: puts back what was there before; in an unwinding error the abort undoes the settings.
        unsafe {
            if let Some(level) = self.settings
                && !std::thread::panicking()
            {
                pg_sys::AtEOXact_GUC(false, level);
            }
            pg_sys::SetUserIdAndSecContext(self.user, self.context);
        }
    }
}

/// Settings that the text form of a value depends on: the same wherever documents, hashes and keys are made.
pub const TEXT_SETTINGS: &[(&std::ffi::CStr, &std::ffi::CStr)] = &[
    (c"datestyle", c"ISO, YMD"),
    (c"intervalstyle", c"postgres"),
    (c"timezone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
    (c"xmlbinary", c"base64"),
];

/// Puts the text settings in force until the rights that are held meanwhile are given back.
pub fn set_text_settings(_until: &Rights) {
    for (name, value) in TEXT_SETTINGS {
        // SAFETY: the main thread, inside the level of settings that the rights have opened.
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
}

unsafe extern "C" {
    /// How bytea is shown: 1 is hex (utils/bytea.h).
    static mut bytea_output: std::ffi::c_int;
}

/// The variables behind the text settings, set for the output of one value: a trigger has no time for more.
pub struct TextSettings {
    date_style: i32,
    date_order: i32,
    interval_style: i32,
    extra_float_digits: i32,
    bytea_output: i32,
    timezone: *mut pg_sys::pg_tz,
}

impl TextSettings {
    /// Sets them until the value is dropped, also by an error.
    pub fn fixed() -> Self {
        thread_local! {
            static UTC: std::cell::Cell<*mut pg_sys::pg_tz> = const { std::cell::Cell::new(std::ptr::null_mut()) };
        }
        if UTC.get().is_null() {
            // SAFETY: a look-up in the process's own table of time zones, which never forgets one.
            UTC.set(unsafe { pg_sys::pg_tzset(c"UTC".as_ptr()) });
        }
        // SAFETY: plain variables of the process, which its main thread alone uses.
        unsafe {
            let before = Self {
                date_style: pg_sys::DateStyle,
                date_order: pg_sys::DateOrder,
                interval_style: pg_sys::IntervalStyle,
                extra_float_digits: pg_sys::extra_float_digits,
                bytea_output,
                timezone: pg_sys::session_timezone,
            };
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES as i32;
            pg_sys::DateOrder = pg_sys::DATEORDER_YMD as i32;
            pg_sys::IntervalStyle = pg_sys::INTSTYLE_POSTGRES as i32;
            pg_sys::extra_float_digits = 1;
            bytea_output = 1;
            if !UTC.get().is_null() {
                pg_sys::session_timezone = UTC.get();
            }
            before
        }
    }
}

impl Drop for TextSettings {
    fn drop(&mut self) {
        // SAFETY: as in fixed().
        unsafe {
            pg_sys::DateStyle = self.date_style;
            pg_sys::DateOrder = self.date_order;
            pg_sys::IntervalStyle = self.interval_style;
            pg_sys::extra_float_digits = self.extra_float_digits;
            bytea_output = self.bytea_output;
            pg_sys::session_timezone = self.timezone;
        }
    }
}

/// Waits until this process is woken, something arrives on `socket`, or the time is over.
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
