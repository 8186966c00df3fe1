//! Checks for tables and triggers left behind by vector tables.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::Scope;
use super::finding::Finding;
use super::report::Report;
use crate::error::Result;
use crate::relation::{owner_of, qualified_name};
use crate::rights::RoleSwitch;
use crate::{source, table};

/// Reports orphans that the current role may drop, or all if it may see the whole server.
pub fn examine(report: &mut Report, scope: &Scope) -> Result<()> {
    report.check("orphaned_table", "", |client| tables(client, scope))?;
    report.check("orphaned_trigger", "", |client| triggers(client, scope))?;
    for check in ["orphaned_table", "orphaned_trigger"] {
        if !scope.sees_server && !report.has(check) {
            let meaning = "there is none on tables that the current role owns";
            report.add(Finding::fine(check, "", meaning));
        }
    }
    Ok(())
}

/// Whether the current role may see findings about this relation.
fn is_shown(scope: &Scope, relation: pg_sys::Oid) -> bool {
    // SAFETY: look-ups of roles in a transaction.
    scope.sees_server
        || owner_of(relation)
            .is_some_and(|owner| unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) })
}

fn tables(client: &SpiClient<'_>, scope: &Scope) -> Result<Vec<Finding>> {
    let rights = RoleSwitch::of_extension()?;
    let leftovers = table::leftovers(client, None, None)?;
    drop(rights);
    let mut found = Vec::new();
    for relation in leftovers.into_iter().filter(|relation| is_shown(scope, *relation)) {
        let Some(name) = qualified_name(relation) else { continue };
        let meaning = "it holds vectors but belongs to no vector table: it is not kept in sync";
        let remedy = format!("DROP TABLE {name};");
        found.push(Finding::warning("orphaned_table", &name, meaning).with(remedy));
    }
    Ok(found)
}

fn triggers(client: &SpiClient<'_>, scope: &Scope) -> Result<Vec<Finding>> {
    let rights = RoleSwitch::of_extension()?;
    let stale = source::stale_triggers(client, None)?;
    drop(rights);
    let mut found = Vec::new();
    for (trigger, relation) in stale.into_iter().filter(|(_, of)| is_shown(scope, *of)) {
        let Some(name) = qualified_name(relation) else { continue };
        let meaning = format!(
            "trigger {trigger} on {name} belongs to no vector table: it only slows down writes"
        );
        let remedy = format!("DROP TRIGGER {trigger} ON {name};");
        let object = format!("{trigger} on {name}");
        found.push(Finding::warning("orphaned_trigger", &object, meaning).with(remedy));
    }
    Ok(found)
}
