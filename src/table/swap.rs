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
use crate::rights::{self, RoleSwitch};

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
    if live.owner != shadow.owner {
        // With the rights of the worker: neither of the two may be allowed to.
        let role = quote_ident(&rights::role_name(live.owner));
        command::run(client, &format!("alter table {} owner to {role}", shadow.relation_name()?))?;
    }
    let old = rename(client, live, shadow)?;
    let _rights = RoleSwitch::of_extension()?;
    catalog::replace(client, live, shadow.id, &old)?;
    Ok(Swapped::Done)
}

/// Locks a table of vectors against everything. Queries that come now wait, so what follows is short.
fn lock(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    let _rights = RoleSwitch::of_owner(table.owner);
    let relation = table.relation_name()?;
    client.update(&format!("lock table {relation} in access exclusive mode"), None, &[])?;
    Ok(())
}

/// Gives the shadow the name of the vector table and all that its users have added; returns the new name of the replaced
/// table.
fn rename(client: &mut SpiClient<'_>, live: &VectorTable, shadow: &VectorTable) -> Result<String> {
    let of = relation::name_of(live.relation).unwrap_or_default();
    let schema = relation::schema_of(live.relation).unwrap_or_default();
    let old = name::suffixed(&of, name::OLD);
    let qualified = format!("{}.{}", quote_ident(&schema), quote_ident(&old));
    if relation::find_beside(live.relation, &old).is_some() {
        return Err(Error::RelationExists { relation: qualified });
    }
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
    run_as_owners(client, live, definitions)?;
    Ok(relation::qualified_name(live.relation).unwrap_or(qualified))
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

/// Drops the table that the last swap replaced, after the foreign keys are checked that the swap has left unchecked. False
/// while a session may read it.
pub fn drop_old(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    let Some(old) = table.stored.old_table.clone() else { return Ok(true) };
    let found = name::split_qualified(&old)
        .and_then(|(schema, name)| relation::find(&schema, &name))
        .filter(|found| relation::owner_of(*found) == Some(table.owner));
    let Some(found) = found else {
        catalog::clear_old(client, table.id)?;
        return Ok(true);
    };
    if may_be_read(client, found)? {
        return Ok(false);
    }
    let unchecked = {
        let _rights = RoleSwitch::of_owner(table.owner);
        carry::unchecked(client, table.relation)?
    };
    run_as_owners(client, table, unchecked)?;
    let rights = RoleSwitch::of_owner(table.owner);
    command::run(client, &format!("drop table {old}"))?;
    drop(rights);
    catalog::clear_old(client, table.id)?;
    Ok(true)
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
