//! Writes rows of embedd.vector_tables: a new vector table, its configuration, and what is recorded of its source.

use pgrx::JsonB;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::{RecallCurve, SourceUpdate, VectorTable, forget_readers, missing, system_id};
use crate::error::{Error, Result};
use crate::{extension, queue, shared};

/// Stores a new vector table; the relations must exist.
pub fn insert(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    key_types: &[pg_sys::Oid],
) -> Result<()> {
    let stored = &table.stored;
    let settings = stored.question_settings.unless_default();
    client.update(
        "insert into embedd.vector_tables (id, name, source_table, primary_key_column, key_types, vector_table,
                embedding_provider, embedding_model, embedding_dimensions, columns, owner, system_id, extension_id,
                source_name, key_numbers, column_numbers, sync_mode, batch_interval, on_source_drop, compared_in, vectors_name,
                query_prefix, document_prefix, origin_id, replaces, auto_swap, on_shadow,
                vector_type, index_options, question_settings)
         overriding system value
         values ($1, $2, $3, $4, $5::oid[]::regtype[], $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                pg_catalog.make_interval(secs => $18), $19, $20, $21, nullif($22, ''), nullif($23, ''), $24, $25, $26, $27,
                $28, $29, $30)",
        None,
        &[
            table.id.into(),
            table.name.as_str().into(),
            table.source.into(),
            stored.primary_key_column.as_str().into(),
            key_types.to_vec().into(),
            table.relation.into(),
            table.provider.as_str().into(),
            table.model.as_str().into(),
            table.dimensions.into(),
            columns_json(table)?.into(),
            table.owner.into(),
            table.system_id.into(),
            extension::oid().ok_or_else(missing)?.into(),
            stored.source_name.as_str().into(),
            stored.key_numbers.clone().into(),
            stored.column_numbers.clone().into(),
            stored.sync_mode.as_str().into(),
            table.batch_interval.into(),
            stored.on_source_drop.as_str().into(),
            shared::started_at().into(),
            stored.vectors_name.as_str().into(),
            stored.query_prefix.as_str().into(),
            stored.document_prefix.as_str().into(),
            table.origin_id.into(),
            stored.replaces.into(),
            stored.auto_swap.into(),
            stored.on_shadow.clone().into(),
            stored.vector_type.as_str().into(),
            json_of("index_options", stored.index_options.as_ref())?.into(),
            json_of("question_settings", settings)?.into(),
        ],
    )?;
    Ok(())
}

fn columns_json(table: &VectorTable) -> Result<JsonB> {
    let columns = serde_json::to_value(&table.columns)
        .map_err(|e| Error::Damaged { what: format!("columns: {e}") })?;
    Ok(JsonB(columns))
}

/// Stores what update_vector_table() changes in place.
pub fn set_config(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    let stored = &table.stored;
    let settings = stored.question_settings.unless_default();
    client.update(
        "update embedd.vector_tables
            set embedding_provider = $2, columns = $3, column_numbers = $4, batch_interval = pg_catalog.make_interval(secs => $5),
                on_source_drop = $6, on_shadow = $7, query_prefix = nullif($8, ''), question_settings = $9
          where id = $1",
        None,
        &[
            table.id.into(),
            table.provider.as_str().into(),
            columns_json(table)?.into(),
            stored.column_numbers.clone().into(),
            table.batch_interval.into(),
            stored.on_source_drop.as_str().into(),
            stored.on_shadow.clone().into(),
            stored.query_prefix.as_str().into(),
            json_of("question_settings", settings)?.into(),
        ],
    )?;
    forget_readers(table.source);
    Ok(())
}

/// Stores the recall of the index of a vector table.
pub fn set_measured_recall(
    client: &mut SpiClient<'_>,
    id: i32,
    measured: &RecallCurve,
) -> Result<()> {
    client.update(
        "update embedd.vector_tables set measured_recall = $2 where id = $1",
        None,
        &[id.into(), json_of("measured_recall", Some(measured))?.into()],
    )?;
    Ok(())
}

/// Stores the oids of the roles that have SELECT on both source and vector table.
pub fn set_mirrored_readers(
    client: &mut SpiClient<'_>,
    id: i32,
    readers: Vec<String>,
) -> Result<()> {
    client.update(
        "update embedd.vector_tables set mirrored_readers = $2::text[]::oid[] where id = $1",
        None,
        &[id.into(), readers.into()],
    )?;
    Ok(())
}

