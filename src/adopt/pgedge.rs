//! The vectors of pgEdge vectorizer: in one table of chunks for each column that it embeds.
//!
//! The tables are those of pgedge_vectorizer.enable_vectorization() (pgEdge/pgedge-vectorizer, sql): a table
//! `<source>_<column>_chunks` with source_id, chunk_index from 1, content, which is the text that was embedded, and
//! embedding. Since 1.1 `pgedge_vectorizer.vectorizers` names them.

use pgrx::prelude::*;
use serde::Deserialize;

use super::{check_key, check_model, nothing, plain_table, read};
use crate::catalog::VectorTable;
use crate::document::Role;
use crate::error::{Error, Result};
use crate::import::{self, Counts, Request};
use crate::name::{quote_literal, split_qualified};
use crate::relation;

const PRODUCT: &str = "pgEdge vectorizer";

/// A row of `pgedge_vectorizer.vectorizers`.
#[derive(Deserialize)]
struct Vectorizer {
    chunk_table: String,
    source_pk: Option<String>,
}

/// Adopts the vectors of a column of the source.
pub fn adopt(name: &str, source_column: Option<&str>) -> Result<Counts> {
    let (table, _) = import::find(name)?;
    let column = match source_column {
        Some(column) => column.to_string(),
        None => the_column(&table)?,
    };
    check_model(PRODUCT, &table, model()?.as_deref())?;
    let source = table.source_name.clone().unwrap_or_default();
    let (schema, bare) = split_qualified(&source).unwrap_or_default();
    let bare =
        Spi::get_one_with_args::<String>("select pg_catalog.quote_ident($1)", &[bare.into()])?;
    // It writes the source as regclass shows it: without its schema, or with it.
    let shown = [bare.unwrap_or_default(), source];
    let registered = registered(&shown, &column)?;
    if let Some(key) = registered.as_ref().and_then(|v| v.source_pk.clone()) {
        check_key(PRODUCT, &table, &[key])?;
    } else if table.key.is_composite() {
        let detail = "It knows the rows by a single column.".to_string();
        return Err(nothing(PRODUCT, &table, detail));
    }
    let names = match registered {
        Some(vectorizer) => vec![vectorizer.chunk_table],
        None => shown.iter().map(|source| format!("{source}_{column}_chunks")).collect(),
    };
    let Some(chunks) = find_table(&schema, &names)? else {
        let detail = format!("There is no table \"{}\" with its columns.", names.join("\" or \""));
        return Err(nothing(PRODUCT, &table, detail));
    };
    let query = format!(
        "select e.source_id, e.content, e.embedding,
                case when exists (select from {chunks} o where o.source_id = e.source_id and o.chunk_index <> 1)
                     then 'several_chunks' end
           from {chunks} e where e.chunk_index = 1"
    );
    import::run(&Request { name, query: &query, has_reasons: true })
}

/// The only column that a vector table embeds.
fn the_column(table: &VectorTable) -> Result<String> {
    let mut embedded = table.columns.iter().filter(|column| column.role == Role::Embedding);
    match (embedded.next(), embedded.next()) {
        (Some(column), None) => Ok(column.source().to_string()),
        (first, _) => Err(Error::BadArgument {
            message: format!("vector table \"{}\" embeds several columns", table.name),
            detail: Some(format!("{PRODUCT} embeds each column by itself.")),
            hint: Some(format!(
                "Name the column whose vectors are to be taken: source_column => {}.",
                quote_literal(first.map_or("", |column| column.source()))
            )),
        }),
    }
}

/// The model that is set for the whole server.
fn model() -> Result<Option<String>> {
    Ok(Spi::get_one::<String>(
        "select nullif(pg_catalog.current_setting('pgedge_vectorizer.model', true), '')",
    )?)
}

fn registered(sources: &[String], column: &str) -> Result<Option<Vectorizer>> {
    let Some(vectorizers) = plain_table("pgedge_vectorizer", "vectorizers") else {
        return Ok(None);
    };
    let found: Vec<Vectorizer> = read(
        &format!(
            "select pg_catalog.to_jsonb(v) from {vectorizers} v
              where v.source_table = any($1) and v.source_column::text = $2
              order by v.source_table = $1[2] desc limit 1"
        ),
        &[sources.to_vec().into(), column.into()],
    )?;
    Ok(found.into_iter().next())
}

/// The table of chunks with one of these names: in the schema of the source, or the only one of the database. It is
/// created in whatever schema comes first in the search_path.
fn find_table(schema: &str, names: &[String]) -> Result<Option<String>> {
    let found = Spi::connect(|client| {
        let rows = client.select(
            "select c.oid, n.nspname = $1
               from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              where c.relname = any($2) and c.relkind in ('r', 'p')
                and (select count(*) from pg_catalog.pg_attribute a
                      where a.attrelid = c.oid and not a.attisdropped
                        and a.attname in ('source_id', 'chunk_index', 'content', 'embedding')) = 4
              order by 2 desc, 1",
            None,
            &[schema.into(), names.to_vec().into()],
        )?;
        let mut found = Vec::new();
        for row in rows {
            if let (Some(oid), Some(is_beside)) = (row.get::<pg_sys::Oid>(1)?, row.get::<bool>(2)?)
            {
                found.push((oid, is_beside));
            }
        }
        Ok::<_, Error>(found)
    })?;
    Ok(match found.as_slice() {
        [(oid, _)] | [(oid, true), (_, false), ..] => relation::qualified_name(*oid),
        _ => None,
    })
}
