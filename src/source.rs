//! Checks whether a relation can be a source: its kind, its columns, its key, and the caller's privileges.

mod triggers;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

pub use self::triggers::{
    create_triggers, drop_stale_triggers, drop_triggers, fire_mode, has_triggers, missing_triggers,
    set_fire_mode, stale_triggers,
};

use crate::catalog::{self, SyncMode, VectorTable, sight};
use crate::datum::Texts;
use crate::document::{Column, FilterType};
use crate::error::{Error, Result};
use crate::relation;

/// A checked source, with everything needed to create a vector table.
pub struct Definition {
    /// The quoted and qualified name of the source.
    pub name: String,
    /// The configured columns, each with a filter type.
    pub columns: Vec<Column>,
    /// Their numbers in the source.
    pub column_numbers: Vec<i16>,
    /// The columns of the key, in order.
    pub key: Vec<SourceColumn>,
}

impl Definition {
    /// The names of the key columns.
    pub fn key_names(&self) -> Vec<String> {
        self.key.iter().map(|column| column.name.clone()).collect()
    }
}

/// Checks that a relation can be the source of a vector table with these columns and this key (None is the primary
/// key), and that the current role may read it.
pub fn define(
    client: &SpiClient<'_>,
    source: pg_sys::Oid,
    columns: Vec<Column>,
    key: Option<&str>,
    mode: SyncMode,
) -> Result<Definition> {
    let name = check(client, source, mode)?;
    let available = self::columns(client, source)?;
    let columns = check_columns(columns, &available, &name)?;
    let key_names = key_columns(client, source, key, &name, &available, mode)?;
    let key = check_key_types(&available, &key_names, mode)?.into_iter().cloned().collect();
    check_texts(client, source, &name, &columns, mode)?;
    check_may_read(client, source, &name, &columns, &key_names, mode)?;
    // SAFETY: a plain read of the process's own state.
    let owner = unsafe { pg_sys::GetUserId() };
    sight::check_rows(source, &name, owner, mode)?;
    sight::check_view(client, source, &name, owner)?;
    let number = |c: &Column| available.iter().find(|a| a.name == c.name).map_or(0, |a| a.number);
    let column_numbers = columns.iter().map(number).collect();
    Ok(Definition { name, columns, column_numbers, key })
}

/// A column of the source.
#[derive(Clone)]
pub struct SourceColumn {
    pub name: String,
    pub number: i16,
    /// Its type, or the base type of a domain, and the name of that.
    pub base: pg_sys::Oid,
    pub base_type: String,
}

/// The quoted and qualified name of a source; an error if the relation cannot be one.
pub fn check(client: &SpiClient<'_>, source: pg_sys::Oid, mode: SyncMode) -> Result<String> {
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
    let is_temporary = persistence.as_deref() == Some("t");
    let (kind, can_be_compared) = match kind.as_deref() {
        Some("r" | "p" | "v" | "m" | "f") if is_temporary => {
            ("temporary, and no other process can read it", false)
        }
        Some("r" | "p") => return Ok(table),
        Some("v") => ("a view, and changes of a view fire no triggers", true),
        Some("m") => ("a materialized view, and its refresh fires no triggers", true),
        Some("f") => ("a foreign table, and changes made at its server fire no triggers", true),
        Some("S") => ("a sequence", false),
        Some("i" | "I") => ("an index", false),
        Some("c") => ("a composite type", false),
        _ => ("something else", false),
    };
    match can_be_compared && mode == SyncMode::Batch {
        true => Ok(table),
        false => Err(Error::NotATable { table, kind: kind.to_string(), can_be_compared }),
    }
}

/// The columns of a source in order.
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
         select b.attname::text, b.attnum, b.oid, pg_catalog.format_type(b.oid, null)
           from base b where b.basetype = 0 order by b.attnum",
        None,
        &[source.into()],
    )?;
    let mut columns = Vec::new();
    for row in rows {
        columns.push(SourceColumn {
            name: row.get(1)?.unwrap_or_default(),
            number: row.get(2)?.unwrap_or_default(),
            base: row.get(3)?.unwrap_or(pg_sys::InvalidOid),
            base_type: row.get(4)?.unwrap_or_default(),
        });
    }
    Ok(columns)
}

