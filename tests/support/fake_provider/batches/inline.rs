//! Gemini's batch API: texts in the request, vectors in the batch.

use serde_json::{Value, json};

use super::super::http::Request;
use super::{BatchCall, BatchedText, FakeBatch, State, encoded, only};

type Answer = Result<Vec<u8>, (u16, String)>;

/// Batches in a page of the list.
const PAGE: usize = 2;

/// Answers a request.
pub(super) fn answer(
    state: &mut State,
    call: BatchCall,
    request: &Request,
    dimensions: &impl Fn(&str) -> usize,
) -> Answer {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let last = path.rsplit('/').next().unwrap_or_default();
    let name = format!("batches/{}", last.split(':').next().unwrap_or_default());
    let refused = state.refused.clone();
    match call {
        BatchCall::Create => create(state, request, last.split(':').next().unwrap_or_default()),
        BatchCall::List => Ok(list(state, query)),
        BatchCall::Look => {
            Ok(shown(state.batch(&name)?, refused.as_deref(), dimensions).to_string().into())
        }
        BatchCall::Cancel => {
            state.cancel(&name)?;
            Ok(b"{}".to_vec())
        }
        BatchCall::Delete => {
            state.batch(&name)?;
            state.batches.retain(|batch| batch.name != name);
            state.deleted.push(name);
            Ok(b"{}".to_vec())
        }
        BatchCall::Upload | BatchCall::Content => Err((404, "no such path".to_string())),
    }
}

fn create(state: &mut State, request: &Request, model: &str) -> Answer {
    let bad = |what: String| (400, what);
    let body: Value = serde_json::from_slice(&request.body).map_err(|e| bad(e.to_string()))?;
    only(&body, &["batch"])?;
    let given = &body["batch"];
    only(given, &["displayName", "inputConfig"])?;
    let mut batch = FakeBatch {
        name: String::new(),
        token: given["displayName"].as_str().unwrap_or_default().to_string(),
        model: model.to_string(),
        dimensions: None,
        input_type: None,
        texts: Vec::new(),
        state: "in_progress",
        done: 0,
        base64: false,
        input_file: None,
    };
    let requests = given["inputConfig"]["requests"]["requests"].as_array().cloned();
    for item in requests.ok_or_else(|| bad("no requests".to_string()))? {
        only(&item, &["request", "metadata"])?;
        let request = &item["request"];
        only(request, &["model", "content", "taskType", "outputDimensionality"])?;
        if request["model"] != format!("models/{model}") {
            return Err(bad("another model".to_string()));
        }
        batch.input_type = request["taskType"].as_str().map(str::to_string);
        batch.dimensions = request["outputDimensionality"].as_u64().map(|n| n as usize);
        let text = request["content"]["parts"][0]["text"].as_str().unwrap_or_default();
        let id = item["metadata"]["key"].as_str().unwrap_or_default().to_string();
        if text.is_empty() || id.is_empty() || batch.texts.iter().any(|known| known.id == id) {
            return Err(bad("a text and a key of its own for each request".to_string()));
        }
        batch.texts.push(BatchedText { id, text: text.to_string() });
    }
    batch.name = format!("batches/b{}", state.number());
    state.batches.push(batch.clone());
    Ok(json!({ "name": batch.name, "metadata": metadata(&batch) }).to_string().into())
}

fn metadata(batch: &FakeBatch) -> Value {
    let state = match batch.state {
        "in_progress" => "BATCH_STATE_RUNNING",
        "completed" => "BATCH_STATE_SUCCEEDED",
        "expired" => "BATCH_STATE_EXPIRED",
        "cancelled" => "BATCH_STATE_CANCELLED",
        _ => "BATCH_STATE_FAILED",
    };
    let stats = json!({
        "requestCount": batch.texts.len().to_string(), "successfulRequestCount": batch.done.to_string(),
    });
    json!({
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.EmbedContentBatch",
        "displayName": batch.token, "name": batch.name, "state": state, "batchStats": stats,
    })
}

fn shown(batch: &FakeBatch, refused: Option<&str>, dimensions: &impl Fn(&str) -> usize) -> Value {
    let mut operation = json!({ "name": batch.name, "metadata": metadata(batch) });
    if batch.state == "failed" {
        operation["error"] = json!({ "code": 8, "message": "enqueued token limit reached" });
    }
    if matches!(batch.state, "in_progress" | "failed") {
        return operation;
    }
    let answers: Vec<Value> = batch
        .texts
        .iter()
        .enumerate()
        .map(|(number, BatchedText { id, text })| {
            let metadata = json!({ "key": id });
            if number >= batch.done {
                return json!({ "metadata": metadata, "error": { "code": 4, "message": "expired" } });
            }
            if refused.is_some_and(|part| text.contains(part)) {
                let error = json!({ "code": 3, "message": "the text is rejected" });
                return json!({ "metadata": metadata, "error": error });
            }
            let values = encoded(&batch.vector(text, dimensions), false);
            json!({ "metadata": metadata, "response": { "embedding": { "values": values } } })
        })
        .collect();
    operation["done"] = true.into();
    operation["response"] = json!({ "inlinedResponses": { "inlinedResponses": answers } });
    operation
}

/// A page of the list, the oldest batch first.
fn list(state: &State, query: &str) -> Vec<u8> {
    let from = query.split('&').find_map(|pair| pair.strip_prefix("pageToken="));
    let from: usize = from.and_then(|from| from.parse().ok()).unwrap_or_default();
    let rest = &state.batches[from.min(state.batches.len())..];
    let operation = |batch: &FakeBatch| json!({ "name": batch.name, "metadata": metadata(batch) });
    let page: Vec<Value> = rest.iter().take(PAGE).map(operation).collect();
    let mut list = json!({ "operations": page });
    if rest.len() > PAGE {
        list["nextPageToken"] = (from + PAGE).to_string().into();
    }
    list.to_string().into()
}
