//! The SQL of a row's document: its text, its metadata and the hash of both.

use super::{Column, embedding_columns};
use crate::key::Key;
use crate::name::{quote_ident, quote_literal};

/// The most columns in one jsonb_build_object call: two arguments each, of PostgreSQL's 100.
const COLUMNS_PER_OBJECT: usize = 50;

/// The SQL expressions of a source row's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expressions {
    /// The embedded text, never NULL; refers to the row alias.
    pub text: String,
    /// The metadata, a jsonb object; refers to the row alias.
    pub metadata: String,
    /// The row hash; refers to the columns embedded_text and metadata of a subquery named `d`.
    pub hash: String,
}

/// The document of a row as SQL expressions; the row alias is inserted as it is.
pub fn expressions(columns: &[Column], alias: &str) -> Expressions {
    // array_to_string omits NULLs as concat_ws does, without the limit of 100 arguments. The explicit collation keeps
    // a nondeterministic collation from treating a text as equal to '', and columns with different collations from
    // making the result incomparable.
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
        // The length in front separates text and metadata; it counts characters, so that the hash does not depend on
        // the encoding of the database.
        hash: "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(\
               pg_catalog.length(d.embedded_text)::text || ':'::text || d.embedded_text \
               || d.metadata::text, 'UTF8')), 'hex')"
            .to_string(),
    }
}

/// The hash of a row that is too large.
pub const TOO_LARGE: &str = "too large";

/// A query for pk_value, embedded_text, metadata and row_hash of source rows.
///
/// `source` is the FROM item, `condition` a SQL condition on its alias `s`, and `too_large` the condition that a row
/// is too large: its text and metadata are null, and its hash is [`TOO_LARGE`]. The text of dates, floats, bytea and
/// the like depends on settings of the session, which must be the same wherever hashes are compared.
/// settings of the session, so these have to be the same wherever hashes are compared.
pub fn document_sql(
    source: &str,
    key: &Key,
    columns: &[Column],
    condition: &str,
    too_large: &str,
) -> String {
    let Expressions { text, metadata, hash } = expressions(columns, "s");
    let key = key.pk_value("s");
    // "offset 0" keeps the planner from duplicating the expressions of text and hash.
    format!(
        "select d.pk_value, d.embedded_text, d.metadata, \
         case when d.embedded_text is null then '{TOO_LARGE}' else {hash} end as row_hash \
         from (select {key} as pk_value, \
         case when {too_large} then null else {text} end as embedded_text, \
         case when {too_large} then null else {metadata} end as metadata \
         from {source} s where {condition} offset 0) d offset 0"
    )
}

/// The condition that document `d` of a source row differs from row `v` of the vector table, or has no vector.
pub const DIFFERS: &str =
    "(d.row_hash is distinct from v.row_hash or (d.embedded_text <> '' and v.embedding is null))";

/// A query for all rows in which source and vector table differ: pk_value, row_hash (null if the source has no such
/// row), and whether the vector table has the row.
///
/// A row with text but without a vector differs too. The documents are those of [`document_sql`], for rows with a key.
/// Documents and vectors may be large, so the query neither sorts nor hashes them.
pub fn difference_sql(documents: &str, relation: &str) -> String {
    format!(
        "select coalesce(d.pk_value, v.pk_value) as pk_value, d.row_hash, v.pk_value is not null as is_stored \
         from (select c.*, pg_catalog.count(*) over (partition by c.pk_value) as copies \
         from (select o.pk_value, o.row_hash, o.embedded_text <> '' as has_text from ({documents}) o offset 0) c) d \
         full join (select r.pk_value, r.row_hash, r.embedding is null as is_bare from {relation} r offset 0) v \
         on v.pk_value = d.pk_value \
         where d.pk_value is null or d.row_hash is distinct from v.row_hash or (d.has_text and v.is_bare) or d.copies > 1"
    )
}
