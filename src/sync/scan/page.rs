//! The pages of a scan: the next keys of the source, of the vector table, or of a batch run.

use pgrx::spi::SpiClient;

use super::PAGE;
use crate::catalog::{self, VectorTable};
use crate::error::Result;
use crate::rights::Rights;
use crate::sync::load::{self, By};
use crate::sync::run;
use crate::task::{Kind, Task};

/// A page that was found.
pub struct Found {
    /// The keys that are to be looked at.
    pub keys: Vec<String>,
    /// The last key of all that it went over; none when there are no more.
    pub last: Option<String>,
    /// How many rows of the source that were.
    pub rows: i64,
}

/// Of the next keys of the source those that are to be looked at, for a task or without one; all of them where a row
/// could not be read.
pub fn of_source(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    after: Option<&str>,
    task: Option<&Task>,
    is_careful: bool,
) -> Result<Found> {
    let mut found = all_of_source(client, table, after)?;
    // What a first load finds is new, unless it was interrupted: then others may have done their part of it.
    let is_first_load = task.is_some_and(|task| task.kind == Kind::Backfill && task.attempt <= 1);
    if is_first_load || is_careful {
        return Ok(found);
    }
    let failed = catalog::failed_keys(client, table.id, Some(&found.keys))?;
    found.keys.retain(|key| !failed.contains(key));
    found.keys = load::different(client, table, &found.keys)?;
    if let Some(task) = task.filter(|task| task.kind == Kind::Rebackfill) {
        // They are tried again whatever is stored of them, once.
        found.keys.extend(catalog::earlier_failed_keys(client, table.id, task.id, &failed)?);
    }
    Ok(found)
}

/// The next keys of the source in the order of its key.
fn all_of_source(
    client: &SpiClient<'_>,
    table: &VectorTable,
    after: Option<&str>,
) -> Result<Found> {
    let source = table.source_name()?;
    let key = &table.key;
    let condition = match after {
        Some(_) => format!("where {}", key.after("s", &key.values("$1"))),
        None => String::new(),
    };
    let query = format!(
        "select {} from {source} s {condition} order by {} limit {PAGE}",
        key.pk_value("s"),
        key.order("s")
    );
    let _rights = Rights::of_owner(table.owner);
    let arguments: &[pgrx::datum::DatumWithOid<'_>] =
        &after.map(|a| vec![a.into()]).unwrap_or_default();
    let keys = load::texts(client.select(&query, None, arguments)?)?;
    Ok(Found { last: keys.last().cloned(), rows: keys.len() as i64, keys })
}

/// Of the next rows of the vector table those without a source row.
pub fn of_orphans(
    client: &SpiClient<'_>,
    table: &VectorTable,
    after: Option<&str>,
    by: By,
) -> Result<Found> {
    let relation = table.relation_name()?;
    let query = format!(
        "select pk_value from {relation} where pk_value > $1 or $1 is null order by pk_value limit {PAGE}"
    );
    let keys = {
        let _rights = Rights::of_owner(table.owner);
        load::texts(client.select(&query, None, &[after.into()])?)?
    };
    let last = keys.last().cloned();
    let keys = load::gone(client, table, &keys, by)?;
    // Rows of the source are counted once, in the other phase.
    Ok(Found { keys, last, rows: 0 })
}

/// The next keys of a batch run; its places stand for the keys behind which it goes on.
pub fn of_run(client: &SpiClient<'_>, after: Option<&str>) -> Result<Found> {
    let after = after.and_then(|place| place.parse().ok()).unwrap_or_default();
    let (keys, last) = run::page(client, after, PAGE)?;
    Ok(Found { keys, last: last.map(|place| place.to_string()), rows: 0 })
}

/// Forgets rows that have failed and are no longer there.
pub fn forget_gone(client: &mut SpiClient<'_>, table: &VectorTable, by: By) -> Result<()> {
    let failed = catalog::failed_keys(client, table.id, None)?;
    for keys in failed.chunks(PAGE as usize) {
        let gone = load::gone(client, table, keys, by)?;
        catalog::forget_failed(client, table.id, &gone)?;
    }
    Ok(())
}
