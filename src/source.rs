//! What a table needs to be a source: its kind, its columns, its key, and the caller's rights to it.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::document::{Column, FilterType};
use crate::error::{Error, Result};
use crate::name::quote_ident;

/// A column of the source as PostgreSQL knows it.
pub struct SourceColumn {
    pub name: String,
    /// Name of the type, or of what a domain is made of.
    pub base_type: String,
    pub is_enum: bool,
}

/// The quoted and qualified name of a source that can be one.
pub fn check(client: &SpiClient<'_>, source: pg_sys::Oid) -> Result<String> {
    let rows = client.select(
        "select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), c.relkind::text,
                c.relpersistence::text
           from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1",
        None,
        &[source.into()],
    )?;
    if rows.is_empty() {
        return Err(Error::UnknownSource { oid: source.to_u32() });
    }
    let (name, kind, persistence) = rows.first().get_three::<String, String, String>()?;
    let table = name.unwrap_or_default();
    let kind = match (kind.as_deref(), persistence.as_deref()) {
        (Some("r" | "p"), Some("t")) => "a temporary table, which no other process can read",
        (Some("r" | "p"), _) => return Ok(table),
        (Some("v"), _) => "a view, and changes of a view fire no triggers",
        (Some("m"), _) => "a materialized view, and its refresh fires no triggers",
        (Some("f"), _) => "a foreign table, and changes made at its server fire no triggers",
        (Some("S"), _) => "a sequence",
        (Some("i" | "I"), _) => "an index",
        (Some("c"), _) => "a composite type",
        _ => "something else",
    };
    Err(Error::NotATable { table, kind: kind.to_string() })
}

/// The columns of a source in their order.
pub fn columns(client: &SpiClient<'_>, source: pg_sys::Oid) -> Result<Vec<SourceColumn>> {
    let rows = client.select(
        "with recursive base(attnum, attname, oid, basetype) as (
            select a.attnum, a.attname, t.oid, t.typbasetype
              from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
             where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
            union all
            select b.attnum, b.attname, t.oid, t.typbasetype
              from base b join pg_catalog.pg_type t on t.oid = b.basetype
         )
         select b.attname::text, pg_catalog.format_type(b.oid, null), t.typtype = 'e'
           from base b join pg_catalog.pg_type t on t.oid = b.oid where b.basetype = 0 order by b.attnum",
        None,
        &[source.into()],
    )?;
    let mut columns = Vec::new();
    for row in rows {
        columns.push(SourceColumn {
            name: row.get(1)?.unwrap_or_default(),
            base_type: row.get(2)?.unwrap_or_default(),
            is_enum: row.get(3)?.unwrap_or_default(),
        });
    }
    Ok(columns)
}

/// Every configured column exists, and its filter type is one that its type can be compared as.
pub fn check_columns(
    mut columns: Vec<Column>,
    available: &[SourceColumn],
    source: &str,
) -> Result<Vec<Column>> {
    for column in &mut columns {
        let found = available.iter().find(|a| a.name == column.name).ok_or_else(|| {
            let names: Vec<&str> = available.iter().map(|a| a.name.as_str()).collect();
            Error::UnknownColumn {
                column: column.name.clone(),
                table: source.to_string(),
                available: names.join(", "),
            }
        })?;
        let natural = FilterType::of_type(&found.base_type);
        let given = *column.filter_type.get_or_insert(natural);
        let numbers = [FilterType::Integer, FilterType::Float];
        let fits = given == FilterType::Keyword
            || given == natural
            || (numbers.contains(&given) && numbers.contains(&natural));
        if !fits {
            return Err(Error::BadArgument {
                message: format!(
                    "column \"{}\" cannot have filter type \"{}\"",
                    column.name,
                    given.as_str()
                ),
                detail: Some(format!("Its type is {}.", found.base_type)),
                hint: Some(format!("Use filter type \"{}\", or leave it out.", natural.as_str())),
            });
        }
    }
    Ok(columns)
}

