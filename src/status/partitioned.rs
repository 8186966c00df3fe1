//! Counts the rows of a partitioned table, a few partitions at a time, without waiting for locks or keeping them.

use pgrx::Spi;

use crate::catalog::partitions::{Leaf, lock_if_free};
use crate::error::{Error, Result};
use crate::rights::RoleSwitch;
use crate::transaction;

/// Partitions in one statement.
const AT_ONCE: usize = 16;

/// The count.
pub struct Rows {
    pub rows: i64,
    pub is_estimated: bool,
    /// A partition that another session has locked.
    pub locked: Option<String>,
}

/// The rows of these partitions, which the owner may read: counted up to `most`, estimated beyond.
pub fn rows(leaves: &[Leaf], owner: pgrx::pg_sys::Oid, most: i64) -> Result<Rows> {
    let mut found = Rows { rows: 0, is_estimated: false, locked: None };
    let mut groups = leaves.chunks(AT_ONCE);
    while let Some(group) = groups.next() {
        let counted = look(group, owner, most - found.rows)?;
        found.locked = found.locked.or(counted.locked);
        if found.rows + counted.rows <= most {
            found.rows += counted.rows;
            continue;
        }
        // The density of the rows that were read of this group.
        let mut blocks = counted.size;
        for others in groups.by_ref() {
            blocks += look(others, owner, 0)?.size;
        }
        let density = counted.rows as f64 / counted.read.max(1) as f64;
        let statistics: f64 = leaves.iter().filter_map(|leaf| leaf.rows).sum();
        let estimate = found.rows as f64 + density * blocks as f64;
        found.rows = (found.rows + counted.rows).max(estimate.max(statistics) as i64);
        found.is_estimated = true;
        break;
    }
    Ok(found)
}

/// The counts of some partitions.
struct Group {
    rows: i64,
    /// Blocks that were read.
    read: i64,
    /// Blocks in total.
    size: i64,
    locked: Option<String>,
}

/// Reads at most `most` + 1 rows of some partitions.
fn look(leaves: &[Leaf], owner: pgrx::pg_sys::Oid, most: i64) -> Result<Group> {
    let looked = transaction::nested_read(|| {
        let (free, locked): (Vec<&Leaf>, Vec<&Leaf>) =
            leaves.iter().partition(|leaf| lock_if_free(leaf.relation));
        let locked = locked.first().map(|leaf| leaf.name.clone());
        if free.is_empty() {
            return Ok(Group { rows: 0, read: 0, size: 0, locked });
        }
        let rows: Vec<String> = free
            .iter()
            .map(|leaf| format!("select tableoid, ctid from only {}", leaf.name))
            .collect();
        let relations: Vec<pgrx::pg_sys::Oid> = free.iter().map(|leaf| leaf.relation).collect();
        let query = format!(
            "select coalesce(sum(f.rows), 0)::bigint, coalesce(sum(f.blocks), 0)::bigint,
                    (select coalesce(sum(pg_catalog.pg_relation_size(r)), 0)::bigint from unnest($1::oid[]) r)
                    / pg_catalog.current_setting('block_size')::bigint
               from (select count(*) as rows, 1 + max((f.ctid::text::point)[0])::bigint as blocks
                       from (select * from ({}) f limit {}) f group by f.tableoid) f",
            rows.join(" union all "),
            most + 1
        );
        Spi::connect(|client| {
            let _rights = RoleSwitch::of_owner(owner);
            let row = client.select(&query, None, &[relations.into()])?.first();
            let number = |n: usize| -> Result<i64> { Ok(row.get::<i64>(n)?.unwrap_or_default()) };
            Ok(Group { rows: number(1)?, read: number(2)?, size: number(3)?, locked })
        })
    });
    looked.map_err(Error::from)
}
