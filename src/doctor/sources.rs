//! Checks of sources and vector tables: whether they exist, and whether all rows and changes are visible.

use pgrx::pg_sys;
use pgrx::spi::SpiClient;

use super::finding::Finding;
use super::report::Report;
use super::{Scope, Seen, remedy};
use crate::catalog::{SyncMode, VectorTable, sight};
use crate::document::FilterType;
use crate::error::{Error, Result};
use crate::name::quote_ident;
use crate::relation::{is_view, owner_of};
use crate::rights::RoleSwitch;
use crate::{source, status};

/// Checks the source and the table of each vector table.
pub fn examine(report: &mut Report, scope: &Scope) -> Result<()> {
    for seen in &scope.tables {
        let name = &seen.table.name;
        report.check("source", name, |client| visible(client, seen))?;
        report.check("triggers", name, |client| triggers(client, &seen.table))?;
        report.check("unlogged", name, |_| Ok(unlogged(&seen.table)))?;
    }
    Ok(())
}

/// What hides rows of a source, and whether its key is still unique.
fn visible(client: &SpiClient<'_>, seen: &Seen) -> Result<Vec<Finding>> {
    let mut table = seen.table.clone();
    if let Some(error) = status::out_of_sight(client, &mut table)? {
        return Ok(vec![finding_of(seen, &error)]);
    }
    if table.key.columns.is_empty()
        || table.stored.sync_mode == SyncMode::Batch
        || source::has_unique_key(client, &table)?
    {
        return Ok(Vec::new());
    }
    let name = &table.name;
    let meaning = "the key of the source has no unique index any more: of several rows with the same key, only one has a vector";
    let found = match seen.status.sync_status == "error" {
        true => Finding::problem("key", name, meaning),
        false => Finding::warning("key", name, meaning),
    };
    Ok(vec![found.with(unique_index(client, &table)?)])
}

/// The statement that makes the key of a source unique.
fn unique_index(client: &SpiClient<'_>, table: &VectorTable) -> Result<Option<String>> {
    let Some(source) = &table.source_name else { return Ok(None) };
    let columns: Vec<String> = table.key.columns.iter().map(|c| quote_ident(&c.name)).collect();
    let columns = columns.join(", ");
    let rows = client.select(
        "select exists (select from pg_catalog.pg_index i where i.indrelid = $1 and i.indisprimary)",
        None,
        &[table.source.into()],
    )?;
    Ok(Some(match rows.first().get_one::<bool>()? {
        Some(true) => format!("CREATE UNIQUE INDEX ON {source} ({columns});"),
        _ => format!("ALTER TABLE {source} ADD PRIMARY KEY ({columns});"),
    }))
}

/// The finding for an error of a source or a vector table.
fn finding_of(seen: &Seen, error: &Error) -> Finding {
    let table = &seen.table;
    let problem = |check| Finding::problem(check, &table.name, remedy::words(error));
    match error {
        Error::RelationGone { what: "table", .. } => {
            problem("vector_table").with(remedy::call("drop_vector_table", &table.name))
        }
        // The worker may know more, for example why another table of that name is not accepted.
        Error::RelationGone { .. } => {
            let noted = seen.status.last_error.as_deref();
            let remedy = noted.and_then(remedy::statement_in);
            problem("source")
                .with(remedy.unwrap_or_else(|| remedy::call("drop_vector_table", &table.name)))
        }
        Error::FilledBySubscription { .. } => {
            let meaning = "a subscription fills it: the publisher keeps it in sync";
            Finding::fine("subscription", &table.name, meaning)
        }
        Error::ColumnGone { column, .. } => problem("columns").with(add_column(table, column)),
        Error::KeyTypeChanged { .. } => problem("key").with(remedy::call("reconcile", &table.name)),
        Error::RowsHidden { .. } if sight::has_policies(table.source, table.owner) => {
            // The owner of the table is subject to policies only if they are forced.
            let remedy = match (&table.source_name, owner_of(table.source)) {
                (Some(source), Some(owner)) if owner == table.owner => {
                    Some(format!("ALTER TABLE {source} NO FORCE ROW LEVEL SECURITY;"))
                }
                _ => remedy::of(error),
            };
            problem("policies").with(remedy)
        }
        Error::RowsHidden { .. } if sight::has_children(table.source) => {
            problem("children").with(compared(table).or_else(|| remedy::of(error)))
        }
        Error::RowsHidden { .. } if is_view(table.source) => {
            problem("view").with(remedy::of(error))
        }
        Error::ChangesMissed { .. } => {
            problem("source").with(compared(table).or_else(|| remedy::of(error)))
        }
        _ => problem("source").with(remedy::of(error)),
    }
}

