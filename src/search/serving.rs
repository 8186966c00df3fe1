//! The indexes that can order the vectors of a vector table by their distance from a question: embedd's own, and those that its
//! owner has made, of any access method whose operator class has the operator.

use std::ffi::CStr;

use pgrx::PgList;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::VectorTable;
use crate::datum::VectorType;
use crate::error::Result;
use crate::relation::namespace_of_type;
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
    let Some(namespace) = namespace_of_type(pgvector.oid) else { return found };
    // SAFETY: the relation is open; each index is locked, opened and closed.
    unsafe {
        let embedding = pg_sys::get_attnum((*relation).rd_id, c"embedding".as_ptr());
        let list = pg_sys::RelationGetIndexList(relation);
        for oid in PgList::<pg_sys::Oid>::from_pg(list).iter_oid() {
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            if let Some(key) = key_of(index, embedding, namespace) {
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

/// What the first key of an open index is, with operators of the namespace of pgvector; None where it cannot serve.
unsafe fn key_of(
    index: pg_sys::Relation,
    embedding: pg_sys::AttrNumber,
    pgvector: pg_sys::Oid,
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
        let operator = operator_of(pgvector, operator, of)?;
        let is_member = pg_sys::get_op_opfamily_sortfamily(operator, *(*index).rd_opfamily)
            != pg_sys::InvalidOid;
        is_member.then_some(key)
    }
}

/// The operator with this name in a namespace that compares two values of a type.
unsafe fn operator_of(namespace: pg_sys::Oid, name: &CStr, of: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache look-up in a transaction, with a terminated name.
    let operator = unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::OPERNAMENSP as i32,
            pg_sys::Anum_pg_operator_oid as pg_sys::AttrNumber,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(of),
            pg_sys::Datum::from(of),
            pg_sys::Datum::from(namespace),
        )
    };
    (operator != pg_sys::InvalidOid).then_some(operator)
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
        // The expression of embedd's own index need not be read again.
        let is_known = index.key == own || index.key == IndexKey::Column;
        if is_known || has_key(client, &index, &column.key_sql(index.key, schema))? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Whether the first key of an index is this expression. PostgreSQL writes it with parentheses of its own.
fn has_key(client: &SpiClient<'_>, index: &Serving, expected: &str) -> Result<bool> {
    let rows = client.select(
        "select pg_catalog.translate(pg_catalog.pg_get_indexdef($1, 1, false), '()', '') = pg_catalog.translate($2, '()', '')",
        None,
        &[index.oid.into(), expected.into()],
    )?;
    Ok(rows.first().get_one::<bool>()? == Some(true))
}
