//! The only reader and writer of embedd's own tables, but the queue.

mod rows;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::thread::LocalKey;

use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiTupleTable};
use pgrx::{JsonB, spi};

use crate::document::Column;
use crate::error::{Error, Result};
use crate::models::{self, Entry};
use crate::queue;
use crate::server::{owner_of, qualified_name, system_id};

pub use rows::{forget_failed, set_failed, set_truncated};

/// The provider that is always there.
pub const LOCAL_PROVIDER: &str = "local";
/// Its model, and the name of the directory that holds it.
pub const LOCAL_MODEL: &str = "all-MiniLM-L6-v2";

/// State of a vector table's sync, in the words of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Pending,
    Backfilling,
    Synced,
    Paused,
    Error,
    PendingRebackfill,
}

impl Status {
    const ALL: [Self; 6] = [
        Self::Pending,
        Self::Backfilling,
        Self::Synced,
        Self::Paused,
        Self::Error,
        Self::PendingRebackfill,
    ];

    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Backfilling => "backfilling",
            Self::Synced => "synced",
            Self::Paused => "paused",
            Self::Error => "error",
            Self::PendingRebackfill => "pending_rebackfill",
        }
    }

    fn parse(word: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == word)
            .ok_or_else(|| Error::Damaged { what: format!("sync_status is \"{word}\"") })
    }
}

/// A vector table as embedd knows it.
#[derive(Clone, Debug)]
pub struct VectorTable {
    pub id: i32,
    pub name: String,
    pub source: pg_sys::Oid,
    /// Quoted and qualified name of the source; None when it was dropped.
    pub source_name: Option<String>,
    pub key: String,
    /// Qualified name of the key's type.
    pub key_type: String,
    pub relation: pg_sys::Oid,
    /// Quoted and qualified name of the table that holds the vectors; None when it was dropped.
    pub relation_name: Option<String>,
    pub provider: String,
    pub model: String,
    /// Numbers in one vector.
    pub dimensions: i32,
    /// What the model catalog knows of a model of this name, by kind of provider.
    pub known_models: BTreeMap<String, Entry>,
    pub columns: Vec<Column>,
    pub owner: pg_sys::Oid,
    pub status: Status,
    /// Cluster that keeps the table in sync.
    pub system_id: i64,
}

impl VectorTable {
    /// A noted key as users see it: the blanks that fill char(n) up are no part of it.
    pub fn shown(&self, key: &str) -> String {
        let key = if self.key_type == "bpchar" { key.trim_end_matches(' ') } else { key };
        key.to_string()
    }

    /// The name of the source, or the error that says it is gone.
    pub fn source_name(&self) -> Result<&str> {
        self.source_name
            .as_deref()
            .ok_or_else(|| Error::RelationGone { what: "source", name: self.name.clone() })
    }

    /// The name of the table with the vectors, or the error that says it is gone.
    pub fn relation_name(&self) -> Result<&str> {
        self.relation_name
            .as_deref()
            .ok_or_else(|| Error::RelationGone { what: "table", name: self.name.clone() })
    }
}

const SELECT: &str = "
    select v.id, v.name, v.source_table::oid, v.primary_key_column, pg_catalog.format_type(v.key_type, null),
           v.vector_table::oid, v.embedding_provider, v.embedding_model, v.embedding_dimensions, v.columns,
           v.owner::oid, v.sync_status, v.system_id,
           (select pg_catalog.jsonb_object_agg(m.provider, pg_catalog.to_jsonb(m))
              from embedd.models m where m.model = v.embedding_model)
      from embedd.vector_tables v";

thread_local! {
    /// The plan of [`find`], which every query of a session needs.
    static FIND: OnceCell<spi::OwnedPreparedStatement> = const { OnceCell::new() };
}

fn missing() -> Error {
    Error::Damaged { what: "null where there can be none".to_string() }
}

/// Reads one row of SELECT.
fn vector_table(row: &spi::SpiHeapTupleData<'_>) -> Result<VectorTable> {
    let text = |n: usize| -> Result<String> { row.get::<String>(n)?.ok_or_else(missing) };
    let oid = |n: usize| -> Result<pg_sys::Oid> { row.get::<pg_sys::Oid>(n)?.ok_or_else(missing) };
    let (source, relation) = (oid(3)?, oid(6)?);
    let columns: JsonB = row.get(10)?.ok_or_else(missing)?;
    Ok(VectorTable {
        id: row.get(1)?.ok_or_else(missing)?,
        name: text(2)?,
        source,
        source_name: qualified_name(source),
        key: text(4)?,
        // Without a length "character" is one character long, and bpchar as many as there are.
        key_type: text(5).map(|t| if t == "character" { "bpchar".to_string() } else { t })?,
        relation,
        relation_name: qualified_name(relation),
        provider: text(7)?,
        model: text(8)?,
        dimensions: row.get(9)?.ok_or_else(missing)?,
        known_models: models::parse_by_kind(row.get(14)?)?,
        columns: serde_json::from_value(columns.0)
            .map_err(|e| Error::Damaged { what: format!("columns: {e}") })?,
        owner: owner_of(relation).map_or_else(|| oid(11), Ok)?,
        status: Status::parse(&text(12)?)?,
        system_id: row.get(13)?.ok_or_else(missing)?,
    })
}

