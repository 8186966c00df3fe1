//! Finds rows that are too large to be read: a document of theirs would take several times as much memory.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::load::{plan, plan_with, texts};
use crate::catalog::VectorTable;
use crate::error::Result;
use crate::name::quote_ident;
use crate::rights::Rights;

/// Bytes of the configured columns of one row, as they are when they are unpacked.
pub const MOST_BYTES: i64 = 32 * 1024 * 1024;

/// Bytes of out-of-line values below which a table has no row of that size: they are packed to a 255th at the most.
const PACKED: i64 = MOST_BYTES / 256;

/// Why such a row is set aside.
pub fn reason() -> String {
    format!("the configured columns of the row have more than {} MB", MOST_BYTES >> 20)
}

/// Those of some keys whose rows are too large.
///
/// Runs with the rights of the vector table's owner.
pub fn too_large(
    client: &SpiClient<'_>,
    table: &VectorTable,
    keys: &[String],
) -> Result<Vec<String>> {
    if keys.is_empty() || table.reads_run || !may_have_any(client, table)? {
        return Ok(Vec::new());
    }
    let sizes: Vec<String> = table
        .columns
        .iter()
        .zip(&table.stored.column_numbers)
        .map(|(column, number)| {
            let value = format!("s.{}", quote_ident(column.source()));
            format!("coalesce({}({value}), 0)::bigint", size_function(table.source, *number))
        })
        .collect();
    let condition = table.key.matches("s", &table.key.values("k.pk"), "k.pk");
    let query = format!(
        "select k.pk from unnest($1::text[]) k(pk)
           join lateral (select {} as bytes from {} s where {condition}) d on d.bytes > {MOST_BYTES}",
        sizes.join(" + "),
        table.source_name()?
    );
    let _rights = Rights::of_owner(table.owner);
    let plan = plan(client, &query)?;
    texts(client.select(&*plan, None, &[keys.to_vec().into()])?)
}

/// The function that tells how many bytes a value has: unpacked, where that can be told without unpacking it.
fn size_function(source: pg_sys::Oid, column: i16) -> &'static str {
    // SAFETY: syscache look-ups in a transaction.
    let base = unsafe { pg_sys::getBaseType(pg_sys::get_atttype(source, column)) };
    match base {
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID | pg_sys::BYTEAOID => {
            "pg_catalog.octet_length"
        }
        _ => "pg_catalog.pg_column_size",
    }
}

/// Whether the out-of-line values of a source are enough for one row of that size. Partitions are not looked at one by one.
fn may_have_any(client: &SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    // Asked for each batch: it is not planned each time.
    let plan = plan_with(
        client,
        "select c.relkind = 'p' or (c.reltoastrelid <> 0 and pg_catalog.pg_relation_size(c.reltoastrelid) >= $2)
           from pg_catalog.pg_class c where c.oid = $1",
        &[PgBuiltInOids::OIDOID.oid(), PgBuiltInOids::INT8OID.oid()],
    )?;
    let rows = client.select(&*plan, None, &[table.source.into(), PACKED.into()])?;
    Ok(!rows.is_empty() && rows.first().get_one::<bool>()? == Some(true))
}