/// Checks that every configured column exists and can have its filter type.
fn check_columns(
    mut columns: Vec<Column>,
    available: &[SourceColumn],
    source: &str,
) -> Result<Vec<Column>> {
    for column in &mut columns {
        let found = available
            .iter()
            .find(|a| a.name == column.name)
            .ok_or_else(|| unknown(&column.name, source, available))?;
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
        if column.index && relation::may_hold_lists(found.base) {
            return Err(Error::BadArgument {
                message: format!("column \"{}\" cannot have an index for filters", column.name),
                detail: Some(format!(
                    "Its type is {}, whose elements are compared.",
                    found.base_type
                )),
                hint: None,
            });
        }
    }
    Ok(columns)
}

/// The columns of the key: the requested ones if they are suitable, or those of the primary key.
///
/// With triggers they must be NOT NULL and unique together. In sync mode batch any columns will do, because the
/// comparison finds duplicate keys.
fn key_columns(
    client: &SpiClient<'_>,
    oid: pg_sys::Oid,
    wanted: Option<&str>,
    source: &str,
    available: &[SourceColumn],
    mode: SyncMode,
) -> Result<Vec<String>> {
    let wanted = wanted.map(|text| named_columns(text, source, available)).transpose()?;
    let unique = unique_keys(client, oid)?;
    if let Some(names) = &wanted
        && mode == SyncMode::Batch
    {
        return Ok(names.clone());
    }
    let fits = |key: &&UniqueKey| match &wanted {
        Some(names) => {
            names.len() == key.columns.len() && names.iter().all(|n| key.columns.contains(n))
        }
        None => key.is_primary,
    };
    let mut candidates = unique.iter().filter(fits);
    // The order of the index, which the keyset pagination uses.
    if let Some(key) = candidates.clone().find(|key| key.is_not_null) {
        return Ok(key.columns.clone());
    }
    let list = |names: &[String]| {
        let quoted: Vec<String> = names.iter().map(|n| format!("\"{n}\"")).collect();
        quoted.join(", ")
    };
    let detail = match &wanted {
        Some(names) if names.len() == 1 => {
            format!("Column {} is not both NOT NULL and unique by itself.", list(names))
        }
        Some(names) => {
            format!("Columns {} are not all NOT NULL and unique together.", list(names))
        }
        None if candidates.next().is_some() => "Its primary key cannot be used.".to_string(),
        None => "It has no primary key.".to_string(),
    };
    Err(Error::NoKey { table: source.to_string(), detail })
}

/// The columns that primary_key_column names: a single one, or a JSON array.
fn named_columns(text: &str, source: &str, available: &[SourceColumn]) -> Result<Vec<String>> {
    let is_column = |name: &String| available.iter().any(|c| c.name == *name);
    let names = match serde_json::from_str::<Vec<String>>(text) {
        Ok(names) if !names.is_empty() && !is_column(&text.to_string()) => names,
        _ => vec![text.to_string()],
    };
    if let Some(column) = names.iter().find(|name| !is_column(name)) {
        return Err(unknown(column, source, available));
    }
    match names.iter().enumerate().find(|(n, name)| names[..*n].contains(name)) {
        Some((_, twice)) => Err(Error::bad_argument(format!(
            "column \"{twice}\" appears more than once in primary_key_column"
        ))),
        None => Ok(names),
    }
}

fn unknown(column: &str, source: &str, available: &[SourceColumn]) -> Error {
    let names: Vec<&str> = available.iter().map(|c| c.name.as_str()).collect();
    Error::UnknownColumn {
        column: column.to_string(),
        table: source.to_string(),
        available: names.join(", "),
    }
}

/// A unique index on plain columns.
struct UniqueKey {
    columns: Vec<String>,
    is_primary: bool,
    is_not_null: bool,
}

/// The unique indexes of a table without predicate, the primary key first. A deferrable one is checked at COMMIT,
/// before a worker sees the rows.
fn unique_keys(client: &SpiClient<'_>, oid: pg_sys::Oid) -> Result<Vec<UniqueKey>> {
    let rows = client.select(
        "select i.indisprimary, bool_and(a.attnotnull), array_agg(a.attname::text order by k.n)
           from pg_catalog.pg_index i
          cross join lateral unnest(i.indkey[0:i.indnkeyatts - 1]) with ordinality k(attnum, n)
           join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
          where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indpred is null
            and i.indexprs is null
          group by i.indexrelid, i.indisprimary
          order by i.indisprimary desc, i.indexrelid",
        None,
        &[oid.into()],
    )?;
    let mut keys = Vec::new();
    for row in rows {
        keys.push(UniqueKey {
            is_primary: row.get(1)?.unwrap_or_default(),
            is_not_null: row.get(2)?.unwrap_or_default(),
            columns: row.get::<Texts>(3)?.map(|names| names.0).unwrap_or_default(),
        });
    }
    Ok(keys)
}

