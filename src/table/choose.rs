//! Chooses the provider and the model of a vector table.

use embedd_wire::Kind;
use pgrx::spi::SpiClient;

use crate::error::Result;
use crate::fdw::Server;
use crate::models::{Choice, Chosen};

/// The provider with this name, which the caller must be allowed to use; None for the local one.
pub fn provider(name: &str) -> Result<Option<Server>> {
    let server = Server::named(name)?;
    if let Some(server) = &server {
        server.check_usage()?;
    }
    Ok(server)
}

/// What is known of a provider in place of which another one is asked for, and of that one.
pub struct Before<'a> {
    /// The kind of the provider in force; None if it cannot be read.
    pub kind: Option<Kind>,
    pub model: &'a str,
}

/// The model that a change asks for; None is the default of the provider's kind. What a change does not name stays as it
/// is, where the service can have it: a gateway serves the models of others, under their names.
pub fn model_name(
    asked: Option<&str>,
    other: Option<(Kind, Option<&str>)>,
    before: &Before<'_>,
) -> Option<String> {
    let name = match (asked, other) {
        (Some(model), _) => Some(model),
        (None, Some((_, Some(default)))) => Some(default),
        (None, Some((kind, None))) => {
            let serves_any = matches!(kind, Kind::OpenaiCompatible | Kind::Ollama);
            let is_other_service = before.kind.is_some_and(|before| before != kind);
            (!is_other_service || serves_any).then_some(before.model)
        }
        (None, None) => Some(before.model),
    };
    name.map(str::to_string)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_stays_where_the_service_can_have_it() {
        let before = Before { kind: Some(Kind::Openai), model: "m" };
        let name = |asked, other| model_name(asked, other, &before);
        assert_eq!(name(Some("n"), None).as_deref(), Some("n"));
        assert_eq!(name(None, None).as_deref(), Some("m"));
        assert_eq!(name(None, Some((Kind::Openai, None))).as_deref(), Some("m"));
        assert_eq!(name(None, Some((Kind::OpenaiCompatible, None))).as_deref(), Some("m"));
        assert_eq!(name(None, Some((Kind::Voyage, None))), None);
        assert_eq!(name(None, Some((Kind::Voyage, Some("v")))).as_deref(), Some("v"));
        assert_eq!(name(Some("n"), Some((Kind::Voyage, Some("v")))).as_deref(), Some("n"));
    }
}
