//! The batch API of OpenAI, which Voyage has too but for where it takes model and options: files of JSON lines.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::json;

use embedd_wire::{BatchState, Encoding, Kind, Model, Provider};

use super::super::blank::tidy;
use super::super::reply::{Lenient, Vector, read};
use super::{
    BatchLine, BatchLineAnswer, BatchPage, BatchStatus, Call, LineOutcome, address, get, refused,
    with_query,
};

/// Batches in a page of the list.
const PAGE: u32 = 100;

/// The key of the metadata that holds the token of a batch.
const TOKEN: &str = "embedd";

#[derive(Serialize)]
struct LineOfOpenai<'a> {
    custom_id: &'a str,
    method: &'static str,
    url: &'static str,
    body: BodyOfOpenai<'a>,
}

#[derive(Serialize)]
struct BodyOfOpenai<'a> {
    model: &'a str,
    input: [&'a str; 1],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

#[derive(Serialize)]
struct LineOfVoyage<'a> {
    custom_id: &'a str,
    body: BodyOfVoyage<'a>,
}

#[derive(Serialize)]
struct BodyOfVoyage<'a> {
    input: [&'a str; 1],
}

/// Uploads a file with the texts of a batch.
pub fn upload(provider: &Provider, model: &Model, token: &str, lines: &[BatchLine]) -> Call {
    // No line of JSON begins with two hyphens, so the boundary is not in the file.
    let boundary = format!("embedd-{token}");
    let mut body = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
         --{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"embedd-{token}.jsonl\"\r\n\
         content-type: application/jsonl\r\n\r\n"
    )
    .into_bytes();
    for line in lines {
        // Writing strings to memory cannot fail.
        let _ = match provider.kind {
            Kind::Voyage => serde_json::to_writer(
                &mut body,
                &LineOfVoyage { custom_id: &line.id, body: BodyOfVoyage { input: [&line.text] } },
            ),
            _ => serde_json::to_writer(&mut body, &line_of_openai(provider, model, line)),
        };
        body.push(b'\n');
    }
    let mut end = String::new();
    let _ = write!(end, "\r\n--{boundary}--\r\n");
    body.extend_from_slice(end.as_bytes());
    let url = address::url(provider, "/files");
    let content_type = format!("multipart/form-data; boundary={boundary}");
    Call { content_type: content_type.into(), ..Call::json(url, address::bearer(provider), body) }
}

fn line_of_openai<'a>(
    provider: &Provider,
    model: &'a Model,
    line: &'a BatchLine,
) -> LineOfOpenai<'a> {
    LineOfOpenai {
        custom_id: &line.id,
        method: "POST",
        url: "/v1/embeddings",
        body: BodyOfOpenai {
            model: &model.name,
            input: [&line.text],
            encoding_format: match provider.encoding {
                Encoding::Float => "float",
                Encoding::Base64 | Encoding::Auto => "base64",
            },
            dimensions: model.requested_dimensions(),
        },
    }
}

/// Reads the name of an uploaded file.
pub fn uploaded(body: &[u8]) -> Result<String, String> {
    named(body, "file")
}

/// Makes a batch of an uploaded file.
pub fn create(provider: &Provider, model: &Model, token: &str, file: &str) -> Call {
    let mut request = json!({
        "input_file_id": file,
        "endpoint": "/v1/embeddings",
        "completion_window": if provider.kind == Kind::Voyage { "12h" } else { "24h" },
        "metadata": { TOKEN: token },
    });
    if provider.kind == Kind::Voyage {
        let mut params =
            json!({ "model": model.name, "input_type": "document", "truncation": true });
        if let Some(dimensions) = model.requested_dimensions() {
            params["output_dimension"] = dimensions.into();
        }
        if provider.encoding != Encoding::Float {
            params["encoding_format"] = "base64".into();
        }
        request["request_params"] = params;
    }
    let url = address::url(provider, "/batches");
    Call::json(url, address::bearer(provider), request.to_string().into_bytes())
}

/// Reads the name of a batch that was made.
pub(super) fn created(body: &[u8]) -> Result<String, String> {
    named(body, "batch")
}

/// The identifier in a reply, which is never empty.
fn named(body: &[u8], what: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        id: String,
    }
    let Named { id } = read(body)?;
    if id.is_empty() { Err(format!("provider returned a {what} without an id")) } else { Ok(id) }
}

