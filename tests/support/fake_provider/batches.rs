//! The batch APIs of the fake: OpenAI's and Voyage's with files, Gemini's without. A batch ends when the test lets it, as
//! the test says, and its texts are paid for then.

mod files;
mod inline;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::dialect::Dialect;
use super::http::Request;
use super::typed_vector;

/// A request of a batch API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchCall {
    Upload,
    Create,
    List,
    Look,
    Content,
    Cancel,
    Delete,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchTrouble {
    /// It is refused with this status.
    Status(u16),
    /// It is carried out, and its answer is lost.
    LostAnswer,
}

/// How batches end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchFate {
    Complete,
    /// Its time is over after half of the texts.
    Expire,
    Fail,
}

/// A text of a batch, as it was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchedText {
    pub id: String,
    pub text: String,
}

/// A batch.
#[derive(Debug, Clone)]
pub struct FakeBatch {
    pub name: String,
    /// The metadata or the display name.
    pub token: String,
    pub model: String,
    pub dimensions: Option<usize>,
    pub input_type: Option<String>,
    pub texts: Vec<BatchedText>,
    /// "in_progress", "completed", "expired", "failed" or "cancelled".
    pub state: &'static str,
    /// Texts that were answered.
    pub done: usize,
    pub base64: bool,
    input_file: Option<String>,
}

/// All batches of a fake, and how they go.
pub(super) struct Batches {
    state: Mutex<State>,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    batches: Vec<FakeBatch>,
    last: u64,
    is_held: bool,
    fate: BatchFate,
    /// How the next batches end, one by one, before `fate`.
    fates: Vec<BatchFate>,
    troubles: Vec<(BatchCall, BatchTrouble)>,
    /// A text with this part is rejected.
    refused: Option<String>,
    deleted: Vec<String>,
}

/// A reply, the texts that are paid for with it, and whether it is lost.
pub(super) struct Served {
    pub status: u16,
    pub body: Vec<u8>,
    pub paid: Vec<String>,
    pub is_lost: bool,
}

impl Default for Batches {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                files: BTreeMap::new(),
                batches: Vec::new(),
                last: 0,
                is_held: false,
                fate: BatchFate::Complete,
                fates: Vec::new(),
                troubles: Vec::new(),
                refused: None,
                deleted: Vec::new(),
            }),
        }
    }
}

/// Which request of the batch API this is; none when it is another one.
fn call(dialect: Dialect, request: &Request) -> Option<BatchCall> {
    let path = request.path.split('?').next().unwrap_or_default();
    let is = |suffix: &str| path.ends_with(suffix);
    match (dialect, request.method.as_str()) {
        (Dialect::OpenAi | Dialect::Voyage, method) => match method {
            "POST" if is("/files") => Some(BatchCall::Upload),
            "POST" if is("/batches") => Some(BatchCall::Create),
            "POST" if is("/cancel") => Some(BatchCall::Cancel),
            "GET" if is("/batches") => Some(BatchCall::List),
            "GET" if path.contains("/batches/") => Some(BatchCall::Look),
            "GET" if path.contains("/files/") && is("/content") => Some(BatchCall::Content),
            "DELETE" if path.contains("/files/") => Some(BatchCall::Delete),
            _ => None,
        },
        (Dialect::Gemini, "POST") if is(":asyncBatchEmbedContent") => Some(BatchCall::Create),
        (Dialect::Gemini, "POST") if is(":cancel") => Some(BatchCall::Cancel),
        (Dialect::Gemini, "GET") if is("/batches") => Some(BatchCall::List),
        (Dialect::Gemini, "GET") if path.contains("/batches/") => Some(BatchCall::Look),
        (Dialect::Gemini, "DELETE") if path.contains("/batches/") => Some(BatchCall::Delete),
        _ => None,
    }
}

impl Batches {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request is one of the batch API.
    pub fn is_asked(dialect: Dialect, request: &Request) -> bool {
        call(dialect, request).is_some()
    }

