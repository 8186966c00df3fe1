//! Reads the usage counts of providers, which the embedder writes.

use std::io::ErrorKind;

use embedd_wire::{USAGE_PATH, Usage};
use pgrx::prelude::*;

use super::{Tuple, has_usage};
use crate::error::{Error, Result};

/// The usage of this database's providers that the current role may use.
pub fn usage() -> Result<Vec<Usage>> {
    // SAFETY: plain reads of the process's own state.
    let (database, role) = unsafe { (pg_sys::MyDatabaseId.to_u32(), pg_sys::GetUserId()) };
    let damaged =
        |error: &dyn std::fmt::Display| Error::Damaged { what: format!("{USAGE_PATH}: {error}") };
    let rows: Vec<Usage> = match std::fs::read(USAGE_PATH) {
        Ok(json) => serde_json::from_slice(&json).map_err(|error| damaged(&error))?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(damaged(&error)),
    };
    let is_visible = |server| has_usage(pg_sys::ForeignServerRelationId, server, role);
    let is_there = |server| Tuple::find(pg_sys::SysCacheIdentifier::FOREIGNSERVEROID, server, None);
    Ok(rows
        .into_iter()
        .filter(|row| row.database == database)
        .filter(|row| {
            let server = pg_sys::Oid::from(row.server);
            is_there(server).is_some() && is_visible(server)
        })
        .collect())
}
