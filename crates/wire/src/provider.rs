//! Providers and models, as far as the embedder needs them.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// The name of the only local model.
pub const LOCAL_MODEL: &str = "all-MiniLM-L6-v2";

/// The files of a local model: its shape, its word pieces, its weights.
pub const LOCAL_MODEL_FILES: [&str; 3] = ["config.json", "vocab.txt", "model.safetensors"];

/// The API of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The local model; nothing is sent anywhere.
    Local,
    /// Vectors computed from the words of a text, for testing applications; nothing is sent anywhere.
    Test,
    /// OpenAI.
    Openai,
    /// Google's Gemini API.
    Gemini,
    /// Voyage AI.
    Voyage,
    /// Ollama.
    Ollama,
    /// Any OpenAI-compatible server: TEI, vLLM, LM Studio, llama.cpp, Azure, a gateway.
    OpenaiCompatible,
}

impl Kind {
    /// The kinds that a foreign server can have.
    pub const SERVICES: [Kind; 6] = [
        Kind::Openai,
        Kind::Gemini,
        Kind::Voyage,
        Kind::Ollama,
        Kind::OpenaiCompatible,
        Kind::Test,
    ];

    /// The name in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Local => "local",
            Kind::Test => "test",
            Kind::Openai => "openai",
            Kind::Gemini => "gemini",
            Kind::Voyage => "voyage",
            Kind::Ollama => "ollama",
            Kind::OpenaiCompatible => "openai_compatible",
        }
    }

    /// The service with this name.
    pub fn parse(word: &str) -> Option<Kind> {
        Kind::SERVICES.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The default base_url; none if there is none.
    pub fn default_base_url(self) -> Option<&'static str> {
        match self {
            Kind::Openai => Some("https://api.openai.com/v1"),
            Kind::Gemini => Some("https://generativelanguage.googleapis.com/v1beta"),
            Kind::Voyage => Some("https://api.voyageai.com/v1"),
            Kind::Ollama => Some("http://localhost:11434"),
            Kind::Local | Kind::Test | Kind::OpenaiCompatible => None,
        }
    }

    /// Whether a base_url is required.
    pub fn needs_base_url(self) -> bool {
        self == Kind::OpenaiCompatible
    }

    /// Whether the embedder computes the vectors itself.
    pub fn is_inside(self) -> bool {
        matches!(self, Kind::Local | Kind::Test)
    }

    /// Whether the service has a documented batch API for vectors.
    pub fn has_batch_api(self) -> bool {
        matches!(self, Kind::Openai | Kind::Gemini | Kind::Voyage)
    }

    /// Whether the service requires a key.
    pub fn needs_key(self) -> bool {
        matches!(self, Kind::Openai | Kind::Gemini | Kind::Voyage)
    }
}

/// The encoding of vectors in replies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// The best one the service is known to support: base64 if possible.
    #[default]
    Auto,
    /// Numbers in JSON.
    Float,
    /// Little-endian 32-bit floats in base64, a quarter of the bytes.
    Base64,
}

/// A provider: everything that decides where texts and keys are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// The name of the foreign server, for messages; "local" is the local model.
    pub name: String,
    /// The oids of the database and of the foreign server, for the usage counts; both 0 for the local model.
    pub database: u32,
    pub server: u32,
    /// The API.
    pub kind: Kind,
    /// The base URL; none is the service's default.
    pub base_url: Option<String>,
    /// The key: literal, `env:NAME` or `file:PATH`.
    pub api_key: Option<Secret>,
    /// Whether the key may be `env:` or `file:`, which are read with the rights of the server's operating system user.
    pub may_refer: bool,
    /// The header that carries the bare key instead of `Authorization: Bearer`.
    pub key_header: Option<String>,
    /// Headers of every request, by name.
    pub headers: Vec<(String, Secret)>,
    /// The encoding of vectors in replies.
    pub encoding: Encoding,
    /// The limits of requests.
    pub limits: Limits,
}

/// The limits of requests to a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests a minute; none is no limit.
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute; none is no limit.
    pub tokens_per_minute: Option<u32>,
    /// The most requests in flight.
    pub max_in_flight: u32,
    /// The timeout of a request, in milliseconds.
    pub timeout_ms: u32,
    /// The most texts in a request; none is the model's limit.
    pub texts_per_request: Option<u32>,
    /// Tokens that documents may use in a day and in a month of UTC; none is no cap.
    pub max_tokens_per_day: Option<u64>,
    pub max_tokens_per_month: Option<u64>,
}

impl Limits {
    /// The limits of a provider that sets none.
    pub const DEFAULT: Limits = Limits {
        requests_per_minute: None,
        tokens_per_minute: None,
        max_in_flight: 8,
        timeout_ms: 30_000,
        texts_per_request: None,
        max_tokens_per_day: None,
        max_tokens_per_month: None,
    };
}

impl Provider {
    /// The local model.
    pub fn local() -> Provider {
        Provider {
            name: Kind::Local.as_str().to_string(),
            database: 0,
            server: 0,
            kind: Kind::Local,
            base_url: None,
            api_key: None,
            may_refer: false,
            key_header: None,
            headers: Vec::new(),
            encoding: Encoding::Auto,
            limits: Limits::DEFAULT,
        }
    }
}

/// A model, as the catalog describes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The name of the model at the service.
    pub name: String,
    /// The dimensions of its vectors; 0 accepts any.
    pub dimensions: u32,
    /// Whether the request must name the dimensions, because the model's default is another.
    pub ask_dimensions: bool,
    /// The most tokens it reads of a text; none is unknown.
    pub tokens_per_text: Option<u32>,
    /// The most texts in a request; none is unknown.
    pub texts_per_request: Option<u32>,
    /// The most tokens in a request; none is unknown.
    pub tokens_per_request: Option<u32>,
    /// The prefixes of queries and of documents; empty for none.
    pub query_prefix: String,
    pub document_prefix: String,
    /// The model that its maker names as its replacement; none is unknown.
    pub replacement: Option<String>,
}

impl Model {
    /// A model with known dimensions and unknown limits.
    pub fn of_unknown_limits(name: &str, dimensions: u32) -> Model {
        Model {
            name: name.to_string(),
            dimensions,
            ask_dimensions: false,
            tokens_per_text: None,
            texts_per_request: None,
            tokens_per_request: None,
            query_prefix: String::new(),
            document_prefix: String::new(),
            replacement: None,
        }
    }

    /// The dimensions to name in the request, if required.
    pub fn requested_dimensions(&self) -> Option<u32> {
        Some(self.dimensions).filter(|dimensions| self.ask_dimensions && *dimensions > 0)
    }
}

/// What a text is: some models embed a query and a document differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputType {
    /// A query.
    Query,
    /// A document.
    Document,
}
