//! The batch APIs: requests as the services document them, and replies as they send them.

use embedd_wire::{BatchState, Encoding, Kind};
use serde_json::{Value, json};

use super::{model, model_asked, provider, provider_at, provider_with};
use crate::providers::Method;
use crate::providers::batch::{self, BatchLine, BatchStatus, LineOutcome};

fn lines() -> Vec<BatchLine> {
    let line = |id: &str, text: &str| BatchLine { id: id.to_string(), text: text.to_string() };
    vec![line("wa", "one\n--embedd-t"), line("cb", "tw\"o")]
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// The file in a form.
fn file(body: &[u8]) -> Vec<Value> {
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.starts_with("--embedd-t\r\n") && body.ends_with("\r\n--embedd-t--\r\n"));
    assert_eq!(body.matches("\r\n--embedd-t").count(), 2);
    let (_, file) = body.split_once("application/jsonl\r\n\r\n").unwrap();
    let (file, _) = file.split_once("\r\n--embedd-t--").unwrap();
    file.lines().map(|line| json_of(line.as_bytes())).collect()
}

#[test]
fn openai_takes_a_file_whose_lines_are_requests() {
    let model = model_asked("m", 8);
    let call = batch::upload(&provider(Kind::Openai), &model, "t", &lines());
    assert_eq!((call.method, call.url.as_str()), (Method::Post, "https://api.openai.com/v1/files"));
    assert_eq!(call.content_type, "multipart/form-data; boundary=embedd-t");
    assert_eq!(call.key_header, ("authorization".to_string(), "Bearer "));
    let body =
        json!({ "model": "m", "input": ["tw\"o"], "encoding_format": "base64", "dimensions": 8 });
    let line =
        json!({ "custom_id": "cb", "method": "POST", "url": "/v1/embeddings", "body": body });
    assert_eq!(file(&call.body)[1], line);
    let float = provider_with(Kind::Openai, Encoding::Float);
    let call = batch::upload(&float, &super::model("m"), "t", &lines());
    assert_eq!(file(&call.body)[0]["body"]["encoding_format"], "float");
    let call = batch::create(&provider(Kind::Openai), &model, "t", "file-1");
    assert_eq!(call.url, "https://api.openai.com/v1/batches");
    let request = json!({
        "input_file_id": "file-1", "endpoint": "/v1/embeddings", "completion_window": "24h",
        "metadata": { "embedd": "t" },
    });
    assert_eq!(json_of(&call.body), request);
}

#[test]
fn voyage_takes_model_and_options_with_the_batch() {
    let call = batch::upload(&provider(Kind::Voyage), &model("m"), "t", &lines());
    let line = json!({ "custom_id": "wa", "body": { "input": ["one\n--embedd-t"] } });
    assert_eq!(file(&call.body)[0], line);
    let call = batch::create(&provider(Kind::Voyage), &model_asked("m", 8), "t", "f");
    let body = json_of(&call.body);
    assert_eq!(
        (&body["completion_window"], &body["metadata"]["embedd"]),
        (&json!("12h"), &json!("t"))
    );
    let params = json!({
        "model": "m", "input_type": "document", "truncation": true, "output_dimension": 8,
        "encoding_format": "base64",
    });
    assert_eq!(body["request_params"], params);
}

#[test]
fn gemini_takes_texts_in_the_request_for_the_batch() {
    let call = batch::submit(&provider(Kind::Gemini), &model_asked("models/m", 8), "t", &lines());
    let url = "https://generativelanguage.googleapis.com/v1beta/models/m:asyncBatchEmbedContent";
    assert_eq!((call.url.as_str(), call.key_header.0.as_str()), (url, "x-goog-api-key"));
    let body = json_of(&call.body);
    assert_eq!(body["batch"]["displayName"], "embedd-t");
    let request = json!({
        "request": {
            "model": "models/m", "content": { "parts": [{ "text": "tw\"o" }] },
            "taskType": "RETRIEVAL_DOCUMENT", "outputDimensionality": 8,
        },
        "metadata": { "key": "cb" },
    });
    assert_eq!(body["batch"]["inputConfig"]["requests"]["requests"][1], request);
}

