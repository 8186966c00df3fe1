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

/// The name of a model without the prefix with which the service lists it.
pub(super) fn short_name(model: &Model) -> &str {
    model.name.strip_prefix("models/").unwrap_or(&model.name)
}

/// The request for one text, as a part of a larger one.
pub(super) fn request_value(model: &Model, input_type: InputType, text: &str) -> serde_json::Value {
    let full_name = format!("models/{}", short_name(model));
    serde_json::to_value(request(model, &full_name, input_type, text)).unwrap_or_default()
}

fn request<'a>(
    model: &Model,
    full_name: &'a str,
    input_type: InputType,
    text: &'a str,
) -> Request<'a> {
    // The second generation ignores the task type; a prefix tells it what a text is.
    let knows_types = !short_name(model).starts_with("gemini-embedding-2");
    Request {
        model: full_name,
        content: Content { parts: [Part { text }] },
        task_type: knows_types.then_some(match input_type {
            InputType::Query => "RETRIEVAL_QUERY",
            InputType::Document => "RETRIEVAL_DOCUMENT",
        }),
        output_dimensionality: model.requested_dimensions(),
    }
}

/// Builds a request. The model's name may have the prefix `models/`, as the service lists it.
pub(super) fn call(
    provider: &Provider,
    model: &Model,
    input_type: InputType,
    texts: &[&str],
) -> Call {
    let name = short_name(model);
    let full_name = format!("models/{name}");
    let requests = texts.iter().map(|text| request(model, &full_name, input_type, text));
    let batch = Batch { requests: requests.collect() };
    let path = format!("/models/{}:batchEmbedContents", address::segment(name));
    Call::json(
        address::url(provider, &path),
        address::key_header(provider, "x-goog-api-key", ""),
        serde_json::to_vec(&batch).unwrap_or_default(),
    )
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
