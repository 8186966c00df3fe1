//! Checks of the vector indexes: missing, invalid, of no use for questions, or waiting to be built.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::finding::Finding;
use super::report::Report;
use super::{Scope, remedy};
use crate::catalog::VectorTable;
use crate::error::Result;
use crate::extension;
use crate::index;
use crate::relation::qualified_name;
use crate::rights::Rights;
use crate::table;

/// Looks at the vector indexes of each vector table.
pub fn examine(report: &mut Report, scope: &Scope) -> Result<()> {
    for seen in &scope.tables {
        let table = &seen.table;
        report.look("vector_index", &table.name, |client| indexes(client, table))?;
    }
    Ok(())
}

/// The indexes of a table that are over vectors: whether each is valid, or is being built; whether it orders the rows that a
/// question compares by the distance that it asks for; and whether anything has used it.
const INDEXES: &str = "
    select i.indexrelid, i.indisvalid,
           exists (select from pg_catalog.pg_stat_progress_create_index p where p.index_relid = i.indexrelid),
           i.indpred is null and y.typname = $2
               and (i.indkey[0] = 0) = (y.typname <> 'vector')
               and exists (select from pg_catalog.pg_amop m
                             join pg_catalog.pg_operator p on p.oid = m.amopopr
                            where m.amopfamily = o.opcfamily and m.amoplefttype = o.opcintype and m.amoppurpose = 'o'
                              and p.oprname = '<=>'),
           c.relkind = 'i' and pg_catalog.pg_stat_get_numscans(i.indexrelid) = 0
      from pg_catalog.pg_index i
      join pg_catalog.pg_class c on c.oid = i.indexrelid
      join pg_catalog.pg_opclass o on o.oid = i.indclass[0]
      join pg_catalog.pg_type y on y.oid = o.opcintype
     where i.indrelid = $1 and y.typname in ('vector', 'halfvec', 'sparsevec', 'bit')
     order by i.indexrelid";

fn indexes(client: &SpiClient<'_>, vectors: &VectorTable) -> Result<Vec<Finding>> {
    let Some(relation) = &vectors.relation_name else { return Ok(Vec::new()) };
    let rights = Rights::of_extension()?;
    let rows = client.select(
        INDEXES,
        None,
        &[vectors.relation.into(), table::indexed_type(vectors.dimensions).into()],
    )?;
    let (mut found, mut serves) = (Vec::new(), false);
    for row in rows {
        let Some(index) = row.get::<pg_sys::Oid>(1)?.and_then(qualified_name) else { continue };
        let is = |n: usize| -> Result<bool> { Ok(row.get::<bool>(n)? == Some(true)) };
        let (is_valid, is_being_built, is_of_use, is_unused) = (is(2)?, is(3)?, is(4)?, is(5)?);
        serves |= is_of_use && (is_valid || is_being_built);
        if !is_valid && !is_being_built {
            let meaning = format!(
                "the index of {relation} was not built to its end: each change pays for it, and no question uses it"
            );
            // What it would give is there or is made: it only has to go.
            let remedy = match is_of_use {
                true => format!("REINDEX INDEX {index};"),
                false => format!("DROP INDEX {index};"),
            };
            found.push(Finding::warning("invalid_index", &index, meaning).with(remedy));
            serves |= is_of_use;
        } else if is_valid && !is_of_use && is_unused {
            let meaning = format!(
                "the index of {relation} does not order by the cosine distance that questions ask for, and nothing has used it on this server: each change pays for it"
            );
            let remedy = format!("DROP INDEX {index};");
            found.push(Finding::warning("unused_index", &index, meaning).with(remedy));
        }
    }
    if index::is_held(client, vectors.id)? {
        found.extend(deferred(client, vectors)?);
    } else if !serves {
        drop(rights);
        found.push(missing(client, vectors, relation)?);
    }
    Ok(found)
}

/// A vector table that has no index that serves questions.
fn missing(client: &SpiClient<'_>, vectors: &VectorTable, relation: &str) -> Result<Finding> {
    let key = table::index_key(client, vectors.dimensions)?;
    let meaning =
        format!("{relation} has no index that serves questions: each question reads every row");
    let version = extension::vector_version(client)?;
    let before = match extension::is_older(&version, index::PARALLEL_SINCE) {
        true => "SET max_parallel_maintenance_workers = 0; ",
        false => "",
    };
    let remedy = format!("{before}CREATE INDEX ON {relation} USING hnsw ({key});");
    Ok(Finding::warning("vector_index", &vectors.name, meaning).with(remedy))
}

/// Indexes that were taken away before a load, and that no process is about to build.
fn deferred(client: &SpiClient<'_>, vectors: &VectorTable) -> Result<Option<Finding>> {
    let rows = client.select(
        "select exists (select from pg_catalog.pg_stat_activity a
                         where a.datname = pg_catalog.current_database() and a.backend_type = 'embedd index builder'),
                (select t.phase from embedd.tasks t where t.target_id = $1 and t.status in ('pending', 'running') limit 1)",
        None,
        &[vectors.id.into()],
    )?;
    let (is_being_built, phase) = rows.first().get_two::<bool, String>()?;
    if is_being_built == Some(true) {
        return Ok(None);
    }
    let found = |meaning: &str| Finding::warning("deferred_index", &vectors.name, meaning);
    Ok(match phase.as_deref() {
        None => Some(
            found("its vector index was left for the end of a load that is not going on: each question reads every row")
                .with(remedy::call("backfill", &vectors.name)),
        ),
        Some("index") => {
            // SAFETY: a plain global, set at server start.
            let enough = unsafe { pg_sys::max_worker_processes }.saturating_add(1).to_string();
            Some(
                found("its vector index waits for a process that builds it: there may be no place for one among max_worker_processes")
                    .with(remedy::set_and_restart("max_worker_processes", &enough)),
            )
        }
        Some(_) => None,
    })
}
