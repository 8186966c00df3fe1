//! Creates and drops vector tables.

mod carry;
pub mod choose;
mod create_request;
mod notices;
mod place;
mod questions;
pub mod relation_spec;
mod settings;
mod shadow;
mod swap;
mod update;

use embedd_wire::Kind;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::{self, QuestionSettings, Status, Stored, SyncMode, VectorTable, sight};
use crate::cluster;
use crate::command;
use crate::document;
use crate::error::{Error, Result, raise_message};
use crate::fdw::{self, depend};
use crate::grants;
use crate::index;
use crate::key::Key;
use crate::models::Chosen;
use crate::name;
use crate::relation;
use crate::rights::RoleSwitch;
use crate::row_security;
use crate::source;
use crate::vector_column::{ColumnType, IndexOptions, VectorColumn};
use crate::{shared, task, trigger};

pub use self::create_request::CreateRequest;
use self::create_request::{batch_interval, check_index, source_drop, sync_mode};
pub use self::relation_spec::{RelationSpec, index_definition};
pub use self::shadow::{check_may_be_replaced, discard, find_reused};
pub use self::swap::{Swapped, drop_old, swap};
pub use self::update::{UpdateRequest, rename, update};

/// Creates the vector table, its index, the triggers of the source, and the row in embedd.vector_tables.
pub fn create(client: &mut SpiClient<'_>, request: CreateRequest) -> Result<VectorTable> {
    cluster::check_writable("create a vector table")?;
    name::check(&request.name)?;
    let mode = sync_mode(&request)?;
    let batch_interval = batch_interval(request.batch_interval, mode)?;
    let on_source_drop = source_drop(&request.on_source_drop)?;
    let vector_type = ColumnType::parse(&request.vector_type)?;
    let index_options = request.index.as_ref().map_or(Ok(None), IndexOptions::parse)?;
    if let Some(table_name) = &request.table_name {
        name::check_table(table_name)?;
    }
    let columns = document::parse_columns(&request.columns)?;
    let source = source::define(client, request.source, columns, request.key.as_deref(), mode)?;
    let server = choose::provider(&request.provider)?;
    let Chosen { model, dimensions, prefixes, prefixes_by_name, retirement, .. } = choose::model(
        client,
        server.as_ref(),
        &request.provider,
        request.model.as_deref(),
        request.dimensions,
    )?;
    let column = VectorColumn {
        of: vector_type,
        dimensions,
        index: index_options.clone().unwrap_or_default(),
    };
    check_index(&column, index_options.is_some())?;
    let question_settings = QuestionSettings::default().changed(&request.questions)?;
    let vectors =
        questions::Vectors { provider: request.provider.clone(), model: model.clone(), dimensions };
    questions::check(&vectors, &question_settings)?;
    let schema = place::schema(client, &request)?;

    let rights = RoleSwitch::of_extension()?;
    if catalog::exists(client, &request.name)? {
        return Err(Error::NameTaken { name: request.name });
    }
    if mode == SyncMode::Trigger {
        source::drop_stale_triggers(client, request.source, &source.name)?;
    }
    name_leftovers(client, &schema, &source.name)?;
    drop(rights);
    let (id, table_name) = place::name(client, &request, &schema)?;

    let spec = RelationSpec {
        schema: &schema,
        name: &table_name,
        column,
        comment: &relation_spec::comment(&source.name, &request.name),
        storage: relation_spec::storage(&source.columns),
    };
    spec.create(client)?;
    spec.create_index(client)?;
    if mode == SyncMode::Trigger {
        source::create_triggers(client, id, &source.name)?;
        let rights = RoleSwitch::of_extension()?;
        if let Some(missed) = sight::missed_changes(client, id, request.source, &source.name)? {
            ErrorReport::from(missed).report(PgLogLevel::WARNING);
        }
        drop(rights);
    }
    let relation = client
        .update("select pg_catalog.to_regclass($1)::oid", None, &[spec.qualified().into()])?
        .first()
        .get_one::<pg_sys::Oid>()?
        .ok_or(Error::Damaged { what: "no table after create table".to_string() })?;
    depend::depend_on(relation, server.as_ref())?;
    questions::pin(&question_settings)?;
    let key_types: Vec<pg_sys::Oid> = source.key.iter().map(|c| c.base).collect();
    // SAFETY: a plain read of the process's own state.
    let owner = unsafe { pg_sys::GetUserId() };
    let relation_name = relation::qualified_name(relation);
    let mut table = VectorTable {
        id,
        origin_id: id,
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
            origin_id: Some(id),
            replaces: None,
            auto_swap: true,
            on_shadow: None,
            created_at: String::new(),
            old_tables: Vec::new(),
            vector_type,
            index_options,
            question_settings,
            mirrored_readers: Vec::new(),
            measured_recall: None,
        },
        reads_run: false,
        reuses: None,
        columns: source.columns,
    };
    index::on_fields::follow(client, &table)?;
    let rights = RoleSwitch::of_extension()?;
    catalog::insert(client, &table, &key_types)?;
    if request.start_backfill {
        task::ask(client, id, &table.name, task::Price::Standard)?;
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
    notices::no_index(&table);
    drop(rights);
    row_security::follow(client, &stored)?;
    grants::follow(client, &stored)?;
    if let Some(retirement) = retirement {
        retirement.warn(&table.model, retirement.hint_for_new());
    }
    Ok(table)
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
            and (pg_catalog.starts_with(d.description, $2) and pg_catalog.strpos(d.description, ', kept by embedd as ') > 0
                 or $3 and pg_catalog.starts_with(d.description, $4))
            and not exists (select from embedd.vector_tables v where v.vector_table = c.oid or c.oid = any(v.old_tables))
          order by c.relname limit 10",
        None,
        &[schema.into(), comment.into(), source.is_none().into(), carry::REPLACED.into()],
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
    if table.stored.replaces.is_some() {
        return discard(client, table);
    }
    let rights = RoleSwitch::of_extension()?;
    let shadow = catalog::shadow_of(client, table.id)?;
    drop(rights);
    if let Some(shadow) = shadow {
        discard(client, &shadow)?;
    }
    for old in swap::old_tables(client, table)? {
        swap::drop_one(client, &old)?;
    }
    let rights = RoleSwitch::of_extension()?;
    if let Some(source) = &table.source_name {
        // With embedd's rights: creating a trigger needs a privilege, dropping it needs ownership of the table.
        source::drop_triggers(client, table.origin_id, table.source, source)?;
    }
    shadow::warn_of_batches(client, table)?;
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
