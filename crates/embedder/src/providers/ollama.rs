//! Requests and replies of Ollama.

use serde::{Deserialize, Serialize};

use super::reply::{Lenient, Vector, read, same_number};
use embedd_wire::{Model, Provider};

use super::{Answer, Call, address};

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [&'a str],
    truncate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
struct Reply {
    embeddings: Vec<Vector>,
    #[serde(default)]
    prompt_eval_count: Option<Lenient<u64>>,
}

/// Builds a request. The service truncates a text that is too long.
pub(super) fn call(provider: &Provider, model: &Model, texts: &[&str]) -> Call {
    let request = Request {
        model: &model.name,
        input: texts,
        truncate: true,
        dimensions: model.requested_dimensions(),
    };
    Call::json(
        address::url(provider, "/api/embed"),
        address::bearer(provider),
        serde_json::to_vec(&request).unwrap_or_default(),
    )
}

/// Parses a reply. The service keeps the order of the texts.
pub(super) fn answer(body: &[u8], texts: usize) -> Result<Answer, String> {
    let reply: Reply = read(body)?;
    same_number(reply.embeddings.len(), texts)?;
    Ok(Answer {
        vectors: reply.embeddings.into_iter().map(|vector| vector.0).collect(),
        tokens: reply.prompt_eval_count.and_then(Lenient::good),
    })
}
