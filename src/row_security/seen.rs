//! The rows of a vector table that a policy lets a reader see, learned from the source before a search where they are few.

use std::cell::RefCell;
use std::collections::HashSet;

use pgrx::pg_sys;
use pgrx::spi::SpiClient;

use super::POLICY;
use super::reader::{MOST_KEYS, Statements, statements};
use crate::catalog::{VectorTable, sight};
use crate::datum::texts;
use crate::error::Result;
use crate::rights;

/// So many rows of a source are sampled; a source with fewer than twice as many is not worth it.
const SAMPLED: f32 = 1000.0;

/// What the reader sees of a vector table. Keys that it has are used by the policy of the vector table while it lives.
pub struct Seen {
    /// The part of all rows, about.
    pub part: f64,
    /// The keys of the rows, where they are few.
    pub keys: Option<Vec<String>>,
    /// The statement that returns them.
    pub statement: String,
    origin_id: i32,
    /// What was in force before, to be put back; None while these keys are not in force.
    before: Option<Option<InForce>>,
}

/// The keys that one role may see of one vector table (its origin_id).
struct InForce {
    origin_id: i32,
    role: pg_sys::Oid,
    keys: HashSet<String>,
}

thread_local! {
    static IN_FORCE: RefCell<Option<InForce>> = const { RefCell::new(None) };
}

impl Seen {
    /// Reads the keys for the policy, before a statement that tests most rows of the vector table.
    pub fn hold(&mut self, client: &SpiClient<'_>) -> Result<()> {
        if self.before.is_none() {
            let _path = rights::pin_path();
            let keys = texts(client.select(&self.statement, None, &[])?)?;
            self.put_in_force(keys.into_iter().collect());
        }
        Ok(())
    }

    fn put_in_force(&mut self, keys: HashSet<String>) {
        let now = InForce { origin_id: self.origin_id, role: role(), keys };
        self.before = Some(IN_FORCE.replace(Some(now)));
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            IN_FORCE.set(before);
        }
    }
}

/// Whether the current role may see a key, as far as that is in force; None where it is not.
pub(super) fn is_seen(origin_id: i32, pk_value: &str) -> Option<bool> {
    IN_FORCE.with_borrow(|seen| {
        let seen = seen.as_ref().filter(|seen| seen.origin_id == origin_id)?;
        (seen.role == role()).then(|| seen.keys.contains(pk_value))
    })
}

fn role() -> pg_sys::Oid {
    // SAFETY: a plain read of the process's own state.
    unsafe { pg_sys::GetUserId() }
}

/// What the current role sees of a vector table by the policies of its source; with the keys where that is less than the part
/// `few`. None where no policy applies, where other policies may show more, and where it cannot be learned quickly.
pub fn seen(client: &SpiClient<'_>, table: &VectorTable, few: f64) -> Result<Option<Seen>> {
    if !sight::has_policies(table.relation, role()) || !has_one_policy(client, table)? {
        return Ok(None);
    }
    let Some(Statements { all, size, .. }) = statements(table.origin_id)? else { return Ok(None) };
    let Some(source) = sampled(client, table)? else { return Ok(None) };
    if !(2.0 * SAMPLED..=MOST_KEYS).contains(&size) {
        return Ok(None);
    }
    let _path = rights::pin_path();
    let percent = 100.0 * SAMPLED / size;
    let rows = client.select(
        &format!("select count(*) from {source} s tablesample pg_catalog.system ({percent})"),
        None,
        &[],
    )?;
    let matching = rows.first().get_one::<i64>()?.unwrap_or(0);
    // One more than were seen: of a sample without a row it is not known that there is none.
    let part = ((matching as f64 + 1.0) / f64::from(SAMPLED)).min(1.0);
    let origin_id = table.origin_id;
    let mut seen = Seen { part, keys: None, statement: all, origin_id, before: None };
    if part < few {
        let keys = texts(client.select(&seen.statement, None, &[])?)?;
        seen.part = (keys.len() as f64 / f64::from(size)).min(1.0);
        seen.put_in_force(keys.iter().cloned().collect());
        seen.keys = Some(keys);
    }
    Ok(Some(seen))
}

/// Whether the policy of embedd is the only one that shows rows. Restrictive ones show fewer, which does no harm.
fn has_one_policy(client: &SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    let rows = client.select(
        "select pg_catalog.bool_and(p.polname = $2) from pg_catalog.pg_policy p where p.polrelid = $1 and p.polpermissive",
        None,
        &[table.relation.into(), POLICY.into()],
    )?;
    Ok(rows.first().get_one::<bool>()? == Some(true))
}

/// The name of a source whose rows can be sampled, and which the current role may read.
fn sampled(client: &SpiClient<'_>, table: &VectorTable) -> Result<Option<String>> {
    let rows = client.select(
        "select pg_catalog.format('%I.%I', n.nspname, c.relname)
           from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where c.oid = $1 and c.relkind in ('r', 'p', 'm') and pg_catalog.has_any_column_privilege(c.oid, 'SELECT')",
        None,
        &[table.source.into()],
    )?;
    match rows.is_empty() {
        true => Ok(None),
        false => Ok(rows.first().get_one::<String>()?),
    }
}
