//! The arguments of create_vector_table(), and the parsing of its words and numbers.

use pgrx::pg_sys;

use crate::catalog::{BATCH_INTERVALS, QuestionSettings, SourceDrop, SyncMode};
use crate::error::{Error, Result};
use crate::vector_column::{LEAST_QUANTIZED, MOST_INDEXED, Method, VectorColumn};

/// The arguments of create_vector_table().
pub struct CreateRequest {
    pub name: String,
    pub source: pg_sys::Oid,
    pub columns: serde_json::Value,
    pub key: Option<String>,
    pub provider: String,
    pub model: Option<String>,
    pub dimensions: Option<i32>,
    pub sync_mode: String,
    /// The interval of sync mode batch in seconds; None is the default.
    pub batch_interval: Option<f64>,
    pub on_source_drop: String,
    pub start_backfill: bool,
    pub vector_type: String,
    /// The options of the index; None is the default.
    pub index: Option<serde_json::Value>,
    /// The name and the schema of the physical table, if the caller chooses them.
    pub table_name: Option<String>,
    pub table_schema: Option<String>,
    pub questions: QuestionSettings,
}

/// The default interval of sync mode batch, in seconds.
const INTERVAL: f64 = 300.0;

pub(super) fn sync_mode(request: &CreateRequest) -> Result<SyncMode> {
    match request.sync_mode.as_str() {
        "trigger" => Ok(SyncMode::Trigger),
        "batch" => Ok(SyncMode::Batch),
        other => Err(Error::BadArgument {
            message: format!("sync mode \"{other}\" is not available"),
            detail: Some("Valid values: trigger, batch.".to_string()),
            hint: None,
        }),
    }
}

pub(super) fn batch_interval(seconds: Option<f64>, mode: SyncMode) -> Result<Option<f64>> {
    match (mode, seconds) {
        (SyncMode::Trigger, None) => Ok(None),
        (SyncMode::Trigger, Some(_)) => Err(Error::BadArgument {
            message: "batch_interval needs sync mode \"batch\"".to_string(),
            detail: Some(
                "In sync mode \"trigger\" changes are captured as they are made.".to_string(),
            ),
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
                hint: Some("To stop comparisons, use pause_sync().".to_string()),
            })
        }
        (SyncMode::Batch, Some(seconds)) => Ok(Some(seconds)),
    }
}

/// Rejects options of an index that the vectors cannot have.
pub(super) fn check_index(column: &VectorColumn, has_options: bool) -> Result<()> {
    if column.is_quantized() && column.dimensions < LEAST_QUANTIZED {
        return Err(Error::BadArgument {
            message: format!(
                "quantization \"bit\" needs at least {LEAST_QUANTIZED} dimensions, and the vectors have {}",
                column.dimensions
            ),
            detail: Some(
                "The signs of so few elements tell too little: the right rows would not be among the candidates."
                    .to_string(),
            ),
            hint: Some(
                "To halve the size of vectors and index, use vector_type => 'halfvec'.".to_string(),
            ),
        });
    }
    match has_options && column.index.method == Method::Hnsw && !column.can_be_indexed() {
        true => Err(Error::NotIndexable { dimensions: column.dimensions, most: MOST_INDEXED }),
        false => Ok(()),
    }
}

pub(super) fn source_drop(word: &str) -> Result<SourceDrop> {
    match word {
        "keep" => Ok(SourceDrop::Keep),
        "drop" => Ok(SourceDrop::Drop),
        other => Err(Error::BadArgument {
            message: format!("on_source_drop \"{other}\" is not available"),
            detail: Some("Valid values: keep, drop.".to_string()),
            hint: None,
        }),
    }
}
