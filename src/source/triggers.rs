//! The triggers of a source: their creation, their firing mode, and their removal.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::sight;
use crate::command;
use crate::datum::texts;
use crate::error::Result;

/// When the triggers of a source fire, as set by its owner (pg_trigger.tgenabled).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FireMode {
    Origin,
    Always,
    Replica,
    Disabled,
}

/// The firing mode of a source's triggers: that of the row trigger, or of the remaining one.
pub fn fire_mode(client: &SpiClient<'_>, id: i32, source: pg_sys::Oid) -> Result<FireMode> {
    let rows = client.select(
        "select tgenabled::text from pg_catalog.pg_trigger where tgrelid = $1 and tgname = any($2)
          order by tgname like '%row' desc limit 1",
        None,
        &[source.into(), sight::trigger_names(id).into()],
    )?;
    let letter = match rows.into_iter().next() {
        Some(row) => row.get::<String>(1)?,
        None => None,
    };
    Ok(match letter.as_deref() {
        Some("A") => FireMode::Always,
        Some("R") => FireMode::Replica,
        Some("D") => FireMode::Disabled,
        _ => FireMode::Origin,
    })
}

/// Gives new triggers the firing mode of those that they replace.
pub fn set_fire_mode(
    client: &mut SpiClient<'_>,
    id: i32,
    source: &str,
    mode: FireMode,
) -> Result<()> {
    let how = match mode {
        FireMode::Origin => return Ok(()),
        FireMode::Always => "enable always",
        FireMode::Replica => "enable replica",
        FireMode::Disabled => "disable",
    };
    for what in ["row", "truncate"] {
        let trigger = trigger_name(id, what);
        command::run(client, &format!("alter table {source} {how} trigger {trigger}"))?;
    }
    Ok(())
}

/// Triggers of embedd that belong to no vector table of their table, as in a schema-only copy of a database: each with
/// its table; of one table or of all.
pub fn stale_triggers(
    client: &SpiClient<'_>,
    source: Option<pg_sys::Oid>,
) -> Result<Vec<(String, pg_sys::Oid)>> {
    let rows = client.select(
        "select pg_catalog.quote_ident(t.tgname), t.tgrelid from pg_catalog.pg_trigger t
          where t.tgrelid = coalesce($1, t.tgrelid) and not t.tgisinternal and t.tgparentid = 0
            and t.tgfoid = 'embedd.note_change()'::regprocedure
            and t.tgname ~ '^embedd_[0-9]+_(row|update|truncate)$'
            and not exists (select from embedd.vector_tables v
                             where v.source_table = t.tgrelid and v.origin_id::text = pg_catalog.split_part(t.tgname, '_', 2))
          order by t.tgrelid, t.tgname",
        None,
        &[source.into()],
    )?;
    let mut stale = Vec::new();
    for row in rows {
        if let (Some(trigger), Some(relation)) = (row.get(1)?, row.get(2)?) {
            stale.push((trigger, relation));
        }
    }
    Ok(stale)
}

/// Drops triggers of a source that belong to no vector table of it.
pub fn drop_stale_triggers(
    client: &mut SpiClient<'_>,
    source: pg_sys::Oid,
    name: &str,
) -> Result<()> {
    for (trigger, _) in stale_triggers(client, Some(source))? {
        command::run(client, &format!("drop trigger {trigger} on {name}"))?;
    }
    Ok(())
}

/// The names of a source's triggers, and their events.
const EVENTS: [(&str, &str); 2] = [
    ("row", "after insert or update or delete on {} for each row"),
    ("truncate", "after truncate on {} for each statement"),
];

/// The statement that creates a trigger of a source. It names no columns, so that it does not block changes of them.
fn create_statement(id: i32, source: &str, what: &str, event: &str) -> String {
    format!(
        "create trigger {} {} execute function embedd.note_change('{id}')",
        trigger_name(id, what),
        event.replace("{}", source)
    )
}

/// Creates the triggers of a source.
pub fn create_triggers(client: &mut SpiClient<'_>, id: i32, source: &str) -> Result<()> {
    for (what, event) in EVENTS {
        command::run(client, &create_statement(id, source, what, event))?;
    }
    Ok(())
}

/// The statements that create missing triggers of a source.
pub fn missing_triggers(
    client: &SpiClient<'_>,
    id: i32,
    source: pg_sys::Oid,
    name: &str,
) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    for (what, event) in EVENTS {
        let rows = client.select(
            "select 1 from pg_catalog.pg_trigger where tgrelid = $1 and tgname = $2",
            None,
            &[source.into(), trigger_name(id, what).into()],
        )?;
        if rows.is_empty() {
            statements.push(create_statement(id, name, what, event));
        }
    }
    Ok(statements)
}

/// Whether a source has triggers for every event, enabled or not.
pub fn has_triggers(client: &SpiClient<'_>, id: i32, source: pg_sys::Oid) -> Result<bool> {
    // ROW (1), INSERT (4), DELETE (8), UPDATE (16) and TRUNCATE (32), as in catalog/pg_trigger.h.
    let rows = client.select(
        "select bit_or(tgtype::integer) & 61 = 61 from pg_catalog.pg_trigger where tgrelid = $1 and tgname = any($2)",
        None,
        &[source.into(), sight::trigger_names(id).into()],
    )?;
    Ok(rows.first().get_one::<bool>()? == Some(true))
}

/// Drops the triggers of a source.
pub fn drop_triggers(
    client: &mut SpiClient<'_>,
    id: i32,
    source: pg_sys::Oid,
    name: &str,
) -> Result<()> {
    let rows = client.update(
        "select tgname::text from pg_catalog.pg_trigger where tgrelid = $1 and tgname = any($2)",
        None,
        &[source.into(), sight::trigger_names(id).into()],
    )?;
    for trigger in texts(rows)? {
        command::run(client, &format!("drop trigger {trigger} on {name}"))?;
    }
    Ok(())
}

fn trigger_name(id: i32, what: &str) -> String {
    format!("embedd_{id}_{what}")
}
