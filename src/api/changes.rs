//! The SQL functions that change a live vector table: its configuration, its shadow and the swap.

use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{asked, given, seconds};
use crate::catalog::QuestionSettings;
use crate::control;
use crate::datum::RawJsonb;
use crate::error::Error;
use crate::search;
use crate::table::{self, UpdateRequest};
use crate::task::Price;

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments, clippy::type_complexity)]
fn update_vector_table(
    name: Option<&str>,
    columns: default!(Option<RawJsonb>, "NULL"),
    embedding_provider: default!(Option<String>, "NULL"),
    embedding_model: default!(Option<String>, "NULL"),
    embedding_dimensions: default!(Option<i32>, "NULL"),
    batch_interval: default!(Option<Interval>, "NULL"),
    on_source_drop: default!(Option<String>, "NULL"),
    table_name: default!(Option<String>, "NULL"),
    table_schema: default!(Option<String>, "NULL"),
    vector_type: default!(Option<String>, "NULL"),
    index: default!(Option<RawJsonb>, "NULL"),
    on_shadow: default!(Option<String>, "NULL"),
    recall_target: default!(Option<f64>, "NULL"),
    query_provider: default!(Option<String>, "NULL"),
    query_model: default!(Option<String>, "NULL"),
    fallback: default!(Option<String>, "NULL"),
    row_security: default!(Option<String>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(id, i32),
            name!(name, String),
            name!(sync_status, &'static str),
            name!(changed, Vec<String>),
            name!(needs_backfill, bool),
            name!(platform_vector_ref, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let request = UpdateRequest {
        name: given(name, "name")?.to_string(),
        columns: columns.map(|columns| columns.parse("columns")).transpose()?,
        provider: embedding_provider,
        model: embedding_model,
        dimensions: embedding_dimensions,
        batch_interval: batch_interval.map(seconds),
        on_source_drop,
        vector_type,
        index: index.map(|index| index.parse("index")).transpose()?,
        table_name,
        table_schema,
        on_shadow,
        questions: QuestionSettings::given(
            recall_target,
            query_provider,
            query_model,
            fallback,
            row_security.as_deref(),
        )?,
    };
    let updated = Spi::connect_mut(|client| table::update(client, &request))?;
    Ok(TableIterator::once((
        updated.id,
        updated.name,
        updated.status.as_str(),
        updated.changed,
        updated.needs_backfill,
        updated.relation,
    )))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn rename_vector_table(name: &str, new_name: &str) -> Result<(), ErrorReport> {
    Ok(Spi::connect_mut(|client| table::rename(client, name, new_name))?)
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn backfill(
    name: &str,
) -> Result<
    TableIterator<
        'static,
        (
            name!(task_id, i64),
            name!(task_type, String),
            name!(target_id, i32),
            name!(status, &'static str),
            name!(created_at, TimestampWithTimeZone),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::once(asked(control::backfill(name, true, Price::Standard)?)))
}

#[pg_extern(volatile, parallel_unsafe, name = "backfill")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn backfill_with_swap(
    name: &str,
    auto_swap: bool,
) -> Result<
    TableIterator<
        'static,
        (
            name!(task_id, i64),
            name!(task_type, String),
            name!(target_id, i32),
            name!(status, &'static str),
            name!(created_at, TimestampWithTimeZone),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::once(asked(control::backfill(name, auto_swap, Price::Standard)?)))
}

#[pg_extern(volatile, parallel_unsafe, name = "backfill")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn backfill_at_price(
    name: Option<&str>,
    price: Option<&str>,
    auto_swap: default!(Option<bool>, "true"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(task_id, i64),
            name!(task_type, String),
            name!(target_id, i32),
            name!(status, &'static str),
            name!(created_at, TimestampWithTimeZone),
        ),
    >,
    ErrorReport,
> {
    let (name, price) = (given(name, "name")?, given(price, "price")?);
    let auto_swap = given(auto_swap, "auto_swap")?;
    let price = Price::parse(price).ok_or_else(|| Error::BadArgument {
        message: format!("unknown price \"{price}\""),
        detail: Some("Prices are: standard, batch.".to_string()),
        hint: None,
    })?;
    Ok(TableIterator::once(asked(control::backfill(name, auto_swap, price)?)))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn swap(
    name: &str,
) -> Result<
    TableIterator<
        'static,
        (
            name!(task_id, i64),
            name!(task_type, String),
            name!(target_id, i32),
            name!(status, &'static str),
            name!(created_at, TimestampWithTimeZone),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::once(asked(control::swap(name)?)))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn discard(name: &str) -> Result<(), ErrorReport> {
    Ok(control::discard(name)?)
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn compare(
    name: &str,
    queries: Vec<Option<String>>,
    k: default!(i32, "10"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(query, String),
            name!(overlap, f64),
            name!(mean_rank_change, Option<f64>),
            name!(live_embed_ms, f64),
            name!(shadow_embed_ms, f64),
            name!(live_search_ms, f64),
            name!(shadow_search_ms, f64),
            name!(live_price_per_million_tokens, Option<AnyNumeric>),
            name!(shadow_price_per_million_tokens, Option<AnyNumeric>),
            name!(live_ids, Vec<String>),
            name!(shadow_ids, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    let queries: Vec<String> = queries.into_iter().flatten().collect();
    let rows = search::compare::compare(name, &queries, k)?;
    Ok(TableIterator::new(rows.into_iter().map(|c| {
        (
            c.query,
            c.overlap,
            c.mean_rank_change,
            c.live_embed_ms,
            c.shadow_embed_ms,
            c.live_search_ms,
            c.shadow_search_ms,
            c.live_price,
            c.shadow_price,
            c.live_ids,
            c.shadow_ids,
        )
    })))
}
