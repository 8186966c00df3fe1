//! Embeds one text for a vector table, in a session that waits for the vector.

use std::time::{Duration, Instant};

use embedd_wire::{InputType, Model, Provider};
use pgrx::prelude::*;

use super::{Server, for_owner, probe};
use crate::catalog::VectorTable;
use crate::error::{Error, Result};
use crate::{client, guc, models, shared};

/// How long a question waits for the first provider where there is another one.
const PATIENCE: Duration = Duration::from_secs(3);

/// Embeds a text with the model of a vector table and the key of its owner. Questions go to the provider and model for
/// questions, and to the fallback while that fails. The wait ends with `embedd.embedder_timeout` or an interrupt.
pub fn for_table(table: &VectorTable, text: &str, input_type: InputType) -> Result<Vec<f32>> {
    if !shared::is_preloaded() {
        return Err(Error::NotPreloaded);
    }
    if text.trim().is_empty() {
        return Err(Error::bad_argument("the text to embed is empty"));
    }
    let timeout = guc::embedder_timeout();
    let settings = &table.stored.question_settings;
    let is_question = input_type == InputType::Query;
    let first = match (&settings.query_provider, &settings.query_model) {
        (None, None) => own(table)?,
        _ if !is_question => own(table)?,
        (provider, model) => other(table, provider.as_deref(), model.as_deref())?,
    };
    let Some(fallback) = settings.fallback.as_ref().filter(|_| is_question) else {
        return ask(table, &first, input_type, text, timeout);
    };
    let begin = Instant::now();
    let error = match ask(table, &first, input_type, text, timeout.min(PATIENCE)) {
        Err(error) if is_outage(&error) => error,
        outcome => return outcome,
    };
    let rest = timeout.saturating_sub(begin.elapsed()).max(PATIENCE.min(timeout));
    // The first failure is what an administrator has to mend.
    let second = other(table, Some(fallback), None);
    second.and_then(|way| ask(table, &way, input_type, text, rest)).map_err(|_| error)
}

/// A provider and a model.
type Way = (Option<Server>, Provider, Model);

/// The way of the documents.
fn own(table: &VectorTable) -> Result<Way> {
    let (provider, model) = super::resolve(table)?;
    Ok((Server::of_table(table)?, provider, model))
}

/// The name of the model of questions at a provider: the given one, or the default model of the provider, or the model of the
/// documents.
pub fn model_at(server: Option<&Server>, model: Option<&str>, of_documents: &str) -> String {
    let default = server.and_then(|server| server.options.default_model.as_deref());
    model.or(default).unwrap_or(of_documents).to_string()
}

/// Another provider of the same vectors.
fn other(table: &VectorTable, provider: Option<&str>, model: Option<&str>) -> Result<Way> {
    let server = match provider {
        None => Server::of_table(table)?,
        Some(name) => Server::named(name)?,
    };
    let name = model_at(server.as_ref(), model, &table.model);
    let way = way(server, &table.name, table.owner, &name, table.dimensions)?;
    let model = Model { query_prefix: table.stored.query_prefix.clone(), ..way.2 };
    Ok((way.0, way.1, model))
}

/// A provider with the key of the owner of a vector table, and one of its models without prefixes.
pub fn way(
    server: Option<Server>,
    table: &str,
    owner: pg_sys::Oid,
    model: &str,
    dimensions: i32,
) -> Result<Way> {
    let provider = for_owner(server.clone(), table, owner)?;
    let model =
        Spi::connect(|client| models::of_name(client, provider.kind, model, dimensions as u32))?;
    Ok((server, provider, model))
}

/// Embeds a text, with advice for the owner of the vector table where that fails.
fn ask(
    table: &VectorTable,
    (server, provider, model): &Way,
    input_type: InputType,
    text: &str,
    timeout: Duration,
) -> Result<Vec<f32>> {
    client::embed(provider, model, input_type, text, timeout).map_err(|error| match server {
        Some(server) => probe::for_role(error, server, table.owner),
        None => error,
    })
}

/// Whether another provider may answer what this one could not. A service that fails for long seems to reject the text.
fn is_outage(error: &Error) -> bool {
    matches!(error, Error::Embedder { .. } | Error::Provider(_))
}
