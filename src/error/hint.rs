//! The HINT of every refusal: the next thing to type.

use super::{Error, OptionError};
use crate::name::quote_literal;

impl Error {
    /// The HINT: the next thing to type, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::BadArgument { hint, .. } | Error::NotSynced { hint, .. } => hint.clone(),
            Error::CannotWait { hint, .. } => Some((*hint).to_string()),
            Error::Filter(e) => e.hint.clone(),
            Error::Columns(e) => e.hint.clone(),
            Error::RelationGone { what: "table", name } => Some(format!(
                "It is looked for by its columns (pk_value, embedding, embedded_text, metadata, row_hash) and its name. Bring it back, or drop the vector table: SELECT embedd.drop_vector_table({}).",
                quote_literal(name)
            )),
            Error::RelationGone { name, .. } => Some(format!(
                "Drop the vector table: SELECT embedd.drop_vector_table({}).",
                quote_literal(name)
            )),
            Error::RowsHidden { hint, .. }
            | Error::ChangesMissed { hint, .. }
            | Error::NoUsage { hint, .. }
            | Error::NoApiKey { hint, .. }
            | Error::KeyReference { hint, .. }
            | Error::NoModel { hint, .. } => Some(hint.clone()),
            Error::Option(OptionError::Unknown { valid, .. }) if valid.is_empty() => {
                Some("There are no valid options in this context.".to_string())
            }
            Error::Option(OptionError::Unknown { valid, .. }) => {
                Some(format!("Valid options in this context are: {valid}."))
            }
            Error::Option(OptionError::Reference) => {
                Some("Give the key itself, or ask a superuser to set it.".to_string())
            }
            Error::NotAProvider { .. } => {
                Some("SELECT name FROM embedd.providers shows the providers you may use.".to_string())
            }
            Error::ProviderTaken { .. } => Some("Choose another name.".to_string()),
            Error::ProviderInUse { tables, .. } => Some(format!(
                "Drop them first: SELECT embedd.drop_vector_table({}).",
                quote_literal(tables.first().map_or("...", String::as_str))
            )),
            Error::ModelNotInCatalog { kind, model, .. } => Some(format!(
                "Give embedding_dimensions, or add the model: INSERT INTO embedd.models (provider, model, dimensions) VALUES ({}, {}, ...).",
                quote_literal(kind),
                quote_literal(model)
            )),
            Error::TooManyDimensions { .. } => Some(
                "Take another model, or fewer embedding_dimensions where the model can shorten its vectors.".to_string(),
            ),
            Error::NotPaused { .. }
            | Error::ProviderNameTooLong { .. }
            | Error::Option(
                OptionError::Missing { .. }
                | OptionError::Invalid { .. }
                | OptionError::UnknownKey { .. },
            )
            | Error::NullArgument { .. }
            | Error::UnknownSource { .. }
            | Error::Name(_)
            | Error::UnknownColumn { .. }
            | Error::Failed { .. }
            | Error::Spi(_)
            | Error::Damaged { .. } => None,
            Error::NotATable { can_be_compared: true, .. } => {
                Some("Give sync_mode => 'batch' and primary_key_column: then it is compared every now and then.".to_string())
            }
            Error::NotATable { .. } => {
                Some("Name an ordinary or a partitioned table as source_table.".to_string())
            }
            Error::NoKey { .. } => Some(
                "Add a primary key, or name with primary_key_column what is NOT NULL and has a unique index: a column, or a JSON array of columns."
                    .to_string(),
            ),
            Error::KeyType { .. } => Some("Name another key with primary_key_column.".to_string()),
            Error::ColumnGone { column, vector_table, .. } => Some(format!(
                "Add column \"{column}\" again, or drop the vector table: SELECT embedd.drop_vector_table({}).",
                quote_literal(vector_table)
            )),
            Error::KeyTypeChanged { vector_table, .. } => Some(format!(
                "Take the new type over: SELECT embedd.reconcile({}).",
                quote_literal(vector_table)
            )),
            Error::OldInstallation => Some("ALTER EXTENSION embedd UPDATE.".to_string()),
            Error::NotFailed { name, .. } => Some(format!(
                "SELECT embedd.retry_failed({}) tries all of them again; embedd.failed_rows shows them.",
                quote_literal(name)
            )),
            Error::UnknownProvider { .. } => {
                Some("SELECT name FROM embedd.providers shows the providers you may use.".to_string())
            }
            Error::UnknownModel { .. } => {
                Some("SELECT * FROM embedd.models shows the model catalog.".to_string())
            }
            Error::UnknownVectorTable { .. } => {
                Some("SELECT name FROM embedd.vector_tables shows the vector tables you may use.".to_string())
            }
            Error::NameTaken { name } => Some(format!(
                "Choose another name, or drop it first: SELECT embedd.drop_vector_table({}).",
                quote_literal(name)
            )),
            Error::NotAllowed { hint, .. } => Some(hint.clone()),
            Error::FilledBySubscription { .. } => Some(
                "Drop the subscription, or take the table out of its publication, before this server keeps the vectors.".to_string(),
            ),
            Error::NotReady { name } => Some(format!("SELECT embedd.backfill({}).", quote_literal(name))),
            Error::AlreadyPaused { name } => Some(format!("SELECT embedd.resume_sync({}).", quote_literal(name))),
            Error::BackfillInProgress { name } => Some(format!(
                "SELECT * FROM embedd.sync_status({}) shows how far it is.",
                quote_literal(name)
            )),
            Error::NotPreloaded => Some(
                "Add shared_preload_libraries = 'embedd' to postgresql.conf (after what is there already) and restart the server."
                    .to_string(),
            ),
            Error::InRecovery { .. } => Some("Call it on the primary server.".to_string()),
            Error::Embedder { hint: Some(hint), .. } => Some(hint.clone()),
            Error::Embedder { .. } => Some(
                "The background worker \"embedd embedder\" of this server starts it; the server log says why it is not there.".to_string(),
            ),
            Error::Provider(failure) => failure.hint.clone(),
        }
    }
}
