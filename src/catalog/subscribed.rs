//! What logical replication does to embedd's own tables.

use pgrx::spi::SpiClient;

use super::sight;
use crate::error::Result;
use crate::relation;

/// Makes room for the rows of the model catalog that a subscription is about to copy: the same ones are here already, and
/// their copy would fail for ever. True when it did.
pub fn make_room_for_models(client: &mut SpiClient<'_>) -> Result<bool> {
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

/// Whether embedd's own tables are filled by logical replication, so that another cluster does the work.
pub fn is_subscribed(client: &SpiClient<'_>) -> Result<bool> {
    match relation::own(c"vector_tables") {
        Some(own) => sight::is_subscribed(client, own),
        None => Ok(false),
    }
}
