//! Asks a provider for one embedding, to see whether it can be used and what it gives.

use std::time::{Duration, Instant};

use pgrx::prelude::*;

use super::Server;
use crate::catalog::{LOCAL_MODEL, LOCAL_PROVIDER};
use crate::embedder::client;
use crate::embedder::wire::{Failure, FailureClass, InputType};
use crate::error::{Error, Result};
use crate::models;
use crate::name::quote_literal;
use crate::provider::{Kind, Provider};
use crate::{guc, shared};

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
        models::for_test(client, provider.kind, name, model.or(default_model))
    })?;
    let begin = Instant::now();
    let vector =
        client::embed_now(&provider, &model, InputType::Document, TEXT, guc::embedder_timeout())
            .map_err(|error| with_advice(error, &provider))?;
    Ok(Answer { latency: begin.elapsed(), model: model.name, dimensions: vector.len() })
}

/// Says what to do where the embedder, which knows nothing of SQL, does not.
fn with_advice(error: Error, provider: &Provider) -> Error {
    let Error::Provider(failure @ Failure { hint: None, .. }) = error else { return error };
    if provider.kind == Kind::Local {
        return Error::Provider(failure);
    }
    let name = quote_literal(&provider.name);
    let hint = match failure.class {
        FailureClass::Unavailable => format!(
            "Look whether this server can reach it; SELECT embedd.update_provider({name}, base_url => '...') gives another address."
        ),
        FailureClass::RateLimited => {
            "Wait a while, or ask the service for a higher limit.".to_string()
        }
        FailureClass::KeyRejected => {
            format!("Give it a valid key: SELECT embedd.update_provider({name}, api_key => '...').")
        }
        FailureClass::Refused | FailureClass::BadReply => format!(
            "Look whether the service has that model: SELECT embedd.test_provider({name}, model => '...')."
        ),
        FailureClass::BadSetting => return Error::Provider(failure),
    };
    Error::Provider(Failure { hint: Some(hint), ..failure })
}
