//! Requests and replies of Google's Gemini API.

use serde::{Deserialize, Serialize};

use super::reply::{Lenient, Vector, read, same_number};
use embedd_wire::{InputType, Model, Provider};

use super::{Answer, Call, address};

#[derive(Serialize)]
struct Batch<'a> {
    requests: Vec<Request<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    model: &'a str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<u32>,
}

#[derive(Serialize)]
struct Content<'a> {
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    embeddings: Vec<Embedding>,
    #[serde(default)]
    usage_metadata: Option<Lenient<Usage>>,
}

/// This form of JSON omits empty lists.
#[derive(Deserialize)]
struct Embedding {
    #[serde(default)]
    values: Vector,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    #[serde(default)]
    prompt_token_count: Option<u64>,
}

/// Builds a request. The model's name may have the prefix `models/`, as the service lists it.
pub(super) fn call(
    provider: &Provider,
    model: &Model,
    input_type: InputType,
    texts: &[&str],
) -> Call {
    let name = model.name.strip_prefix("models/").unwrap_or(&model.name);
    let full_name = format!("models/{name}");
    // The second generation ignores the task type; a prefix tells it what a text is.
    let task_type = (!name.starts_with("gemini-embedding-2")).then_some(match input_type {
        InputType::Query => "RETRIEVAL_QUERY",
        InputType::Document => "RETRIEVAL_DOCUMENT",
    });
    let requests = texts.iter().map(|text| Request {
        model: &full_name,
        content: Content { parts: [Part { text }] },
        task_type,
        output_dimensionality: model.requested_dimensions(),
    });
    let batch = Batch { requests: requests.collect() };
    let path = format!("/models/{}:batchEmbedContents", address::segment(name));
    Call {
        url: address::url(provider, &path),
        key_header: address::key_header(provider, "x-goog-api-key", ""),
        body: serde_json::to_vec(&batch).unwrap_or_default(),
    }
}

/// Parses a reply. The service keeps the order of the texts.
pub(super) fn answer(body: &[u8], texts: usize) -> Result<Answer, String> {
    let reply: Reply = read(body)?;
    same_number(reply.embeddings.len(), texts)?;
    let usage = reply.usage_metadata.and_then(Lenient::good);
    let vectors = reply.embeddings.into_iter().map(|embedding| embedding.values.0);
    Ok(Answer {
        vectors: vectors.collect(),
        tokens: usage.and_then(|usage| usage.prompt_token_count),
    })
}
