//! Adopts the vectors of other products, and of a plain column of the source: what differs is where they are.

mod pgai;
mod pgedge;
mod vectorize;

use pgrx::JsonB;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use serde::de::DeserializeOwned;

use crate::catalog::VectorTable;
use crate::error::{Error, Result};
use crate::import::{self, Counts, Kind, Request};
use crate::name::{quote_ident, quote_literal};
use crate::relation;
use crate::source;

pub use self::pgai::adopt as pgai;
pub use self::pgedge::adopt as pgedge;
pub use self::vectorize::adopt as vectorize;

/// Adopts the vectors of a column of the source; they are those of the rows' present texts.
pub fn column(name: &str, vector_column: &str) -> Result<Counts> {
    let (table, vector) = import::find(name)?;
    Spi::connect(|client| {
        let columns = source::columns(client, table.source)?;
        let named = |name: &str| table.source_name.clone().unwrap_or(name.to_string());
        let Some(column) = columns.iter().find(|column| column.name == vector_column) else {
            let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            return Err(Error::UnknownColumn {
                column: vector_column.to_string(),
                table: named(name),
                available: names.join(", "),
            });
        };
        match Kind::of(client, column.base, &vector)? {
            Some(_) => Ok(()),
            None => Err(Error::BadArgument {
                message: format!(
                    "column \"{vector_column}\" of table {} is no column of vectors",
                    named(name)
                ),
                detail: Some(format!(
                    "It is of type {}; {} are allowed.",
                    column.base_type,
                    Kind::TYPES
                )),
                hint: None,
            }),
        }
    })?;
    let query = format!(
        "select {}, s.{}, null::text from {} s",
        table.key.value("s"),
        quote_ident(vector_column),
        table.source_name()?
    );
    import::run(&Request { name, query: &query, has_reasons: true })
}

/// Rows of another product's own tables, each as JSON. Runs as the caller.
fn read<T: DeserializeOwned>(query: &str, arguments: &[DatumWithOid<'_>]) -> Result<Vec<T>> {
    Spi::connect(|client| {
        let mut found = Vec::new();
        for row in client.select(query, None, arguments)? {
            let Some(JsonB(value)) = row.get::<JsonB>(1)? else { continue };
            // A row that is of another version is none that could be adopted.
            found.extend(serde_json::from_value(value).ok());
        }
        Ok(found)
    })
}

/// The quoted and qualified name of a table of another product; None if there is none. A view is none: it could run
/// the code of its owner with the caller's rights.
fn plain_table(schema: &str, name: &str) -> Option<String> {
    let table = relation::find(schema, name)?;
    // SAFETY: a syscache look-up in a transaction.
    let kind = unsafe { pg_sys::get_rel_relkind(table) } as u8;
    let is_table = matches!(kind, pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE);
    relation::qualified_name(table).filter(|_| is_table)
}

/// The error that a product has nothing for a vector table.
fn nothing(product: &'static str, table: &VectorTable, detail: String) -> Error {
    Error::NothingToAdopt {
        product,
        table: table.source_name.clone().unwrap_or_default(),
        detail,
        hint: format!(
            "Vectors of any table can be imported by a query: SELECT * FROM embedd.import_vectors({}, 'SELECT id, content, embedding FROM ...').",
            quote_literal(&table.name)
        ),
    }
}

/// The only one of those found, or the one that was named.
fn the_one<T>(
    product: &'static str,
    table: &VectorTable,
    mut found: Vec<(String, T)>,
    argument: &str,
    wanted: Option<&str>,
) -> Result<T> {
    if let Some(wanted) = wanted {
        found.retain(|(name, _)| name == wanted);
    }
    let names: Vec<String> = found.iter().map(|(name, _)| name.clone()).collect();
    match (found.pop(), names.as_slice()) {
        (Some((_, one)), [_]) => Ok(one),
        (None, _) => Err(match wanted {
            Some(wanted) => {
                nothing(product, table, format!("It has no {argument} \"{wanted}\" of this table."))
            }
            None => nothing(product, table, format!("It has no {argument} of this table.")),
        }),
        (_, names) => Err(Error::BadArgument {
            message: format!("{product} has several {argument}s of the table"),
            detail: Some(format!("They are: {}.", names.join(", "))),
            hint: Some(format!(
                "Name one: {argument} => {}.",
                quote_literal(names.first().map_or("", String::as_str))
            )),
        }),
    }
}

/// Checks that the key of a vector table consists of the columns by which a product knows the rows.
fn check_key(product: &'static str, table: &VectorTable, columns: &[String]) -> Result<()> {
    let names: Vec<&String> = table.key.columns.iter().map(|column| &column.name).collect();
    if names.len() == columns.len() && names.iter().all(|name| columns.contains(name)) {
        return Ok(());
    }
    let mut error = nothing(
        product,
        table,
        format!(
            "It knows the rows by {}, and vector table \"{}\" by {}.",
            columns.join(", "),
            table.name,
            table.stored.primary_key_column
        ),
    );
    if let Error::NothingToAdopt { hint, .. } = &mut error {
        *hint = format!("Create the vector table with primary_key_column => {}.", {
            quote_literal(&crate::key::Key::shown(columns))
        });
    }
    Err(error)
}

/// Checks that vectors are of the model of a vector table.
fn check_model(product: &'static str, table: &VectorTable, theirs: Option<&str>) -> Result<()> {
    let Some(theirs) = theirs.filter(|theirs| !is_same_model(theirs, &table.model)) else {
        return Ok(());
    };
    Err(Error::BadArgument {
        message: format!("the vectors of {product} are of model \"{theirs}\""),
        detail: Some(format!(
            "Vector table \"{}\" has model \"{}\". Vectors of two models cannot be compared.",
            table.name, table.model
        )),
        hint: Some(format!(
            "Create a vector table with embedding_model => {}. If both names mean one model, import the vectors by a query: SELECT * FROM embedd.import_vectors({}, 'SELECT ...').",
            quote_literal(theirs.rsplit('/').next().unwrap_or(theirs)),
            quote_literal(&table.name)
        )),
    })
}

/// Whether two names mean one model: without the maker in front, and without the tag that stands for the newest.
fn is_same_model(one: &str, other: &str) -> bool {
    let bare = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or(name).to_lowercase();
        name.strip_suffix(":latest").map_or(name.clone(), str::to_string)
    };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::is_same_model;

    #[test]
    fn a_model_has_several_names() {
        assert!(is_same_model("openai/text-embedding-3-small", "text-embedding-3-small"));
        assert!(is_same_model("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"));
        assert!(is_same_model("nomic-embed-text:latest", "nomic-embed-text"));
        assert!(!is_same_model("text-embedding-3-small", "text-embedding-3-large"));
        assert!(!is_same_model("nomic-embed-text:v1.5", "nomic-embed-text"));
    }
}
