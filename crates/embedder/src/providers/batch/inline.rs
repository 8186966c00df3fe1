//! Gemini's batch API: texts and vectors are in the batch itself, which is a long-running operation.

use serde::Deserialize;
use serde_json::json;

use embedd_wire::{BatchState, InputType, Kind, Model, Provider};

use super::super::blank::tidy;
use super::super::gemini;
use super::super::reply::{Lenient, Vector, read};
use super::{
    BatchLine, BatchLineAnswer, BatchPage, BatchStatus, Call, LineOutcome, address, get,
    key_header, refused, with_query,
};

/// Batches in a page of the list.
const PAGE: u32 = 100;

/// What a display name begins with, before the token.
const NAME: &str = "embedd-";

/// The codes of google.rpc.Status for a request that is refused each time: INVALID_ARGUMENT, FAILED_PRECONDITION and
/// OUT_OF_RANGE, which are HTTP status 400.
const REFUSED: [i64; 4] = [3, 9, 11, 400];

/// Hands in texts without a file.
pub fn submit(provider: &Provider, model: &Model, token: &str, lines: &[BatchLine]) -> Call {
    let name = gemini::short_name(model);
    let requests: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| {
            let request = gemini::request_value(model, InputType::Document, &line.text);
            json!({ "request": request, "metadata": { "key": line.id } })
        })
        .collect();
    let body = json!({ "batch": {
        "displayName": format!("{NAME}{token}"),
        "inputConfig": { "requests": { "requests": requests } },
    }});
    let path = format!("/models/{}:asyncBatchEmbedContent", address::segment(name));
    Call::json(address::url(provider, &path), key_header(provider), body.to_string().into_bytes())
}

#[derive(Deserialize)]
struct Operation {
    #[serde(default)]
    name: String,
    #[serde(default)]
    metadata: Option<Batch>,
    #[serde(default)]
    response: Option<Output>,
    #[serde(default)]
    error: Option<Lenient<Status>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    batch_stats: Option<Lenient<Stats>>,
    #[serde(default)]
    output: Option<Output>,
}

/// 64-bit numbers are strings in this form of JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    #[serde(default)]
    request_count: Option<String>,
    #[serde(default)]
    successful_request_count: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    #[serde(default)]
    inlined_responses: Responses,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Responses {
    #[serde(default)]
    inlined_responses: Vec<Inlined>,
}

#[derive(Deserialize)]
struct Inlined {
    #[serde(default)]
    metadata: Option<Key>,
    #[serde(default)]
    response: Option<Response>,
    #[serde(default)]
    error: Option<Lenient<Status>>,
}

#[derive(Deserialize)]
struct Key {
    #[serde(default)]
    key: String,
}

#[derive(Deserialize)]
struct Response {
    embedding: Embedding,
}

#[derive(Deserialize)]
struct Embedding {
    #[serde(default)]
    values: Vector,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

/// Reads the name of a batch that was handed in.
pub(super) fn created(body: &[u8]) -> Result<String, String> {
    let operation: Operation = read(body)?;
    match operation.name.is_empty() {
        true => Err("provider returned a batch without a name".to_string()),
        false => Ok(operation.name),
    }
}

/// Asks for a page of the list of batches.
pub(super) fn list(provider: &Provider, after: Option<&str>) -> Call {
    let mut call = get(provider, "/batches");
    call.url = with_query(call.url, &format!("pageSize={PAGE}"));
    if let Some(after) = after {
        call.url = with_query(call.url, &format!("pageToken={}", address::segment(after)));
    }
    call
}

/// Looks for the batch with a token in a page of the list.
pub(super) fn listed(body: &[u8], token: &str) -> Result<BatchPage, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct List {
        #[serde(default)]
        operations: Vec<Operation>,
        #[serde(default)]
        next_page_token: Option<String>,
    }
    let list: List = read(body)?;
    let wanted = format!("{NAME}{token}");
    let has_token = |operation: &Operation| {
        let batch = operation.metadata.as_ref();
        batch.and_then(|batch| batch.display_name.as_ref()) == Some(&wanted)
    };
    Ok(BatchPage {
        found: list.operations.into_iter().find(has_token).map(|operation| operation.name),
        next: list.next_page_token.filter(|token| !token.is_empty()),
    })
}

/// Reads how far a batch is, and its answers.
pub(super) fn status(body: &[u8]) -> Result<BatchStatus, String> {
    let Operation { metadata, response, error, .. } = read(body)?;
    let error = error.and_then(Lenient::good).map(|status| status.message);
    let mut status = BatchStatus { reason: error, ..BatchStatus::default() };
    let mut output = response;
    if let Some(batch) = metadata {
        status.state = match batch.state.as_deref().and_then(|state| state.rsplit('_').next()) {
            Some("SUCCEEDED") => Some(BatchState::Completed),
            Some("FAILED") => Some(BatchState::Failed),
            Some("CANCELLED") => Some(BatchState::Cancelled),
            Some("EXPIRED") => Some(BatchState::Expired),
            _ => None,
        };
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        if let Some(stats) = batch.batch_stats.and_then(Lenient::good) {
            status.total = number(stats.request_count).unwrap_or_default();
            status.done = number(stats.successful_request_count).unwrap_or_default();
        }
        output = output.or(batch.output);
    }
    if status.state.is_none() && status.reason.is_some() {
        status.state = Some(BatchState::Failed);
    }
    let answers = output.map_or_else(Vec::new, |output| output.inlined_responses.inlined_responses);
    status.answers = answers.into_iter().filter_map(answer).collect();
    Ok(status)
}

fn answer(inlined: Inlined) -> Option<BatchLineAnswer> {
    let Inlined { metadata, response, error } = inlined;
    let outcome = match (response, error.and_then(Lenient::good)) {
        (Some(response), _) => LineOutcome::Vector(response.embedding.values.0),
        (None, Some(error)) if REFUSED.contains(&error.code) => {
            let body = json!({ "error": { "message": error.message } });
            refused(Kind::Gemini, 400, body.to_string().as_bytes())
        }
        (None, error) => LineOutcome::NotDone(error.map(|error| tidy(&error.message))),
    };
    Some(BatchLineAnswer { id: metadata?.key, outcome })
}
