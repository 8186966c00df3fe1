//! The vectors of a pgai vectorizer: in a table of chunks, or in a column of the source.
//!
//! `ai.vectorizer` and the tables are those of pgai (timescale/pgai, projects/pgai/db/sql): a store has the columns
//! embedding_uuid, the primary key of the source, chunk_seq from 0, chunk, which is the text that was embedded, and
//! embedding. Up to version 0.10 the columns target_schema and target_table named it, since then `config`.

use serde::Deserialize;
use serde_json::Value;

use super::{check_key, check_model, nothing, plain_table, read, the_one};
use crate::catalog::VectorTable;
use crate::error::Result;
use crate::import::{self, Counts, Request};
use crate::name::quote_ident;

const PRODUCT: &str = "pgai";

/// A row of `ai.vectorizer`.
#[derive(Deserialize)]
struct Vectorizer {
    id: i64,
    name: Option<String>,
    source_pk: Vec<KeyColumn>,
    target_schema: Option<String>,
    target_table: Option<String>,
    queue_schema: Option<String>,
    queue_table: Option<String>,
    config: Value,
}

/// A column of the primary key of a vectorizer's source.
#[derive(Deserialize)]
struct KeyColumn {
    attname: String,
}

/// Adopts the vectors of a vectorizer, by its name or its number.
pub fn adopt(name: &str, vectorizer: Option<&str>) -> Result<Counts> {
    let (table, _) = import::find(name)?;
    let vectorizer = find(&table, vectorizer)?;
    let model = vectorizer.config.pointer("/embedding/model").and_then(Value::as_str);
    check_model(PRODUCT, &table, model)?;
    let key: Vec<String> =
        vectorizer.source_pk.iter().map(|column| column.attname.clone()).collect();
    check_key(PRODUCT, &table, &key)?;
    let destination = vectorizer.config.get("destination");
    let of_destination = |field: &str| {
        destination.and_then(|d| d.get(field)).and_then(Value::as_str).map(str::to_string)
    };
    let query = match of_destination("embedding_column") {
        Some(column) => of_column(&table, &vectorizer, &column)?,
        None => {
            let schema = of_destination("target_schema").or(vectorizer.target_schema);
            let store = of_destination("target_table").or(vectorizer.target_table);
            of_store(&table, &schema.unwrap_or_default(), &store.unwrap_or_default())?
        }
    };
    import::run(&Request { name, query: &query, has_reasons: true })
}

fn find(table: &VectorTable, wanted: Option<&str>) -> Result<Vectorizer> {
    let Some(catalog) = plain_table("ai", "vectorizer") else {
        return Err(nothing(PRODUCT, table, "There is no table ai.vectorizer.".to_string()));
    };
    let found: Vec<Vectorizer> = read(
        &format!(
            "select pg_catalog.to_jsonb(v) from {catalog} v
               join pg_catalog.pg_namespace n on n.nspname = v.source_schema
               join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = v.source_table
              where c.oid = $1 order by v.id"
        ),
        &[table.source.into()],
    )?;
    let named = found.into_iter().map(|vectorizer| {
        let id = vectorizer.id.to_string();
        let name = vectorizer.name.clone().filter(|_| wanted != Some(&id));
        (name.unwrap_or(id), vectorizer)
    });
    the_one(PRODUCT, table, named.collect(), "vectorizer", wanted)
}

/// The rows of a table of chunks. A text that was cut into several has no vector of its own.
fn of_store(table: &VectorTable, schema: &str, store: &str) -> Result<String> {
    let Some(store) = plain_table(schema, store) else {
        let detail = format!("There is no table {schema}.{store}.");
        return Err(nothing(PRODUCT, table, detail));
    };
    let same_row = table.key.equals("o", &values(table, "e"));
    Ok(format!(
        "select {}, e.chunk, e.embedding,
                case when exists (select from {store} o where {same_row} and o.chunk_seq <> 0)
                     then 'several_chunks' end
           from {store} e where e.chunk_seq = 0",
        table.key.value("e")
    ))
}

/// The vectors in a column of the source. A row that waits in the vectorizer's queue has changed since.
fn of_column(table: &VectorTable, vectorizer: &Vectorizer, column: &str) -> Result<String> {
    let queue = match (&vectorizer.queue_schema, &vectorizer.queue_table) {
        (Some(schema), Some(queue)) => plain_table(schema, queue),
        _ => None,
    };
    let reason = match queue {
        Some(queue) => {
            let same_row = table.key.equals("q", &values(table, "s"));
            format!("case when exists (select from {queue} q where {same_row}) then 'changed' end")
        }
        None => "null::text".to_string(),
    };
    Ok(format!(
        "select {}, s.{}, {reason} from {} s",
        table.key.value("s"),
        quote_ident(column),
        table.source_name()?
    ))
}

/// The key columns of a row.
fn values(table: &VectorTable, alias: &str) -> Vec<String> {
    let columns = table.key.columns.iter();
    columns.map(|column| format!("{alias}.{}", quote_ident(&column.name))).collect()
}
