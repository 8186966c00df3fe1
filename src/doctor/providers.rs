//! Checks of providers: whether each vector table may use its own, which ones fail, and the result of a real call.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use embedd_wire::tokens_since;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::finding::Finding;
use super::report::Report;
use super::{Scope, Seen, remedy};
use crate::catalog::{LOCAL_PROVIDER, VectorTable};
use crate::datum::texts;
use crate::error::{Error, Result};
use crate::fdw::{self, Server, probe};
use crate::name::quote_literal;

/// A provider that fails for this many minutes is a problem, not a warning.
const PASSING: i64 = 10;

/// Checks the providers, and calls each of them if requested.
pub fn examine(report: &mut Report, scope: &Scope, calls_providers: bool) -> Result<()> {
    for seen in &scope.tables {
        report.check("provider", &seen.table.name, |_| Ok(usable(&seen.table)))?;
    }
    let mut names = Vec::new();
    report.check("provider", "", |client| {
        names = known(client)?;
        Ok(Vec::new())
    })?;
    let mut capped = Vec::new();
    for name in &names {
        report.check("provider", name, |client| without_key(client, name))?;
        report.check("provider", name, |_| {
            let found = at_cap(name)?;
            capped.extend(found.iter().map(|_| name.as_str()));
            Ok(found)
        })?;
    }
    for finding in failing(scope, &capped) {
        report.add(finding);
    }
    if !calls_providers {
        return Ok(());
    }
    let local = scope.uses_local().then_some(LOCAL_PROVIDER);
    for name in local.into_iter().chain(names.iter().map(String::as_str)) {
        report.check("provider_call", name, |_| Ok(vec![call(name)?]))?;
    }
    Ok(())
}

/// Why the worker cannot embed for a table, as far as that is known without a call.
fn usable(table: &VectorTable) -> Vec<Finding> {
    let Err(error) = fdw::provider(table) else { return Vec::new() };
    let remedy = match &error {
        Error::UnknownProvider { name } => Some(create(table, name)),
        _ => remedy::of(&error),
    };
    vec![Finding::problem("provider", &table.name, remedy::words(&error)).with(remedy)]
}

/// The statement that recreates a missing provider; its kind is known if only one kind has the table's model.
fn create(table: &VectorTable, name: &str) -> String {
    let kinds: Vec<&String> = table.known_models.keys().collect();
    let (kind, more) = match kinds.as_slice() {
        [kind] => (kind.as_str(), "api_key => '...'"),
        _ => ("openai_compatible", "base_url => '...'"),
    };
    format!(
        "SELECT embedd.create_provider({}, {}, {more});",
        quote_literal(name),
        quote_literal(kind)
    )
}

/// A cap of a provider that is reached, so that documents wait.
fn at_cap(name: &str) -> Result<Vec<Finding>> {
    let server = Server::find(name)?;
    let limits = &server.options.limits;
    if !limits.has_caps() {
        return Ok(Vec::new());
    }
    let mut rows = fdw::usage()?;
    rows.retain(|row| row.server == server.oid.to_u32());
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let today = (since_1970.as_secs() / 86_400) as u32;
    let reached = limits.reached(today, |since| tokens_since(&rows, since));
    let found = reached.map(|reached| {
        let meaning =
            format!("it has reached {}: {}", reached.period.option(), reached.explained());
        Finding::warning("provider", name, meaning).with(format!("{};", reached.statement(name)))
    });
    Ok(found.into_iter().collect())
}

/// Providers that fail, each with the vector tables that wait for it, without those that have reached a cap.
fn failing(scope: &Scope, capped: &[&str]) -> Vec<Finding> {
    let mut waiting: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for seen in scope.tables.iter().filter(|seen| seen.status.provider_state == "failing") {
        // A problem known without a call is reported for the table.
        let name = seen.table.provider.as_str();
        if usable(&seen.table).is_empty() && !capped.contains(&name) {
            waiting.entry(&seen.table.provider).or_default().push(seen);
        }
    }
    let one = |(name, tables): (&str, Vec<&Seen>)| {
        let minutes = tables.iter().filter_map(|seen| minutes_of(seen)).max().unwrap_or_default();
        let names: Vec<String> =
            tables.iter().take(10).map(|seen| format!("\"{}\"", seen.table.name)).collect();
        let mut meaning = format!(
            "it has been failing for {minutes} min, for vector tables {}",
            names.join(", ")
        );
        if let Some(error) = tables.iter().find_map(|seen| seen.status.last_error.as_ref()) {
            meaning += &format!(": {error}");
        }
        let found =
            match minutes >= PASSING || tables.iter().any(|s| s.status.sync_status == "error") {
                true => Finding::problem("provider", name, meaning),
                false => Finding::warning("provider", name, meaning),
            };
        let advised = tables.iter().find_map(|seen| seen.status.last_error.as_deref());
        let advised = advised.and_then(remedy::statement_in);
        let test = format!("SELECT * FROM embedd.test_provider({});", quote_literal(name));
        found.with(advised.unwrap_or(test))
    };
    waiting.into_iter().map(one).collect()
}

/// For how many minutes the provider of a table has been failing.
fn minutes_of(seen: &Seen) -> Option<i64> {
    let since = pg_sys::TimestampTz::from(seen.status.provider_since?);
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    Some(now.saturating_sub(since) / 60_000_000)
}

/// The providers that the current role may use, except the local one.
fn known(client: &SpiClient<'_>) -> Result<Vec<String>> {
    let rows = client.select(
        "select p.name from embedd.providers p where p.id is not null order by p.name",
        None,
        &[],
    )?;
    texts(rows)
}

/// A provider that needs a key but has no user mapping.
fn without_key(client: &SpiClient<'_>, name: &str) -> Result<Vec<Finding>> {
    let server = Server::find(name)?;
    let rows = client.select(
        "select exists (select from pg_catalog.pg_user_mappings m where m.srvid = $1)",
        None,
        &[server.oid.into()],
    )?;
    let has_mapping = rows.first().get_one::<bool>()? == Some(true);
    if has_mapping || !server.options.kind.needs_key() {
        return Ok(Vec::new());
    }
    let meaning = "it needs an API key but no role has one: no vector table can use it";
    let remedy =
        format!("SELECT embedd.update_provider({}, api_key => '...');", quote_literal(name));
    Ok(vec![Finding::warning("provider", name, meaning).with(remedy)])
}

/// The result of one real call with the key of the current role.
fn call(name: &str) -> Result<Finding> {
    match probe::test(name, None) {
        Ok(answer) => Ok(Finding::fine(
            "provider_call",
            name,
            format!(
                "model {} answered in {:.0} ms with {} dimensions",
                answer.model,
                answer.latency.as_secs_f64() * 1000.0,
                answer.dimensions
            ),
        )),
        Err(error) => {
            Ok(Finding::problem("provider_call", name, remedy::words(&error))
                .with(remedy::of(&error)))
        }
    }
}
