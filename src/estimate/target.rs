//! The vector table as a change would make it: its provider, its model and its columns.

use embedd_wire::{Kind, Model, Provider};
use pgrx::spi::SpiClient;
use serde_json::Value;

use super::change::Change;
use crate::catalog::VectorTable;
use crate::document;
use crate::error::Result;
use crate::fdw::Server;
use crate::key::Key;
use crate::models::{self, Chosen, Entry};
use crate::rights::RoleSwitch;
use crate::source;
use crate::table::choose::{self, Before};

/// What is estimated.
pub struct Target {
    pub table: VectorTable,
    /// The provider without its key.
    pub provider: Provider,
    pub model: Model,
    /// The row of the model in the catalog.
    pub entry: Option<Entry>,
    /// Whether the vectors of unchanged texts stay valid.
    pub keeps_vectors: bool,
}

impl Target {
    /// Applies a change to a vector table, with the checks of create_vector_table().
    pub fn of(client: &SpiClient<'_>, mut table: VectorTable, change: Change) -> Result<Self> {
        let live = Server::of_table(&table);
        let live_kind = live.as_ref().ok().map(|server| kind_of(server.as_ref()));
        let server = match &change.provider {
            Some(name) => choose::provider(name)?,
            None => live?,
        };
        let kind = kind_of(server.as_ref());
        let provider = server.as_ref().map_or_else(Provider::local, Server::without_key);
        if let Some(columns) = &change.columns {
            set_columns(client, &mut table, columns)?;
        }
        let names_model =
            change.provider.is_some() || change.model.is_some() || change.dimensions.is_some();
        let (entry, prefix, keeps_vectors) = if names_model {
            let default =
                server.as_ref().and_then(|server| server.options.default_model.as_deref());
            let other = change.provider.as_ref().map(|_| (kind, default));
            let before = Before { kind: live_kind, model: &table.model };
            let model = choose::model_name(change.model.as_deref(), other, &before);
            let keeps_model = model.as_ref() == Some(&table.model);
            let dimensions = change.dimensions.or(keeps_model.then_some(table.dimensions));
            let chosen = choose::model(
                client,
                server.as_ref(),
                &provider.name,
                model.as_deref(),
                dimensions,
            )?;
            let Chosen { model, dimensions, prefixes, entry, .. } = chosen;
            let prefix = match model != table.model || provider.name != table.provider {
                true => prefixes.document,
                false => table.stored.document_prefix.clone(),
            };
            let keeps_vectors = model == table.model
                && dimensions == table.dimensions
                && prefix == table.stored.document_prefix;
            (table.model, table.dimensions) = (model, dimensions);
            (entry, prefix, keeps_vectors)
        } else {
            let entry = table.known_models.get(kind.as_str()).cloned();
            (entry, table.stored.document_prefix.clone(), true)
        };
        let mut model = models::model(kind, &table.model, table.dimensions as u32, entry.as_ref());
        model.document_prefix = prefix;
        table.provider.clone_from(&provider.name);
        Ok(Self { table, provider, model, entry, keeps_vectors })
    }
}

fn kind_of(server: Option<&Server>) -> Kind {
    server.map_or(Kind::Local, |server| server.options.kind)
}

/// Gives a vector table other columns, which its owner must be able to read.
fn set_columns(client: &SpiClient<'_>, table: &mut VectorTable, columns: &Value) -> Result<()> {
    let columns = document::parse_columns(columns)?;
    let key: Vec<String> = table.key.columns.iter().map(|column| column.name.clone()).collect();
    let _rights = RoleSwitch::of_owner(table.owner);
    let key = Key::shown(&key);
    let mode = table.stored.sync_mode;
    let defined = source::define(client, table.source, columns, Some(&key), mode)?;
    table.columns = defined.columns;
    table.stored.column_numbers = defined.column_numbers;
    Ok(())
}
