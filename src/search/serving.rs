//! The indexes that can order the vectors of a vector table by their distance from a question: embedd's own, and those that its
//! owner has made, of any access method whose operator class has the operator.

use std::ffi::CStr;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::VectorTable;
use crate::datum::VectorType;
use crate::error::Result;
use crate::vector_column::IndexKey;

/// An index that serves questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    pub oid: pg_sys::Oid,
    /// Its access method.
    pub method: String,
    pub key: IndexKey,
}

/// The valid indexes whose first key an operator of distances can order. What the expressions are is still to be checked.
///
/// # Safety
///
/// The relation must be open, inside a transaction.
pub unsafe fn indexes(relation: pg_sys::Relation, pgvector: &VectorType) -> Vec<Serving> {
    let mut found = Vec::new();
    // SAFETY: the relation is open; each index is locked, opened and closed.
    unsafe {
        let embedding = pg_sys::get_attnum((*relation).rd_id, c"embedding".as_ptr());
        let list = pg_sys::RelationGetIndexList(relation);
        let length = if list.is_null() { 0 } else { (*list).length as usize };
        for at in 0..length {
            let oid = (*(*list).elements.add(at)).oid_value;
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            if let Some(key) = key_of(index, embedding, pgvector) {
                let method = pg_sys::get_am_name((*(*index).rd_rel).relam);
                if !method.is_null() {
                    let method = CStr::from_ptr(method).to_string_lossy().into_owned();
                    found.push(Serving { oid, method, key });
                }
            }
            pg_sys::index_close(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        }
    }
    found
}

/// What the first key of an open index is; None where it cannot serve.
unsafe fn key_of(
    index: pg_sys::Relation,
    embedding: pg_sys::AttrNumber,
    pgvector: &VectorType,
) -> Option<IndexKey> {
    // SAFETY: the index is open, and has at least one key.
    unsafe {
        let form = (*index).rd_index;
        let first = *(*form).indkey.values.as_slice(1).first()?;
        if !(*form).indisvalid || (first != embedding && first != 0) {
            return None;
        }
        let routine = (*index).rd_indam;
        if routine.is_null() {
            // A partitioned index has no operator classes that are loaded.
            let is_vector_index = (*(*index).rd_rel).relam != pg_sys::BTREE_AM_OID;
            return is_vector_index.then_some(
                match (first, pg_sys::get_atttype((*index).rd_id, 1)) {
                    (0, pg_sys::BITOID) => IndexKey::Bits,
                    (0, _) => IndexKey::Halfvec,
                    _ => IndexKey::Column,
                },
            );
        }
        if !(*routine).amcanorderbyop {
            return None;
        }
        let of = *(*index).rd_opcintype;
        let (operator, key) = match of {
            pg_sys::BITOID if first == 0 => (c"<~>", IndexKey::Bits),
            _ if first == 0 => (c"<=>", IndexKey::Halfvec),
            _ => (c"<=>", IndexKey::Column),
        };
        let operator = operator_of(pgvector.oid, operator, of)?;
        let is_member = pg_sys::get_op_opfamily_sortfamily(operator, *(*index).rd_opfamily)
            != pg_sys::InvalidOid;
        is_member.then_some(key)
    }
}

/// The operator of pgvector with this name that compares two values of a type.
unsafe fn operator_of(vector: pg_sys::Oid, name: &CStr, of: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: syscache look-ups in a transaction; the tuple is released after use.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::TYPEOID as i32,
            pg_sys::Datum::from(vector),
        );
        if tuple.is_null() {
            return None;
        }
        let schema = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>()).typnamespace;
        pg_sys::ReleaseSysCache(tuple);
        let operator = pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::OPERNAMENSP as i32,
            pg_sys::Anum_pg_operator_oid as pg_sys::AttrNumber,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(of),
            pg_sys::Datum::from(of),
            pg_sys::Datum::from(schema),
        );
        (operator != pg_sys::InvalidOid).then_some(operator)
    }
}

/// The one of these indexes that a question goes through: first one with the key that embedd's own has.
pub fn choose(
    client: &SpiClient<'_>,
    table: &VectorTable,
    schema: &str,
    mut indexes: Vec<Serving>,
) -> Result<Option<Serving>> {
    let column = table.vector_column();
    let own = column.index_key();
    // Stable: of several with the same key the first is taken.
    indexes.sort_by_key(|index| (index.key != own, index.key as u8));
    for index in indexes {
        let expected = column.key_expression(index.key, schema);
        // The expression of embedd's own index need not be read again.
        if index.key == own || expected.is_none() || has_key(client, &index, expected.as_deref())? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Whether the first key of an index is this expression, without parentheses.
fn has_key(client: &SpiClient<'_>, index: &Serving, expected: Option<&str>) -> Result<bool> {
    let rows = client.select(
        "select pg_catalog.translate(pg_catalog.pg_get_indexdef($1, 1, false), '()', '')",
        None,
        &[index.oid.into()],
    )?;
    Ok(rows.first().get_one::<String>()?.as_deref() == expected)
}
