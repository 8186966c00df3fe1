//! Tests a provider by embedding two texts in one request.

use std::time::{Duration, Instant};

use embedd_wire::{Embeddings, Failure, FailureClass, InputType, Model, Provider};
use pgrx::prelude::*;

use super::Server;
use crate::catalog::LOCAL_MODEL;
use crate::error::{Error, Result};
use crate::models::{self, Choice};
use crate::name::quote_literal;
use crate::{client, guc, shared};

/// The texts, which are no user data. There are two, because batches are what sync uses.
const TEXTS: [&str; 2] = ["embedd", "a question and its answer"];

/// The result of a successful test.
pub struct Answer {
    pub latency: Duration,
    pub model: String,
    pub dimensions: usize,
}

/// Makes one call with the key of the current role.
pub fn test(name: &str, model: Option<&str>) -> Result<Answer> {
    let server = Server::named(name)?;
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

/// The vectors of both texts from one request; if only single texts work, the error says so.
fn together(provider: &Provider, model: &Model) -> Result<Embeddings> {
    let ask = |texts: &[&str]| {
        let timeout = guc::embedder_timeout();
        client::embed_all(provider, model, InputType::Document, texts, true, timeout)
    };
    let failure = match ask(&TEXTS) {
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
            // If a single text fails too, the first error stands.
            match ask(&TEXTS[..1]) {
                Ok(_) => failure,
                Err(_) => return Err(Error::Provider(failure)),
            }
        }
        Err(error) => return Err(error),
    };
    let hint = format!(
        "It supports one text a request: SELECT embedd.update_provider({}, options => '{{\"texts_per_request\": 1}}').",
        quote_literal(&provider.name)
    );
    Err(Error::Provider(failure.with_hint(hint)))
}

/// Adds a hint where the embedder gave none; errors of the local provider already have one.
fn with_advice(error: Error, server: Option<&Server>, role: pg_sys::Oid) -> Error {
    let Some(server) = server else { return error };
    let error = for_role(error, server, role);
    let Error::Provider(failure @ Failure { hint: None, .. }) = error else { return error };
    let name = quote_literal(&server.name);
    let hint = match failure.class {
        FailureClass::Unavailable if server.may_be_changed() => format!(
            "Check that this server can reach it, or change its address: SELECT embedd.update_provider({name}, base_url => '...')."
        ),
        FailureClass::Unavailable => {
            "Check that this server can reach it, or ask the provider's owner.".to_string()
        }
        FailureClass::RateLimited => {
            "Retry later, or ask the service for a higher limit.".to_string()
        }
        FailureClass::Refused | FailureClass::BadReply => format!(
            "Check that the service has that model: SELECT embedd.test_provider({name}, model => '...')."
        ),
        FailureClass::KeyRejected | FailureClass::BadSetting => return Error::Provider(failure),
    };
    Error::Provider(Failure { hint: Some(hint), ..failure })
}

/// Adapts a hint of the embedder, which knows no roles, to what the current role can do; the key used is that of
/// `role`.
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
