//! A batch run: source and vector table are compared by one statement, and what differs is kept in a temporary table
//! until it is done. The source is read once, and only by a process of the run's own.

mod bad_rows;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::{VectorTable, sight};
use crate::citus::{self, Everywhere};
use crate::document::difference_sql;
use crate::error::Result;
use crate::name::quote_ident;
use crate::rights;
use crate::rights::Rights;
use crate::{text_settings, transaction};

/// Selects documents of the run; the alias follows.
pub const SELECT: &str =
    "select r.pk_value, r.embedded_text, r.metadata, r.row_hash, r.copies from pg_temp.embedd_run";

/// Compares source and vector table. Returns how many rows the source has.
///
/// Rows that have failed, and are as they were then, are none of the run unless it takes them up again.
pub fn compare(client: &mut SpiClient<'_>, table: &VectorTable, takes_failed: bool) -> Result<i64> {
    if let Some(name) = &table.source_name {
        sight::check_view(client, table.source, name, table.owner)?;
    }
    let owner = quote_ident(&rights::role_name(table.owner));
    for statement in [
        "drop table if exists pg_temp.embedd_run".to_string(),
        "create temporary table embedd_run (
            place bigint generated always as identity primary key,
            pk_value text not null,
            embedded_text text,
            metadata jsonb,
            row_hash text,
            copies bigint not null,
            is_stored boolean not null,
            has_hash boolean not null)"
            .to_string(),
        format!("grant select, insert on pg_temp.embedd_run to {owner}"),
    ] {
        client.update(&statement, None, &[])?;
    }
    let source = table.source_name()?;
    if let Err(failure) = transaction::nested(|| Spi::connect_mut(|c| find(c, table, &source))) {
        if !failure.is_of_a_row() {
            return Err(failure.into());
        }
        // A row of which no document can be made does not stop the others.
        let bad = bad_rows::take_out(client, table, &owner)?;
        find(client, table, bad_rows::COPY)?;
        client.update(
            "delete from pg_temp.embedd_run r where r.pk_value = any($1)",
            None,
            &[bad.into()],
        )?;
    }
    let stored = {
        let _rights = Rights::of_owner(table.owner);
        let count = format!("select count(*) from {}", table.relation_name()?);
        client.select(&count, None, &[])?.first().get_one::<i64>()?.unwrap_or_default()
    };
    // Rows of the source are those that are stored, and besides those that are missing, but not those that have gone.
    let rows = client.select(
        "select (select count(distinct r.pk_value) from pg_temp.embedd_run r where not r.is_stored)
                - (select count(*) from pg_temp.embedd_run r where r.row_hash is null)",
        None,
        &[],
    )?;
    let total = stored + rows.first().get_one::<i64>()?.unwrap_or_default();
    if !takes_failed {
        client.update(
            "delete from pg_temp.embedd_run r using embedd.failed_rows f
              where f.table_id = $1 and f.pk_value = r.pk_value
                and (r.has_hash or r.copies > 1 and not r.is_stored)",
            None,
            &[table.id.into()],
        )?;
    }
    for statement in
        ["create index on pg_temp.embedd_run using hash (pk_value)", "analyze pg_temp.embedd_run"]
    {
        client.update(statement, None, &[])?;
    }
    Ok(total)
}

/// Finds every row in which the vector table differs from a source, or from a copy of it.
fn find(client: &mut SpiClient<'_>, table: &VectorTable, source: &str) -> Result<()> {
    // A source in shards has its documents made where these are. The copy is here.
    let is_spread = source != bad_rows::COPY && citus::reaches_nodes(table.source);
    let condition = if is_spread { citus::IN_TRANSACTIONS } else { "true" };
    let sql = difference_sql(source, &table.key, &table.columns, table.relation_name()?, condition);
    let _rights = Rights::of_owner(table.owner);
    let spread = is_spread.then(|| Everywhere::set(text_settings::all())).transpose()?;
    client.update(
        &format!(
            "insert into pg_temp.embedd_run (pk_value, embedded_text, metadata, row_hash, copies, is_stored, has_hash)
             select x.pk_value, x.embedded_text, x.metadata, x.row_hash, x.copies, x.is_stored, x.has_hash
               from ({sql}) x"
        ),
        None,
        &[],
    )?;
    match spread {
        Some(spread) => spread.reset(),
        None => Ok(()),
    }
}

/// The next keys of the run behind a place, and the last place.
pub fn page(client: &SpiClient<'_>, after: i64, limit: i64) -> Result<(Vec<String>, Option<i64>)> {
    let rows = client.select(
        "select r.pk_value, r.place from pg_temp.embedd_run r where r.place > $1 order by r.place limit $2",
        None,
        &[after.into(), limit.into()],
    )?;
    let (mut keys, mut last) = (Vec::new(), None);
    for row in rows {
        keys.extend(row.get::<String>(1)?);
        last = row.get::<i64>(2)?.or(last);
    }
    keys.dedup();
    Ok((keys, last))
}
