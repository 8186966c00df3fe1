//! Verifies a source with many partitions in groups, so that it never locks all of them at once.

use std::hash::{BuildHasher, RandomState};

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::{Difference, ROWS_AT_ONCE, not_failed};
use crate::catalog::{VectorTable, partitions};
use crate::document::DIFFERS;
use crate::error::{Error, Result};
use crate::rights::RoleSwitch;
use crate::text_settings;
use crate::transaction;

/// A source with fewer partitions is verified by one statement.
const MANY: usize = 64;

/// Partitions in one statement, which locks each of them and their indexes.
const AT_ONCE: usize = 16;

/// The partitions of a source to be verified in groups: there are many, and the owner of the vector table may read all
/// rows of each. None if one statement is sufficient.
pub fn of(client: &SpiClient<'_>, table: &VectorTable) -> Result<Option<Vec<String>>> {
    // SAFETY: reads the state of the transaction. A transaction that has written would see newer rows with each
    // statement, so groups from different moments would not match.
    if unsafe { pg_sys::GetTopTransactionIdIfAny() } != pg_sys::InvalidTransactionId {
        return Ok(None);
    }
    let leaves = partitions::readable(client, table.source, table.owner)?;
    Ok(leaves
        .filter(|leaves| leaves.len() >= MANY)
        .map(|leaves| leaves.into_iter().map(|leaf| leaf.name).collect()))
}

/// The differences, all with the same snapshot. Needs eight bytes of memory for each row of the source.
pub fn differences(
    table: &VectorTable,
    leaves: &[String],
    failed: Vec<String>,
) -> Result<Vec<Difference>> {
    let hash = RandomState::new();
    let (mut found, mut seen) = (Vec::new(), Vec::new());
    for some in leaves.chunks(AT_ONCE) {
        let query = of_source(table, some)?;
        look(table, &query, &failed, |row| {
            let pk_value = row.get::<String>(1)?.unwrap_or_default();
            seen.push(hash.hash_one(&pk_value));
            if row.get::<bool>(3)? == Some(true) {
                let is_stored = row.get::<bool>(2)? == Some(true);
                let problem = if is_stored { "stale" } else { "missing" };
                found.push(Difference { pk_value, problem });
            }
            Ok(())
        })?;
    }
    seen.sort_unstable();
    let query = format!(
        "select v.pk_value from {} v where {}",
        table.relation_name()?,
        not_failed("v.pk_value")
    );
    look(table, &query, &failed, |row| {
        let pk_value = row.get::<String>(1)?.unwrap_or_default();
        if seen.binary_search(&hash.hash_one(&pk_value)).is_err() {
            found.push(Difference { pk_value, problem: "orphaned" });
        }
        Ok(())
    })?;
    Ok(found)
}

/// All rows of some partitions: key, whether it is stored, and whether it differs.
fn of_source(table: &VectorTable, leaves: &[String]) -> Result<String> {
    let columns = table.source_columns();
    let parts: Vec<String> =
        leaves.iter().map(|leaf| format!("select {columns} from only {leaf}")).collect();
    let source = format!("({})", parts.join(" union all "));
    let condition =
        format!("{} and {}", table.key.is_complete("s"), not_failed(&table.key.pk_value("s")));
    let documents = table.documents(&source, &condition);
    Ok(format!(
        "select d.pk_value, v.pk_value is not null, {DIFFERS} from ({documents}) d left join {} v on v.pk_value = d.pk_value",
        table.relation_name()?
    ))
}

/// Reads the rows of a query as the owner of the vector table, and releases its locks.
fn look(
    table: &VectorTable,
    query: &str,
    failed: &[String],
    mut take: impl FnMut(pgrx::spi::SpiHeapTupleData<'_>) -> Result<()>,
) -> Result<()> {
    let read = transaction::nested_read(|| {
        Spi::connect(|client| {
            let rights = RoleSwitch::of_owner(table.owner);
            text_settings::set_text_settings(&rights);
            let mut cursor = client.try_open_cursor(query, &[failed.to_vec().into()])?;
            loop {
                let rows = cursor.fetch(ROWS_AT_ONCE)?;
                if rows.is_empty() {
                    return Ok(());
                }
                for row in rows {
                    take(row)?;
                }
            }
        })
    });
    read.map_err(Error::from)
}
