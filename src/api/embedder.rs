//! The SQL function embedd.embedder_status().

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::shared::embedder::{self, Embedder};
use crate::{client, shared};

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn embedder_status() -> Result<
    TableIterator<
        'static,
        (
            name!(pid, Option<i32>),
            name!(since, Option<TimestampWithTimeZone>),
            name!(restarts, i64),
            name!(rss, Option<i64>),
            name!(model_loaded, Option<bool>),
            name!(requests_in_flight, Option<i64>),
            name!(cache_bytes, Option<i64>),
            name!(cache_hits, Option<i64>),
            name!(cache_misses, Option<i64>),
            name!(last_error, Option<String>),
        ),
    >,
    ErrorReport,
> {
    if !shared::is_preloaded() {
        return Err(crate::error::Error::NotPreloaded.into());
    }
    let Embedder { pid, since, restarts, start_failure, .. } = embedder::get();
    let status = pid.and_then(|_| client::status());
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let counted = |of: fn(&embedd_wire::Status) -> u64| status.as_ref().map(|s| number(of(s)));
    Ok(TableIterator::once((
        pid,
        pid.and_then(|_| TimestampWithTimeZone::try_from(since).ok()),
        restarts,
        status.as_ref().and_then(|s| s.rss_bytes).map(number),
        status.as_ref().map(|s| s.model_loaded),
        counted(|s| s.requests_in_flight),
        counted(|s| s.cache_bytes),
        counted(|s| s.cache_hits),
        counted(|s| s.cache_misses),
        start_failure.map(|failure| failure.message),
    )))
}
