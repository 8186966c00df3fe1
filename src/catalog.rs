//! Vector tables in embedd's own tables: how to find, create, change and delete them.

mod documents;
mod heap;
mod resolve;
mod rows;
mod shadow;
pub mod partitions;
pub mod sight;
mod state;
mod status;
mod subscribed;
mod vector_table;

use std::cell::OnceCell;
use std::thread::LocalKey;

use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiTupleTable};
use pgrx::{JsonB, spi};

use crate::cluster::system_id;
use crate::error::{Error, Result};
use crate::extension;
use crate::vector_column::IndexOptions;
use crate::{queue, shared};

pub use documents::reason as too_large;
pub use heap::{Config, Use, all_uses, configs, is_used, uses};
pub use resolve::{SourceUpdate, forget_readers, operators};
pub use rows::{
    delete_all_failed, delete_earlier_failed, delete_failed, earlier_failed_keys, failed_keys,
    set_failed, set_truncated, truncated_keys,
};
pub use shadow::{
    await_writers, awaited_writers, clear_old, defer_indexes, replace, set_auto_swap, shadow_of,
};
pub use state::{Progress, position, set_progress};
pub use status::{ErrorSource, set_error, set_status, set_working_status};
pub use subscribed::{delete_built_in_models, is_subscribed};
pub use vector_table::{
    BATCH_INTERVALS, Found, Reused, SourceDrop, Stored, SyncMode, VectorTable, all, by_id, find,
    find_for_update, lock, source_name, vectors_name,
};

/// The provider that always exists.
pub const LOCAL_PROVIDER: &str = "local";
/// Its model, and the name of the model's directory.
pub const LOCAL_MODEL: &str = "all-MiniLM-L6-v2";

/// The sync status of a vector table, as shown to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Pending,
    Backfilling,
    Synced,
    Paused,
    Error,
    /// Reserved; no code sets it yet.
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

    /// The value of the column sync_status.
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

    /// Parses a value of the column sync_status.
    pub fn parse(word: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == word)
            .ok_or_else(|| Error::Damaged { what: format!("sync_status is \"{word}\"") })
    }
}

fn missing() -> Error {
    Error::Damaged { what: "unexpected null".to_string() }
}

/// Runs a query with a prepared plan that this process caches.
fn kept<'c>(
    place: &'static LocalKey<OnceCell<spi::OwnedPreparedStatement>>,
    client: &SpiClient<'c>,
    query: &str,
    types: &[pgrx::PgOid],
    arguments: &[pgrx::datum::DatumWithOid<'_>],
) -> Result<SpiTupleTable<'c>> {
    place.with(|plan| {
        if plan.get().is_none() {
            // Only this process can have set another plan, which is just as good.
            let _ = plan.set(client.prepare(query, types)?.keep());
        }
        let plan = plan.get().ok_or_else(missing)?;
        Ok(client.select(plan, None, arguments)?)
    })
}

/// Everything that a worker caches, as one number; an updated row has another xmin or ctid.
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

/// A number that changes with the vector tables, the set of open tasks, the model catalog and the providers.
pub fn fingerprint(client: &SpiClient<'_>) -> Result<i64> {
    thread_local! {
        static PLAN: OnceCell<spi::OwnedPreparedStatement> = const { OnceCell::new() };
    }
    let rows = kept(&PLAN, client, FINGERPRINT, &[], &[])?;
    let sum = rows.first().get_one::<pgrx::AnyNumeric>()?.ok_or_else(missing)?;
    i64::try_from(sum % pgrx::AnyNumeric::from(i64::MAX))
        .map_err(|e| Error::Damaged { what: e.to_string() })
}

/// Whether a vector table has this name.
pub fn exists(client: &SpiClient<'_>, name: &str) -> Result<bool> {
    let rows = client.select(
        "select 1 from embedd.vector_tables where name = $1",
        None,
        &[name.into()],
    )?;
    Ok(!rows.is_empty())
}

/// The vector tables that share triggers: one and its shadow.
pub fn same_origin(client: &mut SpiClient<'_>, origin_id: i32) -> Result<Vec<i32>> {
    let rows = client.update(
        "select id from embedd.vector_tables where origin_id = $1 order by id",
        None,
        &[origin_id.into()],
    )?;
    rows.into_iter().map(|row| row.get::<i32>(1)?.ok_or_else(missing)).collect()
}

