//! Creates and drops vector tables.

mod notices;
mod create_request;

use embedd_wire::Kind;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::{self, LOCAL_PROVIDER, Status, Stored, SyncMode, VectorTable, sight};
use crate::cluster;
use crate::command;
use crate::datum::VectorType;
use crate::document;
use crate::error::{Error, Result, raise_message};
use crate::fdw::{self, Server, depend};
use crate::key::Key;
use crate::models::{Choice, Chosen};
use crate::name::{self, quote_ident, quote_literal};
use crate::operator_class;
use crate::relation;
use crate::rights::RoleSwitch;
use crate::source;
use crate::{shared, task, trigger};

pub use self::create_request::CreateRequest;
use self::create_request::{batch_interval, source_drop, sync_mode};

/// The most dimensions of an hnsw index on vector; up to twice as many fit on halfvec.
const HNSW_VECTOR_DIMENSIONS: i32 = 2000;

/// Creates the vector table, its index, the triggers of the source, and the row in embedd.vector_tables.
pub fn create(client: &mut SpiClient<'_>, request: CreateRequest) -> Result<VectorTable> {
    cluster::check_writable("create a vector table")?;
    name::check(&request.name)?;
    let mode = sync_mode(&request)?;
    let batch_interval = batch_interval(&request, mode)?;
    let on_source_drop = source_drop(&request.on_source_drop)?;
    let columns = document::parse_columns(&request.columns)?;
    let source = source::define(client, request.source, columns, request.key.as_deref(), mode)?;
    let server = find_provider(&request.provider)?;
    let Chosen { model, dimensions, prefixes, prefixes_by_name, retirement, .. } = choose_model(
        client,
        &request.provider,
        request.model.as_deref(),
        request.dimensions,
        server.as_ref(),
    )?;

    let rights = RoleSwitch::of_extension()?;
    if catalog::exists(client, &request.name)? {
        return Err(Error::NameTaken { name: request.name });
    }
    let schema = schema_of(client, request.source)?;
    if mode == SyncMode::Trigger {
        source::drop_stale_triggers(client, request.source, &source.name)?;
    }
    name_leftovers(client, &schema, &source.name)?;
    let mut id = catalog::next_id(client)?;
    // A table kept after its vector table or the extension was dropped may have the name.
    while is_taken(client, &schema, &name::vector_table(&request.name, id as u32))? {
        id = catalog::next_id(client)?;
    }
    drop(rights);

    let has_metadata = source.columns.iter().any(|column| column.role == document::Role::Metadata);
    let relation_name = create_relation(
        client,
        &request.name,
        &schema,
        id,
        &source.name,
        dimensions,
        has_metadata,
    )?;
    if mode == SyncMode::Trigger {
        source::create_triggers(client, id, &source.name)?;
        let rights = RoleSwitch::of_extension()?;
        if let Some(missed) = sight::missed_changes(client, id, request.source, &source.name)? {
            ErrorReport::from(missed).report(PgLogLevel::WARNING);
        }
        drop(rights);
    }
    let relation = client
        .update("select pg_catalog.to_regclass($1)::oid", None, &[relation_name.as_str().into()])?
        .first()
        .get_one::<pg_sys::Oid>()?
        .ok_or(Error::Damaged { what: "no table after create table".to_string() })?;
    depend::depend_on(relation, server.as_ref())?;
    let key_types: Vec<pg_sys::Oid> = source.key.iter().map(|c| c.base).collect();
    // SAFETY: a plain read of the process's own state.
    let owner = unsafe { pg_sys::GetUserId() };
    let relation_name = relation::qualified_name(relation);
    let mut table = VectorTable {
        id,
        name: request.name,
        source: request.source,
        source_name: Some(source.name.clone()),
        key: Key { columns: Vec::new() },
        relation,
        relation_name: relation_name.clone(),
        provider: request.provider,
        model,
        dimensions,
        known_models: Default::default(),
        owner,
        noted: (relation, owner),
        status: Status::Pending,
        system_id: cluster::system_id(),
        batch_interval,
        stored: Stored {
            primary_key_column: Key::shown(&source.key_names()),
            sync_mode: mode,
            key_types: source.key.iter().map(|c| c.base_type.clone()).collect(),
            key_numbers: source.key.iter().map(|c| c.number).collect(),
            column_numbers: source.column_numbers,
            source_name: source.name,
            vectors_name: relation_name.unwrap_or_default(),
            on_source_drop,
            extension_id: String::new(),
            last_error: None,
            unseen_since: None,
            compared_in: shared::started_at(),
            query_prefix: prefixes.query,
            document_prefix: prefixes.document,
        },
        reads_run: false,
        columns: source.columns,
    };
    let _rights = RoleSwitch::of_extension()?;

    catalog::insert(client, &table, &key_types)?;
    if request.start_backfill {
        task::ask(client, id, &table.name)?;
        catalog::set_working_status(client, id)?;
        table.status = Status::Backfilling;
    }
    trigger::touch_at_commit();
    let mut stored = catalog::find(client, &table.name)?;
    let kind = server.map_or(Kind::Local, |server| server.options.kind);
    if let Some(tokens) = fdw::model(&stored, kind).tokens_per_text
        && stored.resolve().is_ok()
    {
        notices::long_texts(&stored, tokens)?;
    }
    if prefixes_by_name {
        notices::prefixes(&table);
    }
    if let Some(retirement) = retirement {
        retirement.warn(&table.model, retirement.hint_for_new());
    }
    Ok(table)
}

