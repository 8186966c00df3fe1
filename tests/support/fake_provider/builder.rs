//! What a fake is made of before it starts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::FakeProvider;
use super::dialect::{Asked, Dialect};
use super::refusal::Problem;
use super::tls::{Authority, Certificate};

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
        (asked.texts.len() > self.most_texts).then_some(Problem::TooManyTexts(self.most_texts))
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
