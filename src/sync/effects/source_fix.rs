//! Source tracking: columns that were renamed, a source that was dropped or recreated, triggers that are missing.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::{self, SourceDrop, SourceUpdate, SyncMode, VectorTable, sight};
use crate::citus;
use crate::error::{Error, Result};
use crate::fdw::depend;
use crate::grants;
use crate::name::quote_ident;
use crate::queue;
use crate::relation;
use crate::rights;
use crate::rights::RoleSwitch;
use crate::row_security;
use crate::{shared, source, table, task};

/// What has to be put right for a vector table, in a transaction of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceFix {
    /// The source or its columns have other names: it is noted.
    Note(SourceUpdate),
    /// Another table has the name of the source that was dropped, and takes its place.
    Rebind(SourceUpdate),
    /// The table with the vectors has another name or owner, which is recorded, or was recreated under its name.
    Vectors,
    /// The source has got or lost row security, or readers, which the vector table follows.
    Readers,
    /// The triggers are missing.
    Triggers,
    /// The source was dropped, and the vectors are to go with it.
    Drop,
    /// The source was dropped, and the vectors stay: what waits for it will never be done.
    Clear,
    /// The provider has another name, or the table does not depend on it yet.
    Provider,
    /// Changes may have been missed, and are seen again.
    Compare,
}

/// What was found of the source of a vector table.
#[derive(Debug, Default)]
pub struct Look {
    /// What has to be put right.
    pub fix: Option<SourceFix>,
    /// Why nothing can be done for the table meanwhile.
    pub broken: Option<String>,
    /// Why its changes may be missed, though they are worked on.
    pub missed: Option<String>,
    /// Whether it has to be compared when that is over.
    pub is_unseen: bool,
}

impl Look {
    fn broken(error: &Error) -> Self {
        let is_unseen = matches!(
            error,
            Error::RowsHidden { .. }
                | Error::ChangesMissed { .. }
                | Error::FilledBySubscription { .. }
        );
        Self { broken: Some(error.with_remedy()), is_unseen, ..Self::default() }
    }

    fn fix(fix: SourceFix) -> Self {
        Self { fix: Some(fix), ..Self::default() }
    }
}

/// Finds key and columns of a vector table in its source. Comes back with what has to be put right, and with the reason
/// why nothing can be done for it meanwhile. Writes nothing, so that no table keeps the others waiting.
pub fn look(client: &SpiClient<'_>, table: &mut VectorTable) -> Result<Look> {
    if let Err(gone) = table.relation_name() {
        return Ok(Look::broken(&gone));
    }
    if table.has_other_vectors() {
        return Ok(Look::fix(SourceFix::Vectors));
    }
    if table.source_name.is_none() {
        let (fix, broken) = look_for_source(client, table)?;
        return Ok(Look { fix, broken, ..Look::default() });
    }
    let resolved = sight::check(client, table).and_then(|()| table.resolve());
    let moved = match resolved {
        Ok(moved) => moved,
        Err(Error::Spi(error)) => return Err(Error::Spi(error)),
        Err(error) => {
            // Whatever is wrong with the source: readers are to see no more of the vectors than of it.
            let fix = readers_differ(client, table)?.then_some(SourceFix::Readers);
            return Ok(Look { fix, ..Look::broken(&error) });
        }
    };
    let is_noted = table.stored.sync_mode == SyncMode::Trigger;
    if is_noted && !source::has_triggers(client, table.origin_id, table.source)? {
        return Ok(Look::fix(SourceFix::Triggers));
    }
    if let Some(moved) = moved {
        return Ok(Look::fix(SourceFix::Note(moved)));
    }
    if readers_differ(client, table)? {
        return Ok(Look::fix(SourceFix::Readers));
    }
    if let Some(source) = table.source_name.clone().filter(|_| is_noted)
        && let Some(missed) = sight::missed_changes(client, table.origin_id, table.source, &source)?
    {
        let missed = Some(missed.with_remedy());
        return Ok(Look { missed, is_unseen: true, ..Look::default() });
    }
    let may_be_empty = sight::is_unlogged(table.source) || sight::is_unlogged(table.relation);
    let is_from_before = table.stored.compared_in != shared::started_at();
    match table.stored.unseen_since.is_some() || (may_be_empty && is_from_before) {
        true => Ok(Look::fix(SourceFix::Compare)),
        false => Ok(Look::default()),
    }
}

