//! The batch API of OpenAI and Voyage: a file of texts in, a file of vectors out.

use serde_json::{Value, json};

use super::super::dialect::Dialect;
use super::super::http::Request;
use super::super::tokens;
use super::{BatchCall, BatchedText, FakeBatch, State, encoded, only};

type Answer = Result<Vec<u8>, (u16, String)>;

/// Batches in a page of the list: fewer than the service has, so that a test needs few.
const PAGE: usize = 2;

/// Answers a request.
pub(super) fn answer(
    state: &mut State,
    dialect: Dialect,
    call: BatchCall,
    request: &Request,
    dimensions: &impl Fn(&str) -> usize,
) -> Answer {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let segment = |from_end: usize| path.rsplit('/').nth(from_end).unwrap_or_default().to_string();
    match call {
        BatchCall::Upload => upload(state, request),
        BatchCall::Create => create(state, dialect, request),
        BatchCall::List => Ok(list(state, query)),
        BatchCall::Look => {
            let name = segment(0);
            let refused = state.refused.clone();
            let batch = state.batch(&name)?.clone();
            for (file, content) in output(&batch, dialect, refused.as_deref(), dimensions) {
                if !state.deleted.contains(&file) {
                    state.files.insert(file, content);
                }
            }
            Ok(shown(&batch, state).to_string().into())
        }
        BatchCall::Content => match state.files.get(&segment(1)) {
            Some(content) => Ok(content.clone()),
            None => Err((404, format!("No such File object: {}", segment(1)))),
        },
        BatchCall::Cancel => {
            let batch = state.cancel(&segment(1))?.clone();
            Ok(shown(&batch, state).to_string().into())
        }
        BatchCall::Delete => {
            let file = segment(0);
            state.files.remove(&file);
            state.deleted.push(file.clone());
            Ok(json!({ "id": file, "deleted": true }).to_string().into())
        }
    }
}

/// The parts of a form: its fields by name, without their headers.
fn form(request: &Request) -> Option<Vec<(String, Vec<u8>)>> {
    let boundary = request.header("content-type")?.split_once("boundary=")?.1;
    let body = String::from_utf8(request.body.clone()).ok()?;
    let line = format!("--{boundary}");
    let parts = body.split(&line);
    let mut fields = Vec::new();
    for part in parts.filter(|part| !part.is_empty() && !part.starts_with("--")) {
        let (head, content) = part.split_once("\r\n\r\n")?;
        let name = head.split_once("name=\"")?.1.split('"').next()?;
        fields.push((name.to_string(), content.strip_suffix("\r\n")?.as_bytes().to_vec()));
    }
    Some(fields)
}

fn upload(state: &mut State, request: &Request) -> Answer {
    let bad = |what: &str| (400, what.to_string());
    let fields = form(request).ok_or_else(|| bad("no form"))?;
    let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, content)| content);
    if field("purpose").map(Vec::as_slice) != Some(b"batch") {
        return Err(bad("purpose must be batch"));
    }
    let content = field("file").ok_or_else(|| bad("no file"))?.clone();
    let name = format!("file-{}", state.number());
    state.files.insert(name.clone(), content);
    Ok(json!({ "object": "file", "id": name, "purpose": "batch" }).to_string().into())
}

fn create(state: &mut State, dialect: Dialect, request: &Request) -> Answer {
    let bad = |what: String| (400, what);
    let body: Value = serde_json::from_slice(&request.body).map_err(|e| bad(e.to_string()))?;
    let is_voyage = dialect == Dialect::Voyage;
    let own: &[&str] = if is_voyage { &["request_params"] } else { &[] };
    let names = ["input_file_id", "endpoint", "completion_window", "metadata"];
    only(&body, &[&names[..], own].concat())?;
    let window = if is_voyage { "12h" } else { "24h" };
    if body["completion_window"] != window || body["endpoint"] != "/v1/embeddings" {
        return Err(bad("bad window or endpoint".to_string()));
    }
    let file = body["input_file_id"].as_str().unwrap_or_default().to_string();
    let content = state.files.get(&file).ok_or_else(|| bad(format!("no file {file}")))?;
    let mut batch = FakeBatch {
        name: String::new(),
        token: body["metadata"]["embedd"].as_str().unwrap_or_default().to_string(),
        model: String::new(),
        dimensions: None,
        input_type: None,
        texts: Vec::new(),
        state: "in_progress",
        done: 0,
        base64: false,
        input_file: Some(file),
    };
    if is_voyage {
        let params = &body["request_params"];
        only(
            params,
            &["model", "input_type", "truncation", "output_dimension", "encoding_format"],
        )?;
        options(&mut batch, params, "output_dimension");
        batch.input_type = params["input_type"].as_str().map(str::to_string);
    }
    for line in content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line).map_err(|e| bad(e.to_string()))?;
        let inner = &line["body"];
        if is_voyage {
            only(&line, &["custom_id", "body"])?;
            only(inner, &["input"])?;
        } else {
            only(&line, &["custom_id", "method", "url", "body"])?;
            only(inner, &["model", "input", "encoding_format", "dimensions"])?;
            if line["method"] != "POST" || line["url"] != "/v1/embeddings" {
                return Err(bad("bad method or url".to_string()));
            }
            options(&mut batch, inner, "dimensions");
        }
        let id = line["custom_id"].as_str().unwrap_or_default().to_string();
        if id.is_empty() || id.len() > 64 || batch.texts.iter().any(|text| text.id == id) {
            return Err(bad(format!("bad custom_id {id}")));
        }
        let text = match inner["input"].as_array().map(Vec::as_slice) {
            Some([Value::String(text)]) if !text.is_empty() => text.clone(),
            _ => return Err(bad("one text a line".to_string())),
        };
        batch.texts.push(BatchedText { id, text });
    }
    batch.name = format!("batch_{}", state.number());
    state.batches.push(batch.clone());
    Ok(shown(&batch, state).to_string().into())
}

