//! The swap: one short transaction in which a shadow takes the place of the vector table that it replaces.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::carry;
use super::shadow::check_may_be_replaced;
use crate::catalog::{self, VectorTable};
use crate::command;
use crate::error::{Error, Result};
use crate::index;
use crate::name::{self, quote_ident};
use crate::queue;
use crate::relation;
use crate::rights::RoleSwitch;
use crate::transaction;

/// What a swap has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Swapped {
    Done,
    /// Too many changes wait for the shadow.
    TooFarBehind,
    /// The vector table has indexes that the shadow lacks: they are deferred now, and built first.
    LacksIndexes,
}

/// Changes that may wait for a shadow when it is swapped in, which it goes on with as the vector table.
const MOST_PENDING: i64 = 1000;

/// Puts a shadow in the place of the vector table that it replaces. The caller has both rows locked, and bounds the wait
/// for locks of the tables.
pub fn swap(
    client: &mut SpiClient<'_>,
    live: &VectorTable,
    shadow: &VectorTable,
) -> Result<Swapped> {
    check_may_be_replaced(client, live)?;
    index::drop_unpaired(client, live, shadow)?;
    let definitions = index::missing_for_shadow(client, live, shadow)?;
    if !definitions.is_empty() {
        catalog::defer_indexes(client, shadow.id, definitions)?;
        return Ok(Swapped::LacksIndexes);
    }
    let waiting = |client: &SpiClient<'_>, id| Ok::<_, Error>(queue::pending(client, id)?.keys);
    // Where writers are faster than the worker, the shadow is to be no later than the vector table is.
    if waiting(client, shadow.id)? > waiting(client, live.id)?.max(MOST_PENDING) {
        return Ok(Swapped::TooFarBehind);
    }
    lock(client, live)?;
    lock(client, shadow)?;
    check_shape(client, live, shadow)?;
    rename(client, live, shadow)?;
    let _rights = RoleSwitch::of_extension()?;
    catalog::replace(client, live, shadow.id)?;
    Ok(Swapped::Done)
}

/// Rejects a swap after which the vector table would lack what it has got since its shadow was created, or would run code
/// of another owner.
fn check_shape(client: &mut SpiClient<'_>, live: &VectorTable, shadow: &VectorTable) -> Result<()> {
    let _rights = RoleSwitch::of_owner(shadow.owner);
    let is_same = live.owner == shadow.owner
        && carry::shape_of(client, live.relation)? == carry::shape_of(client, shadow.relation)?;
    match is_same {
        true => Ok(()),
        false => Err(Error::ShapeChanged { name: live.name.clone() }),
    }
}

/// Locks a table of vectors against everything. Queries that come now wait, so what follows is short.
fn lock(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    let _rights = RoleSwitch::of_owner(table.owner);
    let relation = table.relation_name()?;
    client.update(&format!("lock table {relation} in access exclusive mode"), None, &[])?;
    Ok(())
}

/// Gives the shadow the name of the vector table and all that its users have added.
fn rename(client: &mut SpiClient<'_>, live: &VectorTable, shadow: &VectorTable) -> Result<()> {
    let of = relation::name_of(live.relation).unwrap_or_default();
    let schema = relation::schema_of(live.relation).unwrap_or_default();
    // Another table may have the name, or one that a session still reads.
    let mut old = name::suffixed(&of, name::OLD);
    for number in 1.. {
        if relation::find_beside(live.relation, &old).is_none() {
            break;
        }
        old = name::suffixed(&of, &format!("{}{number}", name::OLD));
    }
    if relation::schema_of(shadow.relation).as_ref() != Some(&schema) {
        let _rights = RoleSwitch::of_owner(live.owner);
        let (table, schema) = (shadow.relation_name()?, quote_ident(&schema));
        command::run(client, &format!("alter table {table} set schema {schema}"))?;
    }
    let qualified = format!("{}.{}", quote_ident(&schema), quote_ident(&old));
    let (to, definitions, renames);
    {
        let _rights = RoleSwitch::of_owner(live.owner);
        to = carry::foreign_keys_to(client, live.relation)?;
        definitions = carry::definitions(client, live.relation)?;
        renames = carry::renames(client, live.relation, shadow.relation, &old)?;
    }
    run_as_owners(client, live, to)?;
    run_as_owners(client, live, renames)?;
    let comment = carry::old_comment(&qualified, &live.name);
    run_as_owners(client, live, vec![carry::Statement { text: comment, owner: None }])?;
    run_as_owners(client, live, definitions)
}