/// Whether policy and privileges of a vector table are not those that its source asks for. A swap gives them to a shadow.
fn readers_differ(client: &SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    Ok(table.stored.replaces.is_none()
        && (row_security::differs(client, table)? || grants::differs(client, table)?))
}

/// The source was dropped: is there another of its name?
fn look_for_source(
    client: &SpiClient<'_>,
    table: &mut VectorTable,
) -> Result<(Option<SourceFix>, Option<String>)> {
    let error = Error::RelationGone { what: "source", name: table.name.clone() };
    let (gone, remedy) = (error.to_string(), error.with_remedy());
    // A source that Citus has made a shard of is there under its name, and there is only to say what is wrong with that.
    let before = if citus::is_shard(table.source) { String::new() } else { format!("{gone}: ") };
    let name = table.stored.source_name.clone();
    // Before version 0.3.0 the name of a source was not kept: there is none when it had been dropped by then.
    let rows = client.select(
        "select pg_catalog.to_regclass(nullif($1, ''))::oid",
        None,
        &[name.as_str().into()],
    )?;
    let Some(source) = rows.first().get_one::<pg_sys::Oid>()? else {
        return Ok(match table.stored.on_source_drop {
            SourceDrop::Drop => (Some(SourceFix::Drop), Some(remedy)),
            SourceDrop::Keep => (Some(SourceFix::Clear), Some(remedy)),
        });
    };
    if let Err(error) = source::check(client, source, table.stored.sync_mode) {
        return Ok((None, Some(format!("{before}{}", error.with_remedy()))));
    }
    if !is_trusted(source, table.owner) {
        let role = relation::owner_of(source).map_or_else(String::new, rights::role_name);
        let owner = quote_ident(&rights::role_name(table.owner));
        let reason = format!(
            "{gone}: {name} belongs to role \"{role}\". Give it to the owner of the vector table: ALTER TABLE {name} OWNER TO {owner}."
        );
        return Ok((None, Some(reason)));
    }
    let mut other =
        VectorTable { source, source_name: catalog::source_name(source), ..table.clone() };
    other.forget_numbers();
    match other.resolve() {
        Ok(moved) => {
            let moved = moved.unwrap_or_default();
            *table = other;
            Ok((Some(SourceFix::Rebind(moved)), Some(gone)))
        }
        Err(error) => Ok((None, Some(format!("{before}{}", error.with_remedy())))),
    }
}

/// Whether a relation belongs to a role whose code the owner of a vector table runs anyway: to read it runs its view, its
/// types and their casts with that owner's rights, and any role may create a table under a name that has become free.
fn is_trusted(source: pg_sys::Oid, owner: pg_sys::Oid) -> bool {
    relation::owner_of(source).is_some_and(|theirs| {
        // SAFETY: look-ups of roles in a transaction.
        unsafe { pg_sys::superuser_arg(theirs) || pg_sys::has_privs_of_role(owner, theirs) }
    })
}

