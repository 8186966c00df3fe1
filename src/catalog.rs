//! Vector tables in embedd's own tables: how to find, create, change and delete them.

mod documents;
mod heap;
mod question_providers;
mod question_settings;
pub mod recall_curve;
mod resolve;
mod rows;
mod shadow;
pub mod partitions;
pub mod sight;
mod state;
mod status;
mod stored;
mod subscribed;
mod vector_table;
mod write;

use std::cell::OnceCell;
use std::thread::LocalKey;

use pgrx::prelude::*;
use pgrx::spi;
use pgrx::spi::{SpiClient, SpiTupleTable};

use crate::cluster::system_id;
use crate::error::{Error, Result};

use self::question_providers::ASKS;
pub use documents::reason as too_large;
pub use heap::{Config, Use, all_uses, configs, is_used, uses};
pub use question_providers::{forget_asked, rename_asked, tables_asking};
pub use question_settings::QuestionSettings;
pub use recall_curve::RecallCurve;
pub use resolve::{SourceUpdate, forget_readers, operators};
pub use rows::{
    delete_all_failed, delete_earlier_failed, delete_failed, earlier_failed_keys, failed_keys,
    newly_failed, set_failed, set_truncated, truncated_keys,
};
pub use shadow::{
    await_writers, awaited_writers, defer_indexes, replace, set_auto_swap, set_old_tables,
    shadow_of, visible_shadow,
};
pub use state::{Progress, position, set_progress};
pub use status::{ErrorSource, set_error, set_status, set_working_status};
pub use stored::{BATCH_INTERVALS, SourceDrop, Stored, SyncMode};
pub use subscribed::{delete_built_in_models, is_subscribed};
pub use vector_table::{
    Found, Reused, VectorTable, all, by_id, by_origin, find, find_for_update, lock,
    lock_before_tasks, source_name, vectors_name,
};
pub use write::{
    adopt, delete, insert, key_types, record_comparison, record_missed_changes, record_source,
    record_vectors, rename, set_config, set_key_types, set_measured_recall, set_mirrored_readers,
    set_provider,
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
    /// A change of the configuration waits for a backfill or a swap.
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

/// The names of the vector tables that use a provider: those that depend on it, and those that name it without a
/// dependency, as the provider of their questions too.
pub fn users_of_provider(
    client: &mut SpiClient<'_>,
    server: pg_sys::Oid,
    name: &str,
) -> Result<Vec<String>> {
    // A statement that may write gets a new snapshot.
    let rows = client.update(
        &format!(
            "select distinct v.name
           from embedd.vector_tables v
           join pg_catalog.pg_class c on c.oid = v.vector_table
           left join pg_catalog.pg_depend d
             on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
            and d.refclassid = 'pg_catalog.pg_foreign_server'::regclass
          where coalesce(d.refobjid = $2, v.embedding_provider = $1) or {ASKS}
          order by v.name limit 100"
        ),
        None,
        &[name.into(), server.into()],
    )?;
    rows.into_iter().map(|row| row.get::<String>(1)?.ok_or_else(missing)).collect()
}
