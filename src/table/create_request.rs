//! What create_vector_table() is asked for, and the words and numbers among its arguments.

use pgrx::pg_sys;

use crate::catalog::{BATCH_INTERVALS, SourceDrop, SyncMode};
use crate::error::{Error, Result};

/// What create_vector_table() was asked for.
pub struct Wanted {
    pub name: String,
    pub source: pg_sys::Oid,
    pub columns: serde_json::Value,
    pub key: Option<String>,
    pub provider: String,
    pub model: Option<String>,
    pub dimensions: Option<i32>,
    pub sync_mode: String,
    /// Seconds between two comparisons; none is the default.
    pub batch_interval: Option<f64>,
    pub on_source_drop: String,
    pub start_backfill: bool,
}

/// Time between two comparisons unless something else is asked for, in seconds.
const INTERVAL: f64 = 300.0;

pub(super) fn sync_mode(wanted: &Wanted) -> Result<SyncMode> {
    match wanted.sync_mode.as_str() {
        "trigger" => Ok(SyncMode::Trigger),
        "batch" => Ok(SyncMode::Batch),
        other => Err(Error::BadArgument {
            message: format!("sync mode \"{other}\" is not available"),
            detail: Some("The sync modes are: trigger, batch.".to_string()),
            hint: None,
        }),
    }
}

pub(super) fn batch_interval(wanted: &Wanted, mode: SyncMode) -> Result<Option<f64>> {
    match (mode, wanted.batch_interval) {
        (SyncMode::Trigger, None) => Ok(None),
        (SyncMode::Trigger, Some(_)) => Err(Error::BadArgument {
            message: "batch_interval needs sync mode \"batch\"".to_string(),
            detail: Some("In sync mode \"trigger\" changes arrive as they are made.".to_string()),
            hint: None,
        }),
        (SyncMode::Batch, None) => Ok(Some(INTERVAL)),
        (SyncMode::Batch, Some(seconds)) if seconds < *BATCH_INTERVALS.start() => {
            Err(Error::bad_argument("batch_interval must be one second or longer"))
        }
        (SyncMode::Batch, Some(seconds)) if seconds > *BATCH_INTERVALS.end() => {
            Err(Error::BadArgument {
                message: "batch_interval must be one year or shorter".to_string(),
                detail: Some("The longest is 366 days.".to_string()),
                hint: Some("pause_sync() stops the comparisons altogether.".to_string()),
            })
        }
        (SyncMode::Batch, Some(seconds)) => Ok(Some(seconds)),
    }
}

pub(super) fn source_drop(word: &str) -> Result<SourceDrop> {
    match word {
        "keep" => Ok(SourceDrop::Keep),
        "drop" => Ok(SourceDrop::Drop),
        other => Err(Error::BadArgument {
            message: format!("on_source_drop \"{other}\" is not available"),
            detail: Some("It is one of: keep, drop.".to_string()),
            hint: None,
        }),
    }
}
