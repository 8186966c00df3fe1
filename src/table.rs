//! The life of a vector table: check what is asked for, create it with its triggers, and drop it.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::{self, LOCAL_PROVIDER, Rights, Status, VectorTable};
use crate::datum::VectorType;
use crate::document::{self, Column, FilterType};
use crate::error::{Error, Result};
use crate::name::{self, quote_ident, quote_literal};
use crate::{shared, task};

/// What create_vector_table() was asked for.
pub struct Wanted {
    pub name: String,
    pub source: pg_sys::Oid,
    pub columns: serde_json::Value,
    pub key: Option<String>,
    pub provider: String,
    pub model: Option<String>,
    pub dimensions: Option<i32>,
    pub sync_mode: String,
    pub start_backfill: bool,
}

/// A column of the source as PostgreSQL knows it.
struct SourceColumn {
    name: String,
    /// Name of the type, or of what a domain is made of.
    base_type: String,
    is_enum: bool,
}

/// Longest vector that pgvector's hnsw takes as single floats, and as half floats.
const HNSW_VECTOR_DIMENSIONS: i32 = 2000;

/// Creates the vector table, its index, the triggers of the source and the bookkeeping.
pub fn create(client: &mut SpiClient<'_>, wanted: Wanted) -> Result<VectorTable> {
    name::check(&wanted.name)?;
    if wanted.sync_mode != "trigger" {
        return Err(Error::BadArgument {
            message: format!("sync mode \"{}\" is not available", wanted.sync_mode),
            detail: Some("The sync modes are: trigger.".to_string()),
            hint: None,
        });
    }
    let columns = document::parse_columns(&wanted.columns)?;
    let source = check_source(client, wanted.source)?;
    let available = source_columns(client, wanted.source)?;
    let columns = check_columns(columns, &available, &source)?;
    let key = key_column(client, &wanted, &source)?;
    let key_type = check_key_type(&available, &key)?;
    check_may_read(client, wanted.source, &source, &columns, &key)?;
    let (model, dimensions) = check_model(client, &wanted)?;

    let rights = Rights::of_extension()?;
    if catalog::exists(client, &wanted.name)? {
        return Err(Error::NameTaken { name: wanted.name });
    }
    let id = catalog::next_id(client)?;
    drop(rights);

    let relation_name = create_relation(client, &wanted, id, &source, dimensions)?;
    create_triggers(client, id, &source, &key, &columns)?;
    let relation = client
        .update("select pg_catalog.to_regclass($1)::oid", None, &[relation_name.as_str().into()])?
        .first()
        .get_one::<pg_sys::Oid>()?
        .ok_or(Error::Damaged { what: "no table after create table".to_string() })?;
    let mut table = VectorTable {
        id,
        name: wanted.name,
        source: wanted.source,
        source_name: Some(source),
        key,
        key_type,
        relation,
        relation_name: catalog::qualified_name(relation),
        provider: wanted.provider,
        model,
        dimensions,
        columns,
        // SAFETY: a plain read of the process's own state.
        owner: unsafe { pg_sys::GetUserId() },
        status: Status::Pending,
        system_id: catalog::system_id(),
    };
    let _rights = Rights::of_extension()?;
    catalog::insert(client, &table)?;
    if wanted.start_backfill {
        task::ask(client, id, &table.name)?;
        catalog::set_working_status(client, id)?;
        table.status = Status::Backfilling;
    }
    wake_at_commit();
    Ok(table)
}