/// Asks for a page of the list of batches, the newest first.
pub(super) fn list(provider: &Provider, after: Option<&str>) -> Call {
    let mut call = get(provider, "/batches");
    call.url = with_query(call.url, &format!("limit={PAGE}"));
    if let Some(after) = after {
        call.url = with_query(call.url, &format!("after={}", address::segment(after)));
    }
    call
}

/// Looks for the batch with a token in a page of the list.
pub(super) fn listed(body: &[u8], token: &str) -> Result<BatchPage, String> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<Item>,
        #[serde(default)]
        has_more: bool,
    }
    #[derive(Deserialize)]
    struct Item {
        id: String,
        #[serde(default)]
        metadata: Option<Lenient<serde_json::Map<String, serde_json::Value>>>,
    }
    let list: List = read(body)?;
    let next = list.data.last().map(|item| item.id.clone()).filter(|_| list.has_more);
    let has_token = |item: &Item| {
        item.metadata
            .as_ref()
            .and_then(Lenient::good_ref)
            .and_then(|data| data.get(TOKEN)?.as_str())
            == Some(token)
    };
    Ok(BatchPage { found: list.data.into_iter().find(has_token).map(|item| item.id), next })
}

/// Reads how far a batch is.
pub(super) fn status(body: &[u8]) -> Result<BatchStatus, String> {
    #[derive(Deserialize)]
    struct Batch {
        status: String,
        #[serde(default)]
        errors: Option<Lenient<Errors>>,
        #[serde(default)]
        input_file_id: Option<String>,
        #[serde(default)]
        output_file_id: Option<String>,
        #[serde(default)]
        error_file_id: Option<String>,
        #[serde(default)]
        request_counts: Option<Lenient<Counts>>,
    }
    #[derive(Deserialize)]
    struct Errors {
        data: Vec<Said>,
    }
    #[derive(Deserialize)]
    struct Counts {
        #[serde(default)]
        total: u64,
        #[serde(default)]
        completed: u64,
    }
    let batch: Batch = read(body)?;
    let state = match batch.status.as_str() {
        "completed" => Some(BatchState::Completed),
        "expired" => Some(BatchState::Expired),
        "cancelled" | "canceled" => Some(BatchState::Cancelled),
        "failed" => Some(BatchState::Failed),
        _ => None,
    };
    let counts = batch.request_counts.and_then(Lenient::good);
    let errors = batch.errors.and_then(Lenient::good);
    let given = |file: Option<String>| file.filter(|file| !file.is_empty());
    Ok(BatchStatus {
        state,
        reason: errors.and_then(|errors| errors.data.into_iter().find_map(|said| said.message)),
        done: counts.as_ref().map_or(0, |counts| counts.completed),
        total: counts.as_ref().map_or(0, |counts| counts.total),
        answer_files: [given(batch.output_file_id), given(batch.error_file_id)]
            .into_iter()
            .flatten()
            .collect(),
        text_file: given(batch.input_file_id),
        answers: Vec::new(),
    })
}

/// Asks for the content of a file.
pub fn content(provider: &Provider, file: &str) -> Call {
    get(provider, &format!("/files/{}/content", address::segment(file)))
}

/// What a service says of an error.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    custom_id: String,
    #[serde(default)]
    response: Option<Response>,
    #[serde(default)]
    error: Option<Lenient<Said>>,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    status_code: u16,
    #[serde(default)]
    body: Option<Lenient<Body>>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    embedding: Vector,
}

/// Reads a file of answers, line by line; what is not an answer is left out.
pub fn answers(kind: Kind, body: &[u8]) -> Vec<BatchLineAnswer> {
    let lines = body.split(|byte| *byte == b'\n');
    lines.filter_map(|line| answer(kind, line)).collect()
}

fn answer(kind: Kind, line: &[u8]) -> Option<BatchLineAnswer> {
    let Line { custom_id: id, response, error } = serde_json::from_slice(line).ok()?;
    let outcome = match response {
        Some(Response { status_code: 200, body }) => {
            let items = body.and_then(Lenient::good).map_or_else(Vec::new, |body| body.data);
            match items.into_iter().next() {
                Some(item) => LineOutcome::Vector(item.embedding.0),
                None => LineOutcome::NotDone(None),
            }
        }
        Some(Response { status_code: status @ 400.., .. }) => {
            let whole: serde_json::Value = serde_json::from_slice(line).ok()?;
            refused(kind, status, whole["response"]["body"].to_string().as_bytes())
        }
        _ => {
            let said = error.and_then(Lenient::good).and_then(|said| said.message);
            LineOutcome::NotDone(said.map(|said| tidy(&said)))
        }
    };
    Some(BatchLineAnswer { id, outcome })
}
