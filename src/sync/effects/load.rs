//! Reads the documents of a batch of keys and decides for each row: nothing, remove, rewrite metadata, or embed.

mod plans;

use pgrx::spi::{SpiClient, SpiCursor};

use super::run;
use crate::catalog::{self, VectorTable};
use crate::citus;
use crate::datum::texts;
use crate::document::{DIFFERS, TOO_LARGE};
use crate::error::Result;
use crate::rights::RoleSwitch;
use crate::sync::core::{Document, Lookup};

/// What a row of the vector table needs.
#[derive(Debug)]
pub enum RowAction {
    /// The vector table is right already.
    Nothing,
    /// The source row is gone, the vector row (with this pk_value) is still there.
    Remove(String),
    /// The text is as it was, or there is none: no provider is asked.
    Rewrite(Document),
    /// The vector table that a shadow replaces has the vector of the text.
    Reuse(Document),
    /// The text is new.
    Embed(Document),
    /// The row is not one that can be embedded, for this reason.
    Refuse(String, String),
}

/// Bytes of documents read at once; the rest of the batch is read next time.
const BYTES_AT_ONCE: usize = 8 * 1024 * 1024;

/// The keys of $1 as `k`, their documents as `d`, and their rows of the vector table as `v`.
fn from_sql(table: &VectorTable, lookup: Lookup) -> Result<String> {
    let relation = table.relation_name()?;
    // Of a table in shards the join would fetch all rows with their vectors, for each batch.
    let stored = match citus::is_table(table.relation) {
        true => format!(
            "(select r.pk_value, r.row_hash, r.embedded_text, nullif(r.embedding is not null, false) as embedding
                from {relation} r where r.pk_value = any($1))"
        ),
        false => relation.to_string(),
    };
    let documents = match (table.reads_run, lookup) {
        (true, _) => format!("{} and r.pk_value = k.pk", run::SELECT),
        (false, Lookup::Index) => {
            let condition = table.key.matches("s", &table.key.values("k.pk"), "k.pk");
            table.documents(&table.source_name()?, &condition)
        }
        (false, Lookup::FullScan) => {
            let condition = format!("{} = k.pk", table.key.pk_value("s"));
            table.documents(&table.source_name()?, &condition)
        }
    };
    Ok(format!(
        "from unnest($1::text[]) with ordinality k(pk, ord)
         left join lateral ({documents}) d on true
         left join {stored} v on v.pk_value = k.pk"
    ))
}

/// Those of some keys whose rows are not in the vector table as they should be.
///
/// Runs with the rights of the vector table's owner.
pub fn different(
    client: &SpiClient<'_>,
    table: &VectorTable,
    keys: &[String],
) -> Result<Vec<String>> {
    let query = format!(
        "select k.pk {}
          where {DIFFERS} or (d.pk_value is null and v.pk_value is not null)
          order by k.ord",
        from_sql(table, Lookup::Index)?
    );
    let _rights = RoleSwitch::of_owner(table.owner);
    plans::run(client, &query, |plan| texts(client.select(plan, None, &[keys.to_vec().into()])?))
}

/// Those of some keys that no row of the source has.
///
/// Runs with the rights of the vector table's owner.
pub fn gone(
    client: &SpiClient<'_>,
    table: &VectorTable,
    keys: &[String],
    lookup: Lookup,
) -> Result<Vec<String>> {
    let source = table.source_name()?;
    let condition = match lookup {
        Lookup::Index => table.key.matches("s", &table.key.values("k.pk"), "k.pk"),
        Lookup::FullScan => format!("{} = k.pk", table.key.pk_value("s")),
    };
    let query = format!(
        "select k.pk from unnest($1::text[]) with ordinality k(pk, ord)
          where not exists (select 1 from {source} s where {condition}) order by k.ord"
    );
    let _rights = RoleSwitch::of_owner(table.owner);
    plans::run(client, &query, |plan| texts(client.select(plan, None, &[keys.to_vec().into()])?))
}