#[test]
fn batches_and_files_are_addressed_by_escaped_names() {
    let at = |kind, base: &str| provider_at(kind, base);
    let openai = at(Kind::Openai, "https://x/v1?api=2");
    let gemini = at(Kind::Gemini, "https://y");
    for (call, method, url) in [
        (batch::look(&openai, "b/1"), Method::Get, "https://x/v1/batches/b%2F1?api=2"),
        (batch::cancel(&openai, "b"), Method::Post, "https://x/v1/batches/b/cancel?api=2"),
        (batch::content(&openai, "f"), Method::Get, "https://x/v1/files/f/content?api=2"),
        (batch::delete_file(&openai, "f?"), Method::Delete, "https://x/v1/files/f%3F?api=2"),
        (batch::list(&openai, None), Method::Get, "https://x/v1/batches?limit=100&api=2"),
        (
            batch::list(&openai, Some("b&c")),
            Method::Get,
            "https://x/v1/batches?after=b%26c&limit=100&api=2",
        ),
        (batch::look(&gemini, "batches/1"), Method::Get, "https://y/batches/1"),
        (batch::cancel(&gemini, "batches/1"), Method::Post, "https://y/batches/1:cancel"),
        (batch::delete(&gemini, "batches/../1"), Method::Delete, "https://y/batches/..%2F1"),
        (
            batch::list(&gemini, Some("p")),
            Method::Get,
            "https://y/batches?pageToken=p&pageSize=100",
        ),
    ] {
        assert_eq!((call.method, call.url.as_str()), (method, url));
    }
}