/// Whether the key of a vector table's source is still unique.
pub fn has_unique_key(client: &SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    let columns = &table.key.columns;
    Ok(unique_keys(client, table.source)?.iter().any(|key| {
        key.columns.len() == columns.len()
            && columns.iter().all(|column| key.columns.contains(&column.name))
    }))
}

/// Columns, among those named, with a type whose text contains the name of another object.
const NAMES_IN_TEXT: &str = "
    with recursive parts(attname, atttypid, oid) as (
        select a.attname, a.atttypid, a.atttypid
          from pg_catalog.pg_attribute a where a.attrelid = $1 and a.attname = any($2) and not a.attisdropped
         union
        select p.attname, p.atttypid, u.oid
          from parts p
          join pg_catalog.pg_type t on t.oid = p.oid
         cross join lateral (
               select t.typelem union all select t.typbasetype
                union all select r.rngsubtype from pg_catalog.pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
                union all select a.atttypid from pg_catalog.pg_attribute a
                           where a.attrelid = t.typrelid and t.typrelid <> 0 and a.attnum > 0 and not a.attisdropped) u(oid))
    select p.attname::text, pg_catalog.format_type(p.atttypid, null)
      from parts p join pg_catalog.pg_type t on t.oid = p.oid
     where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype = 'b'
       and (t.typname ~ '^reg' or t.typname = 'aclitem')
     order by p.attname limit 1";

/// Rejects columns whose text changes when other objects are renamed: that fires no trigger of the source.
fn check_texts(
    client: &SpiClient<'_>,
    source: pg_sys::Oid,
    name: &str,
    columns: &[Column],
    mode: SyncMode,
) -> Result<()> {
    if mode == SyncMode::Batch {
        return Ok(());
    }
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let rows = client.select(NAMES_IN_TEXT, None, &[source.into(), names.into()])?;
    if rows.is_empty() {
        return Ok(());
    }
    let (column, type_name) = rows.first().get_two::<String, String>()?;
    let (column, type_name) = (column.unwrap_or_default(), type_name.unwrap_or_default());
    Err(Error::ChangesMissed {
        table: name.to_string(),
        why: format!(
            "the text of column \"{column}\" of type {type_name} changes with the names of other objects"
        ),
        hint: "Omit the column, change its type to text, or create the vector table with sync_mode => 'batch'."
            .to_string(),
    })
}

/// The columns of the key, if the text of each depends on no setting and never changes.
pub fn check_key_types<'a>(
    available: &'a [SourceColumn],
    key: &[String],
    mode: SyncMode,
) -> Result<Vec<&'a SourceColumn>> {
    let mut columns = Vec::new();
    for name in key {
        let column = available
            .iter()
            .find(|c| c.name == *name)
            .ok_or(Error::Damaged { what: "key without a column".to_string() })?;
        let (equals, greater) = catalog::operators(column.base);
        let is_ordered = !equals.is_empty() && !greater.is_empty();
        // Names of objects can change, and the format of money depends on lc_monetary.
        let varies = column.base_type == "money"
            || (column.base_type.starts_with("reg") && !column.base_type.contains('.'));
        if varies || (mode == SyncMode::Trigger && !is_ordered) {
            return Err(Error::KeyType {
                column: name.clone(),
                type_name: column.base_type.clone(),
                varies,
            });
        }
        columns.push(column);
    }
    Ok(columns)
}

/// Checks that the caller may read what will be embedded (source_table_access_denied).
fn check_may_read(
    client: &SpiClient<'_>,
    oid: pg_sys::Oid,
    source: &str,
    columns: &[Column],
    key: &[String],
    mode: SyncMode,
) -> Result<()> {
    let names: Vec<String> =
        columns.iter().map(|c| c.name.clone()).chain(key.iter().cloned()).collect();
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
        (Some(true), _) if mode == SyncMode::Batch => return Ok(()),
        (Some(true), _) => "TRIGGER",
        _ => "SELECT",
    };
    Err(Error::NotAllowed {
        object: format!("table {source}"),
        hint: format!("Ask its owner for: GRANT {missing} ON {source} TO your role."),
    })
}
