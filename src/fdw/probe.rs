//! Asks a provider for the embeddings of two texts in one request, to see whether it can be used and what it gives.

use std::time::{Duration, Instant};

use embedd_wire::{Embeddings, Failure, FailureClass, InputType, Model, Provider};
use pgrx::prelude::*;

use super::Server;
use crate::catalog::{LOCAL_MODEL, LOCAL_PROVIDER};
use crate::error::{Error, Result};
use crate::models::{self, Choice};
use crate::name::quote_literal;
use crate::{client, guc, shared};

/// What is embedded: no data of anybody's. Two texts show what one would not, for nothing is embedded one by one.
const TEXTS: [&str; 2] = ["embedd", "a question and its answer"];

/// A provider that has answered.
pub struct Answer {
    pub latency: Duration,
    pub model: String,
    pub dimensions: usize,
}

/// Makes one call with the key of the role in force.
pub fn test(name: &str, model: Option<&str>) -> Result<Answer> {
    let server = match name {
        LOCAL_PROVIDER => None,
        name => Some(Server::find(name)?),
    };
    // SAFETY: a plain read of the process's own state.
    let role = unsafe { pg_sys::GetUserId() };
    let (provider, default_model) = match &server {
        None => (Provider::local(), Some(LOCAL_MODEL)),
        Some(server) => {
            server.check_usage()?;
            (server.for_role(role)?, server.options.default_model.as_deref())
        }
    };
    if !shared::is_preloaded() {
        return Err(Error::NotPreloaded);
    }
    let options = server.as_ref().map(|server| &server.options);
    let choice = Choice {
        kind: provider.kind,
        provider: name,
        default_model,
        model,
        dimensions: None,
        query_prefix: options.and_then(|options| options.query_prefix.as_deref()),
        document_prefix: options.and_then(|options| options.document_prefix.as_deref()),
        argument: "model",
        may_change: server.as_ref().is_some_and(Server::may_be_changed),
    };
    let model = Spi::connect(|client| models::for_test(client, &choice))?;
    let begin = Instant::now();
    let embeddings =
        together(&provider, &model).map_err(|error| with_advice(error, server.as_ref(), role))?;
    Ok(Answer { latency: begin.elapsed(), model: model.name, dimensions: embeddings.dimensions })
}

/// The vectors of both texts from one request; an error says so where only one text at a time works.
fn together(provider: &Provider, model: &Model) -> Result<Embeddings> {
    let ask = |texts: &[&str]| {
        let timeout = guc::embedder_timeout();
        client::embed_together(provider, model, InputType::Document, texts, true, timeout)
    };
    let trouble = match ask(&TEXTS) {
        Ok(embeddings) if embeddings.vector(0) != embeddings.vector(1) => return Ok(embeddings),
        Ok(_) => Failure::new(
            FailureClass::BadReply,
            format!(
                "provider \"{}\" returned the same vector for two different texts",
                provider.name
            ),
        ),
        Err(Error::Provider(failure))
            if matches!(failure.class, FailureClass::Refused | FailureClass::BadReply) =>
        {
            // Trouble with one text too is the same trouble.
            match ask(&TEXTS[..1]) {
                Ok(_) => failure,
                Err(_) => return Err(Error::Provider(failure)),
            }
        }
        Err(error) => return Err(error),
    };
    let hint = format!(
        "It embeds one text a request: SELECT embedd.update_provider({}, options => '{{\"texts_per_request\": 1}}').",
        quote_literal(&provider.name)
    );
    Err(Error::Provider(trouble.with_hint(hint)))
}

/// Says what to do where the embedder does not; the local provider says it all.
fn with_advice(error: Error, server: Option<&Server>, role: pg_sys::Oid) -> Error {
    let Some(server) = server else { return error };
    let error = for_role(error, server, role);
    let Error::Provider(failure @ Failure { hint: None, .. }) = error else { return error };
    let name = quote_literal(&server.name);
    let hint = match failure.class {
        FailureClass::Unavailable if server.may_be_changed() => format!(
            "Look whether this server can reach it; SELECT embedd.update_provider({name}, base_url => '...') gives another address."
        ),
        FailureClass::Unavailable => {
            "Look whether this server can reach it, or ask the provider's owner.".to_string()
        }
        FailureClass::RateLimited => {
            "Wait a while, or ask the service for a higher limit.".to_string()
        }
        FailureClass::Refused | FailureClass::BadReply => format!(
            "Look whether the service has that model: SELECT embedd.test_provider({name}, model => '...')."
        ),
        FailureClass::KeyRejected | FailureClass::BadSetting => return Error::Provider(failure),
    };
    Error::Provider(Failure { hint: Some(hint), ..failure })
}

/// The embedder knows nothing of roles: what it advises becomes what the role in force can do, whose key is that of `role`.
pub fn for_role(error: Error, server: &Server, role: pg_sys::Oid) -> Error {
    let Error::Provider(failure) = error else { return error };
    let is_for_owner = |hint: &String| hint.contains("embedd.update_provider(");
    let hint = match (&failure.class, &failure.hint) {
        (FailureClass::KeyRejected, _) => Some(server.new_key_hint(role)),
        (_, Some(hint)) if is_for_owner(hint) && !server.may_be_changed() => {
            Some(format!("Ask the provider's owner: {hint}"))
        }
        (_, hint) => hint.clone(),
    };
    Error::Provider(Failure { hint, ..failure })
}
