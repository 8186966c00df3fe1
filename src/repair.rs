//! Finds the differences between a source and its vector table, and has them put right: verify, reconcile, retry_failed.

use pgrx::prelude::*;

use crate::catalog::{self, Status, SyncMode, VectorTable};
use crate::document::difference_sql;
use crate::error::{Error, Result};
use crate::queue::{self, Noted};
use crate::server::{self, Rights};
use crate::source;
use crate::status::find_to_change;
use crate::table::check_may_change;
use crate::task::{self, Asked, Kind};
use crate::trigger::touch_at_commit;

/// Rows fetched at once.
const ROWS_AT_ONCE: std::ffi::c_long = 10_000;

/// A row in which a vector table differs from its source.
pub struct Difference {
    pub pk_value: String,
    /// missing, stale or orphaned.
    pub problem: &'static str,
}

/// Every row in which a vector table differs from its source now. Rows that have failed are told elsewhere.
pub fn verify(name: &str) -> Result<Vec<Difference>> {
    Spi::connect(|client| {
        let rights = Rights::of_extension()?;
        let mut table = catalog::find(client, name)?;
        drop(rights);
        check_may_change(&table)?;
        table.resolve()?;
        let rights = Rights::of_extension()?;
        let rows = client.select(
            "select f.pk_value from embedd.failed_rows f where f.table_id = $1",
            None,
            &[table.id.into()],
        )?;
        let mut failed = Vec::new();
        for row in rows {
            failed.extend(row.get::<String>(1)?);
        }
        drop(rights);
        // A row that cannot be read would keep the others from being looked at.
        let not_failed = |pk: &str| {
            format!(
                "not exists (select from unnest($1::text[]) f(pk_value) where f.pk_value = {pk})"
            )
        };
        let differences = difference_sql(
            &table.source_name()?,
            &table.key,
            &table.columns,
            table.relation_name()?,
            &not_failed(&table.key.pk_value("s")),
        );
        let query = format!(
            "select x.pk_value, x.is_stored, x.row_hash is not null from ({differences}) x where {}",
            not_failed("x.pk_value")
        );
        let rights = Rights::of_owner(table.owner);
        server::set_text_settings(&rights);
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
        drop(rights);
        Ok(found)
    })
}

/// Asks for a comparison, after which the vector table equals its source. A key whose type was changed is taken over.
pub fn reconcile(name: &str) -> Result<(i32, Asked)> {
    Spi::connect_mut(|client| {
        let mut table = find_to_change(client, name)?;
        if table.status == Status::Pending {
            return Err(Error::NotReady { name: table.name });
        }
        let new_types = match table.resolve() {
            Ok(_) => None,
            Err(Error::KeyTypeChanged { .. }) => Some(new_key_types(client, &table)?),
            Err(error) => return Err(error),
        };
        let _rights = Rights::of_extension()?;
        if let Some(types) = new_types {
            catalog::set_key_types(client, table.id, &types)?;
            catalog::forget_readers(table.source);
        }
        let asked = task::ask_reconcile(client, table.id, name)?;
        touch_at_commit();
        Ok((table.id, asked))
    })
}

/// The types that the columns of a key have now, if they can be a key.
fn new_key_types(
    client: &pgrx::spi::SpiClient<'_>,
    table: &VectorTable,
) -> Result<Vec<pg_sys::Oid>> {
    let available = source::columns(client, table.source)?;
    let names: Vec<String> = table
        .stored
        .key_numbers
        .iter()
        .filter_map(|n| available.iter().find(|c| c.number == *n))
        .map(|c| c.name.clone())
        .collect();
    let columns = source::check_key_types(&available, &names, table.stored.sync_mode)?;
    Ok(columns.iter().map(|c| c.base).collect())
}

/// Has rows that have failed tried again: one, or all. Returns how many.
pub fn retry_failed(name: &str, key: Option<&str>) -> Result<i64> {
    Spi::connect_mut(|client| {
        let table = find_to_change(client, name)?;
        let _rights = Rights::of_extension()?;
        let wanted = key.map(|key| vec![key.to_string()]);
        let keys = catalog::failed_keys(client, table.id, wanted.as_deref())?;
        if let Some(key) = key.filter(|_| keys.is_empty()) {
            return Err(Error::NotFailed { key: key.to_string(), name: table.name });
        }
        match table.stored.sync_mode {
            _ if keys.is_empty() => {}
            SyncMode::Trigger => {
                let mut noted = Noted::default();
                keys.iter().for_each(|key| noted.push(key.as_bytes()));
                queue::write(table.id, &noted, 0);
            }
            // A comparison takes no single rows.
            SyncMode::Batch => task::restart_or_ask(client, table.id, Kind::Rebackfill)?,
        }
        touch_at_commit();
        Ok(keys.len() as i64)
    })
}
