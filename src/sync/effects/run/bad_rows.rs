//! Finds the rows of which no document can be made, so that one of them does not stop a whole comparison.

use std::ops::Range;

use pgrx::spi::SpiClient;

use crate::catalog::{self, VectorTable};
use crate::datum::texts;
use crate::error::Result;
use crate::rights::RoleSwitch;
use crate::transaction::{self, TxError};

/// The copy of the source in which they are looked for.
pub const COPY: &str = "pg_temp.embedd_copy";

/// Copies the configured columns of the source and takes the rows out of the copy of which no document can be made. They are
/// noted as failed, and their keys come back.
pub fn take_out(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    owner: &str,
) -> Result<Vec<String>> {
    let mut keys = too_large(client, table)?;
    for key in &keys {
        catalog::set_failed(client, table.id, key, &catalog::too_large())?;
    }
    copy(client, table, owner)?;
    let last = client
        .select(&format!("select coalesce(max(place), 0) from {COPY}"), None, &[])?
        .first()
        .get_one::<i64>()?
        .unwrap_or_default();
    let places = 1..last + 1;
    for (place, reason) in transaction::isolate(places, |places| evaluate(table, &places))? {
        let query = format!(
            "delete from {COPY} s where s.place = $1 returning {}",
            table.key.pk_value("s")
        );
        let key = client.update(&query, None, &[place.into()])?.first().get_one::<String>()?;
        if let Some(key) = key {
            catalog::set_failed(client, table.id, &key, &reason)?;
            keys.push(key);
        }
    }
    Ok(keys)
}

/// The keys of the rows that are too large, which are not copied.
fn too_large(client: &SpiClient<'_>, table: &VectorTable) -> Result<Vec<String>> {
    let query = format!(
        "select {} from {} s where {} and {}",
        table.key.pk_value("s"),
        table.source_name()?,
        table.key.is_complete("s"),
        table.is_too_large("s")
    );
    let _rights = RoleSwitch::of_owner(table.owner);
    texts(client.select(&query, None, &[])?)
}

/// Makes the copy, as the owner of the vector table sees the source.
fn copy(client: &mut SpiClient<'_>, table: &VectorTable, owner: &str) -> Result<()> {
    let (columns, source) = (table.source_columns(), table.source_name()?);
    for statement in [
        format!("drop table if exists {COPY}"),
        format!("create temporary table embedd_copy as select {columns} from {source} s limit 0"),
        format!("alter table {COPY} add column place bigint generated always as identity"),
        format!("grant select, insert on {COPY} to {owner}"),
    ] {
        client.update(&statement, None, &[])?;
    }
    let _rights = RoleSwitch::of_owner(table.owner);
    let fill = format!(
        "insert into {COPY} ({columns}) select {columns} from {source} s where {} and not ({})",
        table.key.is_complete("s"),
        table.is_too_large("s")
    );
    client.update(&fill, None, &[])?;
    Ok(())
}

/// Makes the documents of a range of the copy, for nothing but to see whether that works.
fn evaluate(table: &VectorTable, places: &Range<i64>) -> std::result::Result<(), TxError> {
    let condition = format!("s.place >= {} and s.place < {}", places.start, places.end);
    let documents = table.documents(COPY, &condition);
    // The whole row: what is not asked for is not computed.
    let query = format!("select count(d) from ({documents}) d");
    transaction::nested_read(|| {
        pgrx::Spi::connect_mut(|client| {
            let _rights = RoleSwitch::of_owner(table.owner);
            // Not select(): in an inner transaction that has written nothing, it would not see the copy's rows.
            client.update(&query, None, &[])?;
            Ok(())
        })
    })
}