fn vector_tables(rows: SpiTupleTable<'_>) -> Result<Vec<VectorTable>> {
    rows.into_iter().map(|row| vector_table(&row)).collect()
}

/// The vector table of this name.
pub fn find(client: &SpiClient<'_>, name: &str) -> Result<VectorTable> {
    let query = format!("{SELECT} where v.name = $1");
    let rows = kept(&FIND, client, &query, &[PgBuiltInOids::TEXTOID.oid()], &[name.into()])?;
    vector_tables(rows)?.pop().ok_or_else(|| Error::UnknownVectorTable { name: name.to_string() })
}

/// Runs a query with the plan that this process keeps for it.
fn kept<'c>(
    place: &'static LocalKey<OnceCell<spi::OwnedPreparedStatement>>,
    client: &SpiClient<'c>,
    query: &str,
    types: &[pgrx::PgOid],
    arguments: &[pgrx::datum::DatumWithOid<'_>],
) -> Result<SpiTupleTable<'c>> {
    place.with(|plan| {
        if plan.get().is_none() {
            // Another one can only have been set by this same process: then that one is as good.
            let _ = plan.set(client.prepare(query, types)?.keep());
        }
        let plan = plan.get().ok_or_else(missing)?;
        Ok(client.select(plan, None, arguments)?)
    })
}

/// The same, locked against every other function call that would change it.
pub fn find_for_update(client: &mut SpiClient<'_>, name: &str) -> Result<VectorTable> {
    client.update(
        "select 1 from embedd.vector_tables where name = $1 for update",
        None,
        &[name.into()],
    )?;
    let rows = client.update(&format!("{SELECT} where v.name = $1"), None, &[name.into()])?;
    vector_tables(rows)?.pop().ok_or_else(|| Error::UnknownVectorTable { name: name.to_string() })
}

/// The vector table of this number; none when it was dropped.
pub fn by_id(client: &SpiClient<'_>, id: i32) -> Result<Option<VectorTable>> {
    let rows = client.select(&format!("{SELECT} where v.id = $1"), None, &[id.into()])?;
    Ok(vector_tables(rows)?.pop())
}

/// Every vector table of the database.
pub fn all(client: &SpiClient<'_>) -> Result<Vec<VectorTable>> {
    vector_tables(client.select(&format!("{SELECT} order by v.id"), None, &[])?)
}

/// Everything a worker keeps in memory, as one number; a row that was written anew has another xmin or another place.
const FINGERPRINT: &str = "
    select coalesce(pg_catalog.sum(r.hash::numeric), 0)
      from (select pg_catalog.hashtextextended(v.id || ' ' || v.xmin || ' ' || v.ctid, 0)
              from embedd.vector_tables v
             union all
            select pg_catalog.hashint8extended(t.task_id, 1)
              from embedd.tasks t where t.status in ('pending', 'running')
             union all
            select pg_catalog.hashtextextended(m.xmin || ' ' || m.ctid, 2) from embedd.models m
             union all
            select pg_catalog.hashtextextended(s.oid || ' ' || s.xmin || ' ' || s.ctid, 3)
              from pg_catalog.pg_foreign_server s
              join pg_catalog.pg_foreign_data_wrapper w on w.oid = s.srvfdw where w.fdwname = 'embedd'
             union all
            select pg_catalog.hashtextextended(u.oid || ' ' || u.xmin || ' ' || u.ctid, 4)
              from pg_catalog.pg_user_mapping u
              join pg_catalog.pg_foreign_server s on s.oid = u.umserver
              join pg_catalog.pg_foreign_data_wrapper w on w.oid = s.srvfdw where w.fdwname = 'embedd') r(hash)";

/// A number that changes when a vector table, the set of open tasks, the model catalog or a provider does.
pub fn fingerprint(client: &SpiClient<'_>) -> Result<i64> {
    thread_local! {
        static PLAN: OnceCell<spi::OwnedPreparedStatement> = const { OnceCell::new() };
    }
    let rows = kept(&PLAN, client, FINGERPRINT, &[], &[])?;
    let sum = rows.first().get_one::<pgrx::AnyNumeric>()?.ok_or_else(missing)?;
    i64::try_from(sum % pgrx::AnyNumeric::from(i64::MAX))
        .map_err(|e| Error::Damaged { what: e.to_string() })
}

/// Whether the name is in use.
pub fn exists(client: &SpiClient<'_>, name: &str) -> Result<bool> {
    let rows = client.select(
        "select 1 from embedd.vector_tables where name = $1",
        None,
        &[name.into()],
    )?;
    Ok(!rows.is_empty())
}