/// Takes the next id for a vector table, which is part of its physical name and its triggers' names.
pub fn next_id(client: &mut SpiClient<'_>) -> Result<i32> {
    // If the rows were copied without the sequence, as by logical replication, the sequence is behind them.
    let rows = client.update(
        "select case when n.id > m.id then n.id
                     else pg_catalog.setval('embedd.vector_tables_id_seq', m.id + 1) end::integer
           from (select pg_catalog.nextval('embedd.vector_tables_id_seq') as id) n
          cross join (select coalesce(max(greatest(v.id, v.origin_id)), 0) as id from embedd.vector_tables v) m",
        None,
        &[],
    )?;
    rows.first().get_one::<i32>()?.ok_or_else(missing)
}

/// Stores a new vector table; the relations must exist.
pub fn insert(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    key_types: &[pg_sys::Oid],
) -> Result<()> {
    let stored = &table.stored;
    client.update(
        "insert into embedd.vector_tables (id, name, source_table, primary_key_column, key_types, vector_table,
                embedding_provider, embedding_model, embedding_dimensions, columns, owner, system_id, extension_id,
                source_name, key_numbers, column_numbers, sync_mode, batch_interval, on_source_drop, compared_in, vectors_name,
                query_prefix, document_prefix, origin_id, replaces, auto_swap, on_shadow,
                vector_type, index_options)
         overriding system value
         values ($1, $2, $3, $4, $5::oid[]::regtype[], $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                pg_catalog.make_interval(secs => $18), $19, $20, $21, nullif($22, ''), nullif($23, ''), $24, $25, $26, $27,
                $28, $29)",
        None,
        &[
            table.id.into(),
            table.name.as_str().into(),
            table.source.into(),
            stored.primary_key_column.as_str().into(),
            key_types.to_vec().into(),
            table.relation.into(),
            table.provider.as_str().into(),
            table.model.as_str().into(),
            table.dimensions.into(),
            columns_json(table)?.into(),
            table.owner.into(),
            table.system_id.into(),
            extension::oid().ok_or_else(missing)?.into(),
            stored.source_name.as_str().into(),
            stored.key_numbers.clone().into(),
            stored.column_numbers.clone().into(),
            stored.sync_mode.as_str().into(),
            table.batch_interval.into(),
            stored.on_source_drop.as_str().into(),
            shared::started_at().into(),
            stored.vectors_name.as_str().into(),
            stored.query_prefix.as_str().into(),
            stored.document_prefix.as_str().into(),
            table.origin_id.into(),
            stored.replaces.into(),
            stored.auto_swap.into(),
            stored.on_shadow.clone().into(),
            stored.vector_type.as_str().into(),
            index_json(stored.index_options.as_ref())?.into(),
        ],
    )?;
    Ok(())
}

fn columns_json(table: &VectorTable) -> Result<JsonB> {
    let columns = serde_json::to_value(&table.columns)
        .map_err(|e| Error::Damaged { what: format!("columns: {e}") })?;
    Ok(JsonB(columns))
}

/// Stores what update_vector_table() changes in place.
pub fn set_config(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    let stored = &table.stored;
    client.update(
        "update embedd.vector_tables
            set embedding_provider = $2, columns = $3, column_numbers = $4, batch_interval = pg_catalog.make_interval(secs => $5),
                on_source_drop = $6, on_shadow = $7, query_prefix = nullif($8, '')
          where id = $1",
        None,
        &[
            table.id.into(),
            table.provider.as_str().into(),
            columns_json(table)?.into(),
            stored.column_numbers.clone().into(),
            table.batch_interval.into(),
            stored.on_source_drop.as_str().into(),
            stored.on_shadow.clone().into(),
            stored.query_prefix.as_str().into(),
        ],
    )?;
    forget_readers(table.source);
    Ok(())
}

/// Gives a vector table and its shadow another name.
pub fn rename(client: &mut SpiClient<'_>, id: i32, name: &str) -> Result<()> {
    client.update(
        "update embedd.vector_tables set name = $2 where id = $1 or replaces = $1",
        None,
        &[id.into(), name.into()],
    )?;
    Ok(())
}

/// The value of the column index_options.
fn index_json(options: Option<&IndexOptions>) -> Result<Option<JsonB>> {
    let options = options.map(serde_json::to_value).transpose();
    options
        .map(|options| options.map(JsonB))
        .map_err(|e| Error::Damaged { what: format!("index_options: {e}") })
}

