//! Chooses the provider and the model of a vector table.

use embedd_wire::Kind;
use pgrx::spi::SpiClient;

use crate::catalog::LOCAL_PROVIDER;
use crate::error::Result;
use crate::fdw::Server;
use crate::models::{Choice, Chosen};

/// The provider with this name, which the caller must be allowed to use; None for the local one.
pub fn provider(name: &str) -> Result<Option<Server>> {
    if name == LOCAL_PROVIDER {
        return Ok(None);
    }
    let server = Server::find(name)?;
    server.check_usage()?;
    Ok(Some(server))
}

/// Resolves the model and its dimensions.
pub fn model(
    client: &SpiClient<'_>,
    server: Option<&Server>,
    provider: &str,
    model: Option<&str>,
    dimensions: Option<i32>,
) -> Result<Chosen> {
    let options = server.map(|server| &server.options);
    let choice = Choice {
        kind: options.map_or(Kind::Local, |options| options.kind),
        provider,
        default_model: options.and_then(|options| options.default_model.as_deref()),
        model,
        dimensions,
        query_prefix: options.and_then(|options| options.query_prefix.as_deref()),
        document_prefix: options.and_then(|options| options.document_prefix.as_deref()),
        argument: "embedding_model",
        may_change: server.is_some_and(Server::may_be_changed),
    };
    choice.decide(client)
}
