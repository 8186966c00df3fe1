//! Changes the configuration of a vector table: in place where the vectors stay as they are, by a shadow otherwise.

use embedd_wire::Kind as ProviderKind;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::choose::Before;
use super::create_request::{batch_interval, check_index, source_drop};
use super::settings::{self, Need, Settings};
use super::{check_may_change, choose, notices, place, questions, relation_spec, shadow};
use crate::catalog::{self, LOCAL_PROVIDER, QuestionSettings, Status, SyncMode, VectorTable};
use crate::cluster;
use crate::command;
use crate::document;
use crate::error::{Error, Result, raise_message};
use crate::fdw::{Server, depend};
use crate::grants;
use crate::index;
use crate::name::{self, quote_ident, quote_literal};
use crate::relation;
use crate::rights::RoleSwitch;
use crate::row_security;
use crate::source;
use crate::vector_column::{ColumnType, IndexOptions, VectorColumn};
use crate::{provider_batch, task, trigger};

/// The arguments of update_vector_table(); None leaves a setting as it is.
#[derive(Default)]
pub struct UpdateRequest {
    pub name: String,
    pub columns: Option<serde_json::Value>,
    pub provider: Option<String>,
    pub model: Option<String>,
    pub dimensions: Option<i32>,
    pub batch_interval: Option<f64>,
    pub on_source_drop: Option<String>,
    pub vector_type: Option<String>,
    pub index: Option<serde_json::Value>,
    pub table_name: Option<String>,
    pub table_schema: Option<String>,
    /// The function that shapes a shadow; empty for none.
    pub on_shadow: Option<String>,
    pub questions: QuestionSettings,
}

/// What an update has come to.
pub struct Updated {
    pub id: i32,
    pub name: String,
    pub status: Status,
    /// The arguments whose setting has changed.
    pub changed: Vec<String>,
    /// Whether a backfill is needed before all of it is in force.
    pub needs_backfill: bool,
    pub relation: Option<String>,
}

/// Changes a vector table.
pub fn update(client: &mut SpiClient<'_>, request: &UpdateRequest) -> Result<Updated> {
    cluster::check_writable("change a vector table")?;
    let checked = questions::check_change(client, request)?;
    let rights = RoleSwitch::of_extension()?;
    let mut live = catalog::find_for_update(client, &request.name)?;
    let shadow = catalog::shadow_of(client, live.id)?;
    drop(rights);
    check_may_change(&live)?;
    live.resolve()?;
    let base = shadow.as_ref().unwrap_or(&live);
    let (wanted, server) = wanted(client, &live, base, request)?;
    questions::confirm(base, &wanted, checked.as_ref())?;
    let differences = settings::differences(&of(&live), &of(&wanted));
    let mut changed: Vec<String> = settings::differences(&of(base), &of(&wanted))
        .into_iter()
        .map(|(name, _)| name.to_string())
        .collect();
    let needs_backfill = differences.iter().any(|(_, need)| *need == Need::Table);
    if !changed.is_empty() {
        if let Some(shadow) = &shadow {
            if shadow.status != Status::Pending {
                return Err(Error::RebackfillInProgress { name: live.name });
            }
            shadow::discard(client, shadow)?;
        }
        apply(client, &mut live, &wanted, &differences, server.as_ref())?;
        if needs_backfill {
            shadow::create(client, &live, wanted, server.as_ref())?;
        }
    }
    changed.extend(move_table(client, &mut live, request)?);
    if changed.is_empty() {
        let message = format!("vector table \"{}\" is as requested, nothing changes", live.name);
        raise_message(PgLogLevel::NOTICE, message, None, None);
    } else if needs_backfill {
        notices::needs_backfill(&live);
    }
    trigger::touch_at_commit();
    let _rights = RoleSwitch::of_extension()?;
    let status = catalog::find(client, &live.name)?.status;
    let relation = relation::qualified_name(live.relation);
    Ok(Updated { id: live.id, name: live.name, status, changed, needs_backfill, relation })
}

/// The settings of a vector table.
pub fn of(table: &VectorTable) -> Settings {
    let stored = &table.stored;
    Settings {
        provider: table.provider.clone(),
        model: table.model.clone(),
        dimensions: table.dimensions,
        query_prefix: stored.query_prefix.clone(),
        document_prefix: stored.document_prefix.clone(),
        columns: table.columns.clone(),
        vector_type: stored.vector_type,
        index: stored.index_options.clone(),
        batch_interval: table.batch_interval,
        on_source_drop: stored.on_source_drop.as_str(),
        on_shadow: stored.on_shadow.clone(),
        questions: stored.question_settings.clone(),
    }
}

