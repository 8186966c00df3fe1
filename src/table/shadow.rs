//! The shadow of a vector table: how it is created with another configuration, and discarded.

use std::collections::BTreeMap;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::update::of as settings_of;
use super::{carry, settings};
use crate::catalog::{self, Reused, Status, VectorTable};
use crate::citus;
use crate::command;
use crate::datum::VectorType;
use crate::error::{Error, Result, raise_message};
use crate::fdw::{Server, depend};
use crate::index;
use crate::name::{self, quote_ident, quote_literal};
use crate::provider_batch;
use crate::relation;
use crate::rights::RoleSwitch;
use crate::vector_column::{IndexOptions, VectorColumn};

/// Creates the table and the row of a shadow. `wanted` is the vector table with the configuration that it shall have.
pub fn create(
    client: &mut SpiClient<'_>,
    live: &VectorTable,
    wanted: VectorTable,
    server: Option<&Server>,
) -> Result<VectorTable> {
    check_may_be_replaced(client, live)?;
    let rights = RoleSwitch::of_extension()?;
    let id = catalog::next_id(client)?;
    drop(rights);
    let name = create_relation(client, live, &wanted)?;
    let relation = relation::find_beside(live.relation, &name)
        .ok_or(Error::Damaged { what: "no table after create table".to_string() })?;
    depend::depend_on(relation, server)?;
    let mut shadow = VectorTable {
        id,
        relation,
        relation_name: relation::qualified_name(relation),
        noted: (relation, live.owner),
        status: Status::Pending,
        ..wanted
    };
    shadow.stored.vectors_name = shadow.relation_name()?.to_string();
    shadow.stored.replaces = Some(live.id);
    call_hook(client, live, &shadow)?;
    index::on_fields::follow(client, &shadow)?;
    let definitions = index::missing_for_shadow(client, live, &shadow)?;
    let _rights = RoleSwitch::of_extension()?;
    let key_types = catalog::key_types(client, live.id)?;
    catalog::insert(client, &shadow, &key_types)?;
    catalog::defer_indexes(client, id, definitions)?;
    catalog::set_working_status(client, live.id)?;
    Ok(shadow)
}

/// Finds for each shadow the vector table whose vectors it can use: of the same model, dimensions and prefix.
pub fn find_reused(tables: &mut BTreeMap<i32, VectorTable>) {
    let reused = |shadow: &VectorTable| {
        let live = tables.get(&shadow.stored.replaces?)?;
        let is_same = settings::has_same_vectors(&settings_of(live), &settings_of(shadow));
        let name = live.relation_name.clone().filter(|_| is_same)?;
        (!citus::is_table(live.relation)).then_some(Reused {
            id: live.id,
            relation: live.relation,
            name,
        })
    };
    let found: Vec<(i32, Option<Reused>)> =
        tables.values().map(|table| (table.id, reused(table))).collect();
    for (id, reused) in found {
        if let Some(table) = tables.get_mut(&id) {
            table.reuses = reused;
        }
    }
}

/// Rejects a vector table with objects that would stay with the replaced table, or that could not be created again.
pub fn check_may_be_replaced(client: &mut SpiClient<'_>, live: &VectorTable) -> Result<()> {
    let _rights = RoleSwitch::of_owner(live.owner);
    let mut objects = carry::blockers(client, live.relation)?;
    // SAFETY: a syscache look-up in a transaction.
    if unsafe { pg_sys::get_rel_relkind(live.relation) } as u8 != pg_sys::RELKIND_RELATION {
        objects.push("its partitions".to_string());
    }
    if !objects.is_empty() {
        return Err(Error::CannotBeReplaced { name: live.name.clone(), objects });
    }
    let privileges = carry::missing_privileges(client, live.relation)?;
    if !privileges.is_empty() {
        return Err(Error::LacksPrivileges { name: live.name.clone(), privileges });
    }
    Ok(())
}

