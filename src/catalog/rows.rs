//! Failed and truncated rows of vector tables.

use pgrx::spi::SpiClient;

use super::missing;
use crate::error::Result;

/// Records which rows of a table have a truncated text: those in `cut`, and not the rest of `keys`.
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
             select v.id, k from (select id from embedd.vector_tables where id = $1 for key share) v
              cross join (select distinct unnest($2)) u(k)",
            None,
            &[id.into(), cut.to_vec().into()],
        )?;
    }
    Ok(())
}

/// Those of some keys whose rows have a truncated text.
pub fn truncated_keys(client: &mut SpiClient<'_>, id: i32, keys: &[String]) -> Result<Vec<String>> {
    let rows = client.update(
        "select pk_value from embedd.truncated_rows where table_id = $1 and pk_value = any($2)",
        None,
        &[id.into(), keys.to_vec().into()],
    )?;
    rows.into_iter().map(|row| row.get::<String>(1)?.ok_or_else(missing)).collect()
}

/// Records that a row failed, and why; the count restarts after a success.
pub fn set_failed(client: &mut SpiClient<'_>, id: i32, key: &str, reason: &str) -> Result<()> {
    // A unique index could not hold every key. A key belongs to one worker, so no other session records it at the same
    // time.
    client.update(
        "with again as (
            update embedd.failed_rows f
               set reason = $3, failed_at = pg_catalog.now(), attempts = f.attempts + 1
             where f.table_id = $1 and f.pk_value = $2
            returning f.pk_value)
         insert into embedd.failed_rows (table_id, pk_value, reason)
         select v.id, $2, $3 from embedd.vector_tables v
          where v.id = $1 and not exists (select from again) for key share of v",
        None,
        &[id.into(), key.into(), reason.into()],
    )?;
    Ok(())
}

/// How many rows have failed in a shadow that have not in the vector table that it replaces.
pub fn newly_failed(client: &mut SpiClient<'_>, shadow: i32, live: i32) -> Result<i64> {
    let rows = client.update(
        "select count(*) from embedd.failed_rows f
          where f.table_id = $1
            and not exists (select from embedd.failed_rows l where l.table_id = $2 and l.pk_value = f.pk_value)",
        None,
        &[shadow.into(), live.into()],
    )?;
    Ok(rows.first().get_one::<i64>()?.unwrap_or_default())
}

/// Deletes the failures of rows.
pub fn delete_failed(client: &mut SpiClient<'_>, id: i32, keys: &[String]) -> Result<()> {
    if !keys.is_empty() {
        client.update(
            "delete from embedd.failed_rows where table_id = $1 and pk_value = any($2)",
            None,
            &[id.into(), keys.to_vec().into()],
        )?;
    }
    Ok(())
}

/// The failed rows of a table: all, or those with these keys.
pub fn failed_keys(
    client: &mut SpiClient<'_>,
    id: i32,
    keys: Option<&[String]>,
) -> Result<Vec<String>> {
    let rows = client.update(
        "select f.pk_value from embedd.failed_rows f
          where f.table_id = $1 and ($2::text[] is null or f.pk_value = any($2)) order by f.pk_value",
        None,
        &[id.into(), keys.map(<[String]>::to_vec).into()],
    )?;
    rows.into_iter().map(|row| row.get::<String>(1)?.ok_or_else(missing)).collect()
}

/// Those of the given keys that failed before a task began.
pub fn earlier_failed_keys(
    client: &mut SpiClient<'_>,
    id: i32,
    task: i64,
    keys: &[String],
) -> Result<Vec<String>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let rows = client.update(
        "select f.pk_value from embedd.failed_rows f
          where f.table_id = $1 and f.pk_value = any($3)
            and f.failed_at < (select t.started_at from embedd.tasks t where t.task_id = $2)",
        None,
        &[id.into(), task.into(), keys.to_vec().into()],
    )?;
    rows.into_iter().map(|row| row.get::<String>(1)?.ok_or_else(missing)).collect()
}

/// Deletes all failures of a table, because its source has changed.
pub fn delete_all_failed(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update("delete from embedd.failed_rows where table_id = $1", None, &[id.into()])?;
    Ok(())
}

/// Deletes failures from before a task that has retried them: these rows no longer exist.
pub fn delete_earlier_failed(client: &mut SpiClient<'_>, id: i32, task: i64) -> Result<()> {
    client.update(
        "delete from embedd.failed_rows f
          where f.table_id = $1 and f.failed_at < (select t.started_at from embedd.tasks t where t.task_id = $2)",
        None,
        &[id.into(), task.into()],
    )?;
    Ok(())
}
