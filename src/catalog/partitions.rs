//! Lists the partitions of a relation without locking each of them.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::sight;
use crate::error::Result;
use crate::relation::qualified_name;

/// The relations `tree(relid)` below and with `$1`. Not pg_partition_tree(), which locks every partition.
pub const TREE: &str = "with recursive tree(relid) as (
                select $1
                 union
                select i.inhrelid from tree t join pg_catalog.pg_inherits i on i.inhparent = t.relid)";

/// A leaf partition.
pub struct Leaf {
    pub relation: pg_sys::Oid,
    /// Its quoted and qualified name.
    pub name: String,
    /// Its row count at the last vacuum or analyze.
    pub rows: Option<f64>,
}

/// The leaf partitions of a partitioned table, if a role may read all rows of each. None for other relations, and if
/// only the table as a whole can be read.
pub fn readable(
    client: &SpiClient<'_>,
    relation: pg_sys::Oid,
    role: pg_sys::Oid,
) -> Result<Option<Vec<Leaf>>> {
    // SAFETY: a syscache look-up in a transaction.
    if unsafe { pg_sys::get_rel_relkind(relation) } as u8 != pg_sys::RELKIND_PARTITIONED_TABLE {
        return Ok(None);
    }
    let rows = client.select(
        &format!(
            "{TREE}
         select c.oid, nullif(c.reltuples, -1)::float8,
                c.relkind = 'r' and pg_catalog.has_table_privilege($2, c.oid, 'SELECT')
           from tree t join pg_catalog.pg_class c on c.oid = t.relid
          where c.relkind <> 'p' order by c.oid"
        ),
        None,
        &[relation.into(), role.into()],
    )?;
    let mut leaves = Vec::new();
    for row in rows {
        let Some(leaf) = row.get::<pg_sys::Oid>(1)? else { return Ok(None) };
        // Dropped meanwhile.
        let Some(name) = qualified_name(leaf) else { continue };
        if row.get::<bool>(3)? != Some(true) || sight::has_policies(leaf, role) {
            return Ok(None);
        }
        leaves.push(Leaf { relation: leaf, name, rows: row.get(2)? });
    }
    Ok(Some(leaves))
}

/// Locks a relation against drops and rewrites until the end of the transaction, without waiting.
pub fn lock_if_free(relation: pg_sys::Oid) -> bool {
    // SAFETY: takes a lock of the lock manager in a transaction, and does not wait.
    unsafe {
        pg_sys::ConditionalLockRelationOid(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE)
    }
}
