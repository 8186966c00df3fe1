//! The options of a fake.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::FakeProvider;
use super::dialect::{Asked, Dialect};
use super::refusal::Problem;
use super::tls::{Authority, Certificate};
use super::vector;

/// The default dimensions of a vector.
const DIMENSIONS: usize = 8;

/// The configuration of a fake, which does not change while it runs.
#[derive(Clone)]
pub(super) struct Settings {
    pub dialect: Dialect,
    /// The initial keys.
    pub keys: Option<Vec<String>>,
    pub key_header: Option<String>,
    pub record: bool,
    pub latency: Duration,
    pub port: u16,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    dimensions: usize,
    fixed_dimensions: bool,
    models: HashMap<String, usize>,
    most_texts: usize,
    most_tokens: u64,
    most_bytes: usize,
    /// The status for a request above a limit, if the error says neither which limit nor its value.
    silent: Option<u16>,
    /// How long the model takes to load; a load is abandoned with the request that started it.
    pub loads_in: Duration,
}

impl Settings {
    /// The dimensions of a request's vectors.
    pub fn dimensions_of(&self, asked: &Asked) -> usize {
        asked.dimensions.unwrap_or_else(|| self.dimensions_of_model(&asked.model))
    }

    /// The dimensions of a model's vectors where a request does not name them.
    pub fn dimensions_of_model(&self, model: &str) -> usize {
        self.models.get(model).copied().unwrap_or(self.dimensions)
    }

    /// Why the service rejects a request with a valid key.
    pub fn problem(&self, asked: &Asked) -> Option<Problem> {
        if !self.models.is_empty() && !self.models.contains_key(&asked.model) {
            return Some(Problem::ModelUnknown);
        }
        if self.fixed_dimensions && asked.dimensions.is_some() {
            return Some(Problem::DimensionsFixed);
        }
        if asked.dimensions == Some(0) {
            return Some(Problem::Bad("a vector has at least one number".to_string()));
        }
        let tokens: u64 = asked.texts.iter().map(|text| vector::tokens(text)).sum();
        let bytes: usize = asked.texts.iter().map(String::len).sum();
        let problem = if asked.texts.len() > self.most_texts {
            Problem::TooManyTexts(self.most_texts)
        } else if tokens > self.most_tokens {
            let most = self.most_tokens;
            Problem::Bad(format!("Requested {tokens} tokens, max {most} tokens per request"))
        } else if bytes > self.most_bytes {
            let most = self.most_bytes;
            Problem::Bad(format!("Request payload size exceeds the limit: {most} bytes."))
        } else {
            return None;
        };
        Some(self.silent.map_or(problem, Problem::TooMuch))
    }
}

/// Builds a fake.
#[must_use]
pub struct Builder(Settings);

impl Builder {
    pub(super) fn new(dialect: Dialect) -> Builder {
        Builder(Settings {
            dialect,
            keys: None,
            key_header: None,
            record: true,
            latency: Duration::ZERO,
            port: 0,
            tls: None,
            dimensions: DIMENSIONS,
            fixed_dimensions: false,
            models: HashMap::new(),
            most_texts: dialect.most_texts(),
            most_tokens: u64::MAX,
            most_bytes: usize::MAX,
            silent: None,
            loads_in: Duration::ZERO,
        })
    }

    /// Accepts this key; can be called several times. By default every key is accepted.
    pub fn key(mut self, key: &str) -> Builder {
        self.0.keys.get_or_insert_default().push(key.to_string());
        self
    }

    /// Reads the bare key from this header only.
    pub fn key_header(mut self, name: &str) -> Builder {
        self.0.key_header = Some(name.to_ascii_lowercase());
        self
    }

    /// The dimensions of a vector if the request names none; 8 by default.
    pub fn dimensions(mut self, dimensions: usize) -> Builder {
        self.0.dimensions = dimensions;
        self
    }

    /// Rejects requests that name dimensions, as older models do.
    pub fn fixed_dimensions(mut self) -> Builder {
        self.0.fixed_dimensions = true;
        self
    }

    /// Adds a model; by default every model is accepted. Call `dimensions` before.
    pub fn model(self, model: &str) -> Builder {
        let dimensions = self.0.dimensions;
        self.model_of(model, dimensions)
    }

    /// Adds a model with these dimensions.
    pub fn model_of(mut self, model: &str, dimensions: usize) -> Builder {
        self.0.models.insert(model.to_string(), dimensions);
        self
    }

    /// The limit of texts in a request, instead of the service's own.
    pub fn most_texts(mut self, texts: usize) -> Builder {
        self.0.most_texts = texts;
        self
    }

    /// The limit of tokens in a request.
    pub fn most_tokens(mut self, tokens: u64) -> Builder {
        self.0.most_tokens = tokens;
        self
    }

    /// The limit of bytes of text in a request.
    pub fn most_bytes(mut self, bytes: usize) -> Builder {
        self.0.most_bytes = bytes;
        self
    }

    /// Rejects a request above a limit with this status, naming neither the measure nor the limit.
    pub fn silent(mut self, status: u16) -> Builder {
        self.0.silent = Some(status);
        self
    }

    /// Takes this long to load its model. The first request starts the load, which is abandoned when its client
    /// disconnects.
    pub fn loads_in(mut self, time: Duration) -> Builder {
        self.0.loads_in = time;
        self
    }

    /// Waits this long before every answer.
    pub fn latency(mut self, latency: Duration) -> Builder {
        self.0.latency = latency;
        self
    }

    /// Whether requests and paid texts are recorded individually; false keeps counters only.
    pub fn record(mut self, everything: bool) -> Builder {
        self.0.record = everything;
        self
    }

    /// Listens on this port of 127.0.0.1 instead of a free one.
    pub fn port(mut self, port: u16) -> Builder {
        self.0.port = port;
        self
    }

    /// Uses TLS, with a certificate for localhost and 127.0.0.1.
    pub fn tls(self, authority: &Authority) -> Builder {
        self.certificate(&authority.certificate())
    }

    /// Uses TLS with this certificate.
    pub fn certificate(mut self, certificate: &Certificate) -> Builder {
        self.0.tls = Some(certificate.server(&["http/1.1"]));
        self
    }

    /// Starts it.
    pub fn start(self) -> FakeProvider {
        FakeProvider::run(self.0)
    }
}