#[test]
fn a_batch_is_found_by_its_token_only() {
    let page = |kind, body: Value, token| {
        let page = batch::listed(kind, body.to_string().as_bytes(), token).unwrap();
        (page.found, page.next)
    };
    let list = json!({ "data": [
        { "id": "b3", "metadata": null }, { "id": "b2", "metadata": { "embedd": "t" } },
        { "id": "b1", "metadata": { "embedd": 7, "other": "t2" } },
    ], "has_more": true });
    let (found, last) = (Some("b2".to_string()), Some("b1".to_string()));
    assert_eq!(page(Kind::Openai, list.clone(), "t"), (found, last.clone()));
    assert_eq!(page(Kind::Voyage, list, "t2"), (None, last));
    assert_eq!(page(Kind::Openai, json!({ "data": [] }), "t"), (None, None));
    let list = json!({ "operations": [
        { "name": "batches/1", "metadata": { "displayName": "embedd-t" } }, { "name": "batches/2" },
    ], "nextPageToken": "" });
    assert_eq!(page(Kind::Gemini, list, "t"), (Some("batches/1".to_string()), None));
    assert_eq!(page(Kind::Gemini, json!({}), "t"), (None, None));
    assert!(batch::listed(Kind::Openai, b"{}", "t").is_err());
    assert!(batch::submitted(Kind::Openai, br#"{"id": ""}"#).is_err());
    assert!(batch::submitted(Kind::Gemini, b"{}").is_err() && batch::uploaded(b"[]").is_err());
    assert_eq!(batch::submitted(Kind::Gemini, br#"{"name": "batches/1"}"#).unwrap(), "batches/1");
}

#[test]
fn a_status_tells_how_a_batch_has_ended_and_where_its_answers_are() {
    let status = |kind, body: Value| batch::status(kind, body.to_string().as_bytes()).unwrap();
    for (word, state) in [
        ("validating", None),
        ("in_progress", None),
        ("finalizing", None),
        ("cancelling", None),
        ("completed", Some(BatchState::Completed)),
        ("expired", Some(BatchState::Expired)),
        ("cancelled", Some(BatchState::Cancelled)),
        ("failed", Some(BatchState::Failed)),
    ] {
        assert_eq!(status(Kind::Openai, json!({ "status": word })).state, state, "{word}");
    }
    let body = json!({
        "status": "failed", "input_file_id": "f0", "output_file_id": "f1", "error_file_id": null,
        "errors": { "data": [{ "code": "x", "message": "too many tokens" }] },
        "request_counts": { "total": 9, "completed": 4, "failed": 1 },
    });
    let expected = BatchStatus {
        state: Some(BatchState::Failed),
        reason: Some("too many tokens".to_string()),
        done: 4,
        total: 9,
        answer_files: vec!["f1".to_string()],
        text_file: Some("f0".to_string()),
        answers: Vec::new(),
    };
    assert_eq!(status(Kind::Voyage, body), expected);
    for (word, state) in [
        ("BATCH_STATE_PENDING", None),
        ("JOB_STATE_RUNNING", None),
        ("BATCH_STATE_SUCCEEDED", Some(BatchState::Completed)),
        ("BATCH_STATE_EXPIRED", Some(BatchState::Expired)),
    ] {
        let body = json!({ "name": "batches/1", "metadata": { "state": word } });
        assert_eq!(status(Kind::Gemini, body).state, state, "{word}");
    }
    let failed = status(Kind::Gemini, json!({ "error": { "code": 8, "message": "quota" } }));
    assert_eq!((failed.state, failed.reason.as_deref()), (Some(BatchState::Failed), Some("quota")));
    assert!(batch::status(Kind::Openai, b"<html>").is_err());
}

#[test]
fn answers_are_vectors_refusals_or_not_done() {
    let file = [
        json!({ "custom_id": "wa", "response": { "status_code": 200, "body": { "data": [{ "embedding": [1.0, 2.5] }] } } }),
        json!({ "custom_id": "wb", "response": { "status_code": 200, "body": { "data": [{ "embedding": "AACAPwAAIEA=" }] } } }),
        json!({ "custom_id": "wc", "response": { "status_code": 400, "body": { "error": { "message": "too long" } } } }),
        json!({ "custom_id": "wd", "response": { "status_code": 422, "body": { "detail": "bad" } } }),
        json!({ "custom_id": "we", "response": { "status_code": 429, "body": { "error": { "message": "slow" } } } }),
        json!({ "custom_id": "wf", "response": null, "error": { "code": "batch_expired", "message": "over" } }),
        json!({ "custom_id": "wg", "response": { "status_code": 200, "body": { "data": [] } } }),
        json!({ "custom_id": "wi", "response": { "status_code": 400, "body": { "error": {
            "code": "billing_hard_limit_reached", "message": "Billing hard limit has been reached" } } } }),
    ];
    let mut text = file.map(|line| line.to_string()).join("\n");
    text.push_str("\n{\"custom_id\": \"wh\", \"resp\nnoise\n");
    let answers = batch::answers(Kind::Openai, text.as_bytes());
    let refused = |reason: &str| LineOutcome::Refused(reason.to_string());
    let not_done = |reason: Option<&str>| LineOutcome::NotDone(reason.map(str::to_string));
    let vector = || LineOutcome::Vector(vec![1.0, 2.5]);
    let expected = [
        vector(),
        vector(),
        refused("too long"),
        refused("bad"),
        not_done(Some("slow")),
        not_done(Some("over")),
        not_done(None),
        not_done(Some("Billing hard limit has been reached")),
    ];
    assert_eq!(
        answers.iter().map(|answer| answer.id.as_str()).collect::<String>(),
        "wawbwcwdwewfwgwi"
    );
    assert!(answers.iter().map(|answer| &answer.outcome).eq(&expected));

    let inlined = json!([
        { "metadata": { "key": "wa" }, "response": { "embedding": { "values": [1.0, 2.5] } } },
        { "metadata": { "key": "wb" }, "error": { "code": 3, "message": "too long" } },
        { "metadata": { "key": "wc" }, "error": { "code": 4, "message": "late" } },
        { "response": { "embedding": { "values": [1.0] } } },
    ]);
    let output = json!({ "inlinedResponses": { "inlinedResponses": inlined } });
    for body in [
        json!({ "metadata": { "state": "BATCH_STATE_SUCCEEDED" }, "response": output }),
        json!({ "metadata": { "state": "BATCH_STATE_SUCCEEDED", "output": output } }),
    ] {
        let status = batch::status(Kind::Gemini, body.to_string().as_bytes()).unwrap();
        let outcomes: Vec<_> = status.answers.into_iter().map(|answer| answer.outcome).collect();
        assert_eq!(outcomes, [vector(), refused("too long"), not_done(Some("late"))]);
    }
}
