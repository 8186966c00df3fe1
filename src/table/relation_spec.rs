//! The physical table of a vector table, and its index: the statements that create them, from a short description.

use pgrx::spi::SpiClient;

use crate::command;
use crate::datum::VectorType;
use crate::document::{Column, Role};
use crate::error::Result;
use crate::name::{quote_ident, quote_literal};
use crate::operator_class;
use crate::vector_column::VectorColumn;

/// What has to be known to create a table of vectors.
pub struct RelationSpec<'a> {
    pub schema: &'a str,
    /// The name without the schema.
    pub name: &'a str,
    pub column: VectorColumn,
    /// The comment on the table.
    pub comment: &'a str,
    /// The storage options, such as `fillfactor = 50`; empty for the defaults.
    pub storage: &'a str,
}

impl RelationSpec<'_> {
    /// The quoted and qualified name.
    pub fn qualified(&self) -> String {
        format!("{}.{}", quote_ident(self.schema), quote_ident(self.name))
    }

    /// Creates the table with its comments and without the index, as the current role.
    pub fn create(&self, client: &mut SpiClient<'_>) -> Result<()> {
        let table = self.qualified();
        let embedding = self.column.type_sql(&VectorType::find(client)?.schema);
        let storage = match self.storage.is_empty() {
            true => String::new(),
            false => format!(" with ({})", self.storage),
        };
        let dimensions = self.column.dimensions;
        for statement in [
            format!(
                "create table {table} (
                pk_value text primary key,
                embedding {embedding},
                embedded_text text,
                metadata jsonb default '{{}}',
                row_hash text){storage}"
            ),
            format!("comment on table {table} is {}", quote_literal(self.comment)),
            format!("comment on column {table}.pk_value is 'key of the source row as text'"),
            format!(
                "comment on column {table}.embedding is 'vector of embedded_text, {dimensions} dimensions; null for a row without text'"
            ),
            format!("comment on column {table}.embedded_text is 'the text that was embedded'"),
            format!("comment on column {table}.metadata is 'the configured columns, for filters'"),
            format!(
                "comment on column {table}.row_hash is 'sha256 of text and metadata, to notice changes'"
            ),
        ] {
            command::run(client, &statement)?;
        }
        Ok(())
    }

    /// Creates the index, if the vector table has one.
    pub fn create_index(&self, client: &mut SpiClient<'_>) -> Result<()> {
        match index_definition(client, &self.column)? {
            Some(definition) => {
                command::run(client, &format!("create index on {}{definition}", self.qualified()))
            }
            None => Ok(()),
        }
    }
}

/// The definition of the index that embedd creates on a column of vectors, from the access method on; None for no index.
pub fn index_definition(client: &SpiClient<'_>, column: &VectorColumn) -> Result<Option<String>> {
    if !column.is_indexed() {
        return Ok(None);
    }
    let (of, operator) = column.indexed_as();
    let class = operator_class::find(client, "hnsw", of, operator)?;
    let schema = VectorType::find(client)?.schema;
    Ok(Some(column.index_definition(&schema, &class)))
}

/// The comment on the table of vectors of a source.
pub fn comment(source: &str, vector_table: &str) -> String {
    format!("Vectors of {source}, kept by embedd as \"{vector_table}\"")
}

/// The storage options of a table of vectors. Metadata can change without the vector: free space on the page then allows
/// HOT updates, which leave the index alone.
pub fn storage(columns: &[Column]) -> &'static str {
    match columns.iter().any(|column| column.role == Role::Metadata) {
        true => "fillfactor = 50",
        false => "",
    }
}
