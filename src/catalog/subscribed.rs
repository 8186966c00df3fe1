//! Logical replication of embedd's own tables.

use pgrx::spi::SpiClient;

use super::sight;
use crate::error::Result;
use crate::relation;

/// Deletes the built-in rows of the model catalog if a subscription is about to copy the same rows, which would
/// otherwise fail forever. True if it did.
pub fn delete_built_in_models(client: &mut SpiClient<'_>) -> Result<bool> {
    let rows = client.select(
        "select 1 from pg_catalog.pg_subscription_rel
          where srrelid = 'embedd.models'::regclass and srsubstate in ('i', 'd')",
        None,
        &[],
    )?;
    if rows.is_empty() {
        return Ok(false);
    }
    let removed =
        client.update("delete from embedd.models where built_in returning 1", None, &[])?;
    Ok(!removed.is_empty())
}

/// Whether logical replication fills embedd's own tables, so that another cluster does the work.
pub fn is_subscribed(client: &SpiClient<'_>) -> Result<bool> {
    match relation::own(c"vector_tables") {
        Some(own) => sight::is_subscribed(client, own),
        None => Ok(false),
    }
}
