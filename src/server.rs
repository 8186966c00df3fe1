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

/// Whether a relation is the source of a vector table, or a partition of it at any depth.
///
/// Read from the heap itself: a writer needs no grant on embedd's tables.
pub fn is_source(table_id: i32, relation: pg_sys::Oid) -> bool {
    // SAFETY: a scan inside a transaction; columns 1 and 3 of embedd.vector_tables are id and source_table.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"embedd".as_ptr(), true);
        let tables = pg_sys::get_relname_relid(c"vector_tables".as_ptr(), schema);
        if tables == pg_sys::InvalidOid {
            return false;
        }
        let heap = pg_sys::table_open(tables, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            1,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::Oid::from(pg_sys::F_INT4EQ),
            table_id.into(),
        );
        let scan = pg_sys::systable_beginscan(
            heap,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            1,
            &mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let mut source = pg_sys::InvalidOid;
        if !tuple.is_null() {
            let mut is_null = false;
            let value = pg_sys::SPI_getbinval(tuple, (*heap).rd_att, 3, &mut is_null);
            source = pg_sys::Oid::from(value.value() as u32);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(heap, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        source != pg_sys::InvalidOid
            && (source == relation
                || (pg_sys::get_rel_relispartition(relation)
                    && pg_sys::list_member_oid(
                        pg_sys::ffi::pg_guard_ffi_boundary(|| get_partition_ancestors(relation)),
                        source,
                    )))
    }
}

unsafe extern "C-unwind" {
    /// The tables a partition hangs under, nearest first (catalog/partition.h).
    fn get_partition_ancestors(relation: pg_sys::Oid) -> *mut pg_sys::List;
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

/// The oid of the extension, which tells it from one that was dropped and created again; None when it is not there.
pub fn extension() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up in a transaction.
    let oid = unsafe { pg_sys::get_extension_oid(c"embedd".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
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