/// Creates the physical table beside that of the vector table; returns its name.
fn create_relation(
    client: &mut SpiClient<'_>,
    live: &VectorTable,
    wanted: &VectorTable,
) -> Result<String> {
    let of = relation::name_of(live.relation).unwrap_or_default();
    let bare = name::suffixed(&of, name::SWAP);
    let schema = relation::schema_of(live.relation).unwrap_or_default();
    let qualified = format!("{}.{}", quote_ident(&schema), quote_ident(&bare));
    let live_name = live.relation_name()?;
    if citus::is_table(live.relation) && live.stored.on_shadow.is_none() {
        return Err(Error::NeedsHook { name: live.name.clone() });
    }
    if relation::find_beside(live.relation, &bare).is_some() {
        return Err(Error::RelationExists { relation: qualified });
    }
    let column = VectorColumn {
        of: wanted.stored.vector_type,
        dimensions: wanted.dimensions,
        index: IndexOptions::default(),
    };
    let embedding = column.type_sql(&VectorType::find(client)?.schema);
    let unlogged = match catalog::sight::is_unlogged(live.relation) {
        true => "unlogged ",
        false => "",
    };
    let _rights = RoleSwitch::of_owner(live.owner);
    let storage = carry::storage(client, live.relation)?;
    command::run(
        client,
        &format!(
            "create {unlogged}table {qualified} (like {live_name} including comments including compression
                 including constraints including defaults including generated including statistics including storage){storage}"
        ),
    )?;
    command::run(
        client,
        &format!("alter table {qualified} alter column embedding type {embedding}"),
    )?;
    let relation = relation::find_beside(live.relation, &bare)
        .ok_or(Error::Damaged { what: "no table after create table".to_string() })?;
    for statement in carry::shape(client, live.relation, relation)? {
        command::run(client, &statement)?;
    }
    for statement in [
        format!(
            "comment on table {qualified} is {}",
            quote_literal(&format!(
                "Shadow of vector table \"{}\": embedd fills it and swaps it in",
                live.name
            ))
        ),
        format!(
            "comment on column {qualified}.embedding is 'vector of embedded_text, {} dimensions; null for a row without text'",
            column.dimensions
        ),
    ] {
        command::run(client, &statement)?;
    }
    Ok(bare)
}

/// Calls the user's function that shapes the new table like the old one, with the rights of the owner.
fn call_hook(client: &mut SpiClient<'_>, live: &VectorTable, shadow: &VectorTable) -> Result<()> {
    let Some(hook) = &live.stored.on_shadow else { return Ok(()) };
    let _rights = RoleSwitch::of_owner(live.owner);
    client.update(
        &format!("select {hook}($1::oid::regclass, $2::oid::regclass)"),
        None,
        &[live.relation.into(), shadow.relation.into()],
    )?;
    Ok(())
}

/// Drops a shadow and its table; the vector table that it was to replace stays as it is.
pub fn discard(client: &mut SpiClient<'_>, shadow: &VectorTable) -> Result<()> {
    let rights = RoleSwitch::of_extension()?;
    warn_of_batches(client, shadow)?;
    catalog::delete(client, shadow.id)?;
    if let Some(live) = shadow.stored.replaces {
        catalog::set_working_status(client, live)?;
    }
    catalog::forget_readers(shadow.source);
    drop(rights);
    match &shadow.relation_name {
        None => Ok(()),
        Some(relation) => {
            let _rights = RoleSwitch::of_owner(shadow.owner);
            command::run(client, &format!("drop table {relation}"))
        }
    }
}

/// Warns of batches that go on at a provider, where nothing of embedd stops or collects them any more.
pub fn warn_of_batches(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    let names = provider_batch::names(client, table.id)?;
    if names.is_empty() {
        return Ok(());
    }
    raise_message(
        PgLogLevel::WARNING,
        format!(
            "batches of vector table \"{}\" go on at provider \"{}\", and are charged",
            table.name, table.provider
        ),
        Some(format!("Their names are: {}.", names.join(", "))),
        Some(
            "Cancel them there. cancel_backfill() cancels them while the vector table exists."
                .to_string(),
        ),
    );
    Ok(())
}
