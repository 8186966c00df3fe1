//! The embedding services: how to build each one's requests and parse its replies. Pure.

use std::borrow::Cow;

use embedd_wire::{InputType, Kind, Model, Provider};

mod address;
pub mod batch;
mod blank;
mod gemini;
mod limit;
mod ollama;
mod openai;
mod pace;
mod reason;
mod refusal;
mod reply;
#[cfg(test)]
mod tests;
mod tokens;
mod voyage;

pub use blank::without;
pub use limit::{Measure, Stated};
pub use pace::{Pace, pace};
pub use refusal::{Refusal, RefusalKind, refusal};
pub use tokens::measure;

/// The method of an HTTP request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Delete,
}

/// One HTTP request, without the key and the provider's own headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// The name of the header that carries the key, and the prefix of its value.
    pub key_header: (String, &'static str),
    pub content_type: Cow<'static, str>,
    pub body: Vec<u8>,
}

impl Call {
    /// A POST with a body of JSON.
    fn json(url: String, key_header: (String, &'static str), body: Vec<u8>) -> Call {
        let content_type = Cow::Borrowed("application/json");
        Call { method: Method::Post, url, key_header, content_type, body }
    }
}

/// The content of a successful reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// A vector for each text, in the order of the texts, with the dimensions of the reply.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens the service counted, if it reports them.
    pub tokens: Option<u64>,
}

/// Why a vector cannot be used; none when it can. Any dimensions are right where 0 are wanted.
pub fn flaw(vector: &[f32], wanted: usize) -> Option<String> {
    if wanted != 0 && vector.len() != wanted {
        return Some(format!(
            "the provider returned a vector of {} dimensions for it",
            vector.len()
        ));
    }
    if !vector.iter().all(|number| number.is_finite()) {
        return Some("the provider returned a vector with a value that is no number".to_string());
    }
    let is_zero = vector.iter().all(|number| *number == 0.0);
    is_zero.then(|| "the provider returned a vector of zeros, which has no direction".to_string())
}

/// Builds the request for these texts, which are within the model's limits.
pub fn call(provider: &Provider, model: &Model, input_type: InputType, texts: &[&str]) -> Call {
    match provider.kind {
        Kind::Gemini => gemini::call(provider, model, input_type, texts),
        Kind::Voyage => voyage::call(provider, model, input_type, texts),
        Kind::Ollama => ollama::call(provider, model, texts),
        Kind::Local | Kind::Test | Kind::Openai | Kind::OpenaiCompatible => {
            openai::call(provider, model, texts)
        }
    }
}

/// Parses the body of a successful reply (status 200) to a request for this many texts; the error says what is wrong.
pub fn answer(kind: Kind, body: &[u8], texts: usize) -> Result<Answer, String> {
    match kind {
        Kind::Gemini => gemini::answer(body, texts),
        Kind::Voyage | Kind::Local | Kind::Test | Kind::Openai | Kind::OpenaiCompatible => {
            openai::answer(body, texts)
        }
        Kind::Ollama => ollama::answer(body, texts),
    }
}
