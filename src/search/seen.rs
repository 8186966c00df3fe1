//! What a reader sees of a vector table whose policy follows the source: learned from the source before a search.

use pgrx::spi::SpiClient;

use super::measure;
use super::nearest::Wanted;
use super::plan::{self, Sample};
use crate::catalog::VectorTable;
use crate::datum::texts;
use crate::error::Result;
use crate::filter::Condition;
use crate::rights;
use crate::row_security::{self, Held, MOST_KEYS, Statements};

/// What the reader sees.
pub struct Seen {
    /// The part of all rows, about.
    part: f64,
    /// The keys of the rows, where they are few.
    pub keys: Option<Vec<String>>,
    /// The statement that returns them.
    pub statement: String,
    origin_id: i32,
    held: Option<Held>,
}

/// What the policies show to the reader, where the plan depends on it. None where no policy of embedd applies, where others may
/// show more, and where it cannot be learned quickly.
pub fn seen(client: &SpiClient<'_>, table: &VectorTable, wanted: &Wanted) -> Result<Option<Seen>> {
    if wanted.ef_search.is_some() || !row_security::shows_the_source(client, table)? {
        return Ok(None);
    }
    let origin_id = table.origin_id;
    let Some(Statements { all, size, .. }) = row_security::statements(origin_id)? else {
        return Ok(None);
    };
    let rows = f64::from(size);
    let (Sample::Percent(percent), Some(source)) = (plan::sample(rows, false), &table.source_name)
    else {
        return Ok(None);
    };
    if size > MOST_KEYS || !can_be_sampled(client, table)? {
        return Ok(None);
    }
    let _path = rights::pin_path();
    let part = measure::matching(client, source, ("true", &[]), rows, percent)?;
    let mut seen = Seen { part, keys: None, statement: all, origin_id, held: None };
    if part < plan::RARE {
        let keys = texts(client.select(&seen.statement, None, &[])?)?;
        seen.part = (keys.len() as f64 / rows).min(1.0);
        seen.held = Some(row_security::hold(origin_id, keys.iter().cloned()));
        seen.keys = Some(keys);
    }
    Ok(Some(seen))
}

/// Whether rows of the source can be sampled, and the current role may read it.
fn can_be_sampled(client: &SpiClient<'_>, table: &VectorTable) -> Result<bool> {
    let rows = client.select(
        "select c.relkind in ('r', 'p', 'm') and pg_catalog.has_any_column_privilege(c.oid, 'SELECT')
           from pg_catalog.pg_class c where c.oid = $1",
        None,
        &[table.source.into()],
    )?;
    Ok(!rows.is_empty() && rows.first().get_one::<bool>()? == Some(true))
}

impl Seen {
    /// Reads the keys for the policy, before a statement that tests most rows of the vector table.
    pub fn hold(&mut self, client: &SpiClient<'_>) -> Result<()> {
        if self.held.is_none() {
            let _path = rights::pin_path();
            let keys = texts(client.select(&self.statement, None, &[])?)?;
            self.held = Some(row_security::hold(self.origin_id, keys));
        }
        Ok(())
    }
}

impl Wanted {
    /// The same for a reader who sees a part of the rows.
    pub fn seeing(&self, seen: Option<&Seen>, condition: &Condition) -> Wanted {
        let mut wanted = self.clone();
        if let Some(seen) = seen {
            wanted.is_served |= seen.keys.is_some();
            // How many of the rows match the filter too is not known, but they are few enough to be read.
            let is_known = seen.keys.is_some() || condition.sql == "true";
            wanted.kept = is_known.then_some(seen.part);
        }
        wanted
    }
}