    /// Answers a request of the batch API; `dimensions` are those of a model's vectors.
    pub fn serve(
        &self,
        dialect: Dialect,
        request: &Request,
        dimensions: impl Fn(&str) -> usize,
    ) -> Served {
        let mut state = self.lock();
        let mut served = Served { status: 200, body: Vec::new(), paid: Vec::new(), is_lost: false };
        let Some(call) = call(dialect, request) else { return served };
        let trouble = state.troubles.iter().position(|(of, _)| *of == call);
        match trouble.map(|at| state.troubles.remove(at).1) {
            Some(BatchTrouble::Status(status)) => {
                served.status = status;
                served.body =
                    json!({ "error": { "message": "scripted trouble" } }).to_string().into();
                return served;
            }
            Some(BatchTrouble::LostAnswer) => served.is_lost = true,
            None => {}
        }
        if matches!(call, BatchCall::Look | BatchCall::List) {
            served.paid = state.advance();
        }
        let answer = match dialect {
            Dialect::Gemini => inline::answer(&mut state, call, request, &dimensions),
            _ => files::answer(&mut state, dialect, call, request, &dimensions),
        };
        match answer {
            Ok(body) => served.body = body,
            Err((status, message)) => {
                served.status = status;
                served.body = json!({ "error": { "message": message } }).to_string().into();
            }
        }
        served
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn batch(&mut self, name: &str) -> Result<&mut FakeBatch, (u16, String)> {
        let unknown = || (404, format!("No batch found with id '{name}'."));
        self.batches.iter_mut().find(|batch| batch.name == name).ok_or_else(unknown)
    }

    /// Cancels a batch that has not ended.
    fn cancel(&mut self, name: &str) -> Result<&mut FakeBatch, (u16, String)> {
        let batch = self.batch(name)?;
        if batch.state != "in_progress" {
            return Err((400, format!("Cannot cancel a batch with status '{}'.", batch.state)));
        }
        batch.state = "cancelled";
        Ok(batch)
    }

    /// Ends the batches that may end; returns the texts that are paid for.
    fn advance(&mut self) -> Vec<String> {
        if self.is_held {
            return Vec::new();
        }
        let mut paid = Vec::new();
        for batch in self.batches.iter_mut().filter(|batch| batch.state == "in_progress") {
            let fate = match self.fates.is_empty() {
                true => self.fate,
                false => self.fates.remove(0),
            };
            let all = batch.texts.len();
            (batch.state, batch.done) = match fate {
                BatchFate::Complete => ("completed", all),
                BatchFate::Expire => ("expired", all / 2),
                BatchFate::Fail => ("failed", 0),
            };
            paid.extend(batch.paid(self.refused.as_deref()));
        }
        paid
    }
}

impl FakeBatch {
    /// Its answered texts that were not rejected.
    fn paid(&self, refused: Option<&str>) -> Vec<String> {
        let answered = self.texts.iter().take(self.done);
        let is_good = |text: &&BatchedText| !refused.is_some_and(|part| text.text.contains(part));
        answered.filter(is_good).map(|text| text.text.clone()).collect()
    }

    /// The vector of a text, as numbers.
    fn vector(&self, text: &str, dimensions: &impl Fn(&str) -> usize) -> Vec<f32> {
        let dimensions = self.dimensions.unwrap_or_else(|| dimensions(&self.model));
        typed_vector(&self.model, text, self.input_type.as_deref(), dimensions)
    }
}

/// Numbers as JSON, or as base64.
fn encoded(vector: &[f32], base64: bool) -> Value {
    if base64 {
        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        return STANDARD.encode(bytes).into();
    }
    vector.iter().copied().map(Value::from).collect()
}

/// Checks that an object has no other fields than these.
fn only(object: &Value, names: &[&str]) -> Result<(), (u16, String)> {
    let Some(object) = object.as_object() else { return Err((400, "no object".to_string())) };
    match object.keys().find(|key| !names.contains(&key.as_str())) {
        Some(other) => Err((400, format!("Unknown field: {other}"))),
        None => Ok(()),
    }
}

impl super::FakeProvider {
    /// Lets no batch end, until `end_batches`.
    pub fn hold_batches(&self) {
        self.shared.batches.lock().is_held = true;
    }

    /// Ends all batches like this, and later ones when they are looked at.
    pub fn end_batches(&self, fate: BatchFate) {
        let mut state = self.shared.batches.lock();
        (state.is_held, state.fate) = (false, fate);
        let paid = state.advance();
        drop(state);
        self.shared.record.pay_for(&paid);
    }

    /// The next batch that ends ends like this.
    pub fn end_next_batch(&self, fate: BatchFate) {
        self.shared.batches.lock().fates.push(fate);
    }

    /// The next request of this kind goes wrong.
    pub fn trouble_batches(&self, call: BatchCall, trouble: BatchTrouble) {
        self.shared.batches.lock().troubles.push((call, trouble));
    }

    /// Batches reject texts with this part.
    pub fn refuse_in_batches(&self, part: &str) {
        self.shared.batches.lock().refused = Some(part.to_string());
    }

    /// The batches that were handed in.
    pub fn batches(&self) -> Vec<FakeBatch> {
        self.shared.batches.lock().batches.clone()
    }

    /// Files that were not deleted.
    pub fn batch_files(&self) -> usize {
        self.shared.batches.lock().files.len()
    }

    /// Files and batches that were deleted.
    pub fn deleted(&self) -> Vec<String> {
        self.shared.batches.lock().deleted.clone()
    }
}