/// The vector table as it is wanted, with its provider; `base` is what is in force or already wanted.
pub(super) fn wanted(
    client: &mut SpiClient<'_>,
    live: &VectorTable,
    base: &VectorTable,
    request: &UpdateRequest,
) -> Result<(VectorTable, Option<Server>)> {
    let mut wanted = base.clone();
    wanted.key = live.key.clone();
    let stored = &mut wanted.stored;
    if let Some(columns) = &request.columns {
        let columns = document::parse_columns(columns)?;
        let key = &live.stored.primary_key_column;
        let defined = {
            let _rights = RoleSwitch::of_owner(live.owner);
            source::define(client, live.source, columns, Some(key), stored.sync_mode)?
        };
        // A column keeps the name that its metadata has, where it was renamed since.
        (wanted.columns, stored.column_numbers) = (defined.columns, defined.column_numbers);
    }
    if let Some(interval) = request.batch_interval {
        wanted.batch_interval = batch_interval(Some(interval), stored.sync_mode)?;
    }
    if let Some(word) = &request.on_source_drop {
        stored.on_source_drop = source_drop(word)?;
    }
    if let Some(of) = &request.vector_type {
        stored.vector_type = ColumnType::parse(of)?;
    }
    if let Some(index) = &request.index {
        stored.index_options = IndexOptions::parse(index)?;
    }
    if let Some(hook) = &request.on_shadow {
        stored.on_shadow = find_hook(client, hook)?;
    }
    stored.question_settings = stored.question_settings.changed(&request.questions)?;
    let server = choose_vectors(client, base, &mut wanted, request)?;
    let column = VectorColumn {
        of: wanted.stored.vector_type,
        dimensions: wanted.dimensions,
        index: wanted.stored.index_options.clone().unwrap_or_default(),
    };
    check_index(&column, request.index.is_some())?;
    Ok((wanted, server))
}

/// Chooses provider, model, dimensions and prefixes as they are asked for.
fn choose_vectors(
    client: &SpiClient<'_>,
    base: &VectorTable,
    wanted: &mut VectorTable,
    request: &UpdateRequest,
) -> Result<Option<Server>> {
    if let Some(provider) = &request.provider {
        wanted.provider.clone_from(provider);
    }
    let is_asked =
        request.provider.is_some() || request.model.is_some() || request.dimensions.is_some();
    if !is_asked {
        return Server::find_if_any(&wanted.provider)
            .map(|server| server.filter(|_| wanted.provider != LOCAL_PROVIDER));
    }
    let server = choose::provider(&wanted.provider)?;
    let kind =
        |server: Option<&Server>| server.map_or(ProviderKind::Local, |server| server.options.kind);
    let default = server.as_ref().and_then(|server| server.options.default_model.as_deref());
    let other = request.provider.as_ref().map(|_| (kind(server.as_ref()), default));
    let before = Before {
        kind: Server::of_table(base).ok().map(|server| kind(server.as_ref())),
        model: &base.model,
    };
    let model = choose::model_name(request.model.as_deref(), other, &before);
    let keeps_model = model.as_ref() == Some(&base.model);
    let dimensions = request.dimensions.or_else(|| keeps_model.then_some(base.dimensions));
    let chosen =
        choose::model(client, server.as_ref(), &wanted.provider, model.as_deref(), dimensions)?;
    if chosen.model != base.model || request.provider.as_ref().is_some_and(|p| *p != base.provider)
    {
        wanted.stored.query_prefix = chosen.prefixes.query;
        wanted.stored.document_prefix = chosen.prefixes.document;
    }
    (wanted.model, wanted.dimensions) = (chosen.model, chosen.dimensions);
    if let Some(retirement) = chosen.retirement {
        retirement.warn(&wanted.model, retirement.hint_for_new());
    }
    Ok(server)
}

/// The qualified name of a function that shapes a shadow; an empty name stands for none.
fn find_hook(client: &SpiClient<'_>, hook: &str) -> Result<Option<String>> {
    if hook.is_empty() {
        return Ok(None);
    }
    let rows = client.select(
        "select pg_catalog.format('%I.%I', n.nspname, p.proname)
           from pg_catalog.parse_ident($1) i(parts)
           join pg_catalog.pg_namespace n on n.nspname = i.parts[1]
           join pg_catalog.pg_proc p on p.pronamespace = n.oid and p.proname = i.parts[2]
          where pg_catalog.cardinality(i.parts) = 2 and p.prokind = 'f'
            and pg_catalog.oidvectortypes(p.proargtypes) = 'regclass, regclass'
            and pg_catalog.has_function_privilege(p.oid, 'EXECUTE')",
        None,
        &[hook.into()],
    )?;
    match rows.is_empty() {
        true => Err(Error::BadArgument {
            message: format!("function {hook}(regclass, regclass) does not exist"),
            detail: Some(
                "on_shadow names a function that gets the vector table and its shadow.".to_string(),
            ),
            hint: Some("Name it with its schema and without arguments.".to_string()),
        }),
        false => Ok(rows.first().get_one::<String>()?),
    }
}

