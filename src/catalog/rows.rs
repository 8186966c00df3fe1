//! Rows of vector tables that stand out: those that cannot be embedded, and those of which only the beginning was.

use pgrx::spi::SpiClient;

use crate::error::Result;

/// Keeps count of the rows of one table whose text was cut: `cut` were, the rest of `keys` were not.
pub fn set_truncated(
    client: &mut SpiClient<'_>,
    id: i32,
    keys: &[String],
    cut: &[String],
) -> Result<()> {
    client.update(
        "delete from embedd.truncated_rows where table_id = $1 and pk_value = any($2)",
        None,
        &[id.into(), keys.to_vec().into()],
    )?;
    if !cut.is_empty() {
        client.update(
            "insert into embedd.truncated_rows (table_id, pk_value)
             select $1, k from unnest($2) k on conflict do nothing",
            None,
            &[id.into(), cut.to_vec().into()],
        )?;
    }
    Ok(())
}

/// Notes that a row cannot be embedded, and why.
pub fn set_failed(client: &mut SpiClient<'_>, id: i32, key: &str, reason: &str) -> Result<()> {
    client.update(
        "insert into embedd.failed_rows as f (table_id, pk_value, reason) values ($1, $2, $3)
         on conflict (table_id, pk_value) do update set reason = excluded.reason, failed_at = pg_catalog.now()",
        None,
        &[id.into(), key.into(), reason.into()],
    )?;
    Ok(())
}

/// Forgets that rows once failed.
pub fn forget_failed(client: &mut SpiClient<'_>, id: i32, keys: &[String]) -> Result<()> {
    client.update(
        "delete from embedd.failed_rows where table_id = $1 and pk_value = any($2)",
        None,
        &[id.into(), keys.to_vec().into()],
    )?;
    Ok(())
}
