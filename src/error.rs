//! All errors of embedd, with SQLSTATE, DETAIL and HINT, and their conversion into a PostgreSQL error report.

pub mod frames;
mod hint;
mod notice;
mod option;
mod sqlstate;

use embedd_wire::Failure;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, function_name};

use crate::document::ColumnsError;
use crate::filter::FilterError;
use crate::name::NameError;

pub use self::notice::raise_message;
pub use self::option::OptionError;

/// The result of everything in embedd that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument outside its range or of the wrong form (validation_error).
    #[error("{message}")]
    BadArgument { message: String, detail: Option<String>, hint: Option<String> },
    /// An invalid filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// An invalid columns argument.
    #[error(transparent)]
    Columns(#[from] ColumnsError),
    /// An invalid name of a vector table.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A configured column does not exist in the source.
    #[error("column \"{column}\" of table {table} does not exist")]
    UnknownColumn { column: String, table: String, available: String },
    /// No relation has this oid.
    #[error("relation with OID {oid} does not exist")]
    UnknownSource { oid: u32 },
    /// The source is not an ordinary or partitioned table.
    #[error("{table} is not a table")]
    NotATable { table: String, kind: String, can_be_compared: bool },
    /// The source has no usable key.
    #[error("table {table} has no usable key")]
    NoKey { table: String, detail: String },
    /// The key has a type whose text may change, or without an order.
    #[error("column \"{column}\" of type {type_name} cannot be the key of a vector table")]
    KeyType { column: String, type_name: String, varies: bool },
    /// A column that a vector table uses was dropped.
    #[error("column \"{column}\" of table {table} does not exist any more")]
    ColumnGone { column: String, table: String, vector_table: String },
    /// The type of a source's key has changed.
    #[error("type of key column \"{column}\" changed from {was} to {is}")]
    KeyTypeChanged { column: String, was: String, is: String, vector_table: String },
    /// The library is newer than the objects in the database.
    #[error("extension \"embedd\" must be updated")]
    OldInstallation,
    /// The row with this key has not failed.
    #[error("row \"{key}\" of vector table \"{name}\" has not failed")]
    NotFailed { key: String, name: String },
    /// The provider does not exist (embedding_provider_not_found).
    #[error("embedding provider \"{name}\" does not exist")]
    UnknownProvider { name: String },
    /// The foreign server belongs to another wrapper.
    #[error("foreign server \"{name}\" is not an embedding provider")]
    NotAProvider { name: String, wrapper: String },
    /// The name of the provider is in use.
    #[error("embedding provider \"{name}\" already exists")]
    ProviderTaken { name: String, detail: Option<String> },
    /// The name of the provider is too long for a foreign server; PostgreSQL would truncate it.
    #[error("provider name is too long")]
    ProviderNameTooLong { length: usize },
    /// Vector tables use the provider to be dropped.
    #[error("cannot drop provider \"{name}\" because vector tables use it")]
    ProviderInUse { name: String, tables: Vec<String> },
    /// An invalid option of a provider.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The owner of a vector table may not use its provider.
    #[error("permission denied for provider \"{provider}\"")]
    NoUsage { provider: String, role: String, table: String, hint: String },
    /// No key for a service that requires one.
    #[error("no API key for provider \"{provider}\"")]
    NoApiKey { provider: String, role: String, has_mapping: bool, hint: String },
    /// The key is a reference, which this provider's owner may not use.
    #[error("provider \"{provider}\" may not read its API key from the environment or from a file")]
    KeyReference { provider: String, hint: String },
    /// The provider has no such model.
    #[error("embedding model \"{model}\" of provider \"{provider}\" does not exist")]
    UnknownModel { provider: String, model: String, available: String },
    /// The dimensions of the model are unknown.
    #[error("embedding model \"{model}\" of provider \"{provider}\" is not in the model catalog")]
    ModelNotInCatalog { provider: String, kind: &'static str, model: String, available: String },
    /// No model was named, and the provider has no default.
    #[error("provider \"{provider}\" has no default model")]
    NoModel { provider: String, hint: String },
    /// Too many dimensions for a column.
    #[error("vectors of {dimensions} dimensions cannot be stored")]
    TooManyDimensions { dimensions: i32, most: i32 },
    /// Too many dimensions for the index that was asked for.
    #[error("vectors of {dimensions} dimensions cannot be indexed")]
    NotIndexable { dimensions: i32, most: i32 },
    /// The vector table does not exist (vector_table_not_found).
    #[error("vector table \"{name}\" does not exist")]
    UnknownVectorTable { name: String },
    /// The name is in use.
    #[error("vector table \"{name}\" already exists")]
    NameTaken { name: String },
    /// The schema for a physical table does not exist.
    #[error("schema \"{name}\" does not exist")]
    UnknownSchema { name: String },
    /// The name of a physical table is in use.
    #[error("relation {relation} already exists")]
    RelationExists { relation: String },
    /// The caller lacks a privilege.
    #[error("permission denied for {object}")]
    NotAllowed { object: String, hint: String },
    /// A NULL argument that must not be NULL.
    #[error("{argument} must not be null")]
    NullArgument { argument: &'static str },
    /// The source or the table of a vector table was dropped.
    #[error("the {what} of vector table \"{name}\" does not exist")]
    RelationGone { what: &'static str, name: String },
    /// Some rows of a source may not be visible.
    #[error("rows of {table} may be hidden from embedd: {why}")]
    RowsHidden { table: String, why: String, hint: String },
    /// Some changes of a source may not be captured.
    #[error("changes of {table} may be missed: {why}")]
    ChangesMissed { table: String, why: String, hint: String },
    /// A subscription fills the table of vectors.
    #[error("vector table \"{name}\" is filled by a subscription, so embedd does not write to it")]
    FilledBySubscription { name: String },
    /// Not backfilled yet (vector_table_not_ready).
    #[error("vector table \"{name}\" is not ready")]
    NotReady { name: String },
    /// pause_sync() of a paused table (sync_already_paused).
    #[error("sync of vector table \"{name}\" is already paused")]
    AlreadyPaused { name: String },
    /// resume_sync() of a table that is not paused (sync_not_paused).
    #[error("sync of vector table \"{name}\" is not paused")]
    NotPaused { name: String, status: String },
    /// wait_until_synced() ended before the vector table was synced.
    #[error("vector table \"{name}\" {why}")]
    NotSynced { name: String, why: String, detail: Option<String>, hint: Option<String> },
    /// wait_until_synced() in a transaction in which it would never end.
    #[error("cannot wait for a vector table in this transaction")]
    CannotWait { detail: &'static str, hint: &'static str },
    /// import_vectors() in a transaction that does not see what workers have stored.
    #[error("cannot import vectors in this transaction")]
    CannotImport { detail: &'static str, hint: &'static str },
    /// Another product has no vectors that a vector table could take.
    #[error("no vectors of {product} for table {table}")]
    NothingToAdopt { product: &'static str, table: String, detail: String, hint: String },
    /// A backfill is running (backfill_in_progress).
    #[error("a backfill of vector table \"{name}\" is already running")]
    BackfillInProgress { name: String },
    /// The vector table cannot be filled at the batch price.
    #[error("price batch is not supported for this vector table")]
    NoBatchPrice { detail: String, hint: &'static str },
    /// Another provider would not know the batches of the vector table.
    #[error("batches of vector table \"{name}\" are at provider \"{provider}\"")]
    BatchesAtProvider { name: String, provider: String },
    /// A shadow of the vector table is filled or ready, so its configuration cannot change.
    #[error("a re-backfill of vector table \"{name}\" is running or ready")]
    RebackfillInProgress { name: String },
    /// swap() or discard() without a shadow.
    #[error("vector table \"{name}\" has no change that waits")]
    NoShadow { name: String },
    /// swap() before the shadow is filled.
    #[error("the shadow of vector table \"{name}\" is not ready")]
    ShadowNotReady { name: String },
    /// Objects depend on the vector table that would stay with the replaced table.
    #[error("vector table \"{name}\" cannot be replaced because other objects depend on it")]
    CannotBeReplaced { name: String, objects: Vec<String> },
    /// A swap could not create foreign keys or triggers of the vector table again.
    #[error("privileges are missing to replace vector table \"{name}\"")]
    LacksPrivileges { name: String, privileges: Vec<String> },
    /// The vector table has got something since its shadow was created.
    #[error("vector table \"{name}\" has changed since its shadow was created")]
    ShapeChanged { name: String },
    /// Another session has changed what providers of questions were compared with.
    #[error("vector table \"{name}\" has changed while its providers were compared")]
    ChangedMeanwhile { name: String },
    /// An index over an expression of vectors that do not stay as they are.
    #[error("index \"{index}\" cannot be built over the new vectors of vector table \"{name}\"")]
    IndexNotCarried { index: String, name: String },
    /// A vector table in shards whose shadow would not be in shards.
    #[error("vector table \"{name}\" is distributed, and embedd cannot distribute its shadow")]
    NeedsHook { name: String },
    /// cancel_backfill() of a table without an open backfill (no_backfill).
    #[error("no backfill of vector table \"{name}\" is requested or running")]
    NoBackfill { name: String },
    /// The server was started without embedd in shared_preload_libraries.
    #[error("embedd is not loaded through shared_preload_libraries")]
    NotPreloaded,
    /// A write while the server is read-only.
    #[error("cannot {action} during recovery")]
    InRecovery { action: &'static str },
    /// The embedder could not be reached, or did not answer in time.
    #[error("could not reach the embedder: {reason}")]
    Embedder { reason: String, hint: Option<String> },
    /// The embedder reported a failure of the provider or the model.
    #[error(transparent)]
    Provider(#[from] Failure),
    /// SPI reported a failure without an error.
    #[error("internal query failed: {0}")]
    Spi(#[from] pgrx::spi::Error),
    /// A subtransaction was rolled back for this reason.
    #[error("{message}")]
    Failed { sqlstate: PgSqlErrorCode, message: String },
    /// A row of embedd's own tables is invalid.
    #[error("damaged bookkeeping of embedd: {what}")]
    Damaged { what: String },
}

impl Error {
    /// An invalid argument without DETAIL or HINT.
    pub fn bad_argument(message: impl Into<String>) -> Self {
        Error::BadArgument { message: message.into(), detail: None, hint: None }
    }

    /// The message and the remedy, in one line for a status.
    pub fn with_remedy(&self) -> String {
        match (self, self.hint()) {
            (
                Error::CannotBeReplaced { objects: named, .. }
                | Error::LacksPrivileges { privileges: named, .. },
                Some(hint),
            ) => format!("{self}: {}. {hint}", named.join(", ")),
            (_, Some(hint)) => format!("{self}. {hint}"),
            (_, None) => self.to_string(),
        }
    }

    /// The DETAIL, if there is one.
    pub fn detail(&self) -> Option<String> {
        match self {
            Error::BadArgument { detail, .. } | Error::NotSynced { detail, .. } => detail.clone(),
            Error::CannotWait { detail, .. } | Error::CannotImport { detail, .. } => {
                Some((*detail).to_string())
            }
            Error::NothingToAdopt { detail, .. } | Error::NoBatchPrice { detail, .. } => {
                Some(detail.clone())
            }
            Error::Filter(e) => e.detail.clone(),
            Error::Columns(e) => e.detail.clone(),
            Error::Name(e) => e.detail(),
            Error::UnknownColumn { available, .. } => Some(format!("Its columns are: {available}.")),
            Error::NotATable { kind, .. } => Some(format!("It is {kind}.")),
            Error::NoKey { detail, .. } => Some(detail.clone()),
            Error::KeyType { varies: true, .. } => {
                Some("The text form of this type depends on settings, or changes with names.".to_string())
            }
            Error::KeyType { .. } => Some("Values of this type have no order.".to_string()),
            Error::OldInstallation => Some(
                "The library is newer than the extension's objects in this database. Changes are queued meanwhile, so nothing is lost.".to_string(),
            ),
            Error::UnknownModel { available, .. } => Some(format!("Its models are: {available}.")),
            Error::ModelNotInCatalog { kind, available, .. } if available.is_empty() => {
                Some(format!("The catalog has no model of {kind}."))
            }
            Error::ModelNotInCatalog { kind, available, .. } => {
                Some(format!("Models of {kind} in the catalog: {available}."))
            }
            Error::TooManyDimensions { most, .. } => {
                Some(format!("The limit of a pgvector column is {most}."))
            }
            Error::NotIndexable { most, .. } => {
                Some(format!("The limit of a pgvector hnsw index is {most}."))
            }
            Error::NotAProvider { wrapper, .. } => {
                Some(format!("It belongs to foreign-data wrapper \"{wrapper}\"."))
            }
            Error::ProviderTaken { detail, .. } => detail.clone(),
            Error::ProviderNameTooLong { length } => {
                Some(format!("The name has {length} bytes; at most 63 are allowed."))
            }
            Error::ProviderInUse { tables, .. } => {
                let tables: Vec<String> = tables.iter().map(|t| format!("\"{t}\"")).collect();
                Some(format!("They are: {}.", tables.join(", ")))
            }
            Error::Option(
                OptionError::Missing { detail, .. }
                | OptionError::Invalid { detail, .. }
                | OptionError::UnknownKey { detail, .. },
            ) => Some(detail.clone()),
            Error::Option(OptionError::Reference) => {
                Some("It is read with the rights of the server's operating system user.".to_string())
            }
            Error::NoUsage { role, table, .. } => Some(format!(
                "Role \"{role}\", the owner of vector table \"{table}\", has no USAGE privilege on the foreign server."
            )),
            Error::NoApiKey { role, has_mapping: true, .. } => {
                Some(format!("The user mapping of role \"{role}\" has no api_key."))
            }
            Error::NoApiKey { role, .. } => Some(format!(
                "There is no user mapping with an api_key for role \"{role}\" or for PUBLIC."
            )),
            Error::KeyReference { .. } => {
                Some("Only a foreign server owned by a superuser may.".to_string())
            }
            Error::NotReady { .. } => Some("Its status is pending: its first backfill has not run, or was cancelled.".to_string()),
            Error::NotPaused { status, .. } => Some(format!("Its status is {status}.")),
            Error::CannotBeReplaced { objects: named, .. }
            | Error::LacksPrivileges { privileges: named, .. } => {
                Some(format!("They are: {}.", named.join(", ")))
            }
            Error::ShapeChanged { .. } => Some(
                "Its owner, a column, a constraint, extended statistics or a storage option differ.".to_string(),
            ),
            Error::IndexNotCarried { .. } => Some(
                "It is over an expression of the column embedding, whose type or dimensions change.".to_string(),
            ),
            Error::NotPreloaded => Some(
                "The server starts the embedder and the workers only if embedd is preloaded.".to_string(),
            ),
            Error::Provider(failure) => failure.detail.clone(),
            Error::UnknownProvider { .. }
            | Error::NoModel { .. }
            | Error::Option(OptionError::Unknown { .. })
            | Error::NullArgument { .. }
            | Error::RelationGone { .. }
            | Error::ColumnGone { .. }
            | Error::KeyTypeChanged { .. }
            | Error::NotFailed { .. }
            | Error::UnknownSource { .. }
            | Error::UnknownVectorTable { .. }
            | Error::NameTaken { .. }
            | Error::UnknownSchema { .. }
            | Error::RelationExists { .. }
            | Error::NotAllowed { .. }
            | Error::AlreadyPaused { .. }
            | Error::BackfillInProgress { .. }
            | Error::BatchesAtProvider { .. }
            | Error::RebackfillInProgress { .. }
            | Error::ChangedMeanwhile { .. }
            | Error::NoShadow { .. }
            | Error::ShadowNotReady { .. }
            | Error::NeedsHook { .. }
            | Error::RowsHidden { .. }
            | Error::ChangesMissed { .. }
            | Error::FilledBySubscription { .. }
            | Error::InRecovery { .. }
            | Error::Embedder { .. }
            | Error::Failed { .. }
            | Error::Spi(_)
            | Error::NoBackfill { .. }
            | Error::Damaged { .. } => None,
        }
    }
}

impl From<Error> for ErrorReport {
    fn from(error: Error) -> Self {
        let mut report = ErrorReport::new(error.sqlstate(), error.to_string(), function_name!());
        if let Some(detail) = error.detail() {
            report = report.set_detail(detail);
        }
        if let Some(hint) = error.hint() {
            report = report.set_hint(hint);
        }
        report
    }
}
