//! The SQL function that estimates a backfill.

use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::given;
use crate::datum::RawJsonb;
use crate::estimate;

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn estimate(
    name: Option<&str>,
    config: default!(Option<RawJsonb>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(rows, i64),
            name!(texts, i64),
            name!(distinct_texts, i64),
            name!(texts_to_embed, i64),
            name!(long_texts, i64),
            name!(tokens, i64),
            name!(tokens_are_exact, bool),
            name!(requests, i64),
            name!(cost, Option<AnyNumeric>),
            name!(batch_cost, Option<AnyNumeric>),
            name!(currency, Option<&'static str>),
            name!(hours_at_limits, Option<f64>),
            name!(hours_at_last_pace, Option<f64>),
            name!(is_estimated, bool),
            name!(provider, String),
            name!(model, String),
            name!(dimensions, i32),
        ),
    >,
    ErrorReport,
> {
    let config = config.map(|config| config.parse("config")).transpose()?;
    let e = estimate::estimate(given(name, "name")?, config.as_ref())?;
    let currency = e.currency();
    Ok(TableIterator::once((
        e.rows,
        e.texts,
        e.distinct_texts,
        e.texts_to_embed,
        e.projection.long_texts,
        e.projection.tokens,
        e.projection.tokens_are_exact,
        e.projection.requests,
        e.cost,
        e.batch_cost,
        currency,
        e.hours_at_limits,
        e.hours_at_last_pace,
        e.projection.is_estimated,
        e.provider,
        e.model,
        e.dimensions,
    )))
}
