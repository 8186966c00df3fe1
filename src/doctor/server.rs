//! Checks of the server: preloading, versions, worker slots, settings.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::finding::Finding;
use super::report::Report;
use super::{Scope, remedy, version};
use crate::catalog::partitions::TREE;
use crate::error::Result;
use crate::extension;
use crate::guc;
use crate::name::quote_literal;
use crate::rights::RoleSwitch;
use crate::shared::{self, monitor};

/// The result of a check that needs embedd's processes, in a server without them.
pub const UNKNOWN: &str = "unknown, because the server was started without embedd";

/// Checks the server.
pub fn examine(report: &mut Report, scope: &Scope) -> Result<()> {
    report.check("preload", "", |client| preload(client, scope))?;
    report.check("extension", "", extension)?;
    report.check("pgvector", "", pgvector)?;
    report.check("worker_slots", "", |client| worker_slots(client, scope))?;
    report.check("launcher", "", |client| launcher(client, scope))?;
    report.check("settings", "", settings)?;
    for seen in &scope.tables {
        let table = &seen.table;
        report.check("locks", &table.name, |client| locks(client, &table.name, table.source))?;
    }
    Ok(())
}

fn preload(client: &SpiClient<'_>, scope: &Scope) -> Result<Vec<Finding>> {
    if scope.is_preloaded {
        return Ok(Vec::new());
    }
    let found = Finding::problem(
        "preload",
        "shared_preload_libraries",
        "the server was started without embedd: changes are queued, but no text is embedded and no query is answered",
    );
    if !scope.sees_server {
        let advice = "Ask the administrator to add embedd to shared_preload_libraries and to restart the server.";
        return Ok(vec![found.with(advice.to_string())]);
    }
    let _rights = RoleSwitch::of_extension()?;
    let rows = client.select(
        "select pg_catalog.current_setting('shared_preload_libraries')",
        None,
        &[],
    )?;
    let libraries = rows.first().get_one::<String>()?.unwrap_or_default();
    let value = with_embedd(&libraries);
    Ok(vec![found.with(remedy::set_and_restart("shared_preload_libraries", &value))])
}

/// The value of shared_preload_libraries with embedd appended.
fn with_embedd(libraries: &str) -> String {
    let names = libraries.split(',').map(|name| name.trim().trim_matches('"'));
    let mut names: Vec<String> =
        names.filter(|name| !name.is_empty() && *name != "embedd").map(quote_literal).collect();
    names.push(quote_literal("embedd"));
    names.join(", ")
}

fn extension(client: &SpiClient<'_>) -> Result<Vec<Finding>> {
    let library = env!("CARGO_PKG_VERSION");
    let (installed, on_disk) = versions(client, "embedd")?;
    if !extension::is_updated(client)? {
        let meaning = format!(
            "the SQL objects in this database have version {installed}, but the library has version {library}"
        );
        let remedy = "ALTER EXTENSION embedd UPDATE;".to_string();
        return Ok(vec![Finding::problem("extension", "embedd", meaning).with(remedy)]);
    }
    if on_disk != library {
        let meaning = format!(
            "version {on_disk} is installed on disk, but the server was started with version {library}"
        );
        let remedy = "ALTER EXTENSION embedd UPDATE; -- after the server was restarted".to_string();
        return Ok(vec![Finding::warning("extension", "embedd", meaning).with(remedy)]);
    }
    Ok(vec![Finding::fine("extension", "embedd", format!("version {library}"))])
}

/// The versions of an extension in the database and on disk.
fn versions(client: &SpiClient<'_>, name: &str) -> Result<(String, String)> {
    let rows = client.select(
        "select e.extversion, coalesce(a.default_version::text, e.extversion)
           from pg_catalog.pg_extension e
           left join pg_catalog.pg_available_extensions a on a.name = e.extname
          where e.extname = $1",
        None,
        &[name.into()],
    )?;
    let (installed, on_disk) = match rows.is_empty() {
        true => (None, None),
        false => rows.first().get_two::<String, String>()?,
    };
    Ok((installed.unwrap_or_default(), on_disk.unwrap_or_default()))
}

fn pgvector(client: &SpiClient<'_>) -> Result<Vec<Finding>> {
    let (installed, on_disk) = versions(client, "vector")?;
    let is_newer_on_disk = extension::is_older(&installed, &on_disk);
    let Some(faults) = version::faults(&installed) else {
        return Ok(vec![Finding::fine("pgvector", "vector", format!("version {installed}"))]);
    };
    let mut meaning = format!("version {installed} of pgvector has known bugs: {faults}");
    let remedy = match version::faults(&on_disk) {
        None if is_newer_on_disk => {
            meaning += &format!("; version {on_disk} is installed on disk");
            "ALTER EXTENSION vector UPDATE;".to_string()
        }
        _ => format!(
            "ALTER EXTENSION vector UPDATE; -- after pgvector {} or newer is installed",
            version::SOUND
        ),
    };
    Ok(vec![Finding::warning("pgvector", "vector", meaning).with(remedy)])
}

/// How many of max_worker_processes are taken before a sync worker can start, and the total.
fn places(client: &SpiClient<'_>) -> Result<(i32, i32)> {
    let rows = client.select(
        "select (pg_catalog.current_setting('max_logical_replication_workers')::integer > 0)::integer",
        None,
        &[],
    )?;
    let replication = rows.first().get_one::<i32>()?.unwrap_or_default();
    // The embedder's supervisor and the launcher.
    // SAFETY: a plain global, set at server start.
    Ok((2 + replication, unsafe { pg_sys::max_worker_processes }))
}

