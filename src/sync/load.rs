//! Reads the documents of a batch of keys and tells what each of them needs: nothing, removal, new metadata or a new vector.

use std::collections::HashSet;

use pgrx::spi::SpiClient;

use crate::catalog::VectorTable;
use crate::document::document_sql;
use crate::error::Result;
use crate::server::Rights;

/// A source row as it is to be stored.
#[derive(Clone, Debug)]
pub struct Document {
    pub pk_value: String,
    pub text: String,
    /// jsonb in its text form.
    pub metadata: String,
    pub row_hash: String,
}

/// What a key needs.
#[derive(Debug)]
pub enum Need {
    /// The vector table is right already.
    Nothing,
    /// The source row is gone, the vector row (with this pk_value) is still there.
    Remove(String),
    /// The text is as it was, or there is none: no provider is asked.
    Rewrite(Document),
    /// The text is new.
    Embed(Document),
}

/// Bytes of documents read at once; the rest of the batch is read next time.
const BYTES_AT_ONCE: usize = 8 * 1024 * 1024;
/// Rows fetched from the cursor between looks at the bytes.
const ROWS_AT_ONCE: std::ffi::c_long = 16;

/// The need of each key, in the order of `keys`; None for those that were not read for lack of room.
///
/// Runs with the rights of the vector table's owner.
pub fn needs(
    client: &SpiClient<'_>,
    table: &VectorTable,
    keys: &[&str],
) -> Result<Vec<Option<Need>>> {
    let source = table.source_name()?;
    let relation = table.relation_name()?;
    let key_type = &table.key_type;
    let document = document_sql(
        source,
        &table.key,
        &table.columns,
        // The second comparison keeps apart keys that are equal but not the same, as 1.0 and 1.00.
        &format!(
            "s.{0} = k.key and s.{0}::text collate \"default\" = k.pk",
            crate::name::quote_ident(&table.key)
        ),
    );
    let query = format!(
        "select k.ord, k.pk, d.embedded_text, d.metadata::text, d.row_hash, v.pk_value is not null, v.row_hash,
                v.embedded_text = d.embedded_text and v.embedding is not null
           from (select u.ord, u.noted::{key_type} as key, (u.noted::{key_type})::text collate \"default\" as pk
                   from unnest($1::text[]) with ordinality u(noted, ord)) k
           left join lateral ({document}) d on true
           left join {relation} v on v.pk_value = k.pk"
    );
    let _rights = Rights::of_owner(table.owner);
    let noted: Vec<String> = keys.iter().map(|k| k.to_string()).collect();
    let mut cursor = client.try_open_cursor(&query, &[noted.into()])?;
    let mut needs: Vec<Option<Need>> = keys.iter().map(|_| None).collect();
    let mut seen = HashSet::new();
    let mut bytes = 0;
    while bytes < BYTES_AT_ONCE {
        let rows = cursor.fetch(ROWS_AT_ONCE)?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let ordinal = row.get::<i64>(1)?.unwrap_or_default();
            let pk_value = row.get::<String>(2)?.unwrap_or_default();
            let text = row.get::<String>(3)?;
            let is_stored = row.get::<bool>(6)?.unwrap_or_default();
            let need = match text {
                None if is_stored => Need::Remove(pk_value),
                None => Need::Nothing,
                Some(text) => {
                    let metadata = row.get::<String>(4)?.unwrap_or_default();
                    let row_hash = row.get::<String>(5)?.unwrap_or_default();
                    bytes += text.len() + metadata.len();
                    let same_row = row.get::<String>(7)?.is_some_and(|stored| stored == row_hash);
                    let same_text = row.get::<bool>(8)?.unwrap_or_default();
                    let is_empty = text.is_empty();
                    let document = Document { pk_value, text, metadata, row_hash };
                    if !seen.insert(document.pk_value.clone()) {
                        // Two noted forms of one key: the first has brought its row.
                        Need::Nothing
                    } else if same_row && (same_text || is_empty) {
                        Need::Nothing
                    } else if same_text || is_empty {
                        Need::Rewrite(document)
                    } else {
                        Need::Embed(document)
                    }
                }
            };
            if let Some(slot) = needs.get_mut(ordinal as usize - 1) {
                *slot = Some(need);
            }
        }
    }
    Ok(needs)
}
