//! The batch APIs of the services: how to build their requests and parse their replies. Pure.
//!
//! OpenAI and Voyage take a file of texts and return a file of vectors; Gemini takes and returns them in the request
//! for the batch itself.

mod files;
mod inline;

use embedd_wire::{BatchState, Kind, Provider};

pub use self::files::{answers, content, create, upload, uploaded};
pub use self::inline::submit;

use super::{Call, Method, RefusalKind, address, refusal};

/// A text of a batch: what the service returns with its vector, and what it embeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchLine {
    pub id: String,
    pub text: String,
}

/// What the service says of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BatchStatus {
    /// How it has ended; none while the service works on it.
    pub state: Option<BatchState>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Texts that are done, and all texts.
    pub done: u64,
    pub total: u64,
    /// The files with its answers, where they are not in the status itself.
    pub answer_files: Vec<String>,
    /// The file with its texts.
    pub text_file: Option<String>,
    /// Answers that the status itself holds.
    pub answers: Vec<BatchLineAnswer>,
}

/// The answer for one text of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchLineAnswer {
    pub id: String,
    pub outcome: LineOutcome,
}

/// What became of a text.
#[derive(Debug, Clone, PartialEq)]
pub enum LineOutcome {
    Vector(Vec<f32>),
    /// The service rejects the text, and would again.
    Refused(String),
    /// The service did not get to it, or something else than the text is to blame; the reason, if it says one.
    NotDone(Option<String>),
}

/// A page of the list of batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPage {
    /// The batch with the token that was looked for.
    pub found: Option<String>,
    /// Where the next page begins; none on the last page.
    pub next: Option<String>,
}

/// Whether texts are handed in as a file.
pub fn takes_files(kind: Kind) -> bool {
    kind != Kind::Gemini
}

/// Reads the name of a batch that was handed in.
pub fn submitted(kind: Kind, body: &[u8]) -> Result<String, String> {
    if takes_files(kind) { files::created(body) } else { inline::created(body) }
}

/// Asks for a page of the list of batches.
pub fn list(provider: &Provider, after: Option<&str>) -> Call {
    if takes_files(provider.kind) {
        files::list(provider, after)
    } else {
        inline::list(provider, after)
    }
}

/// Looks for the batch with a token in a page of the list.
pub fn listed(kind: Kind, body: &[u8], token: &str) -> Result<BatchPage, String> {
    if takes_files(kind) { files::listed(body, token) } else { inline::listed(body, token) }
}

/// Asks how far a batch is.
pub fn look(provider: &Provider, batch: &str) -> Call {
    get(provider, &path_of(provider.kind, batch))
}

/// Reads how far a batch is.
pub fn status(kind: Kind, body: &[u8]) -> Result<BatchStatus, String> {
    if takes_files(kind) { files::status(body) } else { inline::status(body) }
}

/// What an error of one text means: whether the text is to blame, or the account, the model or the service.
fn refused(kind: Kind, status: u16, body: &[u8]) -> LineOutcome {
    let refusal = refusal(kind, status, &|_| None, body);
    match refusal.kind {
        RefusalKind::Input => LineOutcome::Refused(refusal.message),
        _ => LineOutcome::NotDone(Some(refusal.message)),
    }
}

/// Has a batch stopped.
pub fn cancel(provider: &Provider, batch: &str) -> Call {
    let path = path_of(provider.kind, batch);
    let (path, body) = match takes_files(provider.kind) {
        true => (format!("{path}/cancel"), Vec::new()),
        false => (format!("{path}:cancel"), b"{}".to_vec()),
    };
    Call::json(address::url(provider, &path), key_header(provider), body)
}

/// Deletes a batch that holds its texts and answers itself.
pub fn delete(provider: &Provider, batch: &str) -> Call {
    Call { method: Method::Delete, ..look(provider, batch) }
}

/// Deletes a file.
pub fn delete_file(provider: &Provider, file: &str) -> Call {
    let path = format!("/files/{}", address::segment(file));
    Call { method: Method::Delete, ..get(provider, &path) }
}

/// The path of a batch. Gemini's names have a prefix that is part of the path.
fn path_of(kind: Kind, batch: &str) -> String {
    let name = match takes_files(kind) {
        true => batch,
        false => batch.strip_prefix("batches/").unwrap_or(batch),
    };
    format!("/batches/{}", address::segment(name))
}

fn get(provider: &Provider, path: &str) -> Call {
    let url = address::url(provider, path);
    Call { method: Method::Get, ..Call::json(url, key_header(provider), Vec::new()) }
}

fn key_header(provider: &Provider) -> (String, &'static str) {
    match takes_files(provider.kind) {
        true => address::bearer(provider),
        false => address::key_header(provider, "x-goog-api-key", ""),
    }
}

/// A path with the parameters of a query, before those of the base URL.
fn with_query(url: String, query: &str) -> String {
    match url.split_once('?') {
        Some((path, own)) => format!("{path}?{query}&{own}"),
        None => format!("{url}?{query}"),
    }
}