/// The provider with this name, which the caller must be allowed to use; None for the local one.
pub fn find_provider(name: &str) -> Result<Option<Server>> {
    if name == LOCAL_PROVIDER {
        return Ok(None);
    }
    let server = Server::find(name)?;
    server.check_usage()?;
    Ok(Some(server))
}

/// Resolves the model of a provider and its dimensions.
pub fn choose_model(
    client: &SpiClient<'_>,
    provider: &str,
    model: Option<&str>,
    dimensions: Option<i32>,
    server: Option<&Server>,
) -> Result<Chosen> {
    let options = server.map(|server| &server.options);
    let choice = Choice {
        kind: options.map_or(Kind::Local, |options| options.kind),
        provider,
        default_model: options.and_then(|options| options.default_model.as_deref()),
        model,
        dimensions,
        query_prefix: options.and_then(|options| options.query_prefix.as_deref()),
        document_prefix: options.and_then(|options| options.document_prefix.as_deref()),
        argument: "embedding_model",
        may_change: server.is_some_and(Server::may_be_changed),
    };
    choice.decide(client)
}

/// The schema of a relation.
fn schema_of(client: &SpiClient<'_>, relation: pg_sys::Oid) -> Result<String> {
    let rows = client.select(
        "select n.nspname::text from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1",
        None,
        &[relation.into()],
    )?;
    Ok(rows.first().get_one::<String>()?.unwrap_or_default())
}

/// Tables of vectors that belong to no vector table, as a schema-only copy of a database or keep_table leave them:
/// those of one source in one schema, or all of the database.
pub fn leftovers(
    client: &SpiClient<'_>,
    schema: Option<&str>,
    source: Option<&str>,
) -> Result<Vec<pg_sys::Oid>> {
    let comment = match source {
        Some(source) => format!("Vectors of {source}, kept by embedd as "),
        None => "Vectors of ".to_string(),
    };
    let rows = client.select(
        "select c.oid from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
           join pg_catalog.pg_description d
             on d.classoid = 'pg_catalog.pg_class'::regclass and d.objoid = c.oid and d.objsubid = 0
          where n.nspname = coalesce($1, n.nspname) and c.relkind = 'r'
            and pg_catalog.starts_with(c.relname, 'embedd_vt_')
            and pg_catalog.starts_with(d.description, $2)
            and pg_catalog.strpos(d.description, ', kept by embedd as ') > 0
            and not exists (select from embedd.vector_tables v where v.vector_table = c.oid)
          order by c.relname limit 10",
        None,
        &[schema.into(), comment.into()],
    )?;
    let mut found = Vec::new();
    for row in rows {
        found.extend(row.get::<pg_sys::Oid>(1)?);
    }
    Ok(found)
}

/// Reports the leftovers of a source, with the statements that drop them.
fn name_leftovers(client: &SpiClient<'_>, schema: &str, source: &str) -> Result<()> {
    for relation in leftovers(client, Some(schema), Some(source))? {
        let Some(relation) = relation::qualified_name(relation) else { continue };
        let message =
            format!("table {relation} holds vectors of {source} but belongs to no vector table");
        let hint = format!("If it is no longer needed: DROP TABLE {relation}.");
        raise_message(PgLogLevel::NOTICE, message, None, Some(hint));
    }
    Ok(())
}

