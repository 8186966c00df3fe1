//! Every refusal and failure of embedd, each with its SQLSTATE, DETAIL and HINT, and the one place that turns them into a PostgreSQL report.

pub mod frames;
mod hint;
mod notice;
mod option;

use embedd_wire::{Failure, FailureClass};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, function_name};

use crate::document::ColumnsError;
use crate::filter::FilterError;
use crate::name::NameError;

pub use self::notice::tell;
pub use self::option::OptionError;

/// Result of everything in embedd that can be refused or can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in the words of the caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument outside its range or of the wrong form (validation_error).
    #[error("{message}")]
    BadArgument { message: String, detail: Option<String>, hint: Option<String> },
    /// A filter that does not fit the vector table.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A columns argument that cannot be used.
    #[error(transparent)]
    Columns(#[from] ColumnsError),
    /// A vector table name that cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A configured column that the source does not have.
    #[error("column \"{column}\" of table {table} does not exist")]
    UnknownColumn { column: String, table: String, available: String },
    /// No relation has this oid.
    #[error("relation with OID {oid} does not exist")]
    UnknownSource { oid: u32 },
    /// A source that is not an ordinary or partitioned table.
    #[error("{table} is not a table")]
    NotATable { table: String, kind: String, can_be_compared: bool },
    /// No column of the source can serve as the key.
    #[error("table {table} has no usable key")]
    NoKey { table: String, detail: String },
    /// A key of a type whose text form changes, or that has no order.
    #[error("column \"{column}\" of type {type_name} cannot be the key of a vector table")]
    KeyType { column: String, type_name: String, varies: bool },
    /// A column that a vector table uses was dropped.
    #[error("column \"{column}\" of table {table} does not exist any more")]
    ColumnGone { column: String, table: String, vector_table: String },
    /// The key of a source has another type than it had.
    #[error("key column \"{column}\" has type {is} and had type {was}")]
    KeyTypeChanged { column: String, was: String, is: String, vector_table: String },
    /// The library is newer than the objects in the database.
    #[error("extension \"embedd\" has to be updated")]
    OldInstallation,
    /// A function of the key in a row of a vector table that is not there.
    #[error("row \"{key}\" of vector table \"{name}\" has not failed")]
    NotFailed { key: String, name: String },
    /// No such provider (embedding_provider_not_found).
    #[error("embedding provider \"{name}\" does not exist")]
    UnknownProvider { name: String },
    /// A foreign server of another wrapper.
    #[error("foreign server \"{name}\" is not an embedding provider")]
    NotAProvider { name: String, wrapper: String },
    /// The name of a provider is in use.
    #[error("embedding provider \"{name}\" already exists")]
    ProviderTaken { name: String, detail: Option<String> },
    /// A provider's name is that of a foreign server, which PostgreSQL would cut.
    #[error("provider name is too long")]
    ProviderNameTooLong { length: usize },
    /// Vector tables use the provider that was to be dropped.
    #[error("cannot drop provider \"{name}\" because vector tables use it")]
    ProviderInUse { name: String, tables: Vec<String> },
    /// An option of a provider that cannot be used.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The owner of a vector table may not use its provider (any more).
    #[error("permission denied for provider \"{provider}\"")]
    NoUsage { provider: String, role: String, table: String, hint: String },
    /// There is no key for a service that needs one.
    #[error("no API key for provider \"{provider}\"")]
    NoApiKey { provider: String, role: String, has_mapping: bool, hint: String },
    /// A key read from the environment or a file, for a provider whose owner may not have that.
    #[error("provider \"{provider}\" may not read its API key from the environment or from a file")]
    KeyReference { provider: String, hint: String },
    /// No such model of a provider.
    #[error("embedding model \"{model}\" of provider \"{provider}\" does not exist")]
    UnknownModel { provider: String, model: String, available: String },
    /// A model of which nobody has said how long its vectors are.
    #[error("embedding model \"{model}\" of provider \"{provider}\" is not in the model catalog")]
    ModelNotInCatalog { provider: String, kind: &'static str, model: String, available: String },
    /// Nobody has said which model.
    #[error("provider \"{provider}\" has no default model")]
    NoModel { provider: String, hint: String },
    /// Vectors that no index takes.
    #[error("vectors of {dimensions} dimensions cannot be indexed")]
    TooManyDimensions { dimensions: i32, most: i32 },
    /// No such vector table (vector_table_not_found).
    #[error("vector table \"{name}\" does not exist")]
    UnknownVectorTable { name: String },
    /// The name is in use.
    #[error("vector table \"{name}\" already exists")]
    NameTaken { name: String },
    /// The caller may not do this.
    #[error("permission denied for {object}")]
    NotAllowed { object: String, hint: String },
    /// A NULL where a value is needed.
    #[error("{argument} must not be null")]
    NullArgument { argument: &'static str },
    /// The source of a vector table, or the table with its vectors, was dropped.
    #[error("the {what} of vector table \"{name}\" does not exist")]
    RelationGone { what: &'static str, name: String },
    /// A source of whose rows some may be out of sight.
    #[error("rows of {table} may be hidden from embedd: {why}")]
    RowsHidden { table: String, why: String, hint: String },
    /// A source of whose changes some are not noted.
    #[error("changes of {table} may be missed: {why}")]
    ChangesMissed { table: String, why: String, hint: String },
    /// The table with the vectors is written by another server.
    #[error("vector table \"{name}\" is filled by a subscription, and embedd does not write it")]
    FilledBySubscription { name: String },
    /// Not backfilled yet (vector_table_not_ready).
    #[error("vector table \"{name}\" is not ready")]
    NotReady { name: String },
    /// Pause of a paused table (sync_already_paused).
    #[error("sync of vector table \"{name}\" is already paused")]
    AlreadyPaused { name: String },
    /// Resume of a table that is not paused (sync_not_paused).
    #[error("sync of vector table \"{name}\" is not paused")]
    NotPaused { name: String, status: String },
    /// A wait for a vector table that ends without it being synced.
    #[error("vector table \"{name}\" {why}")]
    NotSynced { name: String, why: String, detail: Option<String>, hint: Option<String> },
    /// A wait in a transaction that never sees its end.
    #[error("cannot wait for a vector table in this transaction")]
    CannotWait { detail: &'static str, hint: &'static str },
    /// A backfill is running (backfill_in_progress).
    #[error("a backfill of vector table \"{name}\" is already running")]
    BackfillInProgress { name: String },
    /// The server was started without embedd in shared_preload_libraries.
    #[error("embedd is not loaded through shared_preload_libraries")]
    NotPreloaded,
    /// A write where the server is read-only.
    #[error("cannot {action} during recovery")]
    InRecovery { action: &'static str },
    /// The embedder could not be reached or did not answer in time.
    #[error("could not reach the embedder: {reason}")]
    Embedder { reason: String, hint: Option<String> },
    /// The embedder answered with a failure of the provider or the model.
    #[error(transparent)]
    Provider(#[from] Failure),
    /// SPI reported a failure that raised no error of its own.
    #[error("internal query failed: {0}")]
    Spi(#[from] pgrx::spi::Error),
    /// A part of a transaction was rolled back, for this reason.
    #[error("{message}")]
    Failed { sqlstate: PgSqlErrorCode, message: String },
    /// Something stored by embedd itself cannot be read back.
    #[error("damaged bookkeeping of embedd: {what}")]
    Damaged { what: String },
}

impl Error {
    /// A bad argument without DETAIL or HINT.
    pub fn bad_argument(message: impl Into<String>) -> Self {
        Error::BadArgument { message: message.into(), detail: None, hint: None }
    }

    /// What went wrong and what to do about it, in one line for a status.
    pub fn with_remedy(&self) -> String {
        match self.hint() {
            Some(hint) => format!("{self}. {hint}"),
            None => self.to_string(),
        }
    }

    /// The SQLSTATE of the design's table of errors.
    pub fn sqlstate(&self) -> PgSqlErrorCode {
        use PgSqlErrorCode::*;
        match self {
            Error::BadArgument { .. } | Error::Filter(_) | Error::Columns(_) => {
                ERRCODE_INVALID_PARAMETER_VALUE
            }
            Error::Name(NameError::TooLong { .. }) | Error::ProviderNameTooLong { .. } => {
                ERRCODE_NAME_TOO_LONG
            }
            Error::Option(OptionError::Unknown { .. }) => ERRCODE_FDW_INVALID_OPTION_NAME,
            Error::Option(OptionError::Reference) => ERRCODE_INSUFFICIENT_PRIVILEGE,
            Error::Option(_) => ERRCODE_INVALID_PARAMETER_VALUE,
            Error::CannotWait { .. } => ERRCODE_ACTIVE_SQL_TRANSACTION,
            Error::NotAProvider { .. } => ERRCODE_WRONG_OBJECT_TYPE,
            Error::ProviderInUse { .. } => ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
            Error::NoApiKey { .. } => ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            Error::TooManyDimensions { .. } => ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            Error::Name(_) => ERRCODE_INVALID_PARAMETER_VALUE,
            Error::NullArgument { .. } => ERRCODE_NULL_VALUE_NOT_ALLOWED,
            Error::RelationGone { .. } | Error::UnknownSource { .. } => ERRCODE_UNDEFINED_TABLE,
            Error::UnknownColumn { .. } | Error::ColumnGone { .. } => ERRCODE_UNDEFINED_COLUMN,
            Error::KeyTypeChanged { .. } => ERRCODE_DATATYPE_MISMATCH,
            Error::NotATable { .. } => ERRCODE_WRONG_OBJECT_TYPE,
            Error::NoKey { .. } => ERRCODE_INVALID_TABLE_DEFINITION,
            Error::KeyType { .. } => ERRCODE_FEATURE_NOT_SUPPORTED,
            Error::UnknownProvider { .. }
            | Error::UnknownModel { .. }
            | Error::ModelNotInCatalog { .. }
            | Error::NoModel { .. }
            | Error::NotFailed { .. }
            | Error::UnknownVectorTable { .. } => ERRCODE_UNDEFINED_OBJECT,
            Error::NameTaken { .. } | Error::ProviderTaken { .. } => ERRCODE_DUPLICATE_OBJECT,
            Error::NotAllowed { .. } | Error::NoUsage { .. } | Error::KeyReference { .. } => {
                ERRCODE_INSUFFICIENT_PRIVILEGE
            }
            Error::RowsHidden { .. }
            | Error::ChangesMissed { .. }
            | Error::FilledBySubscription { .. }
            | Error::NotReady { .. }
            | Error::NotSynced { .. }
            | Error::AlreadyPaused { .. }
            | Error::NotPaused { .. }
            | Error::OldInstallation
            | Error::NotPreloaded => ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Error::BackfillInProgress { .. } => ERRCODE_OBJECT_IN_USE,
            Error::InRecovery { .. } => ERRCODE_READ_ONLY_SQL_TRANSACTION,
            Error::Embedder { .. } => ERRCODE_CONNECTION_FAILURE,
            Error::Provider(failure) => match failure.class {
                FailureClass::Unavailable => ERRCODE_CONNECTION_FAILURE,
                FailureClass::RateLimited => ERRCODE_INSUFFICIENT_RESOURCES,
                FailureClass::KeyRejected => ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
                FailureClass::Refused => ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
                FailureClass::BadReply => ERRCODE_DATA_EXCEPTION,
                FailureClass::BadSetting => ERRCODE_CONFIG_FILE_ERROR,
            },
            Error::Failed { sqlstate, .. } => *sqlstate,
            Error::Spi(_) | Error::Damaged { .. } => ERRCODE_INTERNAL_ERROR,
        }
    }

    /// The DETAIL: a sentence on what was found, where that helps.
    pub fn detail(&self) -> Option<String> {
        match self {
            Error::BadArgument { detail, .. } | Error::NotSynced { detail, .. } => detail.clone(),
            Error::CannotWait { detail, .. } => Some((*detail).to_string()),
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
                "The library is newer than the extension's objects in this database. Changes are noted meanwhile, and nothing is lost.".to_string(),
            ),
            Error::UnknownModel { available, .. } => Some(format!("Its models are: {available}.")),
            Error::ModelNotInCatalog { kind, available, .. } if available.is_empty() => {
                Some(format!("The catalog has no model of {kind}."))
            }
            Error::ModelNotInCatalog { kind, available, .. } => {
                Some(format!("Those of {kind} there are: {available}."))
            }
            Error::TooManyDimensions { most, .. } => {
                Some(format!("An hnsw index of pgvector takes {most} at most."))
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
                Some(format!("These are: {}.", tables.join(", ")))
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
                "Role \"{role}\", which owns vector table \"{table}\" and pays for it, has no USAGE on the foreign server."
            )),
            Error::NoApiKey { role, has_mapping: true, .. } => {
                Some(format!("The user mapping of role \"{role}\" has no api_key."))
            }
            Error::NoApiKey { role, .. } => Some(format!(
                "There is no user mapping with an api_key, neither for role \"{role}\" nor for everybody."
            )),
            Error::KeyReference { .. } => {
                Some("Only a foreign server that a superuser owns may.".to_string())
            }
            Error::NotReady { .. } => Some("Its status is pending: no row has been embedded yet.".to_string()),
            Error::NotPaused { status, .. } => Some(format!("Its status is {status}.")),
            Error::NotPreloaded => Some(
                "The embedder and the workers are started by the server, and it was started without them.".to_string(),
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
            | Error::NotAllowed { .. }
            | Error::AlreadyPaused { .. }
            | Error::BackfillInProgress { .. }
            | Error::RowsHidden { .. }
            | Error::ChangesMissed { .. }
            | Error::FilledBySubscription { .. }
            | Error::InRecovery { .. }
            | Error::Embedder { .. }
            | Error::Failed { .. }
            | Error::Spi(_)
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
