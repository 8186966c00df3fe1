//! Notices to the creator of a vector table: texts longer than the model reads, prefixes, and no index.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::VectorTable;
use crate::error::{Result, raise_message};
use crate::name::quote_literal;
use crate::rights::RoleSwitch;
use crate::transaction;
use crate::vector_column::{MOST_INDEXED, Method};

/// The size of the sample.
const SAMPLE: i64 = 200;

/// From this many rows on TABLESAMPLE is used.
const LARGE: f32 = 10_000.0;

/// Samples the source, and raises a NOTICE if texts have more tokens than the model reads. Skips a source that cannot
/// be read, or only by running a view. Only a cancelled statement is an error.
pub fn long_texts(table: &VectorTable, tokens: u32) -> Result<()> {
    let sample = transaction::nested_read(|| Spi::connect(|client| look(client, table, tokens)));
    let (rows, long) = match sample {
        Ok(Some((rows, long))) if long > 0 => (rows, long),
        Err(failure) if failure.is_canceled() => return Err(failure.into()),
        _ => return Ok(()),
    };
    let message = format!(
        "some texts of vector table \"{}\" exceed the limit of model \"{}\"",
        table.name, table.model
    );
    let detail = format!(
        "In a sample of {rows} rows, about {long} have more than {tokens} tokens. Only the beginning of such a text is embedded; truncated_rows counts them."
    );
    let hint = "SELECT provider, model, tokens_per_text FROM embedd.models shows models with a larger limit.";
    raise_message(PgLogLevel::NOTICE, message, Some(detail), Some(hint.to_string()));
    Ok(())
}

/// The size of the sample, and how many of its texts are too long.
fn look(client: &SpiClient<'_>, table: &VectorTable, tokens: u32) -> Result<Option<(i64, i64)>> {
    let source = table.source_name()?;
    // SAFETY: look-ups in a transaction, which has locked the source when creating its triggers, or reads it below.
    let (kind, rows) = unsafe {
        let relation = pg_sys::RelationIdGetRelation(table.source);
        if relation.is_null() {
            return Ok(None);
        }
        let form = &*(*relation).rd_rel;
        let found = (form.relkind as u8, form.reltuples);
        pg_sys::RelationClose(relation);
        found
    };
    let from = match kind {
        pg_sys::RELKIND_RELATION if rows > LARGE => {
            format!("{source} tablesample system ({})", 500.0 * SAMPLE as f32 / rows)
        }
        pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE | pg_sys::RELKIND_MATVIEW => {
            source
        }
        _ => return Ok(None),
    };
    let rows = format!("(select {} from {from} limit {SAMPLE})", table.source_columns());
    // A token is about four letters, or one character of another script.
    let query = format!(
        "select count(*), count(*) filter (where char_length(d.embedded_text) / 4
                + (octet_length(d.embedded_text) - char_length(d.embedded_text)) / 3 > $1)
           from ({}) d",
        table.documents(&rows, "true")
    );
    let _rights = RoleSwitch::of_owner(table.owner);
    let found = client.select(&query, None, &[i64::from(tokens).into()])?;
    Ok(found.first().get_two::<i64, i64>().map(|(rows, long)| rows.zip(long))?)
}

/// Reports that vectors have too many dimensions for an index.
pub fn no_index(table: &VectorTable) {
    let column = table.vector_column();
    if column.can_be_indexed() || column.index.method == Method::None {
        return;
    }
    let message = format!("vector table \"{}\" has no vector index", table.name);
    let detail = format!(
        "The vectors have {} dimensions, and pgvector indexes up to {MOST_INDEXED}. Each query reads all rows, and its answer is exact.",
        column.dimensions
    );
    let hint = "If the model can shorten its vectors, fewer embedding_dimensions allow an index.";
    raise_message(PgLogLevel::NOTICE, message, Some(detail), Some(hint.to_string()));
}

/// Reports the prefixes of a model that was recognised by its name, because the server may add them itself.
pub fn prefixes(table: &VectorTable) {
    let (query, document) = (&table.stored.query_prefix, &table.stored.document_prefix);
    let of = |what: &str, prefix: &String| match prefix.is_empty() {
        true => format!("{what} without a prefix"),
        false => format!("{what} with the prefix {}", quote_literal(prefix)),
    };
    let message = format!(
        "embedding model \"{}\" gets {} and {}",
        table.model,
        of("questions", query),
        of("texts", document)
    );
    let hint = format!(
        "If the server adds prefixes itself, drop the vector table and create it again after: SELECT embedd.update_provider({}, options => '{{\"query_prefix\": \"\", \"document_prefix\": \"\"}}').",
        quote_literal(&table.provider)
    );
    raise_message(
        PgLogLevel::NOTICE,
        message,
        Some("The model was trained with them.".to_string()),
        Some(hint),
    );
}

/// Says that a change is not in force before a backfill.
pub fn needs_backfill(table: &VectorTable) {
    let name = quote_literal(&table.name);
    raise_message(
        PgLogLevel::NOTICE,
        format!("the change of vector table \"{}\" waits for a backfill", table.name),
        Some("Until then queries and changes use the configuration before it.".to_string()),
        Some(format!("SELECT embedd.backfill({name}).")),
    );
}