/// Gives a vector table and its shadow another name.
pub fn rename(client: &mut SpiClient<'_>, id: i32, name: &str) -> Result<()> {
    client.update(
        "update embedd.vector_tables set name = $2 where id = $1 or replaces = $1",
        None,
        &[id.into(), name.into()],
    )?;
    Ok(())
}

/// The value of a column of type jsonb.
fn json_of(column: &str, value: Option<&impl serde::Serialize>) -> Result<Option<JsonB>> {
    let value = value.map(serde_json::to_value).transpose();
    value
        .map(|value| value.map(JsonB))
        .map_err(|e| Error::Damaged { what: format!("{column}: {e}") })
}

/// Records the current name of a vector table's source and its columns.
pub fn record_source(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    moved: &SourceUpdate,
) -> Result<()> {
    client.update(
        "update embedd.vector_tables
            set source_table = $2, source_name = coalesce($3, source_name), key_numbers = $4, column_numbers = $5, primary_key_column = $6,
                columns = $7
          where id = $1",
        None,
        &[
            table.id.into(),
            table.source.into(),
            table.source_name.clone().into(),
            moved.key_numbers.clone().into(),
            moved.column_numbers.clone().into(),
            moved.primary_key_column.as_str().into(),
            columns_json(table)?.into(),
        ],
    )?;
    forget_readers(table.source);
    Ok(())
}

/// Records the current table of vectors, its name and its owner.
pub fn record_vectors(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    client.update(
        "update embedd.vector_tables set vector_table = $2, vectors_name = $3, owner = $4 where id = $1",
        None,
        &[
            table.id.into(),
            table.relation.into(),
            table.relation_name()?.into(),
            table.owner.into(),
        ],
    )?;
    Ok(())
}

/// The stored types of the key columns.
pub fn key_types(client: &mut SpiClient<'_>, id: i32) -> Result<Vec<pg_sys::Oid>> {
    let rows = client.update(
        "select u.of::oid from embedd.vector_tables v cross join unnest(v.key_types) with ordinality u(of, n)
          where v.id = $1 order by u.n",
        None,
        &[id.into()],
    )?;
    rows.into_iter().map(|row| row.get::<pg_sys::Oid>(1)?.ok_or_else(missing)).collect()
}

/// Records the current types of the key columns.
pub fn set_key_types(client: &mut SpiClient<'_>, id: i32, types: &[pg_sys::Oid]) -> Result<()> {
    client.update(
        "update embedd.vector_tables set key_types = $2::oid[]::regtype[] where id = $1",
        None,
        &[id.into(), types.to_vec().into()],
    )?;
    Ok(())
}

/// Deletes a vector table and everything that belongs to it.
pub fn delete(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    // There are no foreign keys for this, because they would prescribe the order of restoring a dump.
    for (table, column) in [
        ("tasks", "target_id"),
        ("provider_batches", "target_id"),
        ("provider_batch_texts", "target_id"),
        ("failed_rows", "table_id"),
        ("truncated_rows", "table_id"),
        ("sync_state", "table_id"),
    ] {
        client.update(
            &format!("delete from embedd.{table} where {column} = $1"),
            None,
            &[id.into()],
        )?;
    }
    client.update("delete from embedd.vector_tables where id = $1", None, &[id.into()])?;
    queue::remove_all(client, id)
}

/// Records the current name of a vector table's provider.
pub fn set_provider(client: &mut SpiClient<'_>, id: i32, name: &str) -> Result<()> {
    client.update(
        "update embedd.vector_tables set embedding_provider = $2 where id = $1",
        None,
        &[id.into(), name.into()],
    )?;
    Ok(())
}

/// Makes this cluster responsible for the sync of a table (after a restore or an upgrade).
pub fn adopt(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables set system_id = $2, extension_id = $3, compared_in = $4, awaits_transactions = null,
                mirrored_readers = '{}' where id = $1",
        None,
        &[
            id.into(),
            system_id().into(),
            extension::oid().ok_or_else(missing)?.into(),
            shared::started_at().into(),
        ],
    )?;
    client.update("delete from embedd.sync_state where table_id = $1", None, &[id.into()])?;
    Ok(())
}

/// Records that changes of a source may be missed from now on, unless that is recorded already.
pub fn record_missed_changes(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables set unseen_since = pg_catalog.clock_timestamp()
          where id = $1 and unseen_since is null",
        None,
        &[id.into()],
    )?;
    Ok(())
}

/// Records that a comparison was requested, which finds all changes missed before.
pub fn record_comparison(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables set unseen_since = null, compared_in = $2 where id = $1",
        None,
        &[id.into(), shared::started_at().into()],
    )?;
    Ok(())
}
