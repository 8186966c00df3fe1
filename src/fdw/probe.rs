//! Asks a provider for one embedding, to see whether it can be used and what it gives.

use std::time::{Duration, Instant};

use embedd_wire::{Failure, FailureClass, InputType, Provider};
use pgrx::prelude::*;

use super::Server;
use crate::catalog::{LOCAL_MODEL, LOCAL_PROVIDER};
use crate::error::{Error, Result};
use crate::models;
use crate::name::quote_literal;
use crate::{client, guc, shared};

/// What is embedded: no data of anybody's.
const TEXT: &str = "embedd";

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
    let model = Spi::connect(|client| {
        let may_change = server.as_ref().is_some_and(Server::may_be_changed);
        models::for_test(client, provider.kind, name, model.or(default_model), may_change)
    })?;
    let begin = Instant::now();
    let vector =
        client::embed_now(&provider, &model, InputType::Document, TEXT, guc::embedder_timeout())
            .map_err(|error| with_advice(error, server.as_ref(), role))?;
    Ok(Answer { latency: begin.elapsed(), model: model.name, dimensions: vector.len() })
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
            Some("Ask the provider's owner to set its address.".to_string())
        }
        (_, hint) => hint.clone(),
    };
    Error::Provider(Failure { hint, ..failure })
}
