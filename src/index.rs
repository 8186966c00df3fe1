//! The vector indexes of a vector table: taken away before its first great load and built once after it, which is many times faster.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::catalog::VectorTable;
use crate::command;
use crate::datum::VectorType;
use crate::error::Result;
use crate::name::quote_ident;
use crate::relation;
use crate::rights::Rights;

/// Rows of a source from which on building the index once is worth it.
const WORTH_IT: i64 = 5000;

/// pgvector before this version has a flaw in building hnsw indexes in parallel (CVE-2026-3172).
const PARALLEL_SINCE: &str = "0.8.2";

/// The definition of an index from the access method on: the table may have another name or schema when it is built. What
/// stands before is known, so no name can be taken for it.
const REST: &str = "
    pg_catalog.substr(d.def, 1 + pg_catalog.length(pg_catalog.format('CREATE INDEX %I ON %s',
        c.relname, pg_catalog.format('%I.%I', n.nspname, t.relname))))";
/// The indexes of tables, with all that [`REST`] is made of.
const INDEXES: &str = "
    pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indexrelid
    join pg_catalog.pg_am a on a.oid = c.relam
    join pg_catalog.pg_class t on t.oid = i.indrelid
    join pg_catalog.pg_namespace n on n.oid = t.relnamespace
   cross join lateral (select pg_catalog.pg_get_indexdef(i.indexrelid) as def) d";

/// Takes the vector indexes away when the table is empty and its source is large; true when it did.
///
/// What they are is noted in the same transaction, so no crash loses them.
pub fn hold(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    let (relation, source) = (table.relation_name()?, table.source_name()?);
    let schema = VectorType::find(client)?.schema;
    let definitions = {
        let _rights = Rights::of_owner(table.owner);
        see_vector(client, &schema)?;
        let worth_it = client.select(
            &format!(
                "select not exists (select 1 from {relation})
                    and (select count(*) from (select 1 from {source} limit {WORTH_IT}) s) >= {WORTH_IT}"
            ),
            None,
            &[],
        )?;
        if worth_it.first().get_one::<bool>()? != Some(true) {
            return Ok(false);
        }
        let rows = client.select(
            &format!(
                "select i.indexrelid, c.relname::text, {REST} from {INDEXES}
                  where i.indrelid = $1 and a.amname in ('hnsw', 'ivfflat') and c.relkind = 'i'
                  order by 1"
            ),
            None,
            &[table.relation.into()],
        )?;
        let (mut indexes, mut definitions) = (Vec::new(), Vec::new());
        for row in rows {
            let (index, name, rest) =
                (row.get::<pg_sys::Oid>(1)?, row.get::<String>(2)?, row.get::<String>(3)?);
            if let (Some(index), Some(name), Some(rest)) = (index, name, rest) {
                indexes.extend(relation::qualified_name(index));
                definitions.extend([name, rest]);
            }
        }
        for index in indexes {
            command::run(client, &format!("drop index {index}"))?;
        }
        definitions
    };
    if definitions.is_empty() {
        return Ok(false);
    }
    client.update(
        "update embedd.vector_tables set held_indexes = coalesce(held_indexes, '{}') || $2 where id = $1",
        None,
        &[table.id.into(), definitions.into()],
    )?;
    Ok(true)
}

/// Has the names of pgvector written and read without its schema, which may be another one when an index is built, until the
/// rights that are held are given back.
fn see_vector(client: &mut SpiClient<'_>, schema: &str) -> Result<()> {
    let path = format!("set local search_path = pg_catalog, {schema}, pg_temp");
    client.update(&path, None, &[])?;
    Ok(())
}

/// Whether indexes of a vector table are taken away.
pub fn is_held(client: &SpiClient<'_>, id: i32) -> Result<bool> {
    // Until ALTER EXTENSION UPDATE the table may not have the column.
    let rows = client.select(
        "select pg_catalog.to_jsonb(v) -> 'held_indexes' <> 'null' from embedd.vector_tables v where v.id = $1",
        None,
        &[id.into()],
    )?;
    Ok(!rows.is_empty() && rows.first().get_one::<bool>()? == Some(true))
}

/// The indexes that were taken away: the name of each, and its definition behind the name of the table.
pub fn held(client: &SpiClient<'_>, id: i32) -> Result<Vec<(String, String)>> {
    let rows = client.select(
        "select u.d from embedd.vector_tables v cross join unnest(v.held_indexes) with ordinality u(d, n)
          where v.id = $1 order by u.n",
        None,
        &[id.into()],
    )?;
    let mut words = Vec::new();
    for row in rows {
        words.extend(row.get::<String>(1)?);
    }
    let (pairs, _) = words.as_chunks::<2>();
    Ok(pairs.iter().map(|[name, rest]| (name.clone(), rest.clone())).collect())
}

/// Builds one of them, unless the table has one like it: then somebody was quicker. Where another relation has its name, it
/// gets one that is free.
pub fn build(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    name: &str,
    rest: &str,
) -> Result<()> {
    let relation = table.relation_name()?;
    let schema = VectorType::find(client)?.schema;
    // Up to 0.4.0 it was written down with the schema that pgvector had then.
    let rest = &rest.replace(&format!("{schema}."), "");
    let version = client.select(
        "select pg_catalog.string_to_array(pg_catalog.split_part(extversion, '-', 1), '.')::integer[]
                >= pg_catalog.string_to_array($1, '.')::integer[]
           from pg_catalog.pg_extension where extname = 'vector'",
        None,
        &[PARALLEL_SINCE.into()],
    )?;
    let is_sound = !version.is_empty() && version.first().get_one::<bool>()? == Some(true);
    let _rights = Rights::of_owner(table.owner);
    see_vector(client, &schema)?;
    let found = client.select(
        &format!(
            "select exists (select from {INDEXES} where i.indrelid = $1 and i.indisvalid and {REST} = $3),
                    exists (select from pg_catalog.pg_class c
                              join pg_catalog.pg_class t on t.relnamespace = c.relnamespace
                             where t.oid = $1 and c.relname = $2)"
        ),
        None,
        &[table.relation.into(), name.into(), rest.as_str().into()],
    )?;
    let (is_built, is_taken) = found.first().get_two::<bool, bool>()?;
    if is_built == Some(true) {
        return Ok(());
    }
    if !is_sound {
        client.update("set local max_parallel_maintenance_workers = 0", None, &[])?;
    }
    let name = match is_taken {
        Some(true) => String::new(),
        _ => quote_ident(name),
    };
    command::run(client, &format!("create index {name} on {relation}{rest}"))
}

/// Notes that all of them are in place again.
pub fn forget_held(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables set held_indexes = null where id = $1",
        None,
        &[id.into()],
    )?;
    Ok(())
}