/// The statements that replace a vector table with triggers by one in sync mode batch.
fn compared(table: &VectorTable) -> Option<String> {
    let create = remedy::create(table, &table.name, SyncMode::Batch, &table.model)?;
    Some(format!("{} {create}", remedy::call("drop_vector_table", &table.name)))
}

/// The statement that adds a missing column, with a type that fits its configuration.
fn add_column(table: &VectorTable, column: &str) -> Option<String> {
    let source = table.source_name.as_ref()?;
    let of_key = table.key_names().iter().position(|name| name == column);
    let of_key = of_key.and_then(|n| table.stored.key_types.get(n).cloned());
    let configured = table.columns.iter().find(|c| c.source() == column);
    let type_name = of_key.unwrap_or_else(|| {
        match configured.and_then(|c| c.filter_type) {
            Some(FilterType::Integer) => "bigint",
            Some(FilterType::Float) => "double precision",
            Some(FilterType::Boolean) => "boolean",
            Some(FilterType::Datetime) => "timestamp with time zone",
            Some(FilterType::Keyword) | None => "text",
        }
        .to_string()
    });
    Some(format!("ALTER TABLE {source} ADD COLUMN {} {type_name};", quote_ident(column)))
}

/// Missing or disabled triggers of a source.
fn triggers(client: &SpiClient<'_>, table: &VectorTable) -> Result<Vec<Finding>> {
    let (Some(source), true) = (&table.source_name, table.is_responsible()) else {
        return Ok(Vec::new());
    };
    if table.stored.sync_mode == SyncMode::Batch {
        return Ok(Vec::new());
    }
    let _rights = RoleSwitch::of_extension()?;
    if !source::has_triggers(client, table.origin_id, table.source)? {
        let mut statements =
            source::missing_triggers(client, table.origin_id, table.source, source)?;
        let names: Vec<&str> = statements.iter().filter_map(|s| s.split(' ').nth(2)).collect();
        let meaning = format!(
            "triggers of {source} are missing ({}): changes are missed until the sync worker recreates them and compares the table",
            names.join(", ")
        );
        statements
            .push(format!("SELECT embedd.reconcile({})", crate::name::quote_literal(&table.name)));
        let remedy = format!("{};", statements.join("; "));
        return Ok(vec![Finding::problem("triggers", &table.name, meaning).with(remedy)]);
    }
    let missed = sight::missed_changes(client, table.origin_id, table.source, source)?;
    let one = |error: Error| {
        Finding::problem("triggers", &table.name, remedy::words(&error)).with(remedy::of(&error))
    };
    Ok(missed.into_iter().map(one).collect())
}

/// A source or vector table that is unlogged.
fn unlogged(table: &VectorTable) -> Vec<Finding> {
    let both: [(&str, pg_sys::Oid, &Option<String>); 2] = [
        ("its source", table.source, &table.source_name),
        ("the table of its vectors", table.relation, &table.relation_name),
    ];
    let mut found = Vec::new();
    for (what, relation, name) in both {
        if let Some(name) = name
            && sight::is_unlogged(relation)
        {
            let meaning = format!(
                "{what} is unlogged: a crash empties it, and a standby does not have its rows"
            );
            let remedy = format!("ALTER TABLE {name} SET LOGGED;");
            found.push(Finding::warning("unlogged", &table.name, meaning).with(remedy));
        }
    }
    found
}