/// Runs statements, each with the rights of the owner of what it alters: for a foreign key that may be another table.
fn run_as_owners(
    client: &mut SpiClient<'_>,
    live: &VectorTable,
    statements: Vec<carry::Statement>,
) -> Result<()> {
    for statement in statements {
        let _rights = RoleSwitch::of_owner(statement.owner.unwrap_or(live.owner));
        command::run(client, &statement.text)?;
    }
    Ok(())
}

/// The tables that swaps have replaced and that are there still. A dump keeps their oids, which mean nothing where it is
/// restored, so the comment is looked at too.
pub(super) fn old_tables(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
) -> Result<Vec<pg_sys::Oid>> {
    let rows = client.update(
        "select c.oid from unnest($1::text[]) o(id) join pg_catalog.pg_class c on c.oid = o.id::oid
          where pg_catalog.starts_with(pg_catalog.obj_description(c.oid, 'pg_class'), $2)",
        None,
        &[table.stored.old_tables.clone().into(), carry::REPLACED.into()],
    )?;
    let mut found = Vec::new();
    for row in rows {
        found.extend(row.get::<pg_sys::Oid>(1)?);
    }
    Ok(found)
}

/// Drops a replaced table with the rights of its owner.
pub(super) fn drop_one(client: &mut SpiClient<'_>, old: &pg_sys::Oid) -> Result<()> {
    let (Some(name), Some(owner)) = (relation::qualified_name(*old), relation::owner_of(*old))
    else {
        return Ok(());
    };
    let _rights = RoleSwitch::of_owner(owner);
    command::run(client, &format!("drop table {name}"))
}

/// Drops the tables that swaps have replaced, and checks the foreign keys that the last one has left unchecked. False while
/// a session may read one of them.
pub fn drop_old(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    let mut left = Vec::new();
    for old in old_tables(client, table)? {
        match may_be_read(client, old)? {
            true => left.push(old),
            false => drop_one(client, &old)?,
        }
    }
    let is_over = left.is_empty();
    if is_over {
        let unchecked = {
            let _rights = RoleSwitch::of_owner(table.owner);
            carry::unchecked(client, table.relation)?
        };
        for statement in unchecked {
            // One that was not valid before may be not valid still.
            let text = statement.text.clone();
            let checked = transaction::nested(|| {
                Spi::connect_mut(|client| run_as_owners(client, table, vec![statement]))
            });
            if let Err(failure) = checked {
                log!("{text}: {}", failure.message);
            }
        }
    }
    // A session may read them for hours: what stays as it is is not written with each look.
    if left.len() < table.stored.old_tables.len() {
        let _rights = RoleSwitch::of_extension()?;
        catalog::set_old_tables(client, table.id, left)?;
    }
    Ok(is_over)
}

/// Whether a session may have a snapshot from before the swap, with which it finds the replaced table.
fn may_be_read(client: &mut SpiClient<'_>, old: pg_sys::Oid) -> Result<bool> {
    // The row of pg_class was written by the swap.
    let rows = client.update(
        "select exists (
            select from (select a.backend_xmin from pg_catalog.pg_stat_activity a
                          where coalesce(a.datname, pg_catalog.current_database()) = pg_catalog.current_database()
                            and a.pid <> pg_catalog.pg_backend_pid()
                          union all
                         select s.xmin from pg_catalog.pg_replication_slots s where s.slot_type = 'physical') x(oldest)
              join pg_catalog.pg_class c on c.oid = $1
             where x.oldest is not null and pg_catalog.age(x.oldest) >= pg_catalog.age(c.xmin))",
        None,
        &[old.into()],
    )?;
    Ok(rows.first().get_one::<bool>()? == Some(true))
}