/// The column that names a row: the one asked for, if it can, or the primary key.
pub fn key_column(
    client: &SpiClient<'_>,
    oid: pg_sys::Oid,
    wanted: Option<&str>,
    source: &str,
) -> Result<String> {
    let rows = client.select(
        "select a.attname::text, i.indisprimary, i.indnkeyatts = 1, a.attnotnull
           from pg_catalog.pg_index i
           join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey[0:i.indnkeyatts - 1])
          where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null
            and i.indexprs is null
          order by i.indisprimary desc, i.indexrelid, a.attnum",
        None,
        &[oid.into()],
    )?;
    let mut primary = 0;
    for row in rows {
        let name: String = row.get(1)?.unwrap_or_default();
        let is_primary: bool = row.get(2)?.unwrap_or_default();
        let alone: bool = row.get(3)?.unwrap_or_default();
        let not_null: bool = row.get(4)?.unwrap_or_default();
        primary += i32::from(is_primary);
        let chosen = wanted.map_or(is_primary, |key| key == name);
        if chosen && alone && not_null {
            return Ok(name);
        }
    }
    let detail = match wanted {
        Some(key) => {
            let known = columns(client, oid)?;
            if !known.iter().any(|c| c.name == key) {
                let names: Vec<&str> = known.iter().map(|c| c.name.as_str()).collect();
                return Err(Error::UnknownColumn {
                    column: key.to_string(),
                    table: source.to_string(),
                    available: names.join(", "),
                });
            }
            format!("Column \"{key}\" is not both NOT NULL and unique by itself.")
        }
        None if primary > 1 => format!("Its primary key has {primary} columns."),
        None => "It has no primary key.".to_string(),
    };
    Err(Error::NoKey { table: source.to_string(), detail })
}

/// The condition that an UPDATE has changed one of these columns as PostgreSQL stores it, in terms of old and new.
///
/// A type whose equal values are always the same value is compared by its own operator, which is the fastest. The others
/// (json has no equality, 1.0 and -0.0 of other types have equals that read differently) are compared as records, by
/// their bytes.
pub fn changed(columns: &[&SourceColumn]) -> String {
    let mut conditions = Vec::new();
    let mut by_bytes = Vec::new();
    for column in columns {
        let name = quote_ident(&column.name);
        match column.base_type.as_str() {
            "smallint" | "integer" | "bigint" | "boolean" | "uuid" | "oid" | "date"
            | "timestamp without time zone" | "timestamp with time zone" => {
                conditions.push(format!("old.{name} is distinct from new.{name}"));
            }
            // Under "C" texts are equal when their bytes are, whatever the column's own collation calls equal.
            "text" | "character varying" => conditions.push(format!(
                "old.{name} collate \"C\" is distinct from new.{name} collate \"C\""
            )),
            // 1.0 equals 1.00, and they differ in their scale.
            "numeric" => conditions.push(format!(
                "old.{name} is distinct from new.{name} or scale(old.{name}) is distinct from scale(new.{name})"
            )),
            _ => by_bytes.push(name),
        }
    }
    if !by_bytes.is_empty() {
        let record = |version: &str| {
            let fields: Vec<String> = by_bytes.iter().map(|c| format!("{version}.{c}")).collect();
            // The cast keeps this one comparison of two records instead of one for each of their fields.
            format!("row({})::record", fields.join(", "))
        };
        conditions.push(format!("{} *<> {}", record("old"), record("new")));
    }
    conditions.join(" or ")
}

/// The type of the key, if its text form is the same under all settings.
pub fn check_key_type(available: &[SourceColumn], key: &str) -> Result<String> {
    const TYPES: [&str; 9] = [
        "smallint",
        "integer",
        "bigint",
        "oid",
        "numeric",
        "uuid",
        "text",
        "character varying",
        "character",
    ];
    let column = available
        .iter()
        .find(|c| c.name == key)
        .ok_or(Error::Damaged { what: "key without a column".to_string() })?;
    if column.is_enum || TYPES.contains(&column.base_type.as_str()) {
        // Without a length "character" is one character long.
        let cast = if column.base_type == "character" { "bpchar" } else { &column.base_type };
        return Ok(cast.to_string());
    }
    Err(Error::KeyType { column: key.to_string(), type_name: column.base_type.clone() })
}

/// The caller may read what is going to be embedded (source_table_access_denied).
pub fn check_may_read(
    client: &SpiClient<'_>,
    oid: pg_sys::Oid,
    source: &str,
    columns: &[Column],
    key: &str,
) -> Result<()> {
    let names: Vec<String> =
        columns.iter().map(|c| c.name.clone()).chain([key.to_string()]).collect();
    let rows = client.select(
        "select pg_catalog.bool_and(pg_catalog.has_column_privilege($1, n, 'SELECT')),
                pg_catalog.has_table_privilege($1, 'TRIGGER')
           from unnest($2) n",
        None,
        &[oid.into(), names.into()],
    )?;
    let (select, trigger) = rows.first().get_two::<bool, bool>()?;
    let missing = match (select, trigger) {
        (Some(true), Some(true)) => return Ok(()),
        (Some(true), _) => "TRIGGER",
        _ => "SELECT",
    };
    Err(Error::NotAllowed {
        object: format!("table {source}"),
        hint: format!("Ask its owner for: GRANT {missing} ON {source} TO your role."),
    })
}
