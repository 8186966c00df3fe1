//! Statements on foreign servers and user mappings, built as parse nodes and executed as the caller.
//!
//! They never exist as text, which the log, pg_stat_statements and the CONTEXT of errors would show with the key in
//! it.

use std::ffi::{CString, c_char};

use pgrx::prelude::*;
use pgrx::{AllocatedByRust, PgBox, PgList};

use super::WRAPPER;
use crate::error::{Error, Result};

/// CREATE SERVER .. FOREIGN DATA WRAPPER embedd OPTIONS (..).
pub fn create_server(name: &str, options: &[(String, String)]) -> Result<()> {
    let mut statement: PgBox<pg_sys::CreateForeignServerStmt, _> =
        node(pg_sys::NodeTag::T_CreateForeignServerStmt);
    statement.servername = text(name)?;
    statement.fdwname = WRAPPER.as_ptr().cast_mut();
    statement.options = new_options(options)?;
    // SAFETY: a complete statement, whose parts live as long as the transaction's memory.
    unsafe {
        pg_sys::CreateForeignServer(statement.into_pg());
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

/// ALTER SERVER .. OPTIONS (..); the old options are needed to choose ADD or SET.
pub fn alter_server(
    name: &str,
    old: &[(String, String)],
    changes: &[(String, Option<String>)],
) -> Result<()> {
    let mut statement: PgBox<pg_sys::AlterForeignServerStmt, _> =
        node(pg_sys::NodeTag::T_AlterForeignServerStmt);
    statement.servername = text(name)?;
    statement.options = changed_options(old, changes)?;
    // SAFETY: as in create_server().
    unsafe {
        pg_sys::AlterForeignServer(statement.into_pg());
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

/// CREATE USER MAPPING FOR PUBLIC SERVER .. OPTIONS (..).
pub fn create_mapping(name: &str, options: &[(String, String)]) -> Result<()> {
    let mut statement: PgBox<pg_sys::CreateUserMappingStmt, _> =
        node(pg_sys::NodeTag::T_CreateUserMappingStmt);
    statement.user = public();
    statement.servername = text(name)?;
    statement.options = new_options(options)?;
    // SAFETY: as in create_server().
    unsafe {
        pg_sys::CreateUserMapping(statement.into_pg());
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

/// ALTER USER MAPPING FOR PUBLIC SERVER .. OPTIONS (..); the old options are needed to choose ADD or SET.
pub fn alter_mapping(
    name: &str,
    old: &[(String, String)],
    changes: &[(String, Option<String>)],
) -> Result<()> {
    let mut statement: PgBox<pg_sys::AlterUserMappingStmt, _> =
        node(pg_sys::NodeTag::T_AlterUserMappingStmt);
    statement.user = public();
    statement.servername = text(name)?;
    statement.options = changed_options(old, changes)?;
    // SAFETY: as in create_server().
    unsafe {
        pg_sys::AlterUserMapping(statement.into_pg());
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

/// FOR PUBLIC.
fn public() -> *mut pg_sys::RoleSpec {
    let mut role: PgBox<pg_sys::RoleSpec, _> = node(pg_sys::NodeTag::T_RoleSpec);
    role.roletype = pg_sys::RoleSpecType::ROLESPEC_PUBLIC;
    role.into_pg()
}

/// OPTIONS (name 'value', ..).
fn new_options(options: &[(String, String)]) -> Result<*mut pg_sys::List> {
    let mut list = PgList::<pg_sys::DefElem>::new();
    for (name, value) in options {
        list.push(option(name, Some(value), pg_sys::DefElemAction::DEFELEM_UNSPEC)?);
    }
    Ok(list.into_pg())
}

/// OPTIONS (ADD name 'value', SET name 'value', DROP name, ..).
fn changed_options(
    old: &[(String, String)],
    changes: &[(String, Option<String>)],
) -> Result<*mut pg_sys::List> {
    let mut list = PgList::<pg_sys::DefElem>::new();
    for (name, value) in changes {
        let is_there = old.iter().any(|(other, _)| other == name);
        let action = match (is_there, value) {
            (false, None) => continue,
            (false, Some(_)) => pg_sys::DefElemAction::DEFELEM_ADD,
            (true, None) => pg_sys::DefElemAction::DEFELEM_DROP,
            (true, Some(_)) => pg_sys::DefElemAction::DEFELEM_SET,
        };
        list.push(option(name, value.as_deref(), action)?);
    }
    Ok(list.into_pg())
}

fn option(
    name: &str,
    value: Option<&str>,
    action: pg_sys::DefElemAction::Type,
) -> Result<*mut pg_sys::DefElem> {
    let value = value.map(text).transpose()?;
    let mut element: PgBox<pg_sys::DefElem, _> = node(pg_sys::NodeTag::T_DefElem);
    element.defname = text(name)?;
    if let Some(value) = value {
        // SAFETY: wraps a terminated text into a node.
        element.arg = unsafe { pg_sys::makeString(value) }.cast();
    }
    element.defaction = action;
    element.location = -1;
    Ok(element.into_pg())
}

/// Copies a text into PostgreSQL's memory.
fn text(text: &str) -> Result<*mut c_char> {
    let text = CString::new(text)
        .map_err(|_| Error::bad_argument("a text must not contain the character U+0000"))?;
    // SAFETY: copies a terminated text.
    Ok(unsafe { pg_sys::pstrdup(text.as_ptr()) })
}

/// A new node of this kind.
fn node<T: pg_sys::PgNode>(tag: pg_sys::NodeTag) -> PgBox<T, AllocatedByRust> {
    // SAFETY: every caller names the tag of the type it asks for.
    unsafe { PgBox::<T>::alloc_node(tag) }
}
