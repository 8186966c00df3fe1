//! Checks whether all rows and changes of a source are visible to embedd: a row that is not visible may still exist.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::partitions::TREE;
use super::{SyncMode, VectorTable};
use crate::citus;
use crate::error::{Error, Result};
use crate::name::{quote_ident, quote_literal};
use crate::relation::{is_view, qualified_name};
use crate::rights::role_name;

unsafe extern "C-unwind" {
    /// The direct children of a relation (catalog/pg_inherits.h).
    fn find_inheritance_children(parent: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> *mut pg_sys::List;
}

/// The result of check_enable_rls() if row security applies (utils/rls.h).
const RLS_ENABLED: std::ffi::c_int = 2;

/// Whether row security policies of a relation apply to a role.
pub fn has_policies(relation: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: syscache look-ups in a transaction, which raise no error for an existing relation.
    unsafe { pg_sys::check_enable_rls(relation, role, true) == RLS_ENABLED }
}

/// Whether an ordinary table has inheritance children, whose changes do not fire its triggers.
pub fn has_children(relation: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups in a transaction.
    unsafe {
        if pg_sys::get_rel_relkind(relation) as u8 != pg_sys::RELKIND_RELATION {
            return false;
        }
        let no_lock = pg_sys::NoLock as pg_sys::LOCKMODE;
        let children =
            pg_sys::ffi::pg_guard_ffi_boundary(|| find_inheritance_children(relation, no_lock));
        !children.is_null() && (*children).length > 0
    }
}

fn hidden_by_policies(source: &str, relation: &str, role: pg_sys::Oid) -> Error {
    let role = role_name(role);
    let hint = format!(
        "Let the role read all rows: ALTER ROLE {} BYPASSRLS, or ALTER TABLE {relation} NO FORCE ROW LEVEL SECURITY if it owns the table.",
        quote_ident(&role)
    );
    let why = format!("row security policies of {relation} apply to role \"{role}\"");
    Error::RowsHidden { table: source.to_string(), why, hint }
}

/// Rejects a source with rows that may be hidden from the vector table's owner, or with changes that fire no triggers.
/// Reads catalogs only.
pub fn check_rows(
    source: pg_sys::Oid,
    name: &str,
    owner: pg_sys::Oid,
    mode: SyncMode,
) -> Result<()> {
    if has_policies(source, owner) {
        return Err(hidden_by_policies(name, name, owner));
    }
    if mode == SyncMode::Trigger && (citus::is_table(source) || citus::is_shard(source)) {
        return Err(Error::ChangesMissed {
            table: name.to_string(),
            why: "Citus keeps its rows in shards, whose changes do not fire its triggers"
                .to_string(),
            hint: format!(
                "Create the vector table with sync_mode => 'batch', which compares the rows of all nodes, or turn the source into a local table: SELECT undistribute_table({}).",
                quote_literal(name)
            ),
        });
    }
    // A comparison reads the children too.
    if mode == SyncMode::Trigger && has_children(source) {
        return Err(Error::RowsHidden {
            table: name.to_string(),
            why: "it has inheritance children, whose changes do not fire its triggers".to_string(),
            hint: "Create the vector table with sync_mode => 'batch', which reads the children too, or make the source a partitioned table.".to_string(),
        });
    }
    Ok(())
}

/// Everything that a view reads: relations with the role that reads them, and whether it depends on the session.
const READ_THROUGH: &str = r#"
    with recursive seen(oid, reader) as (
        select $1::oid, $2::oid
         union
        select d.refobjid, case when o.by_invoker then s.reader else c.relowner end
          from seen s
          join pg_catalog.pg_class c on c.oid = s.oid and c.relkind = 'v'
         cross join lateral (
               select coalesce(pg_catalog.bool_or(t.option_value::boolean), false)
                 from pg_catalog.pg_options_to_table(c.reloptions) t where t.option_name = 'security_invoker') o(by_invoker)
          join pg_catalog.pg_rewrite r on r.ev_class = c.oid
          join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
           and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> c.oid)
    select s.oid, s.reader,
           exists (select from pg_catalog.pg_rewrite r
                    where r.ev_class = s.oid and c.relkind = 'v'
                      and (r.ev_action::text ~ $3
                           or exists (select from pg_catalog.pg_depend d
                                        join pg_catalog.pg_proc p on p.oid = d.refobjid
                                       where d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
                                         and d.refclassid = 'pg_catalog.pg_proc'::regclass
                                         and (p.prosqlbody::text ~ $4 or p.prosrc ~* $4))))
      from seen s join pg_catalog.pg_class c on c.oid = s.oid order by s.oid <> $1, s.oid"#;

/// Calls of current_setting(), and current_role, current_user, user and session_user, in a node tree.
const SESSION_NODES: &str = ":funcid (3294|3295) |SQLVALUEFUNCTION :op (9|10|11|12) ";
/// Calls of current_setting() in the body of a function, as text or as a node tree. The current user is not searched
/// for there, because functions use it for many purposes that hide no rows.
const SESSION_CALLS: &str = r"\mcurrent_setting\M|:funcid (3294|3295) ";

/// Rejects a view with rows that may be hidden from the vector table's owner: by policies of what it reads, or because
/// it depends on the session.
pub fn check_view(
    client: &SpiClient<'_>,
    source: pg_sys::Oid,
    name: &str,
    owner: pg_sys::Oid,
) -> Result<()> {
    if !is_view(source) {
        return Ok(());
    }
    let rows = client.select(
        READ_THROUGH,
        None,
        &[source.into(), owner.into(), SESSION_NODES.into(), SESSION_CALLS.into()],
    )?;
    for row in rows {
        let (Some(relation), Some(reader)) =
            (row.get::<pg_sys::Oid>(1)?, row.get::<pg_sys::Oid>(2)?)
        else {
            continue;
        };
        let shown = qualified_name(relation).unwrap_or_default();
        if has_policies(relation, reader) {
            return Err(hidden_by_policies(name, &shown, reader));
        }
        if row.get::<bool>(3)? == Some(true) {
            return Err(Error::RowsHidden {
                table: name.to_string(),
                why: format!(
                    "view {shown} depends on the settings or the user of the session that reads it"
                ),
                hint:
                    "Use a view without current_setting() and current_user, or a materialized view."
                        .to_string(),
            });
        }
    }
    Ok(())
}

/// The names of a vector table's triggers; up to 0.2.0 there was a separate one for updates.
pub fn trigger_names(id: i32) -> Vec<String> {
    ["row", "update", "truncate"].map(|what| format!("embedd_{id}_{what}")).to_vec()
}

/// Why changes of a source may be missed: its triggers are disabled, or a subscription fills it, whose changes do not
/// fire ordinary triggers. None if every change is captured.
pub fn missed_changes(
    client: &SpiClient<'_>,
    id: i32,
    source: pg_sys::Oid,
    name: &str,
) -> Result<Option<Error>> {
    let rows = client.select(
        &format!("{TREE}
         select t.tgrelid, t.tgname::text, t.tgenabled::text
           from pg_catalog.pg_trigger t
          cross join lateral (
                select exists (select from pg_catalog.pg_subscription_rel s where s.srrelid = t.tgrelid)) s(is_subscribed)
          where t.tgname = any($2)
            and t.tgrelid in (select tree.relid from tree)
            and (t.tgenabled = 'D' or (t.tgenabled = 'O' and s.is_subscribed) or (t.tgenabled = 'R' and not s.is_subscribed))
          order by t.tgrelid <> $1, t.tgrelid, t.tgname limit 10"),
        None,
        &[source.into(), trigger_names(id).into()],
    )?;
    let (mut why, mut statements) = (None, Vec::new());
    for row in rows {
        let (Some(relation), Some(trigger), Some(enabled)) =
            (row.get::<pg_sys::Oid>(1)?, row.get::<String>(2)?, row.get::<String>(3)?)
        else {
            continue;
        };
        let Some(relation) = qualified_name(relation) else { continue };
        let how = if enabled == "O" { "ENABLE ALWAYS" } else { "ENABLE" };
        statements.push(format!("ALTER TABLE {relation} {how} TRIGGER {trigger}"));
        why.get_or_insert_with(|| match enabled.as_str() {
            "O" => format!(
                "a subscription fills {relation}, and its changes fire no ordinary triggers"
            ),
            "R" => format!("trigger {trigger} of {relation} fires for replicated changes only"),
            _ => format!("trigger {trigger} of {relation} is disabled"),
        });
    }
    Ok(why.map(|why| Error::ChangesMissed {
        table: name.to_string(),
        why,
        hint: format!("{}.", statements.join("; ")),
    }))
}

/// Rejects what [`VectorTable::resolve`] does not check: hidden rows of a view, and a vector table that a subscription
/// fills.
pub fn check(client: &SpiClient<'_>, table: &VectorTable) -> Result<()> {
    if is_subscribed(client, table.relation)? {
        return Err(Error::FilledBySubscription { name: table.name.clone() });
    }
    match &table.source_name {
        Some(name) => check_view(client, table.source, name, table.owner),
        None => Ok(()),
    }
}

/// Whether a subscription fills a relation, so that embedd must not write to it.
pub fn is_subscribed(client: &SpiClient<'_>, relation: pg_sys::Oid) -> Result<bool> {
    let rows = client.select(
        "select exists (select from pg_catalog.pg_subscription_rel s where s.srrelid = $1)",
        None,
        &[relation.into()],
    )?;
    Ok(rows.first().get_one::<bool>()? == Some(true))
}

/// Whether crash recovery empties a relation.
pub fn is_unlogged(relation: pg_sys::Oid) -> bool {
    // SAFETY: syscache look-ups in a transaction; the second raises an error if the relation does not exist.
    unsafe {
        pg_sys::get_rel_relkind(relation) != 0
            && pg_sys::get_rel_persistence(relation) as u8 == pg_sys::RELPERSISTENCE_UNLOGGED
    }
}
