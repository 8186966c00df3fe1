//! Keeps large documents out of the statement that compares: a join would hold many of them in memory at once.

use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiCursor};

use crate::datum::texts;
use crate::document::TOO_LARGE;
use crate::error::Result;

/// Bytes of text and metadata from which on a document is read by itself.
const LARGE: usize = 1024 * 1024;

/// Documents without those that are large, whose text and metadata are null: pk_value, embedded_text, metadata, row_hash and
/// has_text, whether there is something to embed.
pub fn left_out(documents: &str) -> String {
    let is_small = format!(
        "pg_catalog.octet_length(o.embedded_text) + pg_catalog.pg_column_size(o.metadata) < {LARGE}"
    );
    format!(
        "select o.pk_value, case when {is_small} then o.embedded_text end as embedded_text,
                case when {is_small} then o.metadata end as metadata, o.row_hash, o.embedded_text <> '' as has_text
           from ({documents}) o offset 0"
    )
}

/// Reads those of the rows that differ, one by one. `documents` selects those whose keys are in the array $1.
///
/// Runs with the rights of the vector table's owner.
pub fn fill_in(client: &mut SpiClient<'_>, documents: &str) -> Result<()> {
    let missing = texts(client.update(MISSING, None, &[TOO_LARGE.into()])?)?;
    if missing.is_empty() {
        return Ok(());
    }
    let query = format!(
        "select o.pk_value, o.embedded_text, o.metadata::text, o.row_hash from ({documents}) o"
    );
    let name = client.try_open_cursor(&query, &[missing.into()])?.detach_into_name();
    // Each has a connection of its own, with whose end its memory is given back.
    while Spi::connect_mut(|inner| fill_next(inner, &name))? {}
    drop(client.find_cursor(&name)?);
    // They are gone meanwhile.
    let gone = format!(
        "update pg_temp.embedd_run set row_hash = null where pk_value = any(array({MISSING}))"
    );
    client.update(&gone, None, &[TOO_LARGE.into()])?;
    Ok(())
}

/// Puts the next document of a cursor into the run; false when there is none.
fn fill_next(client: &mut SpiClient<'_>, cursor: &str) -> Result<bool> {
    let mut cursor = client.find_cursor(cursor)?;
    let document = next(&mut cursor)?;
    cursor.detach_into_name();
    let Some([pk_value, text, metadata, hash]) = document else { return Ok(false) };
    client.update(
        "update pg_temp.embedd_run set embedded_text = $2, metadata = $3::jsonb, row_hash = $4
          where pk_value = $1 and differs",
        None,
        &[pk_value.into(), text.into(), metadata.into(), hash.into()],
    )?;
    Ok(true)
}

/// The next document of a cursor, column by column.
fn next(cursor: &mut SpiCursor<'_>) -> Result<Option<[Option<String>; 4]>> {
    let rows = cursor.fetch(1)?;
    if rows.is_empty() {
        return Ok(None);
    }
    let row = rows.first();
    Ok(Some([row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))
}

/// The keys of documents that were left out; not those of rows that are gone or too large.
const MISSING: &str = "select pk_value from pg_temp.embedd_run
   where differs and embedded_text is null and row_hash <> $1";
