//! The document of a row as SQL: its text, its metadata and the hash of both, set by set.

use super::{Column, embedding_columns};
use crate::key::Key;
use crate::name::{quote_ident, quote_literal};

/// The most columns one jsonb_build_object call takes: two arguments each, of PostgreSQL's 100.
const COLUMNS_PER_OBJECT: usize = 50;

/// SQL expressions that make up the document of one source row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expressions {
    /// The embedded text, never NULL, over the row alias.
    pub text: String,
    /// The metadata, a jsonb object, over the row alias.
    pub metadata: String,
    /// The row hash, over the columns embedded_text and metadata of a subquery named `d`.
    pub hash: String,
}

/// The document of a row as SQL expressions over the row alias, which is put into them as it is.
pub fn expressions(columns: &[Column], alias: &str) -> Expressions {
    // array_to_string leaves out NULLs as concat_ws does, and knows no limit of 100 arguments.
    // The explicit collation keeps a nondeterministic one from calling a text equal to '', and
    // columns of different collations from making the result one that cannot be compared.
    let parts: Vec<String> = embedding_columns(columns)
        .into_iter()
        .map(|column| {
            let name = quote_ident(column.source());
            let value = format!("nullif({alias}.{name}::text collate pg_catalog.\"C\", '')");
            match column.name_prefix.as_deref() {
                None | Some("") => value,
                Some(prefix) => format!("{}::text || {value}", quote_literal(prefix)),
            }
        })
        .collect();
    let objects: Vec<String> = columns
        .chunks(COLUMNS_PER_OBJECT)
        .map(|chunk| {
            let pairs: Vec<String> = chunk
                .iter()
                .map(|column| {
                    let key = quote_literal(&column.name);
                    format!("{key}::text, {alias}.{}", quote_ident(column.source()))
                })
                .collect();
            format!("pg_catalog.jsonb_build_object({})", pairs.join(", "))
        })
        .collect();
    Expressions {
        text: format!(
            "pg_catalog.array_to_string(array[{}]::text[], E'\\n'::text)",
            parts.join(", ")
        ),
        metadata: objects.join(" || "),
        // The length in front says where the text ends and the metadata begins; it counts
        // characters, so that the hash does not depend on the encoding of the database.
        hash: "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(\
               pg_catalog.length(d.embedded_text)::text || ':'::text || d.embedded_text \
               || d.metadata::text, 'UTF8')), 'hex')"
            .to_string(),
    }
}

/// The query that gives pk_value, embedded_text, metadata and row_hash of the rows of a source.
///
/// `source` is what stands behind FROM and `condition` a SQL condition on its alias `s`. The text form of dates, floats, bytea and the like follows the
/// settings of the session, so these have to be the same wherever hashes are compared.
pub fn document_sql(source: &str, key: &Key, columns: &[Column], condition: &str) -> String {
    let Expressions { text, metadata, hash } = expressions(columns, "s");
    let key = key.pk_value("s");
    // "offset 0" keeps the planner from copying the text's expression to each use of it.
    format!(
        "select d.pk_value, d.embedded_text, d.metadata, {hash} as row_hash \
         from (select {key} as pk_value, \
         {text} as embedded_text, {metadata} as metadata \
         from {source} s where {condition} offset 0) d"
    )
}

/// That the document `d` of a row of the source is another one than that of the vector table's row `v`, or has no vector.
pub const DIFFERS: &str =
    "(d.row_hash is distinct from v.row_hash or (d.embedded_text <> '' and v.embedding is null))";

/// The query that gives every row in which a source and its vector table differ: pk_value, the document (null where the
/// source has no such row), how many rows of the source have that key, and whether the vector table has it,
/// with the same hash.
///
/// A row whose text has no vector differs too. Rows without a key are none, nor are those of the source, as `s`, that do not
/// fulfil the condition.
pub fn difference_sql(
    source: &str,
    key: &Key,
    columns: &[Column],
    relation: &str,
    condition: &str,
) -> String {
    let condition = format!("{} and {condition}", key.is_complete("s"));
    let documents = document_sql(source, key, columns, &condition);
    format!(
        "select coalesce(d.pk_value, v.pk_value) as pk_value, d.embedded_text, d.metadata, d.row_hash, \
         coalesce(d.copies, 0) as copies, v.pk_value is not null as is_stored, \
         coalesce(d.row_hash = v.row_hash, false) as has_hash \
         from (select c.*, pg_catalog.count(*) over (partition by c.pk_value) as copies from ({documents}) c) d \
         full join {relation} v on v.pk_value = d.pk_value \
         where {DIFFERS} or d.pk_value is null or d.copies > 1"
    )
}
