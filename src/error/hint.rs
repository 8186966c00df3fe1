//! The HINT of every error: the next statement to run.

use super::{Error, OptionError};
use crate::name::{quote_ident, quote_literal};

impl Error {
    /// The HINT, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::BadArgument { hint, .. } | Error::NotSynced { hint, .. } => hint.clone(),
            Error::CannotWait { hint, .. } | Error::CannotImport { hint, .. } => {
                Some((*hint).to_string())
            }
            Error::NothingToAdopt { hint, .. } => Some(hint.clone()),
            Error::Filter(e) => e.hint.clone(),
            Error::Columns(e) => e.hint.clone(),
            Error::RelationGone { what: "table", name } => Some(format!(
                "embedd finds it by its name and its columns (pk_value, embedding, embedded_text, metadata, row_hash). Restore it, or drop the vector table: SELECT embedd.drop_vector_table({}).",
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
                Some("Set the key itself, or ask a superuser to set the reference.".to_string())
            }
            Error::NotAProvider { .. } => {
                Some("SELECT name FROM embedd.providers shows the providers you may use.".to_string())
            }
            Error::ProviderTaken { .. } => Some("Choose another name.".to_string()),
            Error::ProviderInUse { tables, .. } => Some(format!(
                "Drop them first: SELECT embedd.drop_vector_table({0}). Or choose others with update_vector_table(): its embedding_provider embeds documents; an empty query_provider or fallback removes that.",
                quote_literal(tables.first().map_or("...", String::as_str))
            )),
            Error::ModelNotInCatalog { kind, model, .. } => Some(format!(
                "Set embedding_dimensions, or add the model: INSERT INTO embedd.models (provider, model, dimensions) VALUES ({}, {}, ...).",
                quote_literal(kind),
                quote_literal(model)
            )),
            Error::TooManyDimensions { .. } => Some(
                "Use another model, or fewer embedding_dimensions if the model can shorten its vectors.".to_string(),
            ),
            Error::NotIndexable { .. } => Some(
                "Index the signs of the elements, with index => '{\"quantization\": \"bit\"}'. Or omit index: then each query reads all rows. Or use fewer embedding_dimensions if the model can shorten its vectors."
                    .to_string(),
            ),
            Error::UnknownSchema { name } => {
                Some(format!("Create it first: CREATE SCHEMA {}.", quote_ident(name)))
            }
            Error::RelationExists { .. } => Some("Choose another table_name.".to_string()),
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
                Some("Use sync_mode => 'batch' with primary_key_column: then the source is compared at an interval.".to_string())
            }
            Error::NotATable { .. } => {
                Some("Use an ordinary or partitioned table as source_table.".to_string())
            }
            Error::NoKey { .. } => Some(
                "Add a primary key, or set primary_key_column to a column, or a JSON array of columns, that is NOT NULL and has a unique index."
                    .to_string(),
            ),
            Error::KeyType { .. } => Some("Set primary_key_column to another key.".to_string()),
            Error::ColumnGone { column, vector_table, .. } => Some(format!(
                "Recreate column \"{column}\", or drop the vector table: SELECT embedd.drop_vector_table({}).",
                quote_literal(vector_table)
            )),
            Error::KeyTypeChanged { vector_table, .. } => Some(format!(
                "Accept the new type: SELECT embedd.reconcile({}).",
                quote_literal(vector_table)
            )),
            Error::OldInstallation => Some("ALTER EXTENSION embedd UPDATE.".to_string()),
            Error::NotFailed { name, .. } => Some(format!(
                "SELECT embedd.retry_failed({}) retries all failed rows; embedd.failed_rows lists them.",
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
                "Drop the subscription, or remove the table from its publication, to let this server sync the vectors.".to_string(),
            ),
            Error::NotReady { name } => Some(format!("SELECT embedd.backfill({}).", quote_literal(name))),
            Error::AlreadyPaused { name } => Some(format!("SELECT embedd.resume_sync({}).", quote_literal(name))),
            Error::BackfillInProgress { name } => Some(format!(
                "SELECT * FROM embedd.sync_status({}) shows its progress.",
                quote_literal(name)
            )),
            Error::BatchesAtProvider { name, .. } => Some(format!(
                "Wait for the backfill, or cancel it: SELECT embedd.cancel_backfill({}).",
                quote_literal(name)
            )),
            Error::NoBatchPrice { hint, .. } => Some((*hint).to_string()),
            Error::NoBackfill { name } => Some(format!(
                "SELECT * FROM embedd.sync_status({0}) shows its state. A comparison is not cancelled but paused: SELECT embedd.pause_sync({0}).",
                quote_literal(name)
            )),
            Error::ShapeChanged { name } => Some(format!(
                "Give the shadow up, and ask for the change again: SELECT embedd.discard({}).",
                quote_literal(name)
            )),
            Error::ChangedMeanwhile { .. } => Some("Run the statement again.".to_string()),
            Error::RebackfillInProgress { name } => Some(format!(
                "Wait for it, or give it up: SELECT embedd.discard({}).",
                quote_literal(name)
            )),
            Error::NoShadow { name } => Some(format!(
                "SELECT embedd.update_vector_table({}, ...) asks for a change.",
                quote_literal(name)
            )),
            Error::ShadowNotReady { name } => Some(format!(
                "SELECT embedd.backfill({}) fills it; embedd.sync_status() shows the progress.",
                quote_literal(name)
            )),
            Error::CannotBeReplaced { .. } => Some(
                "Drop them before, and create them again after the change.".to_string(),
            ),
            Error::LacksPrivileges { .. } => Some(
                "Grant them, or drop the foreign keys and triggers that are named in parentheses."
                    .to_string(),
            ),
            Error::IndexNotCarried { index, .. } => Some(format!(
                "Drop it before, and create it again for the new vectors after the change: DROP INDEX {}.",
                crate::name::quote_ident(index)
            )),
            Error::NeedsHook { name } => Some(format!(
                "Write a function (old regclass, new regclass) that distributes the new table, and name it: SELECT embedd.update_vector_table({}, on_shadow => '...').",
                quote_literal(name)
            )),
            Error::NotPreloaded => Some(
                "Add shared_preload_libraries = 'embedd' to postgresql.conf (after existing entries) and restart the server."
                    .to_string(),
            ),
            Error::InRecovery { .. } => Some("Run it on the primary server.".to_string()),
            Error::Embedder { hint: Some(hint), .. } => Some(hint.clone()),
            Error::Embedder { .. } => Some(
                "The background worker \"embedd embedder\" starts it. See the server log for the reason.".to_string(),
            ),
            Error::Provider(failure) => failure.hint.clone(),
        }
    }
}