/// Applies what needs no new table: all of it where nothing needs one, otherwise what is not part of that.
fn apply(
    client: &mut SpiClient<'_>,
    live: &mut VectorTable,
    wanted: &VectorTable,
    differences: &[(&'static str, Need)],
    server: Option<&Server>,
) -> Result<()> {
    live.batch_interval = wanted.batch_interval;
    live.stored.on_source_drop = wanted.stored.on_source_drop;
    live.stored.on_shadow.clone_from(&wanted.stored.on_shadow);
    live.stored.question_settings.clone_from(&wanted.stored.question_settings);
    let need = differences.iter().map(|(_, need)| *need).max();
    let rights = RoleSwitch::of_extension()?;
    if need != Some(Need::Table) {
        if live.provider != wanted.provider {
            check_has_no_batches(client, live)?;
        }
        live.provider.clone_from(&wanted.provider);
        live.stored.query_prefix.clone_from(&wanted.stored.query_prefix);
        live.columns.clone_from(&wanted.columns);
        live.stored.column_numbers.clone_from(&wanted.stored.column_numbers);
    }
    catalog::set_config(client, live)?;
    if need == Some(Need::Rewrite) {
        if live.stored.sync_mode == SyncMode::Trigger {
            catalog::await_writers(client, live)?;
        }
        task::compare_again(client, live.id)?;
        catalog::set_working_status(client, live.id)?;
    }
    drop(rights);
    row_security::follow(client, live)?;
    grants::follow(client, live)?;
    if need != Some(Need::Table) {
        index::on_fields::follow(client, live)?;
    }
    if differences.iter().any(|(name, _)| *name == "embedding_provider")
        && need != Some(Need::Table)
    {
        depend::depend_on(live.relation, server)?;
    }
    Ok(())
}

/// Checks that a vector table may have another provider, which does not know the batches that are paid for.
fn check_has_no_batches(client: &mut SpiClient<'_>, live: &VectorTable) -> Result<()> {
    let name = live.name.clone();
    if !provider_batch::names(client, live.id)?.is_empty() {
        return Err(Error::BatchesAtProvider { name, provider: live.provider.clone() });
    }
    match task::is_open_at(client, live.id, task::Price::Batch)? {
        true => Err(Error::BackfillInProgress { name }),
        false => Ok(()),
    }
}

/// Gives the physical table another name or schema; returns the arguments that have changed.
fn move_table(
    client: &mut SpiClient<'_>,
    live: &mut VectorTable,
    request: &UpdateRequest,
) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    let bare = relation::name_of(live.relation).unwrap_or_default();
    if let Some(schema) = &request.table_schema
        && relation::schema_of(live.relation).as_ref() != Some(schema)
    {
        let _rights = RoleSwitch::of_owner(live.owner);
        place::check_schema(client, schema)?;
        let table = relation::qualified_name(live.relation).unwrap_or_default();
        command::run(client, &format!("alter table {table} set schema {}", quote_ident(schema)))?;
        changed.push("table_schema".to_string());
    }
    if let Some(name) = &request.table_name
        && bare != *name
    {
        name::check_table(name)?;
        let _rights = RoleSwitch::of_owner(live.owner);
        let table = relation::qualified_name(live.relation).unwrap_or_default();
        command::run(client, &format!("alter table {table} rename to {}", quote_ident(name)))?;
        changed.push("table_name".to_string());
    }
    if !changed.is_empty() {
        live.relation_name = relation::qualified_name(live.relation);
        let _rights = RoleSwitch::of_extension()?;
        catalog::record_vectors(client, live)?;
    }
    Ok(changed)
}

/// Gives a vector table another name.
pub fn rename(client: &mut SpiClient<'_>, name: &str, new_name: &str) -> Result<()> {
    cluster::check_writable("rename a vector table")?;
    name::check(new_name)?;
    let rights = RoleSwitch::of_extension()?;
    let live = catalog::find_for_update(client, name)?;
    drop(rights);
    check_may_change(&live)?;
    let rights = RoleSwitch::of_extension()?;
    if catalog::exists(client, new_name)? {
        return Err(Error::NameTaken { name: new_name.to_string() });
    }
    catalog::rename(client, live.id, new_name)?;
    drop(rights);
    // The comment says what the table is; one of the owner's own stays.
    if let Some(relation) = &live.relation_name {
        let old = relation_spec::comment(&live.stored.source_name, name);
        let new = relation_spec::comment(&live.stored.source_name, new_name);
        let _rights = RoleSwitch::of_owner(live.owner);
        let rows = client.update(
            "select pg_catalog.obj_description($1, 'pg_class') = $2",
            None,
            &[live.relation.into(), old.into()],
        )?;
        if rows.first().get_one::<bool>()? == Some(true) {
            command::run(
                client,
                &format!("comment on table {relation} is {}", quote_literal(&new)),
            )?;
        }
    }
    trigger::touch_at_commit();
    Ok(())
}