/// Puts right what [`look`] has found; the transaction is the caller's. False when the vector table is no more.
pub fn fix(client: &mut SpiClient<'_>, table: &VectorTable, fix: &SourceFix) -> Result<bool> {
    // It may have been dropped since, with its triggers.
    if !catalog::lock(client, table.id)? {
        return Ok(false);
    }
    match fix {
        SourceFix::Triggers if source::has_triggers(client, table.origin_id, table.source)? => {}
        SourceFix::Note(moved) => {
            catalog::record_source(client, table, moved)?;
            // A column of the old name has come in place of one that was dropped, with values of its own.
            if moved.key_numbers != table.stored.key_numbers
                || moved.column_numbers != table.stored.column_numbers
            {
                compare(client, table.id)?;
            }
        }
        SourceFix::Vectors => {
            catalog::record_vectors(client, table)?;
            if table.noted.0 != table.relation {
                compare(client, table.id)?;
                catalog::set_working_status(client, table.id)?;
                log!("the table of vector table \"{}\" was recreated and is followed", table.name);
            }
        }
        SourceFix::Rebind(moved) => {
            catalog::record_source(client, table, moved)?;
            if table.stored.sync_mode == SyncMode::Trigger {
                make_triggers(client, table)?;
            }
            compare(client, table.id)?;
            catalog::set_working_status(client, table.id)?;
            log!("the source of vector table \"{}\" was recreated and is followed", table.name);
        }
        SourceFix::Triggers => {
            make_triggers(client, table)?;
            // A shadow shares them.
            for id in catalog::same_origin(client, table.origin_id)? {
                compare(client, id)?;
            }
            log!("the triggers of vector table \"{}\" were missing and are recreated", table.name);
        }
        SourceFix::Drop => {
            let _rights = RoleSwitch::of_owner(table.owner);
            table::forget(client, table, false)?;
            log!("vector table \"{}\" was dropped with its source", table.name);
            return Ok(false);
        }
        SourceFix::Readers => {
            // A reader is to see no row that a policy hides.
            row_security::follow(client, table)?;
            grants::follow(client, table)?;
            log!("the readers of vector table \"{}\" follow those of its source", table.name);
        }
        SourceFix::Provider => depend::record_provider(client, table)?,
        SourceFix::Compare => {
            // Rows that were out of sight may have failed for that.
            compare(client, table.id)?;
            catalog::record_comparison(client, table.id)?;
            catalog::set_working_status(client, table.id)?;
            log!("vector table \"{}\" may have missed changes and is compared", table.name);
        }
        SourceFix::Clear => {
            queue::remove_all(client, table.id)?;
            task::fail(client, table.id, "the source was dropped")?;
        }
    }
    Ok(true)
}

/// Makes the triggers with the rights of the vector table's owner, as create_vector_table() does.
fn make_triggers(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    let Some(source) = &table.source_name else { return Ok(()) };
    let mode = source::fire_mode(client, table.origin_id, table.source)?;
    source::drop_triggers(client, table.origin_id, table.source, source)?;
    let rights = RoleSwitch::of_owner(table.owner);
    source::create_triggers(client, table.origin_id, source)?;
    drop(rights);
    source::set_fire_mode(client, table.origin_id, source, mode)
}

/// Has a vector table compared that may have missed changes, or whose source is not what it was. Rows that have failed are
/// tried again, and what is in flight is loaded again when the task begins.
fn compare(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    task::compare_again(client, id)?;
    catalog::delete_all_failed(client, id)
}

/// Whether a vector table that came with a dump is all there: a restore makes primary keys and triggers last.
pub fn is_complete(client: &SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    if table.relation_name.is_none() {
        // A table that is gone is never complete, and its status says so.
        return Ok(true);
    }
    let rows = client.select(
        "select exists (select from pg_catalog.pg_index i where i.indrelid = $1 and i.indisprimary)",
        None,
        &[table.relation.into()],
    )?;
    if rows.first().get_one::<bool>()? != Some(true) {
        return Ok(false);
    }
    match table.stored.sync_mode {
        SyncMode::Batch => Ok(true),
        SyncMode::Trigger if table.source_name.is_none() => Ok(true),
        SyncMode::Trigger => source::has_triggers(client, table.origin_id, table.source),
    }
}

/// Makes a vector table that came with a dump this installation's own; the columns are found by their names.
pub fn settle(client: &mut SpiClient<'_>, table: &mut VectorTable) -> Result<()> {
    let moved = table.resolve();
    catalog::adopt(client, table.id)?;
    match moved {
        Ok(Some(moved)) => catalog::record_source(client, table, &moved)?,
        Ok(None) => {}
        // Numbers that mean nothing must not be believed later.
        Err(_) => {
            table.forget_numbers();
            catalog::record_source(client, table, &table.as_stored())?;
        }
    }
    if let Some(stored) = catalog::by_id(client, table.id)? {
        *table = stored;
    }
    Ok(())
}