/// Records the current name of a vector table's source and its columns.
pub fn record_source(
    client: &mut SpiClient<'_>,
    table: &VectorTable,
    moved: &SourceUpdate,
) -> Result<()> {
    client.update(
        "update embedd.vector_tables
            set source_table = $2, source_name = coalesce($3, source_name), key_numbers = $4, column_numbers = $5, primary_key_column = $6,
                columns = $7
          where id = $1",
        None,
        &[
            table.id.into(),
            table.source.into(),
            table.source_name.clone().into(),
            moved.key_numbers.clone().into(),
            moved.column_numbers.clone().into(),
            moved.primary_key_column.as_str().into(),
            columns_json(table)?.into(),
        ],
    )?;
    forget_readers(table.source);
    Ok(())
}

/// Records the current table of vectors, its name and its owner.
pub fn record_vectors(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    client.update(
        "update embedd.vector_tables set vector_table = $2, vectors_name = $3, owner = $4 where id = $1",
        None,
        &[
            table.id.into(),
            table.relation.into(),
            table.relation_name()?.into(),
            table.owner.into(),
        ],
    )?;
    Ok(())
}

/// The stored types of the key columns.
pub fn key_types(client: &mut SpiClient<'_>, id: i32) -> Result<Vec<pg_sys::Oid>> {
    let rows = client.update(
        "select u.of::oid from embedd.vector_tables v cross join unnest(v.key_types) with ordinality u(of, n)
          where v.id = $1 order by u.n",
        None,
        &[id.into()],
    )?;
    rows.into_iter().map(|row| row.get::<pg_sys::Oid>(1)?.ok_or_else(missing)).collect()
}

/// Records the current types of the key columns.
pub fn set_key_types(client: &mut SpiClient<'_>, id: i32, types: &[pg_sys::Oid]) -> Result<()> {
    client.update(
        "update embedd.vector_tables set key_types = $2::oid[]::regtype[] where id = $1",
        None,
        &[id.into(), types.to_vec().into()],
    )?;
    Ok(())
}

/// Deletes a vector table and everything that belongs to it.
pub fn delete(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    // There are no foreign keys for this, because they would prescribe the order of restoring a dump.
    for table in ["tasks", "failed_rows", "truncated_rows", "sync_state"] {
        let column = if table == "tasks" { "target_id" } else { "table_id" };
        client.update(
            &format!("delete from embedd.{table} where {column} = $1"),
            None,
            &[id.into()],
        )?;
    }
    client.update("delete from embedd.vector_tables where id = $1", None, &[id.into()])?;
    queue::remove_all(client, id)
}

/// The names of the vector tables that use a provider: those that depend on it, and those that name it without a
/// dependency.
pub fn users_of_provider(
    client: &mut SpiClient<'_>,
    server: pg_sys::Oid,
    name: &str,
) -> Result<Vec<String>> {
    // A statement that may write gets a new snapshot.
    let rows = client.update(
        "select distinct v.name
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

/// Records the current name of a vector table's provider.
pub fn set_provider(client: &mut SpiClient<'_>, id: i32, name: &str) -> Result<()> {
    client.update(
        "update embedd.vector_tables set embedding_provider = $2 where id = $1",
        None,
        &[id.into(), name.into()],
    )?;
    Ok(())
}

/// Makes this cluster responsible for the sync of a table (after a restore or an upgrade).
pub fn adopt(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables set system_id = $2, extension_id = $3, compared_in = $4 where id = $1",
        None,
        &[
            id.into(),
            system_id().into(),
            extension::oid().ok_or_else(missing)?.into(),
            shared::started_at().into(),
        ],
    )?;
    client.update("delete from embedd.sync_state where table_id = $1", None, &[id.into()])?;
    Ok(())
}

/// Records that changes of a source may be missed from now on, unless that is recorded already.
pub fn record_missed_changes(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables set unseen_since = pg_catalog.clock_timestamp()
          where id = $1 and unseen_since is null",
        None,
        &[id.into()],
    )?;
    Ok(())
}

/// Records that a comparison was requested, which finds all changes missed before.
pub fn record_comparison(client: &mut SpiClient<'_>, id: i32) -> Result<()> {
    client.update(
        "update embedd.vector_tables set unseen_since = null, compared_in = $2 where id = $1",
        None,
        &[id.into(), shared::started_at().into()],
    )?;
    Ok(())
}
