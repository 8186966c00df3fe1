//! The embedding services: how to build each one's requests and parse its replies. Pure.

use embedd_wire::{InputType, Kind, Model, Provider};

mod address;
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

/// One HTTP request (always POST with a JSON body), without the key and the provider's own headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The whole URL.
    pub url: String,
    /// The name of the header that carries the key, and the prefix of its value.
    pub key_header: (String, &'static str),
    /// The JSON body.
    pub body: Vec<u8>,
}

/// The content of a successful reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// A vector for each text, in the order of the texts, with the dimensions of the reply.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens the service counted, if it reports them.
    pub tokens: Option<u64>,
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