fn options(batch: &mut FakeBatch, options: &Value, dimensions: &str) {
    batch.model = options["model"].as_str().unwrap_or_default().to_string();
    batch.dimensions = options[dimensions].as_u64().map(|dimensions| dimensions as usize);
    batch.base64 = options["encoding_format"] == "base64";
}

/// A batch as the service shows it.
fn shown(batch: &FakeBatch, state: &State) -> Value {
    let file = |kind: &str| {
        let name = format!("file-{kind}-{}", batch.name);
        state.files.contains_key(&name).then_some(name)
    };
    let errors = (batch.state == "failed").then(|| {
        json!({ "object": "list", "data": [{ "code": "token_limit_exceeded", "message": "enqueued token limit reached" }] })
    });
    json!({
        "id": batch.name, "object": "batch", "endpoint": "/v1/embeddings", "errors": errors,
        "input_file_id": batch.input_file, "completion_window": "24h", "status": batch.state,
        "output_file_id": file("output"), "error_file_id": file("errors"),
        "request_counts": { "total": batch.texts.len(), "completed": batch.done, "failed": 0 },
        "metadata": { "embedd": batch.token },
    })
}

/// The files of an ended batch: answers, and what has none. Their lines are not in the order of the texts.
fn output(
    batch: &FakeBatch,
    dialect: Dialect,
    refused: Option<&str>,
    dimensions: &impl Fn(&str) -> usize,
) -> Vec<(String, Vec<u8>)> {
    if batch.state == "in_progress" || batch.state == "failed" {
        return Vec::new();
    }
    let (mut answers, mut errors) = (String::new(), String::new());
    for (number, BatchedText { id, text }) in batch.texts.iter().enumerate().rev() {
        let is_refused = refused.is_some_and(|part| text.contains(part));
        let (out, line) = if number >= batch.done {
            let error = json!({ "code": "batch_expired", "message": "This request could not be executed before the completion window expired." });
            (&mut errors, json!({ "id": "r", "custom_id": id, "response": null, "error": error }))
        } else if is_refused {
            let body = match dialect {
                Dialect::Voyage => json!({ "detail": "the text is rejected" }),
                _ => json!({ "error": { "message": "the text is rejected" } }),
            };
            let response = json!({ "status_code": 400, "request_id": "q", "body": body });
            (
                &mut errors,
                json!({ "id": "r", "custom_id": id, "response": response, "error": null }),
            )
        } else {
            let vector = encoded(&batch.vector(text, dimensions), batch.base64);
            let data = json!([{ "object": "embedding", "index": 0, "embedding": vector }]);
            let usage = json!({ "total_tokens": tokens(text) });
            let body =
                json!({ "object": "list", "data": data, "model": batch.model, "usage": usage });
            let response = json!({ "status_code": 200, "request_id": "q", "body": body });
            (
                &mut answers,
                json!({ "id": "r", "custom_id": id, "response": response, "error": null }),
            )
        };
        out.push_str(&line.to_string());
        out.push('\n');
    }
    let files = [("output", answers), ("errors", errors)];
    let named = files.into_iter().filter(|(_, content)| !content.is_empty());
    named.map(|(kind, content)| (format!("file-{kind}-{}", batch.name), content.into())).collect()
}

/// A page of the list, the newest batch first.
fn list(state: &State, query: &str) -> Vec<u8> {
    let after = query.split('&').find_map(|pair| pair.strip_prefix("after="));
    let newest: Vec<&FakeBatch> = state.batches.iter().rev().collect();
    let from = after.and_then(|after| newest.iter().position(|batch| batch.name == after));
    let rest = &newest[from.map_or(0, |at| at + 1)..];
    let page: Vec<Value> = rest.iter().take(PAGE).map(|batch| shown(batch, state)).collect();
    json!({ "object": "list", "data": page, "has_more": rest.len() > PAGE }).to_string().into()
}
