//! embedd.verify(): finds rows in which a vector table differs from its source.

mod partitions;
pub mod sample;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::{self, VectorTable};
use crate::citus::{self, NodeSettings};
use crate::datum::texts;
use crate::error::Result;
use crate::rights::RoleSwitch;
use crate::table::check_may_change;
use crate::text_settings;

/// Rows of one fetch.
const ROWS_AT_ONCE: std::ffi::c_long = 10_000;

/// A row in which a vector table differs from its source.
pub struct Difference {
    pub pk_value: String,
    /// missing, stale, orphaned or overwritten.
    pub problem: &'static str,
}

/// All rows in which a vector table differs from its source at present. Failed rows are listed elsewhere.
pub fn verify(name: &str) -> Result<Vec<Difference>> {
    Spi::connect(|client| {
        let table = find(client, name)?;
        let failed = failed_keys(client, &table)?;
        let pieces = match citus::reaches_nodes(table.source) {
            true => None,
            false => partitions::of(client, &table)?,
        };
        match pieces {
            Some(leaves) => partitions::differences(&table, &leaves, failed),
            None => differences(client, &table, failed),
        }
    })
}

/// A vector table whose owner's rights the caller has, with its columns in the source.
pub fn find(client: &SpiClient<'_>, name: &str) -> Result<VectorTable> {
    let rights = RoleSwitch::of_extension()?;
    let mut table = catalog::find(client, name)?;
    drop(rights);
    check_may_change(&table)?;
    table.resolve()?;
    Ok(table)
}

/// The keys of the failed rows.
pub fn failed_keys(client: &SpiClient<'_>, table: &VectorTable) -> Result<Vec<String>> {
    let _rights = RoleSwitch::of_extension()?;
    let rows = client.select(
        "select f.pk_value from embedd.failed_rows f where f.table_id = $1",
        None,
        &[table.id.into()],
    )?;
    texts(rows)
}

/// The condition that a key is not among the failed ones, $1. A row that cannot be read would abort the whole
/// comparison.
pub fn not_failed(pk_value: &str) -> String {
    format!(
        "not exists (select 1 from unnest($1::text[]) f(pk_value) where f.pk_value = {pk_value})"
    )
}

/// The differences, by one statement.
fn differences(
    client: &SpiClient<'_>,
    table: &VectorTable,
    failed: Vec<String>,
) -> Result<Vec<Difference>> {
    let mut condition = not_failed(&table.key.pk_value("s"));
    let is_spread = citus::reaches_nodes(table.source);
    if is_spread {
        condition = format!("{condition} and {}", citus::IN_TRANSACTIONS);
    }
    let differences = table.differences(&table.all_rows()?, &condition)?;
    let query = format!(
        "select x.pk_value, x.is_stored, x.row_hash is not null from ({differences}) x where {}",
        not_failed("x.pk_value")
    );
    let rights = RoleSwitch::of_owner(table.owner);
    text_settings::set_text_settings(&rights);
    let spread = is_spread.then(|| NodeSettings::set(text_settings::all())).transpose()?;
    let mut cursor = client.try_open_cursor(&query, &[failed.into()])?;
    let mut found = Vec::new();
    loop {
        let rows = cursor.fetch(ROWS_AT_ONCE)?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let problem = match (row.get::<bool>(2)?, row.get::<bool>(3)?) {
                (Some(false), _) => "missing",
                (_, Some(true)) => "stale",
                _ => "orphaned",
            };
            let pk_value = row.get::<String>(1)?.unwrap_or_default();
            found.push(Difference { pk_value, problem });
        }
    }
    drop(cursor);
    if let Some(spread) = spread {
        spread.reset()?;
    }
    drop(rights);
    Ok(found)
}
