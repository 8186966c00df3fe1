//! Checks of vector indexes: missing, invalid, unused, or deferred.

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
use crate::rights::RoleSwitch;
use crate::table;

/// Checks the vector indexes of each vector table.
pub fn examine(report: &mut Report, scope: &Scope) -> Result<()> {
    for seen in &scope.tables {
        let table = &seen.table;
        report.check("vector_index", &table.name, |client| indexes(client, table))?;
    }
    Ok(())
}

/// The indexes on the vector column of a table: whether each is valid or being built, whether queries can use it (same
/// rows, cosine distance), and whether it has ever been scanned.
const INDEXES: &str = "
    select i.indexrelid, i.indisvalid,
           exists (select from pg_catalog.pg_stat_progress_create_index p where p.index_relid = i.indexrelid),
           i.indpred is null and y.typname = $2 and (i.indkey[0] = 0) = $3
               and exists (select from pg_catalog.pg_amop m
                             join pg_catalog.pg_operator p on p.oid = m.amopopr
                            where m.amopfamily = o.opcfamily and m.amoplefttype = o.opcintype and m.amoppurpose = 'o'
                              and p.oprname = $4),
           c.relkind = 'i' and pg_catalog.pg_stat_get_numscans(i.indexrelid) = 0
      from pg_catalog.pg_index i
      join pg_catalog.pg_class c on c.oid = i.indexrelid
      join pg_catalog.pg_opclass o on o.oid = i.indclass[0]
      join pg_catalog.pg_type y on y.oid = o.opcintype
     where i.indrelid = $1 and y.typname in ('vector', 'halfvec', 'sparsevec', 'bit')
     order by i.indexrelid";

fn indexes(client: &SpiClient<'_>, vectors: &VectorTable) -> Result<Vec<Finding>> {
    let Some(relation) = &vectors.relation_name else { return Ok(Vec::new()) };
    let rights = RoleSwitch::of_extension()?;
    let column = vectors.vector_column();
    let (of, operator) = column.indexed_as();
    let arguments =
        [vectors.relation.into(), of.into(), column.has_expression().into(), operator.into()];
    let rows = client.select(INDEXES, None, &arguments)?;
    let (mut found, mut serves) = (Vec::new(), false);
    for row in rows {
        let Some(index) = row.get::<pg_sys::Oid>(1)?.and_then(qualified_name) else { continue };
        let is = |n: usize| -> Result<bool> { Ok(row.get::<bool>(n)? == Some(true)) };
        let (is_valid, is_being_built, is_of_use, is_unused) = (is(2)?, is(3)?, is(4)?, is(5)?);
        serves |= is_of_use && (is_valid || is_being_built);
        if !is_valid && !is_being_built {
            let meaning = format!(
                "the index of {relation} is invalid: its build did not finish, so it slows down writes and no query uses it"
            );
            // A valid index exists or is being built, so this one can be dropped.
            let remedy = match is_of_use {
                true => format!("REINDEX INDEX {index};"),
                false => format!("DROP INDEX {index};"),
            };
            found.push(Finding::warning("invalid_index", &index, meaning).with(remedy));
            serves |= is_of_use;
        } else if is_valid && !is_of_use && is_unused {
            let meaning = format!(
                "the index of {relation} does not support cosine distance, which queries use, and was never scanned on this server: it only slows down writes"
            );
            let remedy = format!("DROP INDEX {index};");
            found.push(Finding::warning("unused_index", &index, meaning).with(remedy));
        }
    }
    if index::has_deferred(client, vectors.id)? {
        found.extend(deferred(client, vectors)?);
    } else if !serves {
        drop(rights);
        // Without a definition the vector table has no index by choice, or too many dimensions for one.
        if let Some(definition) = table::index_definition(client, &column)? {
            found.push(missing(client, vectors, relation, &definition)?);
        }
    }
    Ok(found)
}

/// A vector table without an index that queries can use.
fn missing(
    client: &SpiClient<'_>,
    vectors: &VectorTable,
    relation: &str,
    definition: &str,
) -> Result<Finding> {
    let meaning =
        format!("{relation} has no index that queries can use: each query reads all rows");
    let version = extension::vector_version(client)?;
    let before = match extension::is_older(&version, index::PARALLEL_SINCE) {
        true => "SET max_parallel_maintenance_workers = 0; ",
        false => "",
    };
    let remedy = format!("{before}CREATE INDEX ON {relation}{definition};");
    Ok(Finding::warning("vector_index", &vectors.name, meaning).with(remedy))
}

/// Indexes deferred until after a load, with no process about to build them.
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
            found("its vector index was deferred until the end of a load that is not running: each query reads all rows")
                .with(remedy::call("backfill", &vectors.name)),
        ),
        Some("index") => {
            // SAFETY: a plain global, set at server start.
            let enough = unsafe { pg_sys::max_worker_processes }.saturating_add(1).to_string();
            Some(
                found("its deferred vector index has no process to build it: max_worker_processes may be reached")
                    .with(remedy::set_and_restart("max_worker_processes", &enough)),
            )
        }
        Some(_) => None,
    })
}
