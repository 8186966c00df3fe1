//! The SQL functions for providers.

use pgrx::datum::Date;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::given;
use crate::datum::{RawJsonb, Texts};
use crate::fdw::{self, create, hide, probe};

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn create_provider(
    name: Option<&str>,
    provider: Option<&str>,
    api_key: default!(Option<&str>, "NULL"),
    default_model: default!(Option<&str>, "NULL"),
    base_url: default!(Option<&str>, "NULL"),
    options: default!(Option<RawJsonb>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(id, pg_sys::Oid),
            name!(name, String),
            name!(provider, &'static str),
            name!(default_model, Option<String>),
            name!(base_url, Option<String>),
            name!(created_at, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let made = hide::during(|| {
        create::create(&create::ProviderRequest {
            name: given(name, "name")?.to_string(),
            kind: Some(given(provider, "provider")?.to_string()),
            ..create::ProviderRequest::of_arguments(api_key, default_model, base_url, options)?
        })
    })?;
    Ok(provider_row(made))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn update_provider(
    name: Option<&str>,
    api_key: default!(Option<&str>, "NULL"),
    default_model: default!(Option<&str>, "NULL"),
    base_url: default!(Option<&str>, "NULL"),
    options: default!(Option<RawJsonb>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(id, pg_sys::Oid),
            name!(name, String),
            name!(provider, &'static str),
            name!(default_model, Option<String>),
            name!(base_url, Option<String>),
            name!(created_at, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let made = hide::during(|| {
        create::update(&create::ProviderRequest {
            name: given(name, "name")?.to_string(),
            ..create::ProviderRequest::of_arguments(api_key, default_model, base_url, options)?
        })
    })?;
    Ok(provider_row(made))
}

/// The row that create_provider() and update_provider() return.
#[allow(clippy::type_complexity)]
fn provider_row(
    made: create::ProviderRow,
) -> TableIterator<
    'static,
    (
        pg_sys::Oid,
        String,
        &'static str,
        Option<String>,
        Option<String>,
        Option<TimestampWithTimeZone>,
    ),
> {
    TableIterator::once((
        made.oid,
        made.name,
        made.kind,
        made.default_model,
        made.base_url,
        made.created_at,
    ))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn drop_provider(name: &str) -> Result<(), ErrorReport> {
    Ok(Spi::connect_mut(|client| create::remove(client, name))?)
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn test_provider(
    name: Option<&str>,
    model: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(status, &'static str),
            name!(latency_ms, f64),
            name!(model, String),
            name!(dimensions, i32),
        ),
    >,
    ErrorReport,
> {
    let answer = probe::test(given(name, "name")?, model)?;
    Ok(TableIterator::once((
        "ok",
        // Rounded to tenths of a millisecond: smaller differences are noise.
        (answer.latency.as_secs_f64() * 10_000.0).round().max(1.0) / 10.0,
        answer.model,
        answer.dimensions as i32,
    )))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn check_provider_options(options: Texts, catalog: pg_sys::Oid) -> Result<(), ErrorReport> {
    Ok(fdw::check_options(&options.0, catalog)?)
}

// Volatile, because another process writes the file.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn usage_counts() -> Result<
    TableIterator<
        'static,
        (
            name!(server, pg_sys::Oid),
            name!(day, Date),
            name!(requests, i64),
            name!(texts, i64),
            name!(tokens, i64),
            name!(rate_limited, i64),
            name!(unavailable, i64),
            name!(key_rejected, i64),
            name!(refused, i64),
            name!(bad_reply, i64),
            name!(latency_ms, f64),
            name!(slowest_ms, f64),
        ),
    >,
    ErrorReport,
> {
    let rows = fdw::usage()?.into_iter().map(|u| {
        // SAFETY: days from 1970 to 9999 are within the range of PostgreSQL's type date.
        let day =
            unsafe { Date::from_pg_epoch_days(u.day.min(MOST_DAYS) as i32 - DAYS_TO_PG_EPOCH) };
        (
            pg_sys::Oid::from(u.server),
            day,
            u.requests as i64,
            u.texts as i64,
            u.tokens as i64,
            u.rate_limited as i64,
            u.unavailable as i64,
            u.key_rejected as i64,
            u.refused as i64,
            u.bad_reply as i64,
            u.latency_ms,
            u.slowest_ms,
        )
    });
    Ok(TableIterator::new(rows))
}

/// The last day of the year 9999: later days in the file are invalid.
const MOST_DAYS: u32 = 2_932_896;

/// Days from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const DAYS_TO_PG_EPOCH: i32 = 10_957;
