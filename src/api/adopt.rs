//! The functions that adopt vectors which another product has computed.

use pgrx::JsonB;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::adopt;
use crate::import::{self, Counts, Request};

/// The row that tells what was imported.
fn counted(
    counts: Counts,
) -> TableIterator<
    'static,
    (name!(imported, i64), name!(unchanged, i64), name!(skipped, i64), name!(reasons, JsonB)),
> {
    let skipped = counts.skipped.values().sum();
    let reasons = counts.skipped.into_iter().map(|(reason, rows)| (reason, rows.into())).collect();
    TableIterator::once((
        counts.imported,
        counts.unchanged,
        skipped,
        JsonB(serde_json::Value::Object(reasons)),
    ))
}

// Without a search_path of its own: the query has that of the caller.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity)]
fn import_vectors(
    name: &str,
    query: &str,
) -> Result<
    TableIterator<
        'static,
        (name!(imported, i64), name!(unchanged, i64), name!(skipped, i64), name!(reasons, JsonB)),
    >,
    ErrorReport,
> {
    Ok(counted(import::run(&Request { name, query, has_reasons: false })?))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn adopt_column(
    name: &str,
    vector_column: &str,
) -> Result<
    TableIterator<
        'static,
        (name!(imported, i64), name!(unchanged, i64), name!(skipped, i64), name!(reasons, JsonB)),
    >,
    ErrorReport,
> {
    Ok(counted(adopt::column(name, vector_column)?))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn adopt_pgai(
    name: Option<&str>,
    vectorizer: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (name!(imported, i64), name!(unchanged, i64), name!(skipped, i64), name!(reasons, JsonB)),
    >,
    ErrorReport,
> {
    Ok(counted(adopt::pgai(super::given(name, "name")?, vectorizer)?))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn adopt_pgedge(
    name: Option<&str>,
    source_column: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (name!(imported, i64), name!(unchanged, i64), name!(skipped, i64), name!(reasons, JsonB)),
    >,
    ErrorReport,
> {
    Ok(counted(adopt::pgedge(super::given(name, "name")?, source_column)?))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn adopt_vectorize(
    name: Option<&str>,
    job: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (name!(imported, i64), name!(unchanged, i64), name!(skipped, i64), name!(reasons, JsonB)),
    >,
    ErrorReport,
> {
    Ok(counted(adopt::vectorize(super::given(name, "name")?, job)?))
}
