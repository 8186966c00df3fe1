//! Detects DDL on sources through the object access hook: attached and detached partitions, renamed and dropped
//! relations and columns.

pub mod rewrite;

use pgrx::prelude::*;

use crate::catalog::{self, Use};
use crate::extension;
use crate::queue::BulkChange;
use crate::relation;
use crate::trigger;

static mut PREVIOUS: pg_sys::object_access_hook_type = None;

/// Installs the hook. Called while the postmaster loads its libraries.
pub fn init() {
    // SAFETY: the postmaster is single-threaded while it loads libraries.
    unsafe {
        PREVIOUS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(on_access);
    }
}

/// The hook, called when an object is created, altered, dropped, truncated or looked up.
unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: i32,
    argument: *mut std::ffi::c_void,
) {
    // SAFETY: the arguments are passed on unchanged.
    unsafe {
        if let Some(next) = PREVIOUS {
            next(access, class, object, part, argument);
        }
        if class == pg_sys::NamespaceRelationId {
            // Another name, possibly of an object that every database has, such as the schema public.
            if access == pg_sys::ObjectAccessType::OAT_POST_ALTER {
                on_part(access);
            }
            return;
        }
        // System objects do not matter.
        if object.to_u32() < pg_sys::FirstNormalObjectId {
            return;
        }
        if class == pg_sys::RelationRelationId {
            on_relation(access, object, part);
        } else if class == TRIGGERS || class == SUBSCRIPTIONS {
            on_part(access);
        } else if class == INHERITS && access == pg_sys::ObjectAccessType::OAT_POST_ALTER {
            let alter = argument.cast::<pg_sys::ObjectAccessPostAlter>();
            if !alter.is_null() {
                on_inheritance(object, (*alter).auxiliary_id);
            }
        }
    }
}

/// The oid of pg_inherits (catalog/pg_inherits.h), the same in every version.
const INHERITS: pg_sys::Oid = pg_sys::Oid::from_u32(2611);

/// The oid of pg_trigger (catalog/pg_trigger.h), likewise.
const TRIGGERS: pg_sys::Oid = pg_sys::Oid::from_u32(2620);

/// The oid of pg_subscription (catalog/pg_subscription.h), likewise.
const SUBSCRIPTIONS: pg_sys::Oid = pg_sys::Oid::from_u32(6100);

/// Whether changes are captured in this process.
fn is_noting() -> bool {
    // SAFETY: plain globals of the process. Changes that arrive by replication were captured on another node.
    unsafe {
        pg_sys::IsTransactionState()
            && pg_sys::MyDatabaseId != pg_sys::InvalidOid
            // During CREATE or ALTER EXTENSION the script may change the table that would be read.
            && !(pg_sys::creating_extension
                && extension::oid() == Some(pg_sys::CurrentExtensionObject))
            && pg_sys::SessionReplicationRole != pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32
    }
}

/// A relation or one of its columns is dropped, altered or truncated.
#[pg_guard]
unsafe extern "C-unwind" fn on_relation(
    access: pg_sys::ObjectAccessType::Type,
    relation: pg_sys::Oid,
    column: i32,
) {
    use pg_sys::ObjectAccessType::*;
    // An added column may be one that was missing; a created relation is not a source yet.
    let is_new_column = access == OAT_POST_CREATE && column != 0;
    let is_change = matches!(access, OAT_DROP | OAT_POST_ALTER | OAT_TRUNCATE);
    if !(is_change || is_new_column) || !is_noting() {
        return;
    }
    // SAFETY: a syscache look-up in a transaction.
    let kind = unsafe { pg_sys::get_rel_relkind(relation) } as u8;
    if !matches!(
        kind,
        pg_sys::RELKIND_RELATION
            | pg_sys::RELKIND_PARTITIONED_TABLE
            | pg_sys::RELKIND_VIEW
            | pg_sys::RELKIND_MATVIEW
            | pg_sys::RELKIND_FOREIGN_TABLE
    ) || relation::is_own(relation)
    {
        return;
    }
    for used in catalog::uses(relation) {
        let is_itself = used.source == relation || used.vectors == relation;
        match access {
            _ if is_itself && access != OAT_TRUNCATE => trigger::touch_at_commit(),
            // TRUNCATE of a partition removes rows of the source; TRUNCATE of the source fires its trigger.
            OAT_DROP | OAT_TRUNCATE if !is_itself && column == 0 => {
                note_bulk_change(used, BulkChange::Gone)
            }
            _ => {}
        }
    }
}

/// A trigger was created or dropped, or a schema was renamed.
#[pg_guard]
unsafe extern "C-unwind" fn on_part(access: pg_sys::ObjectAccessType::Type) {
    use pg_sys::ObjectAccessType::*;
    if matches!(access, OAT_POST_CREATE | OAT_POST_ALTER | OAT_DROP)
        && is_noting()
        && catalog::is_used()
    {
        trigger::touch_at_commit();
    }
}

/// A relation became a child of another, or is no longer one.
#[pg_guard]
unsafe extern "C-unwind" fn on_inheritance(child: pg_sys::Oid, parent: pg_sys::Oid) {
    // SAFETY: a syscache look-up in a transaction.
    let is_partition =
        || unsafe { pg_sys::get_rel_relkind(parent) } as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
    if !is_noting() {
        return;
    }
    if !is_partition() {
        // The triggers of the parent do not fire for rows of an inheritance child.
        if !catalog::uses(parent).is_empty() {
            trigger::touch_at_commit();
        }
        return;
    }
    if is_empty(child) {
        return;
    }
    for used in catalog::uses(parent).into_iter().filter(|used| used.vectors != parent) {
        note_bulk_change(used, BulkChange::Changed);
    }
}

fn note_bulk_change(used: Use, change: BulkChange) {
    if used.has_triggers {
        trigger::note_bulk_change(used.table_id, change);
    }
}

unsafe extern "C-unwind" {
    /// Whether a table ever had children (catalog/pg_inherits.h).
    fn has_subclass(relation: pg_sys::Oid) -> bool;
}

/// Whether a relation has no rows for certain, like a partition just created.
fn is_empty(relation: pg_sys::Oid) -> bool {
    // SAFETY: the statement holds a lock on the relation; it is closed again here.
    unsafe {
        match pg_sys::get_rel_relkind(relation) as u8 {
            pg_sys::RELKIND_PARTITIONED_TABLE => {
                !pg_sys::ffi::pg_guard_ffi_boundary(|| has_subclass(relation))
            }
            pg_sys::RELKIND_RELATION => {
                let open = pg_sys::try_relation_open(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
                if open.is_null() {
                    return true;
                }
                let fork = pg_sys::ForkNumber::MAIN_FORKNUM;
                let blocks = pg_sys::RelationGetNumberOfBlocksInFork(open, fork);
                pg_sys::relation_close(open, pg_sys::NoLock as pg_sys::LOCKMODE);
                blocks == 0
            }
            _ => false,
        }
    }
}
