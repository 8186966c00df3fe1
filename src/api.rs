//! The SQL functions written in Rust: arguments, results, and the code that runs them.

mod adopt;
pub mod arguments;
pub mod changes;
mod datetime;
mod doctor;
mod embedder;
pub mod estimate;
mod outdated;
pub mod providers;
pub mod search;
pub mod status;

use pgrx::JsonB;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::catalog::QuestionSettings;
use crate::datum::{RawJsonb, RegClass};
use crate::error::Error;
use crate::extension;
use crate::table::{self, CreateRequest};
use crate::task::TaskTicket;
use crate::{control, shared, trigger, verify};

/// Unwraps an argument that may be NULL: a function with such arguments is not STRICT, so the others may be NULL too.
fn given<T>(value: Option<T>, argument: &'static str) -> crate::error::Result<T> {
    value.ok_or(Error::NullArgument { argument })
}

/// The length of an interval in seconds, with months of 30 days.
fn seconds(interval: Interval) -> f64 {
    let days = f64::from(interval.months()) * 30.0 + f64::from(interval.days());
    days * 86_400.0 + interval.micros() as f64 / 1e6
}

/// A task as a row: its id, its type, the id of its vector table, its status, and when it was created.
type TaskRow = (i64, String, i32, &'static str, TimestampWithTimeZone);

fn task_row((target, task): (i32, TaskTicket), status: &'static str) -> TaskRow {
    (task.id, task.kind, target, status, task.created_at)
}

/// The row of a task that was asked for.
fn asked(task: (i32, TaskTicket)) -> TaskRow {
    task_row(task, "pending")
}

// The symbol differs from those of the function with fewer arguments, up to 0.7.0.
#[pg_extern(volatile, parallel_unsafe, name = "create_vector_table")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments, clippy::type_complexity)]
fn new_vector_table(
    name: Option<&str>,
    source_table: Option<RegClass>,
    columns: Option<RawJsonb>,
    primary_key_column: default!(Option<String>, "NULL"),
    embedding_provider: default!(Option<String>, "'local'"),
    embedding_model: default!(Option<String>, "NULL"),
    embedding_dimensions: default!(Option<i32>, "NULL"),
    sync_mode: default!(Option<String>, "'trigger'"),
    start_backfill: default!(Option<bool>, "false"),
    batch_interval: default!(Option<Interval>, "NULL"),
    on_source_drop: default!(Option<String>, "'keep'"),
    vector_type: default!(Option<String>, "'vector'"),
    index: default!(Option<RawJsonb>, "NULL"),
    table_name: default!(Option<String>, "NULL"),
    table_schema: default!(Option<String>, "NULL"),
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
            name!(provider, String),
            name!(source_table, Option<String>),
            name!(mode, &'static str),
            name!(sync_status, &'static str),
            name!(model, String),
            name!(dimensions, i32),
            name!(platform_vector_ref, Option<String>),
            name!(columns, JsonB),
            name!(created_at, TimestampWithTimeZone),
        ),
    >,
    ErrorReport,
> {
    let request = CreateRequest {
        name: given(name, "name")?.to_string(),
        source: given(source_table, "source_table")?.0,
        columns: given(columns, "columns")?.parse("columns")?,
        key: primary_key_column,
        provider: given(embedding_provider, "embedding_provider")?,
        model: embedding_model,
        dimensions: embedding_dimensions,
        sync_mode: given(sync_mode, "sync_mode")?,
        start_backfill: given(start_backfill, "start_backfill")?,
        batch_interval: batch_interval.map(seconds),
        on_source_drop: given(on_source_drop, "on_source_drop")?,
        vector_type: given(vector_type, "vector_type")?,
        index: index.map(|index| index.parse("index")).transpose()?,
        table_name,
        table_schema,
        questions: QuestionSettings::given(
            recall_target,
            query_provider,
            query_model,
            fallback,
            row_security.as_deref(),
        )?,
    };
    let table = Spi::connect_mut(|client| table::create(client, request))?;
    let columns =
        serde_json::to_value(&table.columns).map_err(|e| Error::Damaged { what: e.to_string() })?;
    Ok(TableIterator::once((
        table.id,
        table.name,
        table.provider,
        table.source_name,
        "platform",
        table.status.as_str(),
        table.model,
        table.dimensions,
        table.relation_name,
        JsonB(columns),
        pgrx::datum::datetime_support::transaction_timestamp(),
    )))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn drop_vector_table(name: &str, keep_table: default!(bool, "false")) -> Result<(), ErrorReport> {
    Ok(Spi::connect_mut(|client| table::remove(client, name, keep_table))?)
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn cancel_backfill(
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
    Ok(TableIterator::once(task_row(control::cancel_backfill(name)?, "cancelled")))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn reconcile(
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
    Ok(TableIterator::once(asked(control::reconcile(name)?)))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn verify(
    name: &str,
) -> Result<
    TableIterator<'static, (name!(pk_value, String), name!(problem, &'static str))>,
    ErrorReport,
> {
    let differences = verify::verify(name)?;
    Ok(TableIterator::new(differences.into_iter().map(|d| (d.pk_value, d.problem))))
}

#[pg_extern(volatile, parallel_unsafe, name = "verify")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn verify_with_sample(
    name: &str,
    sample: i32,
) -> Result<
    TableIterator<'static, (name!(pk_value, String), name!(problem, &'static str))>,
    ErrorReport,
> {
    let differences = verify::verify(name)?.into_iter();
    let overwritten = verify::sample::overwritten(name, sample)?;
    Ok(TableIterator::new(differences.chain(overwritten).map(|d| (d.pk_value, d.problem))))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn retry_failed(
    name: Option<&str>,
    key: default!(Option<&str>, "NULL"),
) -> Result<i64, ErrorReport> {
    Ok(control::retry_failed(given(name, "name")?, key)?)
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn pause_sync(name: &str) -> Result<(), ErrorReport> {
    Ok(control::pause(name)?)
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn resume_sync(name: &str) -> Result<(), ErrorReport> {
    Ok(control::resume(name)?)
}

#[pg_extern(stable, parallel_safe)]
fn is_preloaded() -> bool {
    shared::is_preloaded()
}

#[pg_extern(volatile, parallel_unsafe)]
fn start_sync() {
    if extension::oid().is_some() {
        trigger::touch_at_commit();
    }
}