/// The quoted and qualified name of a source that can be one.
fn check_source(client: &SpiClient<'_>, source: pg_sys::Oid) -> Result<String> {
    let rows = client.select(
        "select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), c.relkind::text,
                c.relpersistence::text
           from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1",
        None,
        &[source.into()],
    )?;
    if rows.is_empty() {
        return Err(Error::bad_argument("source table does not exist"));
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

fn source_columns(client: &SpiClient<'_>, source: pg_sys::Oid) -> Result<Vec<SourceColumn>> {
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
fn check_columns(
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
fn key_column(client: &SpiClient<'_>, wanted: &Wanted, source: &str) -> Result<String> {
    let rows = client.select(
        "select a.attname::text, i.indisprimary, i.indnkeyatts = 1, a.attnotnull
           from pg_catalog.pg_index i
           join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey[0:i.indnkeyatts - 1])
          where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null
            and i.indexprs is null
          order by i.indisprimary desc, i.indexrelid, a.attnum",
        None,
        &[wanted.source.into()],
    )?;
    let mut primary = 0;
    for row in rows {
        let name: String = row.get(1)?.unwrap_or_default();
        let is_primary: bool = row.get(2)?.unwrap_or_default();
        let alone: bool = row.get(3)?.unwrap_or_default();
        let not_null: bool = row.get(4)?.unwrap_or_default();
        primary += i32::from(is_primary);
        let chosen = wanted.key.as_ref().map_or(is_primary, |key| *key == name);
        if chosen && alone && not_null {
            return Ok(name);
        }
    }
    let detail = match &wanted.key {
        Some(key) => {
            let known = source_columns(client, wanted.source)?;
            if !known.iter().any(|c| c.name == *key) {
                let names: Vec<&str> = known.iter().map(|c| c.name.as_str()).collect();
                return Err(Error::UnknownColumn {
                    column: key.clone(),
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

/// The type of the key, if its text form is the same under all settings.
fn check_key_type(available: &[SourceColumn], key: &str) -> Result<String> {
    const TYPES: [&str; 9] = [
        "smallint", "integer", "bigint", "oid", "numeric", "uuid", "text", "character varying", "character",
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
fn check_may_read(
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

/// The model that is meant and the number of its dimensions.
fn check_model(client: &SpiClient<'_>, wanted: &Wanted) -> Result<(String, i32)> {
    if wanted.provider != LOCAL_PROVIDER {
        return Err(Error::UnknownProvider { name: wanted.provider.clone() });
    }
    let (model, dimensions) = catalog::model(client, &wanted.provider, wanted.model.as_deref())?;
    match wanted.dimensions {
        Some(given) if given != dimensions => Err(Error::BadArgument {
            message: format!("model \"{model}\" has {dimensions} dimensions, not {given}"),
            detail: None,
            hint: Some("Leave embedding_dimensions out.".to_string()),
        }),
        _ => Ok((model, dimensions)),
    }
}

/// Creates the table and its index in the schema of the source, as the caller; returns its quoted and qualified name.
fn create_relation(
    client: &mut SpiClient<'_>,
    wanted: &Wanted,
    id: i32,
    source: &str,
    dimensions: i32,
) -> Result<String> {
    let vector = VectorType::find(client)?.schema;
    let schema = client
        .select(
            "select n.nspname::text from pg_catalog.pg_class c
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1",
            None,
            &[wanted.source.into()],
        )?
        .first()
        .get_one::<String>()?
        .unwrap_or_default();
    let bare = name::vector_table(&wanted.name, id as u32);
    let qualified = format!("{}.{}", quote_ident(&schema), quote_ident(&bare));
    let indexed = if dimensions > HNSW_VECTOR_DIMENSIONS {
        format!("(embedding::{vector}.halfvec({dimensions})) {vector}.halfvec_cosine_ops")
    } else {
        format!("embedding {vector}.vector_cosine_ops")
    };
    let comment = quote_literal(&format!("Vectors of {source}, kept by embedd as {:?}", wanted.name));
    for statement in [
        format!(
            "create table {qualified} (
                pk_value text primary key,
                embedding {vector}.vector({dimensions}),
                embedded_text text,
                metadata jsonb default '{{}}',
                row_hash text)"
        ),
        format!("create index on {qualified} using hnsw ({indexed})"),
        format!("comment on table {qualified} is {comment}"),
        format!("comment on column {qualified}.pk_value is 'key of the source row as text'"),
        format!(
            "comment on column {qualified}.embedding is 'vector of embedded_text, {dimensions} dimensions; null for a row without text'"
        ),
        format!("comment on column {qualified}.embedded_text is 'the text that was embedded'"),
        format!("comment on column {qualified}.metadata is 'the configured columns, for filters'"),
        format!("comment on column {qualified}.row_hash is 'sha256 of text and metadata, to notice changes'"),
    ] {
        client.update(&statement, None, &[])?;
    }
    Ok(qualified)
}

/// Creates the triggers of the source.
fn create_triggers(
    client: &mut SpiClient<'_>,
    id: i32,
    source: &str,
    key: &str,
    columns: &[Column],
) -> Result<()> {
    let mut watched = vec![quote_ident(key)];
    watched.extend(columns.iter().filter(|c| c.name != key).map(|c| quote_ident(&c.name)));
    let row = |version: &str| {
        let fields: Vec<String> = watched.iter().map(|c| format!("{version}.{c}")).collect();
        // The cast keeps this one comparison of two records, by their bytes, which every type has.
        format!("row({})::record", fields.join(", "))
    };
    let arguments = format!("'{id}', {}", quote_literal(key));
    for statement in [
        format!(
            "create trigger {} after insert or delete on {source} for each row
                execute function embedd.note_change({arguments})",
            trigger_name(id, "row")
        ),
        format!(
            "create trigger {} after update on {source} for each row when ({} *<> {})
                execute function embedd.note_change({arguments})",
            trigger_name(id, "update"),
            row("old"),
            row("new")
        ),
        format!(
            "create trigger {} after truncate on {source} for each statement
                execute function embedd.note_change({arguments})",
            trigger_name(id, "truncate")
        ),
    ] {
        client.update(&statement, None, &[])?;
    }
    Ok(())
}

fn trigger_name(id: i32, what: &str) -> String {
    format!("embedd_{id}_{what}")
}

/// Forgets a vector table, and drops its table too unless it shall be kept.
pub fn remove(client: &mut SpiClient<'_>, name: &str, keep_table: bool) -> Result<()> {
    let rights = Rights::of_extension()?;
    let table = catalog::find_for_update(client, name)?;
    drop(rights);
    check_may_change(&table)?;
    let rights = Rights::of_extension()?;
    if let Some(source) = &table.source_name {
        // With embedd's rights: to create a trigger needs a grant only, to drop it needs the table.
        for what in ["row", "update", "truncate"] {
            let trigger = trigger_name(table.id, what);
            client.update(&format!("drop trigger if exists {trigger} on {source}"), None, &[])?;
        }
    }
    catalog::delete(client, table.id)?;
    drop(rights);
    if let (false, Some(relation)) = (keep_table, &table.relation_name) {
        client.update(&format!("drop table {relation}"), None, &[])?;
    }
    wake_at_commit();
    Ok(())
}

/// Only those with the rights of its owner change a vector table or what is done for it.
pub fn check_may_change(table: &VectorTable) -> Result<()> {
    // SAFETY: look-ups of roles in a transaction.
    let allowed = unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), table.owner) };
    if allowed {
        return Ok(());
    }
    Err(Error::NotAllowed {
        object: format!("vector table \"{}\"", table.name),
        hint: "Only its owner and members of that role may do this.".to_string(),
    })
}

/// Wakes this database's sync worker when, and only when, the transaction commits.
pub fn wake_at_commit() {
    pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, || {
        // SAFETY: a plain global of the process.
        shared::wake_worker(unsafe { pg_sys::MyDatabaseId });
    });
}