/// Whether a schema has a relation with this name.
fn is_taken(client: &SpiClient<'_>, schema: &str, name: &str) -> Result<bool> {
    let rows = client.select(
        "select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where n.nspname = $1 and c.relname = $2",
        None,
        &[schema.into(), name.into()],
    )?;
    Ok(!rows.is_empty())
}

/// The type of the index for this many dimensions.
pub fn indexed_type(dimensions: i32) -> &'static str {
    if dimensions > HNSW_VECTOR_DIMENSIONS { "halfvec" } else { "vector" }
}

/// The key of the vector index, with the operator class for cosine distance, which queries use.
pub fn index_key(client: &SpiClient<'_>, dimensions: i32) -> Result<String> {
    let of = indexed_type(dimensions);
    let class = operator_class::find(client, "hnsw", of, "<=>")?;
    if of == "vector" {
        return Ok(format!("embedding {class}"));
    }
    let schema = VectorType::find(client)?.schema;
    Ok(format!("(embedding::{schema}.{of}({dimensions})) {class}"))
}

/// Creates the table and its index in the schema of the source, as the caller; returns its quoted and qualified name.
fn create_relation(
    client: &mut SpiClient<'_>,
    name: &str,
    schema: &str,
    id: i32,
    source: &str,
    dimensions: i32,
    has_metadata: bool,
) -> Result<String> {
    let vector = VectorType::find(client)?.schema;
    let bare = name::vector_table(name, id as u32);
    let qualified = format!("{}.{}", quote_ident(schema), quote_ident(&bare));
    let indexed = index_key(client, dimensions)?;
    // Metadata can change without the vector. Free space on the page then allows HOT updates, which leave the index
    // alone.
    let storage = if has_metadata { " with (fillfactor = 50)" } else { "" };
    let comment = quote_literal(&format!("Vectors of {source}, kept by embedd as \"{name}\""));
    for statement in [
        format!(
            "create table {qualified} (
                pk_value text primary key,
                embedding {vector}.vector({dimensions}),
                embedded_text text,
                metadata jsonb default '{{}}',
                row_hash text){storage}"
        ),
        format!("create index on {qualified} using hnsw ({indexed})"),
        format!("comment on table {qualified} is {comment}"),
        format!("comment on column {qualified}.pk_value is 'key of the source row as text'"),
        format!(
            "comment on column {qualified}.embedding is 'vector of embedded_text, {dimensions} dimensions; null for a row without text'"
        ),
        format!("comment on column {qualified}.embedded_text is 'the text that was embedded'"),
        format!("comment on column {qualified}.metadata is 'the configured columns, for filters'"),
        format!(
            "comment on column {qualified}.row_hash is 'sha256 of text and metadata, to notice changes'"
        ),
    ] {
        command::run(client, &statement)?;
    }
    Ok(qualified)
}

/// Deletes a vector table, and drops its table unless it is to be kept.
pub fn remove(client: &mut SpiClient<'_>, name: &str, keep_table: bool) -> Result<()> {
    cluster::check_writable("drop a vector table")?;
    let rights = RoleSwitch::of_extension()?;
    let table = catalog::find_for_update(client, name)?;
    drop(rights);
    check_may_change(&table)?;
    forget(client, &table, keep_table)?;
    trigger::touch_at_commit();
    Ok(())
}

/// The same without a permission check, for a worker whose source was dropped.
pub fn forget(client: &mut SpiClient<'_>, table: &VectorTable, keep_table: bool) -> Result<()> {
    let rights = RoleSwitch::of_extension()?;
    if let Some(source) = &table.source_name {
        // With embedd's rights: creating a trigger needs a privilege, dropping it needs ownership of the table.
        source::drop_triggers(client, table.id, table.source, source)?;
    }
    catalog::delete(client, table.id)?;
    drop(rights);
    match &table.relation_name {
        None => {}
        // The provider may be dropped from now on.
        Some(_) if keep_table => depend::depend_on(table.relation, None)?,
        Some(relation) => {
            command::run(client, &format!("drop table {relation}"))?;
        }
    }
    Ok(())
}

/// Checks that the current role has the rights of the vector table's owner.
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
