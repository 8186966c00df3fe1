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
    /// The statement that returns the keys of the rows.
    pub statement: String,
    origin_id: i32,
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
    Ok(Some(Seen { part, statement: all, origin_id }))
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
    /// Whether the rows are so few that an exact answer looks them up by their keys.
    pub fn is_little(&self) -> bool {
        self.part < plan::RARE
    }

    /// Reads the keys of the rows from the source.
    pub fn keys(&self, client: &SpiClient<'_>) -> Result<Vec<String>> {
        let _path = rights::pin_path();
        texts(client.select(&self.statement, None, &[])?)
    }

    /// Lets the policy use these keys, before a statement that tests most rows of the vector table.
    pub fn hold(&self, keys: &[String]) -> Held {
        row_security::hold(self.origin_id, keys.iter().cloned())
    }
}

impl Wanted {
    /// The same for a reader who sees a part of the rows.
    pub fn seeing(&self, seen: Option<&Seen>, condition: &Condition) -> Wanted {
        let mut wanted = self.clone();
        if let Some(seen) = seen {
            wanted.is_served |= seen.is_little();
            // How many of the rows match a filter too is not known.
            wanted.kept = (condition.sql == "true").then_some(seen.part);
        }
        wanted
    }
}
