//! Syscache look-ups of relations and types: names, owners and schemas.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// The quoted and qualified name of a relation; None if it does not exist.
pub fn qualified_name(relation: pg_sys::Oid) -> Option<String> {
    // SAFETY: syscache look-ups in a transaction; the names are copied before their memory is reset with it.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        if name.is_null() || schema.is_null() {
            return None;
        }
        let qualified = pg_sys::quote_qualified_identifier(schema, name);
        Some(CStr::from_ptr(qualified).to_string_lossy().into_owned())
    }
}

/// The unqualified name of a relation; None if it does not exist.
pub fn name_of(relation: pg_sys::Oid) -> Option<String> {
    // SAFETY: a syscache look-up in a transaction; the name is copied.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// The name of the schema of a relation; None if it does not exist.
pub fn schema_of(relation: pg_sys::Oid) -> Option<String> {
    // SAFETY: syscache look-ups in a transaction; the name is copied.
    unsafe {
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        (!schema.is_null()).then(|| CStr::from_ptr(schema).to_string_lossy().into_owned())
    }
}

/// Whether a relation is a view.
pub fn is_view(relation: pg_sys::Oid) -> bool {
    // SAFETY: a syscache look-up in a transaction.
    unsafe { pg_sys::get_rel_relkind(relation) as u8 == pg_sys::RELKIND_VIEW }
}

/// Whether two relations are in the same schema.
pub fn share_schema(one: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: syscache look-ups in a transaction.
    unsafe { pg_sys::get_rel_namespace(one) == pg_sys::get_rel_namespace(other) }
}

/// The relation with this name in a schema; None if it does not exist.
pub fn find(schema: &str, name: &str) -> Option<pg_sys::Oid> {
    let (schema, name) = (CString::new(schema).ok()?, CString::new(name).ok()?);
    // SAFETY: syscache look-ups in a transaction, with terminated names.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        match schema == pg_sys::InvalidOid {
            true => pg_sys::InvalidOid,
            false => pg_sys::get_relname_relid(name.as_ptr(), schema),
        }
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The relation with this name in the schema of another one.
pub fn find_beside(relation: pg_sys::Oid, name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: syscache look-ups in a transaction, with a terminated name.
    let oid =
        unsafe { pg_sys::get_relname_relid(name.as_ptr(), pg_sys::get_rel_namespace(relation)) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The owner of a relation; None if it does not exist.
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

/// The namespace of a type; None if the type does not exist.
pub fn namespace_of_type(oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache look-up in a transaction; the tuple is read before it is released.
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
        Some(schema)
    }
}

/// The quoted schema of a type; None if the type does not exist.
pub fn schema_of_type(oid: pg_sys::Oid) -> Option<String> {
    let schema = namespace_of_type(oid)?;
    // SAFETY: a syscache look-up in a transaction; the name is copied.
    unsafe {
        let name = pg_sys::get_namespace_name(schema);
        if name.is_null() {
            return None;
        }
        let quoted = pg_sys::quote_identifier(name);
        Some(CStr::from_ptr(quoted).to_string_lossy().into_owned())
    }
}

/// The name of the type of a relation's column; None if relation or column does not exist.
pub fn type_of_column(relation: pg_sys::Oid, column: &CStr) -> Option<String> {
    // SAFETY: syscache look-ups in a transaction, with a terminated name; the tuple is read before it is released.
    unsafe {
        let number = pg_sys::get_attnum(relation, column.as_ptr());
        if number == pg_sys::InvalidAttrNumber as pg_sys::AttrNumber {
            return None;
        }
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::TYPEOID as i32,
            pg_sys::Datum::from(pg_sys::get_atttype(relation, number)),
        );
        if tuple.is_null() {
            return None;
        }
        let name = &(*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>()).typname;
        let name = CStr::from_ptr(name.data.as_ptr()).to_string_lossy().into_owned();
        pg_sys::ReleaseSysCache(tuple);
        Some(name)
    }
}

/// The type of a relation's column, or the base type of a domain; None if one of them is gone.
pub fn base_type(relation: pg_sys::Oid, column: &str) -> Option<pg_sys::Oid> {
    let column = std::ffi::CString::new(column).ok()?;
    // SAFETY: syscache look-ups in a transaction, with a terminated name; a relation that is gone has no columns.
    unsafe {
        let number = pg_sys::get_attnum(relation, column.as_ptr());
        (number != pg_sys::InvalidAttrNumber as pg_sys::AttrNumber)
            .then(|| pg_sys::getBaseType(pg_sys::get_atttype(relation, number)))
    }
}

/// Whether values of a type may be arrays in JSON: it is an array or JSON.
pub fn may_hold_lists(base: pg_sys::Oid) -> bool {
    // SAFETY: a syscache look-up in a transaction.
    let element = unsafe { pg_sys::get_element_type(base) };
    base == pg_sys::JSONBOID || base == pg_sys::JSONOID || element != pg_sys::InvalidOid
}

/// Whether timestamps of a type have a time zone.
pub fn has_zone(base: pg_sys::Oid) -> bool {
    !matches!(base, pg_sys::TIMESTAMPOID | pg_sys::DATEOID)
}

/// Whether a relation is one of embedd's own tables.
pub fn is_own(relation: pg_sys::Oid) -> bool {
    // SAFETY: syscache look-ups in a transaction, with a terminated constant name.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"embedd".as_ptr(), true);
        schema != pg_sys::InvalidOid && pg_sys::get_rel_namespace(relation) == schema
    }
}

/// The oid of one of embedd's own relations; None if the extension does not exist.
pub fn own(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: syscache look-ups in a transaction, with terminated names.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(c"embedd".as_ptr(), true);
        match schema == pg_sys::InvalidOid {
            true => pg_sys::InvalidOid,
            false => pg_sys::get_relname_relid(name.as_ptr(), schema),
        }
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}
