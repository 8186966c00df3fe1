//! Detects statements that change values, or their text, without firing row triggers, and schedules a comparison of
//! the affected vector tables.

use std::ffi::CStr;

use pgrx::PgList;
use pgrx::prelude::*;

use super::{is_noting, note_bulk_change};
use crate::catalog;
use crate::command;
use crate::queue::BulkChange;
use crate::trigger;

/// Records the effect of a statement on sources before it runs; if the statement fails, the record is rolled back with
/// it.
///
/// # Safety
/// The node must be that of a valid utility statement, in a transaction.
pub unsafe fn note(node: *mut pg_sys::Node) {
    // SAFETY: the tag of a node says what it is.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_AlterTableStmt => {
                let alter = node.cast::<pg_sys::AlterTableStmt>();
                if has_command(alter, is_of_policies) {
                    look_again();
                }
                if (*alter).objtype == pg_sys::ObjectType::OBJECT_TYPE {
                    note_types(true);
                } else if (*alter).objtype == pg_sys::ObjectType::OBJECT_TABLE
                    && has_command(alter, rewrites)
                {
                    note_relation((*alter).relation);
                }
            }
            // While it was disabled, rows may have changed unnoticed.
            pg_sys::NodeTag::T_CreateTrigStmt if !command::is_running() => {
                let create = node.cast::<pg_sys::CreateTrigStmt>();
                if is_of_embedd((*create).trigname) {
                    note_relation((*create).relation);
                }
            }
            // ALTER TYPE .. RENAME VALUE changes texts; a new label does not.
            pg_sys::NodeTag::T_AlterEnumStmt
                if !(*node.cast::<pg_sys::AlterEnumStmt>()).oldVal.is_null() =>
            {
                note_types(false);
            }
            pg_sys::NodeTag::T_RenameStmt
                if (*node.cast::<pg_sys::RenameStmt>()).renameType
                    == pg_sys::ObjectType::OBJECT_ATTRIBUTE =>
            {
                note_types(false);
            }
            // Privileges that may make rows visible to a worker again, or hide them.
            pg_sys::NodeTag::T_CreatePolicyStmt
            | pg_sys::NodeTag::T_AlterPolicyStmt
            | pg_sys::NodeTag::T_AlterRoleStmt
            | pg_sys::NodeTag::T_GrantStmt
            | pg_sys::NodeTag::T_GrantRoleStmt => look_again(),
            pg_sys::NodeTag::T_DropStmt
                if (*node.cast::<pg_sys::DropStmt>()).removeType
                    == pg_sys::ObjectType::OBJECT_POLICY =>
            {
                look_again();
            }
            _ => {}
        }
    }
}

/// Makes the worker check every source again when the transaction commits.
fn look_again() {
    if is_noting() && catalog::is_used() {
        trigger::touch_at_commit();
    }
}

/// Whether a command of ALTER TABLE affects row security.
#[allow(non_upper_case_globals, reason = "the names of PostgreSQL's own constants")]
fn is_of_policies(command: &pg_sys::AlterTableCmd) -> bool {
    use pg_sys::AlterTableType::*;
    matches!(
        command.subtype,
        AT_EnableRowSecurity | AT_DisableRowSecurity | AT_ForceRowSecurity | AT_NoForceRowSecurity
    )
}

/// Whether a predicate holds for one of the commands of ALTER TABLE.
unsafe fn has_command(
    alter: *mut pg_sys::AlterTableStmt,
    condition: impl Fn(&pg_sys::AlterTableCmd) -> bool,
) -> bool {
    // SAFETY: its commands are a list of AlterTableCmd, or NIL.
    unsafe {
        let commands = PgList::<pg_sys::AlterTableCmd>::from_pg((*alter).cmds);
        commands.iter_ptr().any(|command| condition(&*command))
    }
}

/// Whether a command changes values, or re-enables triggers of embedd.
#[allow(non_upper_case_globals, reason = "the names of PostgreSQL's own constants")]
fn rewrites(command: &pg_sys::AlterTableCmd) -> bool {
    use pg_sys::AlterTableType::*;
    match command.subtype {
        AT_AlterColumnType | AT_EnableTrigAll | AT_EnableTrigUser => true,
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        AT_SetExpression => true,
        // SAFETY: the name in a command is terminated.
        AT_EnableTrig | AT_EnableAlwaysTrig | AT_EnableReplicaTrig => unsafe {
            is_of_embedd(command.name)
        },
        _ => false,
    }
}

/// Whether a trigger with this name may be one of embedd's.
unsafe fn is_of_embedd(trigger: *const std::ffi::c_char) -> bool {
    // SAFETY: a terminated name, or none.
    !trigger.is_null() && unsafe { CStr::from_ptr(trigger) }.to_bytes().starts_with(b"embedd_")
}

/// Records that rows of a relation may have changed.
unsafe fn note_relation(relation: *mut pg_sys::RangeVar) {
    if relation.is_null() || !is_noting() {
        return;
    }
    // SAFETY: a look-up of a name in a transaction; a missing relation is an error of the statement.
    let oid = unsafe {
        pg_sys::RangeVarGetRelidExtended(
            relation,
            pg_sys::NoLock as pg_sys::LOCKMODE,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    };
    if oid == pg_sys::InvalidOid {
        return;
    }
    for used in catalog::uses(oid).into_iter().filter(|used| used.vectors != oid) {
        note_bulk_change(used, BulkChange::Changed);
    }
}

/// Records that the text of a type's values has changed: for sources with a column of a user-defined type, or for all.
fn note_types(of_all: bool) {
    if !is_noting() {
        return;
    }
    for (used, columns) in catalog::all_uses() {
        let is_own_type = |number: &i16| {
            // SAFETY: a syscache look-up in a transaction.
            let of_column = unsafe { pg_sys::get_atttype(used.source, *number) };
            of_column.to_u32() >= pg_sys::FirstNormalObjectId
        };
        if of_all || columns.iter().any(is_own_type) {
            note_bulk_change(used, BulkChange::Changed);
        }
    }
}
