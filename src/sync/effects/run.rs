//! A batch run: source and vector table are compared by one statement, and what differs is kept in a temporary table
//! until it is done. The source is read once, and only by a process of the run's own.

mod bad_rows;
mod large_documents;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::{VectorTable, sight};
use crate::citus::{self, NodeSettings};
use crate::document::TOO_LARGE;
use crate::error::Result;
use crate::name::quote_ident;
use crate::rights;
use crate::rights::RoleSwitch;
use crate::text_settings;
use crate::transaction::{self, Blame};

/// Selects documents of the run, as `r`; more conditions may follow.
pub const SELECT: &str = "select r.pk_value, r.embedded_text, r.metadata, r.row_hash, r.copies
   from pg_temp.embedd_run r where (r.differs or r.copies > 1) and r.row_hash is not null";

/// Rows of the run that are to be worked on. The others are there to count how many rows of the source have a key.
const WANTED: &str = "(differs or copies > 1)";

/// That the document `d` differs from the vector table's row `v`, or has no vector there.
const DIFFERS: &str =
    "(d.row_hash is distinct from v.row_hash or (d.has_text and v.is_bare is not false))";

/// Compares source and vector table. Returns how many rows the source has, and how many of them are as they should be.
///
/// Rows that have failed, and are as they were then, are none of the run unless it takes them up again.
pub fn compare(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    takes_failed: bool,
) -> Result<(i64, i64)> {
    if let Some(name) = &table.source_name {
        sight::check_view(client, table.source, name, table.owner)?;
    }
    let owner = quote_ident(&rights::role_name(table.owner));
    for statement in [
        "drop table if exists pg_temp.embedd_run".to_string(),
        "create temporary table embedd_run (
            place bigint generated always as identity,
            pk_value text not null,
            embedded_text text,
            metadata jsonb,
            row_hash text,
            copies bigint not null,
            is_stored boolean not null,
            has_hash boolean not null,
            differs boolean not null)"
            .to_string(),
        format!("grant select, insert, update, delete on pg_temp.embedd_run to {owner}"),
    ] {
        client.update(&statement, None, &[])?;
    }
    let source = table.all_rows()?;
    if let Err(failure) = transaction::nested(|| Spi::connect_mut(|c| find(c, table, &source))) {
        if failure.blame() != Blame::Row {
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
    client.update(
        "update pg_temp.embedd_run r set copies = c.copies
           from (select s.pk_value, count(*) as copies from pg_temp.embedd_run s group by s.pk_value having count(*) > 1) c
          where c.pk_value = r.pk_value",
        None,
        &[],
    )?;
    let rows = client.select(
        "select count(*) from (select from pg_temp.embedd_run r where r.row_hash is not null group by r.pk_value) s",
        None,
        &[],
    )?;
    let total = rows.first().get_one::<i64>()?.unwrap_or_default();
    if !takes_failed {
        client.update(
            "delete from pg_temp.embedd_run r using embedd.failed_rows f
              where f.table_id = $1 and f.pk_value = r.pk_value
                and (r.has_hash or (r.copies > 1 or r.row_hash = $2) and not r.is_stored)",
            None,
            &[table.id.into(), TOO_LARGE.into()],
        )?;
    }
    for statement in [
        format!("create index on pg_temp.embedd_run using hash (pk_value) where {WANTED}"),
        format!("create index on pg_temp.embedd_run (place) where {WANTED}"),
        "analyze pg_temp.embedd_run".to_string(),
    ] {
        client.update(&statement, None, &[])?;
    }
    let rows = client.select(
        &format!(
            "select count(distinct r.pk_value) from pg_temp.embedd_run r where {WANTED} and r.row_hash is not null"
        ),
        None,
        &[],
    )?;
    let different = rows.first().get_one::<i64>()?.unwrap_or_default();
    Ok((total, (total - different).max(0)))
}

/// Compares every row of a source, or of a copy of it, and finds the rows of the vector table that it has no more. Documents
/// are kept of rows that differ.
fn find(client: &mut SpiClient<'_>, table: &VectorTable, source: &str) -> Result<()> {
    // A source in shards has its documents made where these are. The copy is here.
    let is_spread = source != bad_rows::COPY && citus::reaches_nodes(table.source);
    let mut condition = table.key.is_complete("s");
    if is_spread {
        condition = format!("{condition} and {}", citus::IN_TRANSACTIONS);
    }
    let compared = large_documents::left_out(&table.documents(source, &condition));
    let of_keys = format!("{condition} and {} = any($1)", table.key.pk_value("s"));
    let relation = table.relation_name()?;
    let _rights = RoleSwitch::of_owner(table.owner);
    let spread = is_spread.then(|| NodeSettings::set(text_settings::all())).transpose()?;
    client.update(
        &format!(
            "insert into pg_temp.embedd_run (pk_value, embedded_text, metadata, row_hash, copies, is_stored, has_hash, differs)
             select d.pk_value, case when {DIFFERS} then d.embedded_text end, case when {DIFFERS} then d.metadata end, d.row_hash,
                    1, v.pk_value is not null, coalesce(d.row_hash = v.row_hash, false), {DIFFERS}
               from ({compared}) d
               left join (select r.pk_value, r.row_hash, r.embedding is null as is_bare from {relation} r offset 0) v
                 on v.pk_value = d.pk_value"
        ),
        None,
        &[],
    )?;
    client.update(
        &format!(
            "insert into pg_temp.embedd_run (pk_value, copies, is_stored, has_hash, differs)
             select v.pk_value, 0, true, false, true from {relation} v
              where not exists (select from pg_temp.embedd_run r where r.pk_value = v.pk_value)"
        ),
        None,
        &[],
    )?;
    large_documents::fill_in(client, &table.documents(source, &of_keys))?;
    match spread {
        Some(spread) => spread.reset(),
        None => Ok(()),
    }
}

/// The next keys of the run behind a place, how many of them the source has, and the last place.
pub fn page(
    client: &SpiClient<'_>,
    after: i64,
    limit: i64,
) -> Result<(Vec<String>, i64, Option<i64>)> {
    let rows = client.select(
        &format!(
            "select pk_value, place, row_hash is not null from pg_temp.embedd_run
              where place > $1 and {WANTED} order by place limit $2"
        ),
        None,
        &[after.into(), limit.into()],
    )?;
    let (mut keys, mut of_source, mut last) = (Vec::new(), 0, None);
    for row in rows {
        let key: Option<String> = row.get(1)?;
        let is_copy = key.is_some() && keys.last() == key.as_ref();
        of_source += i64::from(!is_copy && row.get::<bool>(3)? == Some(true));
        keys.extend(key.filter(|_| !is_copy));
        last = row.get::<i64>(2)?.or(last);
    }
    Ok((keys, of_source, last))
}
