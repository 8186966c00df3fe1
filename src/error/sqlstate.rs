//! The SQLSTATE of every error.

use embedd_wire::FailureClass;
use pgrx::PgSqlErrorCode;

use super::{Error, OptionError};
use crate::name::NameError;

impl Error {
    /// The SQLSTATE.
    pub fn sqlstate(&self) -> PgSqlErrorCode {
        use PgSqlErrorCode::*;
        match self {
            Error::BadArgument { .. } | Error::Filter(_) | Error::Columns(_) => {
                ERRCODE_INVALID_PARAMETER_VALUE
            }
            Error::Name(NameError::TooLong { .. } | NameError::TableTooLong { .. })
            | Error::ProviderNameTooLong { .. } => ERRCODE_NAME_TOO_LONG,
            Error::Option(OptionError::Unknown { .. }) => ERRCODE_FDW_INVALID_OPTION_NAME,
            Error::Option(OptionError::Reference) => ERRCODE_INSUFFICIENT_PRIVILEGE,
            Error::Option(_) => ERRCODE_INVALID_PARAMETER_VALUE,
            Error::CannotWait { .. } | Error::CannotImport { .. } => ERRCODE_ACTIVE_SQL_TRANSACTION,
            Error::NotAProvider { .. } => ERRCODE_WRONG_OBJECT_TYPE,
            Error::ProviderInUse { .. }
            | Error::CannotBeReplaced { .. }
            | Error::IndexNotCarried { .. } => ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
            Error::NoApiKey { .. } => ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            Error::TooManyDimensions { .. } | Error::NotIndexable { .. } => {
                ERRCODE_PROGRAM_LIMIT_EXCEEDED
            }
            Error::UnknownSchema { .. } => ERRCODE_INVALID_SCHEMA_NAME,
            Error::RelationExists { .. } => ERRCODE_DUPLICATE_TABLE,
            Error::Name(_) => ERRCODE_INVALID_PARAMETER_VALUE,
            Error::NullArgument { .. } => ERRCODE_NULL_VALUE_NOT_ALLOWED,
            Error::RelationGone { .. } | Error::UnknownSource { .. } => ERRCODE_UNDEFINED_TABLE,
            Error::UnknownColumn { .. } | Error::ColumnGone { .. } => ERRCODE_UNDEFINED_COLUMN,
            Error::KeyTypeChanged { .. } => ERRCODE_DATATYPE_MISMATCH,
            Error::NotATable { .. } => ERRCODE_WRONG_OBJECT_TYPE,
            Error::NoKey { .. } => ERRCODE_INVALID_TABLE_DEFINITION,
            Error::KeyType { .. } | Error::NoBatchPrice { .. } => ERRCODE_FEATURE_NOT_SUPPORTED,
            Error::UnknownProvider { .. }
            | Error::UnknownModel { .. }
            | Error::ModelNotInCatalog { .. }
            | Error::NoModel { .. }
            | Error::NotFailed { .. }
            | Error::NothingToAdopt { .. }
            | Error::UnknownVectorTable { .. } => ERRCODE_UNDEFINED_OBJECT,
            Error::NameTaken { .. } | Error::ProviderTaken { .. } => ERRCODE_DUPLICATE_OBJECT,
            Error::NotAllowed { .. }
            | Error::NoUsage { .. }
            | Error::LacksPrivileges { .. }
            | Error::KeyReference { .. } => ERRCODE_INSUFFICIENT_PRIVILEGE,
            Error::RowsHidden { .. }
            | Error::ChangesMissed { .. }
            | Error::FilledBySubscription { .. }
            | Error::NotReady { .. }
            | Error::NotSynced { .. }
            | Error::AlreadyPaused { .. }
            | Error::NotPaused { .. }
            | Error::NoBackfill { .. }
            | Error::OldInstallation
            | Error::NoShadow { .. }
            | Error::ShadowNotReady { .. }
            | Error::NeedsHook { .. }
            | Error::ShapeChanged { .. }
            | Error::NotPreloaded => ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Error::BackfillInProgress { .. }
            | Error::RebackfillInProgress { .. }
            | Error::BatchesAtProvider { .. } => ERRCODE_OBJECT_IN_USE,
            Error::ChangedMeanwhile { .. } => ERRCODE_T_R_SERIALIZATION_FAILURE,
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
}
