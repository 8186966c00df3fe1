//! The SQL of a vector table's documents; every reader skips rows that are too large.

use pgrx::pg_sys;

use super::VectorTable;
use crate::citus;
use crate::document::{difference_sql, document_sql};
use crate::error::Result;
use crate::name::quote_ident;
use crate::relation::is_view;

/// The maximum of a row's configured columns in bytes, decompressed and as text. A document needs several times as
/// much memory: its text, its metadata with the same values, and the concatenation that is hashed.
const MOST_BYTES: i64 = 16 * 1024 * 1024;

/// A compressed value below this size cannot exceed the maximum when decompressed: the compression ratio is at most
/// 255.
const PACKED: i64 = MOST_BYTES / 256;

/// The error of a row that is too large.
pub fn reason() -> String {
    format!("the configured columns of the row have more than {} MB", MOST_BYTES >> 20)
}

impl VectorTable {
    /// The documents of the source rows, as `s`, that satisfy a condition: see [`document_sql`].
    pub fn documents(&self, source: &str, condition: &str) -> String {
        document_sql(source, &self.key, &self.columns, condition, &self.is_too_large("s"))
    }

    /// The rows in which source and vector table differ: see [`difference_sql`].
    pub fn differences(&self, source: &str, condition: &str) -> Result<String> {
        let condition = format!("{} and {condition}", self.key.is_complete("s"));
        Ok(difference_sql(&self.documents(source, &condition), self.relation_name()?))
    }

    /// The FROM item for all rows of the source. A document uses each column several times, and a view would compute
    /// it each time.
    pub fn all_rows(&self) -> Result<String> {
        let source = self.source_name()?;
        if !is_view(self.source) || citus::reaches_nodes(self.source) {
            return Ok(source);
        }
        Ok(format!("(select {} from {source} offset 0)", self.source_columns()))
    }

    /// The condition that a row of the source is too large; the alias is inserted as it is.
    pub fn is_too_large(&self, alias: &str) -> String {
        let sizes: Vec<String> = self
            .columns
            .iter()
            .zip(&self.stored.column_numbers)
            .filter_map(|(column, number)| {
                size(self.source, *number, &format!("{alias}.{}", quote_ident(column.source())))
            })
            .collect();
        match sizes.is_empty() {
            true => "false".to_string(),
            false => format!("{} > {MOST_BYTES}", sizes.join(" + ")),
        }
    }
}

/// The size of a value in bytes, determined without decompression if possible; None for types of fixed length.
fn size(source: pg_sys::Oid, column: i16, value: &str) -> Option<String> {
    // SAFETY: syscache look-ups in a transaction.
    let base = unsafe {
        let stated = pg_sys::get_atttype(source, column);
        if stated == pg_sys::InvalidOid || pg_sys::get_typlen(stated) > 0 {
            return None;
        }
        pg_sys::getBaseType(stated)
    };
    let bytes = match base {
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => {
            format!("pg_catalog.octet_length({value})::bigint")
        }
        // Two hexadecimal digits for each byte.
        pg_sys::BYTEAOID => format!("2 * pg_catalog.octet_length({value})::bigint"),
        _ => format!(
            "case when pg_catalog.pg_column_size({value}) > {PACKED} \
             then pg_catalog.octet_length({value}::text) else 0 end::bigint"
        ),
    };
    Some(format!("coalesce({bytes}, 0)"))
}
