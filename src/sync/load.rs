//! Reads the documents of a batch of keys and tells what each of them needs: nothing, removal, new metadata or a new vector.

use pgrx::spi::SpiClient;

use super::run;
use crate::catalog::VectorTable;
use crate::document::document_sql;
use crate::error::Result;
use crate::rights::Rights;
use crate::transaction::Patience;

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
    /// Several rows of the source have the key, and none of them is the one that is meant.
    Refuse(String),
}

/// Bytes of documents read at once; the rest of the batch is read next time.
const BYTES_AT_ONCE: usize = 8 * 1024 * 1024;
/// Rows fetched from the cursor between looks at the bytes.
const ROWS_AT_ONCE: std::ffi::c_long = 16;

/// How rows of the source are found by their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By the key's own index.
    Key,
    /// By comparing texts, for one key that its type does not take (any more). Reads the whole source.
    Text,
}

impl By {
    /// How long that may take.
    pub fn patience(self) -> Patience {
        match self {
            Self::Key => Patience::Some,
            Self::Text => Patience::All,
        }
    }
}

/// The keys of $1 as `k`, their documents as `d`, and their rows of the vector table as `v`.
fn from_sql(table: &VectorTable, by: By) -> Result<String> {
    let relation = table.relation_name()?;
    let documents = match (table.reads_run, by) {
        (true, _) => {
            format!("{} r where r.pk_value = k.pk and r.row_hash is not null", run::SELECT)
        }
        (false, By::Key) => {
            let condition = table.key.matches("s", &table.key.values("k.pk"), "k.pk");
            document_sql(&table.source_name()?, &table.key, &table.columns, &condition)
        }
        (false, By::Text) => {
            let condition = format!("{} = k.pk", table.key.pk_value("s"));
            document_sql(&table.source_name()?, &table.key, &table.columns, &condition)
        }
    };
    Ok(format!(
        "from unnest($1::text[]) with ordinality k(pk, ord)
         left join lateral ({documents}) d on true
         left join {relation} v on v.pk_value = k.pk"
    ))
}

/// Those of some keys whose rows are not in the vector table as they should be.
///
/// Runs with the rights of the vector table's owner.
pub fn different(
    client: &SpiClient<'_>,
    table: &VectorTable,
    keys: &[String],
) -> Result<Vec<String>> {
    let query = format!(
        "select k.pk {}
          where d.row_hash is distinct from v.row_hash or (d.pk_value is null and v.pk_value is not null)
             or (d.embedded_text <> '' and v.embedding is null)
          order by k.ord",
        from_sql(table, By::Key)?
    );
    let _rights = Rights::of_owner(table.owner);
    texts(client.select(&query, None, &[keys.to_vec().into()])?)
}

/// Those of some keys that no row of the source has.
///
/// Runs with the rights of the vector table's owner.
pub fn gone(
    client: &SpiClient<'_>,
    table: &VectorTable,
    keys: &[String],
    by: By,
) -> Result<Vec<String>> {
    let source = table.source_name()?;
    let condition = match by {
        By::Key => table.key.matches("s", &table.key.values("k.pk"), "k.pk"),
        By::Text => format!("{} = k.pk", table.key.pk_value("s")),
    };
    let query = format!(
        "select k.pk from unnest($1::text[]) with ordinality k(pk, ord)
          where not exists (select from {source} s where {condition}) order by k.ord"
    );
    let _rights = Rights::of_owner(table.owner);
    texts(client.select(&query, None, &[keys.to_vec().into()])?)
}

/// The first column of each row.
pub fn texts(rows: pgrx::spi::SpiTupleTable<'_>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for row in rows {
        found.extend(row.get::<String>(1)?);
    }
    Ok(found)
}

/// The need of each key, in the order of `keys`; None for those that were not read for lack of room.
///
/// Runs with the rights of the vector table's owner.
pub fn needs(
    client: &SpiClient<'_>,
    table: &VectorTable,
    keys: &[&str],
    by: By,
) -> Result<Vec<Option<Need>>> {
    let copies = if table.reads_run { "d.copies" } else { "1::bigint" };
    let query = format!(
        "select k.ord, k.pk, d.embedded_text, d.metadata::text, d.row_hash, v.pk_value is not null, v.row_hash,
                v.embedded_text = d.embedded_text and v.embedding is not null, {copies}
         {}",
        from_sql(table, by)?
    );
    let _rights = Rights::of_owner(table.owner);
    let noted: Vec<String> = keys.iter().map(|k| k.to_string()).collect();
    let mut cursor = client.try_open_cursor(&query, &[noted.into()])?;
    let mut needs: Vec<Option<Need>> = keys.iter().map(|_| None).collect();
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
                Some(_) if row.get::<i64>(9)?.is_some_and(|copies| copies > 1) => {
                    Need::Refuse(pk_value)
                }
                Some(text) => {
                    let metadata = row.get::<String>(4)?.unwrap_or_default();
                    let row_hash = row.get::<String>(5)?.unwrap_or_default();
                    bytes += text.len() + metadata.len();
                    let same_row = row.get::<String>(7)?.is_some_and(|stored| stored == row_hash);
                    let same_text = row.get::<bool>(8)?.unwrap_or_default();
                    let is_empty = text.is_empty();
                    let document = Document { pk_value, text, metadata, row_hash };
                    if same_row && (same_text || is_empty) {
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
