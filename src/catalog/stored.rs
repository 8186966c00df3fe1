//! What embedd.vector_tables stores of a vector table, beside its identity, as JSON of its row.

use std::ops::RangeInclusive;

use serde::Deserialize;

use super::{QuestionSettings, RecallCurve};
use crate::vector_column::{ColumnType, IndexOptions};

/// The range of the interval of sync mode batch, in seconds.
pub const BATCH_INTERVALS: RangeInclusive<f64> = 1.0..=366.0 * 86_400.0;

/// How changes of a source are detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// By triggers, as they are made.
    Trigger,
    /// By comparing source and vector table at an interval.
    Batch,
}

impl SyncMode {
    /// The value of the column sync_mode.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Batch => "batch",
        }
    }
}

/// What happens to the vectors when the source is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceDrop {
    /// They are kept, and the sync continues when a table of that name exists again.
    #[default]
    Keep,
    /// They are dropped too.
    Drop,
}

impl SourceDrop {
    /// The value of the column on_source_drop.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Drop => "drop",
        }
    }
}

/// Further stored columns, by name: before ALTER EXTENSION UPDATE an older installation lacks some.
#[derive(Clone, Debug, Deserialize)]
pub struct Stored {
    pub primary_key_column: String,
    pub sync_mode: SyncMode,
    #[serde(default)]
    pub key_types: Vec<String>,
    #[serde(default)]
    pub key_numbers: Vec<i16>,
    #[serde(default)]
    pub column_numbers: Vec<i16>,
    /// The qualified name of the source when it was last seen; empty if unknown.
    #[serde(default, deserialize_with = "or_default")]
    pub source_name: String,
    /// The qualified name of the table of vectors when it was last seen; empty if unknown.
    #[serde(default, deserialize_with = "or_default")]
    pub vectors_name: String,
    #[serde(default)]
    pub extension_id: String,
    #[serde(default)]
    pub on_source_drop: SourceDrop,
    /// Why the last attempt to sync failed.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Since when changes may have been missed.
    #[serde(default)]
    pub unseen_since: Option<String>,
    /// The start of the shared memory in which it was compared or created.
    #[serde(default)]
    pub compared_in: i64,
    /// The prefixes of queries and documents; empty for none.
    #[serde(default, deserialize_with = "or_default")]
    pub query_prefix: String,
    #[serde(default, deserialize_with = "or_default")]
    pub document_prefix: String,
    #[serde(default)]
    pub origin_id: Option<i32>,
    /// For a shadow, the vector table that it replaces.
    #[serde(default)]
    pub replaces: Option<i32>,
    /// For a shadow, whether the worker swaps it in as soon as it is ready.
    #[serde(default)]
    pub auto_swap: bool,
    /// The function that shapes a shadow, qualified, with its argument types.
    #[serde(default)]
    pub on_shadow: Option<String>,
    /// When the vector table was created, as text.
    #[serde(default)]
    pub created_at: String,
    /// The oids of tables that swaps have replaced, until they are dropped.
    #[serde(default)]
    pub old_tables: Vec<String>,
    /// The type of the column of vectors, as configured.
    #[serde(default)]
    pub vector_type: ColumnType,
    /// The options of the index; None is the default.
    #[serde(default)]
    pub index_options: Option<IndexOptions>,
    /// How questions are embedded and answered; null is the default.
    #[serde(default, deserialize_with = "or_default")]
    pub question_settings: QuestionSettings,
    /// The oids of the roles that have SELECT on the source and on the vector table, 0 for PUBLIC, when that was last seen.
    #[serde(default)]
    pub mirrored_readers: Vec<String>,
    /// The recall of its index, as a worker has measured it.
    #[serde(default)]
    pub measured_recall: Option<RecallCurve>,
}

/// A value whose default is stored as null.
fn or_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    value: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::<T>::deserialize(value)?.unwrap_or_default())
}