/// Worker processes reserved for index builders, batch workers and parallel queries.
const MORE: i32 = 5;

fn worker_slots(client: &SpiClient<'_>, scope: &Scope) -> Result<Vec<Finding>> {
    let (taken, all) = places(client)?;
    let name = "max_worker_processes";
    if all <= taken {
        let meaning = format!(
            "{name} is {all}, but PostgreSQL and embedd need {}: no sync worker can start, and nothing is embedded",
            taken + 1
        );
        let remedy = remedy::set_and_restart(name, &(taken + MORE).to_string());
        return Ok(vec![Finding::problem("worker_slots", name, meaning).with(remedy)]);
    }
    if !scope.is_preloaded {
        return Ok(vec![Finding::warning("worker_slots", "", UNKNOWN)]);
    }
    let waiting = i32::try_from(monitor::waiting()).unwrap_or(i32::MAX);
    if waiting == 0 {
        return Ok(Vec::new());
    }
    let meaning = format!(
        "sync workers waiting for a slot: {waiting}; databases take turns, so changes are synced later"
    );
    let (name, remedy) = match guc::is_bounded_by_setting() {
        true => {
            let enough = guc::max_sync_workers().saturating_add_signed(waiting as isize);
            let name = "embedd.max_sync_workers";
            (name, remedy::set(name, &enough.min(shared::SLOTS).to_string()))
        }
        false => (name, remedy::set_and_restart(name, &all.saturating_add(waiting).to_string())),
    };
    Ok(vec![Finding::warning("worker_slots", name, meaning).with(remedy)])
}

fn launcher(client: &SpiClient<'_>, scope: &Scope) -> Result<Vec<Finding>> {
    if !scope.is_preloaded {
        return Ok(vec![Finding::warning("launcher", "", UNKNOWN)]);
    }
    if scope.is_standby {
        let meaning = "a standby has no launcher: its promotion starts it";
        return Ok(vec![Finding::fine("launcher", "", meaning)]);
    }
    if monitor::worker().state != "not running" {
        return Ok(Vec::new());
    }
    let found = Finding::problem(
        "launcher",
        "embedd launcher",
        "the launcher is not running: no sync worker is started, and nothing is embedded",
    );
    let (taken, all) = places(client)?;
    Ok(vec![match all <= taken {
        true => {
            found.with(remedy::set_and_restart("max_worker_processes", &(taken + MORE).to_string()))
        }
        false => {
            found.with("See the server log for the reason, and restart the server.".to_string())
        }
    }])
}

fn settings(client: &SpiClient<'_>) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let (wanted, most) = (usize::from(guc::workers_per_database()), guc::max_sync_workers());
    if wanted > most {
        let name = "embedd.workers_per_database";
        let meaning = format!(
            "it is {wanted}, but only {most} sync workers can run at the same time: some keys wait for their worker"
        );
        found.push(
            Finding::warning("settings", name, meaning).with(remedy::set(name, &most.to_string())),
        );
    }
    let rows = client.select(
        "select s.name from pg_catalog.pg_settings s
          where s.name in ('autovacuum', 'track_counts') and s.reset_val = 'off' order by s.name",
        None,
        &[],
    )?;
    for row in rows {
        let name = row.get::<String>(1)?.unwrap_or_default();
        let meaning = "it is off: no table is vacuumed and analyzed automatically, so the queue, the indexes and the plans get slower";
        found.push(Finding::warning("settings", &name, meaning).with(remedy::set(&name, "on")));
    }
    Ok(found)
}

/// Whether one transaction can lock all partitions of a source and their indexes.
fn locks(client: &SpiClient<'_>, name: &str, source: pg_sys::Oid) -> Result<Vec<Finding>> {
    let rows = client.select(
        &format!(
            "{TREE} select count(*), pg_catalog.current_setting('max_locks_per_transaction')::bigint,
                    pg_catalog.current_setting('max_prepared_transactions')::bigint from tree"
        ),
        None,
        &[source.into()],
    )?;
    let (relations, each, prepared) = rows.first().get_three::<i64, i64, i64>()?;
    let (relations, each) = (relations.unwrap_or_default() * 2, each.unwrap_or_default());
    // SAFETY: a plain global, set at server start.
    let sessions = i64::from(unsafe { pg_sys::MaxBackends }) + prepared.unwrap_or_default();
    if relations <= each * sessions {
        return Ok(Vec::new());
    }
    let meaning = format!(
        "its source has {} partitions, more than max_locks_per_transaction allows to lock at once: reading all of them fails",
        relations / 2 - 1
    );
    let enough = (2 * relations / sessions.max(1) + 1).to_string();
    let remedy = remedy::set_and_restart("max_locks_per_transaction", &enough);
    Ok(vec![Finding::warning("locks", name, meaning).with(remedy)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedd_is_the_last_of_the_libraries() {
        for (before, after) in [
            ("", "'embedd'"),
            ("citus, pg_stat_statements", "'citus', 'pg_stat_statements', 'embedd'"),
            ("\"$libdir/a b\"", "'$libdir/a b', 'embedd'"),
            ("embedd", "'embedd'"),
        ] {
            assert_eq!(with_embedd(before), after);
        }
    }
}
