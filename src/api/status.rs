//! The SQL functions for the sync status of vector tables.

use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{given, seconds};
use crate::status;

// Volatile, so that repeated calls in one transaction see the worker's progress. The symbol differs from that of the
// function with fewer result columns, up to 0.4.0.
#[pg_extern(volatile, parallel_unsafe, name = "sync_status")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn status_of_one(
    name: &str,
) -> Result<
    TableIterator<
        'static,
        (
            name!(sync_status, &'static str),
            name!(synced_rows, Option<i64>),
            name!(total_rows, Option<i64>),
            name!(last_synced_at, Option<TimestampWithTimeZone>),
            name!(rows_pending, Option<i64>),
            name!(staleness_secs, Option<f64>),
            name!(last_error, Option<String>),
            name!(last_error_at, Option<TimestampWithTimeZone>),
            name!(failed_rows, Option<i64>),
            name!(truncated_rows, Option<i64>),
            name!(rate, Option<f64>),
            name!(eta, Option<Interval>),
            name!(oldest_pending_secs, Option<f64>),
            name!(is_estimated, bool),
            name!(worker_state, &'static str),
            name!(worker_since, Option<TimestampWithTimeZone>),
            name!(provider_state, &'static str),
            name!(provider_since, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let s = status::of_one(name)?;
    Ok(TableIterator::once((
        s.sync_status,
        s.synced_rows,
        s.total_rows,
        s.last_synced_at,
        s.rows_pending,
        s.staleness_secs,
        s.last_error,
        s.last_error_at,
        s.failed_rows,
        s.truncated_rows,
        s.rate,
        s.eta,
        s.oldest_pending_secs,
        s.is_estimated,
        s.worker_state,
        s.worker_since,
        s.provider_state,
        s.provider_since,
    )))
}

#[pg_extern(volatile, parallel_unsafe, name = "all_sync_status")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn status_of_all() -> Result<
    TableIterator<
        'static,
        (
            name!(id, i32),
            name!(name, String),
            name!(source_table, Option<String>),
            name!(vector_table, Option<String>),
            name!(embedding_provider, String),
            name!(embedding_model, String),
            name!(sync_mode, &'static str),
            name!(sync_status, &'static str),
            name!(synced_rows, Option<i64>),
            name!(total_rows, Option<i64>),
            name!(last_synced_at, Option<TimestampWithTimeZone>),
            name!(rows_pending, Option<i64>),
            name!(staleness_secs, Option<f64>),
            name!(last_error, Option<String>),
            name!(last_error_at, Option<TimestampWithTimeZone>),
            name!(failed_rows, Option<i64>),
            name!(truncated_rows, Option<i64>),
            name!(rate, Option<f64>),
            name!(eta, Option<Interval>),
            name!(oldest_pending_secs, Option<f64>),
            name!(is_estimated, bool),
            name!(worker_state, &'static str),
            name!(worker_since, Option<TimestampWithTimeZone>),
            name!(provider_state, &'static str),
            name!(provider_since, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let all = status::of_all()?;
    Ok(TableIterator::new(all.into_iter().map(|(table, s)| {
        (
            table.id,
            table.name,
            table.source,
            table.relation,
            table.provider,
            table.model,
            table.sync_mode,
            s.sync_status,
            s.synced_rows,
            s.total_rows,
            s.last_synced_at,
            s.rows_pending,
            s.staleness_secs,
            s.last_error,
            s.last_error_at,
            s.failed_rows,
            s.truncated_rows,
            s.rate,
            s.eta,
            s.oldest_pending_secs,
            s.is_estimated,
            s.worker_state,
            s.worker_since,
            s.provider_state,
            s.provider_since,
        )
    })))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn wait_until_synced(
    name: Option<&str>,
    timeout: default!(Option<Interval>, "NULL"),
) -> Result<(), ErrorReport> {
    Ok(status::wait::until_synced(given(name, "name")?, timeout.map(seconds))?)
}
