//! Finds the columns of a source by their numbers, which survive renames, and reports columns that are no longer
//! usable.

use pgrx::prelude::*;

use super::{VectorTable, sight, source_name, vectors_name};
use crate::error::{Error, Result};
use crate::key::{Key, KeyColumn};
use crate::name::quote_ident;
use crate::relation;

/// A column of a relation at present.
struct Found {
    number: i16,
    name: String,
}

/// The current columns of a vector table, if they differ from the stored ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceUpdate {
    pub key_numbers: Vec<i16>,
    pub column_numbers: Vec<i16>,
    pub primary_key_column: String,
}

impl VectorTable {
    /// Forces a look-up by names, because the stored numbers belong to another table.
    pub fn forget_numbers(&mut self) {
        self.stored.key_numbers.fill(0);
        self.stored.column_numbers.fill(0);
    }

    /// Locks the source until the end of the transaction, and resolves its columns again: names may have changed since
    /// it was read.
    pub fn pin(&mut self) -> Result<()> {
        // SAFETY: inside a transaction that has pushed one snapshot of its own. A snapshot from before the lock would
        // see a table that was rewritten meanwhile as empty.
        unsafe {
            pg_sys::LockRelationOid(self.source, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            pg_sys::PopActiveSnapshot();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        self.source_name = source_name(self.source);
        self.resolve().map(drop)
    }

    /// Locks the vector table until the end of the transaction, and looks up its name, which may have changed since it was
    /// read; waits while another session holds a conflicting lock.
    pub fn pin_vectors(&mut self) {
        // SAFETY: inside a transaction that has pushed one snapshot of its own. A snapshot from before the lock would
        // not see what an import has written meanwhile.
        unsafe {
            pg_sys::LockRelationOid(self.relation, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            pg_sys::PopActiveSnapshot();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        self.relation_name = vectors_name(self.relation, self.origin_id);
    }

    /// The stored columns, in the form in which they are written.
    pub fn as_stored(&self) -> SourceUpdate {
        SourceUpdate {
            key_numbers: self.stored.key_numbers.clone(),
            column_numbers: self.stored.column_numbers.clone(),
            primary_key_column: self.stored.primary_key_column.clone(),
        }
    }

    /// Resolves key and columns in the source; an error names the first unusable one. Returns what has to be recorded.
    pub fn resolve(&mut self) -> Result<Option<SourceUpdate>> {
        let source = self.source;
        let table = self
            .source_name
            .clone()
            .ok_or_else(|| Error::RelationGone { what: "source", name: self.name.clone() })?;
        if self.stored.key_numbers.is_empty() {
            return Err(Error::OldInstallation);
        }
        sight::check_rows(source, &table, self.owner, self.stored.sync_mode)?;
        // The numbers of another installation have no meaning here.
        let at_home = self.is_responsible();
        let find = |number: Option<&i16>, name: &str| -> Result<Found> {
            let by_number = number.filter(|_| at_home).and_then(|n| by_number(source, *n));
            by_number.or_else(|| by_name(source, name)).ok_or_else(|| Error::ColumnGone {
                column: name.to_string(),
                table: table.clone(),
                vector_table: self.name.clone(),
            })
        };
        let (mut key, mut key_numbers, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (n, name) in self.key_names().iter().enumerate() {
            let found = find(self.stored.key_numbers.get(n), name)?;
            let (column, type_name) = key_column(source, &found)?;
            let was = self.stored.key_types.get(n).cloned().unwrap_or_default();
            if type_name != was {
                return Err(Error::KeyTypeChanged {
                    column: found.name,
                    was,
                    is: type_name,
                    vector_table: self.name.clone(),
                });
            }
            key.push(column);
            key_numbers.push(found.number);
            names.push(found.name);
        }
        let mut column_numbers = Vec::new();
        let mut renamed = Vec::new();
        for (n, column) in self.columns.iter().enumerate() {
            let found = find(self.stored.column_numbers.get(n), column.source())?;
            column_numbers.push(found.number);
            renamed.push((found.name != column.name).then_some(found.name));
        }
        let mut is_changed = key_numbers != self.stored.key_numbers
            || column_numbers != self.stored.column_numbers
            || names != self.key_names()
            || table != self.stored.source_name;
        for (column, name) in self.columns.iter_mut().zip(renamed) {
            is_changed |= column.source_column != name;
            column.source_column = name;
        }
        self.key = Key { columns: key };
        let primary_key_column = Key::shown(&names);
        Ok(is_changed.then_some(SourceUpdate { key_numbers, column_numbers, primary_key_column }))
    }
}

/// The column with this number, unless it was dropped.
fn by_number(relation: pg_sys::Oid, number: i16) -> Option<Found> {
    // SAFETY: syscache look-ups in a transaction; the name is copied.
    unsafe {
        if pg_sys::get_atttype(relation, number) == pg_sys::InvalidOid {
            return None;
        }
        let name = pg_sys::get_attname(relation, number, true);
        let name = (!name.is_null()).then(|| std::ffi::CStr::from_ptr(name))?;
        Some(Found { number, name: name.to_string_lossy().into_owned() })
    }
}

/// The column with this name.
fn by_name(relation: pg_sys::Oid, name: &str) -> Option<Found> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a syscache look-up in a transaction, with a terminated name; dropped columns are not found.
    let number = unsafe { pg_sys::get_attnum(relation, name.as_ptr()) };
    (number > 0).then(|| Found { number, name: name.to_string_lossy().into_owned() })
}

/// A key column with the operators of its type, and the stored name of the type.
fn key_column(relation: pg_sys::Oid, found: &Found) -> Result<(KeyColumn, String)> {
    // SAFETY: look-ups in a transaction.
    let base = unsafe { pg_sys::getBaseType(pg_sys::get_atttype(relation, found.number)) };
    let (equals, greater) = operators(base);
    let column =
        KeyColumn { name: found.name.clone(), type_name: type_name(base, true), equals, greater };
    Ok((column, type_name(base, false)))
}

/// The equality and less-than operators of a type, as SQL; empty if it has none.
pub fn operators(type_oid: pg_sys::Oid) -> (String, String) {
    let flags = pg_sys::TYPECACHE_EQ_OPR | pg_sys::TYPECACHE_GT_OPR;
    // SAFETY: a look-up in a transaction; the entry lives as long as the process.
    let (equals, greater) = unsafe {
        let entry = pg_sys::lookup_type_cache(type_oid, flags as i32);
        ((*entry).eq_opr, (*entry).gt_opr)
    };
    (operator(equals), operator(greater))
}

fn operator(oid: pg_sys::Oid) -> String {
    // SAFETY: syscache look-ups in a transaction; the tuple is read before it is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::OPEROID as i32,
            pg_sys::Datum::from(oid),
        );
        if tuple.is_null() {
            return String::new();
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_operator>();
        let name = std::ffi::CStr::from_ptr((*row).oprname.data.as_ptr()).to_string_lossy();
        let schema = pg_sys::get_namespace_name((*row).oprnamespace);
        let sql = match schema.is_null() {
            true => String::new(),
            false => {
                let schema = std::ffi::CStr::from_ptr(schema).to_string_lossy();
                format!("operator({}.{name})", quote_ident(&schema))
            }
        };
        pg_sys::ReleaseSysCache(tuple);
        sql
    }
}

/// A type name for a cast, or as regtype shows it; qualified, because the search_path is fixed.
fn type_name(oid: pg_sys::Oid, for_cast: bool) -> String {
    let flags = if for_cast { pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN } else { 0 };
    // SAFETY: a look-up in a transaction; the name is copied.
    unsafe {
        let name = pg_sys::format_type_extended(oid, -1, flags as u16);
        std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

/// Makes every session reload what the triggers of a source have to capture.
pub fn forget_readers(source: pg_sys::Oid) {
    if relation::qualified_name(source).is_some() {
        // SAFETY: registers a message that is sent when the transaction commits.
        unsafe { pg_sys::CacheInvalidateRelcacheByRelid(source) };
    }
}