/// Takes the next number for a vector table, which its physical name and its triggers carry.
pub fn next_id(client: &mut SpiClient<'_>) -> Result<i32> {
    let rows = client.update(
        "select pg_catalog.nextval('embedd.vector_tables_id_seq')::integer",
        None,
        &[],
    )?;
    rows.first().get_one::<i32>()?.ok_or_else(missing)
}

/// Stores a new vector table; its names are those of existing tables.
pub fn insert(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    let columns = serde_json::to_value(&table.columns)
        .map_err(|e| Error::Damaged { what: format!("columns: {e}") })?;
    client.update(
        "insert into embedd.vector_tables (id, name, source_table, primary_key_column, key_type, vector_table,
                embedding_provider, embedding_model, embedding_dimensions, columns, owner, system_id)
         overriding system value
         values ($1, $2, $3, $4, $5::regtype, $6, $7, $8, $9, $10, $11, $12)",
        None,
        &[
            table.id.into(),
            table.name.as_str().into(),
            table.source.into(),
            table.key.as_str().into(),
            table.key_type.as_str().into(),
            table.relation.into(),
            table.provider.as_str().into(),
            table.model.as_str().into(),
            table.dimensions.into(),
            JsonB(columns).into(),
            table.owner.into(),
            table.system_id.into(),
        ],
    )?;
    Ok(())
}

/// Forgets a vector table with everything that hangs on it.
pub fn delete(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update("delete from embedd.vector_tables where id = $1", None, &[id.into()])?;
    queue::remove_all(client, id)
}

/// Sets the status; a change that is none writes nothing.
pub fn set_status(client: &mut SpiClient<'_>, id: i32, status: Status) -> Result<()> {
    client.update(
        "update embedd.vector_tables set sync_status = $2 where id = $1 and sync_status <> $2",
        None,
        &[id.into(), status.as_str().into()],
    )?;
    Ok(())
}

/// The status that follows from what has been done, for a table that is neither paused nor in error any more.
pub fn set_working_status(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables v
            set last_error = null, last_error_at = null, sync_status = case
                when exists (select from embedd.tasks t where t.target_id = v.id and t.status in ('pending', 'running'))
                    then 'backfilling'
                when exists (select from embedd.tasks t where t.target_id = v.id and t.status = 'completed')
                    then 'synced'
                else 'pending' end
          where v.id = $1 and v.sync_status <> 'paused'",
        None,
        &[id.into()],
    )?;
    Ok(())
}

/// Notes why a table cannot be kept in sync just now; a paused table stays paused. False when it was dropped.
pub fn set_error(client: &mut SpiClient<'_>, id: i32, reason: &str, stuck: bool) -> Result<bool> {
    let rows = client.update(
        "update embedd.vector_tables
            set last_error = $2, last_error_at = pg_catalog.clock_timestamp(),
                sync_status = case when $3 and sync_status <> 'paused' then 'error' else sync_status end
          where id = $1",
        None,
        &[id.into(), reason.into(), stuck.into()],
    )?;
    Ok(!rows.is_empty())
}

/// Notes that changes have arrived in the vector table.
pub fn set_synced_now(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables set last_synced_at = pg_catalog.clock_timestamp() where id = $1",
        None,
        &[id.into()],
    )?;
    Ok(())
}

/// Names of the vector tables that use a provider: those that depend on it, and those that name it and depend on none yet.
pub fn users_of_provider(
    client: &mut SpiClient<'_>,
    server: pg_sys::Oid,
    name: &str,
) -> Result<Vec<String>> {
    // A statement that may write has a snapshot of its own.
    let rows = client.update(
        "select v.name
           from embedd.vector_tables v
           join pg_catalog.pg_class c on c.oid = v.vector_table
           left join pg_catalog.pg_depend d
             on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
            and d.refclassid = 'pg_catalog.pg_foreign_server'::regclass
          where coalesce(d.refobjid = $1, v.embedding_provider = $2)
          order by v.name limit 100",
        None,
        &[server.into(), name.into()],
    )?;
    rows.into_iter().map(|row| row.get::<String>(1)?.ok_or_else(missing)).collect()
}

/// Notes the name that the provider of a vector table has now.
pub fn set_provider(client: &mut SpiClient<'_>, id: i32, name: &str) -> Result<()> {
    client.update(
        "update embedd.vector_tables set embedding_provider = $2 where id = $1",
        None,
        &[id.into(), name.into()],
    )?;
    Ok(())
}

/// Makes this cluster the one that keeps the table in sync (after a restore or an upgrade).
pub fn adopt(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables set system_id = $2 where id = $1",
        None,
        &[id.into(), system_id().into()],
    )?;
    Ok(())
}

/// Whether embedd's own tables are filled by logical replication, so that another cluster does the work.
pub fn is_subscribed(client: &SpiClient<'_>) -> Result<bool> {
    let rows = client.select(
        "select 1 from pg_catalog.pg_subscription_rel where srrelid = 'embedd.vector_tables'::regclass",
        None,
        &[],
    )?;
    Ok(!rows.is_empty())
}
