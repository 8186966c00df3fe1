//! The embedding services: how each service spells a request and a reply. Pure.

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

/// One HTTP request (always POST with a JSON body), but for the key and the headers of the provider itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The whole URL.
    pub url: String,
    /// Name of the header that carries the key, and what stands in front of the key in it.
    pub key_header: (String, &'static str),
    /// The JSON body.
    pub body: Vec<u8>,
}

/// What a good reply holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// A vector for each text, in the order of the texts; as long as it came.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens the service counted, where it says so.
    pub tokens: Option<u64>,
}

/// Spells a request for these texts, which are not more than the model takes.
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

/// Reads the body of a good reply (status 200) to a request for so many texts; an error says what is wrong with it.
pub fn answer(kind: Kind, body: &[u8], texts: usize) -> Result<Answer, String> {
    match kind {
        Kind::Gemini => gemini::answer(body, texts),
        Kind::Voyage | Kind::Local | Kind::Test | Kind::Openai | Kind::OpenaiCompatible => {
            openai::answer(body, texts)
        }
        Kind::Ollama => ollama::answer(body, texts),
    }
}
