//! What a fake is made of before it starts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::FakeProvider;
use super::dialect::{Asked, Dialect};
use super::refusal::Problem;
use super::tls::{Authority, Certificate};
use super::vector;

/// Numbers in a vector when nobody says otherwise.
const DIMENSIONS: usize = 8;

/// What a fake is; does not change while it runs.
#[derive(Clone)]
pub(super) struct Settings {
    pub dialect: Dialect,
    /// Keys at the start.
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
    /// The status of a request that is too much, where no words and no number come with it.
    silent: Option<u16>,
    /// How long the model takes to load; a load ends with the request that began it.
    pub loads_in: Duration,
}

impl Settings {
    /// How many numbers the vectors of a request get.
    pub fn dimensions_of(&self, asked: &Asked) -> usize {
        let own = || self.models.get(&asked.model).copied().unwrap_or(self.dimensions);
        asked.dimensions.unwrap_or_else(own)
    }

    /// Why the service refuses a request that it can read, from somebody it knows.
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

/// Makes a fake.
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

    /// Accepts this key, and of all others only those given in the same way. Without one, every key is good.
    pub fn key(mut self, key: &str) -> Builder {
        self.0.keys.get_or_insert_default().push(key.to_string());
        self
    }

    /// Reads the bare key in this header and nowhere else.
    pub fn key_header(mut self, name: &str) -> Builder {
        self.0.key_header = Some(name.to_ascii_lowercase());
        self
    }

    /// Numbers in a vector when the request does not ask for so many; 8 without this.
    pub fn dimensions(mut self, dimensions: usize) -> Builder {
        self.0.dimensions = dimensions;
        self
    }

    /// Refuses requests that ask for a number of dimensions, as older models do.
    pub fn fixed_dimensions(mut self) -> Builder {
        self.0.fixed_dimensions = true;
        self
    }

    /// Knows this model, and of all others only those given in the same way. Without one, every model is known.
    /// Call `dimensions` before.
    pub fn model(self, model: &str) -> Builder {
        let dimensions = self.0.dimensions;
        self.model_of(model, dimensions)
    }

    /// Knows this model, whose vectors have so many numbers.
    pub fn model_of(mut self, model: &str, dimensions: usize) -> Builder {
        self.0.models.insert(model.to_string(), dimensions);
        self
    }

    /// Texts it takes in one request, in place of the service's own limit.
    pub fn most_texts(mut self, texts: usize) -> Builder {
        self.0.most_texts = texts;
        self
    }

    /// Tokens it takes in one request.
    pub fn most_tokens(mut self, tokens: u64) -> Builder {
        self.0.most_tokens = tokens;
        self
    }

    /// Bytes of text it takes in one request.
    pub fn most_bytes(mut self, bytes: usize) -> Builder {
        self.0.most_bytes = bytes;
        self
    }

    /// Refuses what is too much with this status, and says neither of what nor how much it takes.
    pub fn silent(mut self, status: u16) -> Builder {
        self.0.silent = Some(status);
        self
    }

    /// Needs so long to load its model, which the first request begins and which ends when its client goes.
    pub fn loads_in(mut self, time: Duration) -> Builder {
        self.0.loads_in = time;
        self
    }

    /// Waits so long before every answer.
    pub fn latency(mut self, latency: Duration) -> Builder {
        self.0.latency = latency;
        self
    }

    /// Whether requests and paid texts are recorded one by one; false keeps the counters only.
    pub fn record(mut self, everything: bool) -> Builder {
        self.0.record = everything;
        self
    }

    /// Listens on this port of 127.0.0.1 in place of any that is free.
    pub fn port(mut self, port: u16) -> Builder {
        self.0.port = port;
        self
    }

    /// Speaks TLS, with a certificate for localhost and 127.0.0.1.
    pub fn tls(self, authority: &Authority) -> Builder {
        self.certificate(&authority.certificate())
    }

    /// Speaks TLS with this certificate.
    pub fn certificate(mut self, certificate: &Certificate) -> Builder {
        self.0.tls = Some(certificate.server(&["http/1.1"]));
        self
    }

    /// Starts it.
    pub fn start(self) -> FakeProvider {
        FakeProvider::run(self.0)
    }
}