/// The process that holds a row of the source or of the vector table, where one transaction alone does.
///
/// Runs with the rights of the vector table's owner, but for the look at the locks.
pub fn lock_holder(client: &SpiClient<'_>, table: &VectorTable, key: &str) -> Result<Option<i32>> {
    let mut holders = Vec::new();
    {
        let stored =
            format!("select v.xmax::text from {} v where v.pk_value = $1", table.relation_name()?);
        let condition = table.key.matches("s", &table.key.values("$1"), "$1");
        let source =
            format!("select s.xmax::text from {} s where {condition}", table.source_name()?);
        let _rights = RoleSwitch::of_owner(table.owner);
        for query in [stored, source] {
            holders.extend(texts(client.select(&query, None, &[key.into()])?)?);
        }
    }
    let rows = client.select(
        "select l.pid from pg_catalog.pg_locks l
          where l.locktype = 'transactionid' and l.granted and l.transactionid::text = any($1)
            and l.pid <> pg_catalog.pg_backend_pid() limit 1",
        None,
        &[holders.into()],
    )?;
    Ok(match rows.is_empty() {
        true => None,
        false => rows.first().get_one::<i32>()?,
    })
}

/// The action for each key, in the order of `keys`; None for those that were not read for lack of room.
///
/// Runs with the rights of the vector table's owner.
pub fn row_actions(
    client: &SpiClient<'_>,
    table: &VectorTable,
    keys: &[&str],
    lookup: Lookup,
) -> Result<Vec<Option<RowAction>>> {
    let copies = if table.reads_run { "d.copies" } else { "1::bigint" };
    let (is_there, reused) = match &table.reuses {
        Some(reused) => (
            "u.pk_value is not null",
            format!(
                "left join {} u on u.pk_value = k.pk and u.embedded_text = d.embedded_text and u.embedding is not null",
                reused.name
            ),
        ),
        None => ("false", String::new()),
    };
    let query = format!(
        "select k.ord, k.pk, d.embedded_text, d.metadata::text, d.row_hash, v.pk_value is not null, v.row_hash,
                v.embedded_text = d.embedded_text and v.embedding is not null, {copies}, {is_there}
         {} {reused}",
        from_sql(table, lookup)?
    );
    let noted: Vec<String> = keys.iter().map(|k| k.to_string()).collect();
    let _rights = RoleSwitch::of_owner(table.owner);
    plans::run(client, &query, |plan| {
        read_actions(client.try_open_cursor(plan, &[noted.into()])?, keys.len())
    })
}

/// The actions of as many keys as there is room for, of this many.
fn read_actions(mut cursor: SpiCursor<'_>, keys: usize) -> Result<Vec<Option<RowAction>>> {
    let mut actions: Vec<Option<RowAction>> = (0..keys).map(|_| None).collect();
    let mut bytes = 0;
    while bytes < BYTES_AT_ONCE {
        // One by one, since the next may be large.
        let rows = cursor.fetch(1)?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let ordinal = row.get::<i64>(1)?.unwrap_or_default();
            let Some(pk_value) = row.get::<String>(2)? else { continue };
            let text = row.get::<String>(3)?;
            let is_stored = row.get::<bool>(6)?.unwrap_or_default();
            let hash = row.get::<String>(5)?;
            let action = match text {
                _ if row.get::<i64>(9)?.is_some_and(|copies| copies > 1) => {
                    let reason = "the key is that of several rows of the source";
                    RowAction::Refuse(pk_value, reason.to_string())
                }
                None if hash.as_deref() == Some(TOO_LARGE) => {
                    RowAction::Refuse(pk_value, catalog::too_large())
                }
                None if is_stored => RowAction::Remove(pk_value),
                None => RowAction::Nothing,
                Some(text) => {
                    let metadata = row.get::<String>(4)?.unwrap_or_default();
                    let row_hash = hash.unwrap_or_default();
                    bytes += text.len() + metadata.len();
                    let same_row = row.get::<String>(7)?.is_some_and(|stored| stored == row_hash);
                    let same_text = row.get::<bool>(8)?.unwrap_or_default();
                    let is_empty = text.is_empty();
                    let document = Document { pk_value, text, metadata, row_hash };
                    if same_row && (same_text || is_empty) {
                        RowAction::Nothing
                    } else if same_text || is_empty {
                        RowAction::Rewrite(document)
                    } else if row.get::<bool>(10)? == Some(true) {
                        RowAction::Reuse(document)
                    } else {
                        RowAction::Embed(document)
                    }
                }
            };
            if let Some(slot) = actions.get_mut(ordinal as usize - 1) {
                *slot = Some(action);
            }
        }
    }
    Ok(actions)
}
