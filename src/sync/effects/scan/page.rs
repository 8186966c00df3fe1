//! The pages of a scan: the next keys of the source, of the vector table, or of a batch run.

use pgrx::spi::SpiClient;

use crate::catalog::{self, VectorTable};
use crate::datum::texts;
use crate::error::Result;
use crate::rights::RoleSwitch;
use crate::sync::core::{FoundPage, Lookup};
use crate::sync::effects::{load, run};
use crate::sync::table::PAGE;
use crate::task::{Kind, Task};

/// Of the next keys of the source those that are to be loaded; all of them in a first load, and where a row could not be
/// read.
pub fn of_source(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    after: Option<&str>,
    task: &Task,
    lookup: Lookup,
) -> Result<FoundPage> {
    let mut found = all_of_source(client, table, after)?;
    if !task.is_first_load() && lookup == Lookup::Index {
        let failed = catalog::failed_keys(client, table.id, Some(&found.keys))?;
        found.keys.retain(|key| !failed.contains(key));
        found.keys = load::different(client, table, &found.keys)?;
        if task.kind == Kind::Rebackfill {
            // They are tried again whatever is stored of them, once.
            found.keys.extend(catalog::earlier_failed_keys(client, table.id, task.id, &failed)?);
        }
    }
    found.different = found.keys.len() as i64;
    Ok(found)
}

/// The next keys of the source in the order of its key.
pub fn all_of_source(
    client: &SpiClient<'_>,
    table: &VectorTable,
    after: Option<&str>,
) -> Result<FoundPage> {
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
    let _rights = RoleSwitch::of_owner(table.owner);
    let arguments: &[pgrx::datum::DatumWithOid<'_>] =
        &after.map(|a| vec![a.into()]).unwrap_or_default();
    let keys = texts(client.select(&query, None, arguments)?)?;
    let (last, rows) = (keys.last().cloned(), keys.len() as i64);
    Ok(FoundPage { keys, last, rows, ..FoundPage::default() })
}

/// Of the next rows of the vector table those without a source row.
pub fn of_orphans(
    client: &SpiClient<'_>,
    table: &VectorTable,
    after: Option<&str>,
    lookup: Lookup,
) -> Result<FoundPage> {
    let relation = table.relation_name()?;
    let query = format!(
        "select pk_value from {relation} where pk_value > $1 or $1 is null order by pk_value limit {PAGE}"
    );
    let keys = {
        let _rights = RoleSwitch::of_owner(table.owner);
        texts(client.select(&query, None, &[after.into()])?)?
    };
    let last = keys.last().cloned();
    let keys = load::gone(client, table, &keys, lookup)?;
    // Rows of the source are counted once, in the other phase.
    Ok(FoundPage { different: keys.len() as i64, keys, last, ..FoundPage::default() })
}

/// The next keys of a batch run; its places stand for the keys behind which it goes on.
pub fn of_run(client: &SpiClient<'_>, after: Option<&str>) -> Result<FoundPage> {
    let after = after.and_then(|place| place.parse().ok()).unwrap_or_default();
    let (keys, rows, last) = run::page(client, after, PAGE as i64)?;
    let (different, last) = (keys.len() as i64, last.map(|place| place.to_string()));
    Ok(FoundPage { different, rows, keys, last, ..FoundPage::default() })
}

/// Forgets rows that have failed and are no longer there.
pub fn forget_gone(client: &mut SpiClient<'_>, table: &VectorTable, lookup: Lookup) -> Result<()> {
    let failed = catalog::failed_keys(client, table.id, None)?;
    for keys in failed.chunks(PAGE) {
        let gone = load::gone(client, table, keys, lookup)?;
        catalog::delete_failed(client, table.id, &gone)?;
    }
    Ok(())
}
