//! What a provider and a model are, as far as the embedder has to know them.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// The name of the one local model there is.
pub const LOCAL_MODEL: &str = "all-MiniLM-L6-v2";

/// The files that a local model needs: its shape, its word pieces, its weights.
pub const LOCAL_MODEL_FILES: [&str; 3] = ["config.json", "vocab.txt", "model.safetensors"];

/// Which service's language a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The model inside the server; nothing is sent anywhere.
    Local,
    /// Vectors that follow from the words of a text, for the tests of applications; nothing is sent anywhere.
    Test,
    /// OpenAI.
    Openai,
    /// Google's Gemini API.
    Gemini,
    /// Voyage AI.
    Voyage,
    /// Ollama.
    Ollama,
    /// Any server that speaks OpenAI's language: TEI, vLLM, LM Studio, llama.cpp, Azure, a gateway.
    OpenaiCompatible,
}

impl Kind {
    /// The services that a foreign server can stand for.
    pub const SERVICES: [Kind; 6] = [
        Kind::Openai,
        Kind::Gemini,
        Kind::Voyage,
        Kind::Ollama,
        Kind::OpenaiCompatible,
        Kind::Test,
    ];

    /// The word users write.
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

    /// The service of this name.
    pub fn parse(word: &str) -> Option<Kind> {
        Kind::SERVICES.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Where the service is when no base_url says otherwise; none where there is no such place.
    pub fn default_base_url(self) -> Option<&'static str> {
        match self {
            Kind::Openai => Some("https://api.openai.com/v1"),
            Kind::Gemini => Some("https://generativelanguage.googleapis.com/v1beta"),
            Kind::Voyage => Some("https://api.voyageai.com/v1"),
            Kind::Ollama => Some("http://localhost:11434"),
            Kind::Local | Kind::Test | Kind::OpenaiCompatible => None,
        }
    }

    /// Whether there is a service of this kind only where a base_url says.
    pub fn needs_base_url(self) -> bool {
        self == Kind::OpenaiCompatible
    }

    /// Whether the embedder makes the vectors itself.
    pub fn is_inside(self) -> bool {
        matches!(self, Kind::Local | Kind::Test)
    }

    /// Whether the service answers nobody without a key.
    pub fn needs_key(self) -> bool {
        matches!(self, Kind::Openai | Kind::Gemini | Kind::Voyage)
    }
}

/// Form in which the numbers of a vector travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// What the service is known to have: base64 where it can.
    #[default]
    Auto,
    /// Numbers in JSON.
    Float,
    /// Little-endian single floats in base64, a quarter of the bytes.
    Base64,
}

/// Who embeds, and all that decides where texts and keys are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// The name of the foreign server, for messages; "local" is the model inside the server.
    pub name: String,
    /// Database of the foreign server, and its oid in it; both 0 for the local model. For the statistics.
    pub database: u32,
    pub server: u32,
    /// Which service it is.
    pub kind: Kind,
    /// Where it is; none is the service's own place.
    pub base_url: Option<String>,
    /// The key: literal, `env:NAME` or `file:PATH`.
    pub api_key: Option<Secret>,
    /// Whether the key may be one of the last two, which are read with the rights of the server's operating system user.
    pub may_refer: bool,
    /// The header that carries the bare key in place of `Authorization: Bearer`.
    pub key_header: Option<String>,
    /// Headers sent with every request, by name.
    pub headers: Vec<(String, Secret)>,
    /// Form of the vectors in replies.
    pub encoding: Encoding,
    /// How much may be asked of it.
    pub limits: Limits,
}

/// How much may be asked of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests a minute; none is no budget of our own.
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute; none is no budget of our own.
    pub tokens_per_minute: Option<u32>,
    /// Requests at the same time, at most.
    pub max_in_flight: u32,
    /// How long one request may take, in milliseconds.
    pub timeout_ms: u32,
    /// Texts a request, at most; none is what the model takes.
    pub texts_per_request: Option<u32>,
}

impl Limits {
    /// The limits of a provider that says nothing about them.
    pub const DEFAULT: Limits = Limits {
        requests_per_minute: None,
        tokens_per_minute: None,
        max_in_flight: 8,
        timeout_ms: 30_000,
        texts_per_request: None,
    };
}

impl Provider {
    /// The model inside the server.
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

/// A model, as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The name the service knows it under.
    pub name: String,
    /// Numbers a vector shall have; 0 takes as many as come.
    pub dimensions: u32,
    /// Whether the service has to be asked for this number, because its own is another.
    pub ask_dimensions: bool,
    /// Tokens of one text that it reads; none is unknown.
    pub tokens_per_text: Option<u32>,
    /// Texts it takes in one request; none is unknown.
    pub texts_per_request: Option<u32>,
    /// Tokens it takes in one request; none is unknown.
    pub tokens_per_request: Option<u32>,
    /// What is put in front of a question, and of a text to be found; empty for nothing.
    pub query_prefix: String,
    pub document_prefix: String,
    /// The model that its maker names for the time after this one; none is unknown.
    pub replacement: Option<String>,
}

impl Model {
    /// A model of which nothing is known but how long its vectors shall be.
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

    /// The number of dimensions the service has to be asked for, where it has to be.
    pub fn asked(&self) -> Option<u32> {
        Some(self.dimensions).filter(|dimensions| self.ask_dimensions && *dimensions > 0)
    }
}

/// What a text is: some models embed a question otherwise than the text that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputType {
    /// A question.
    Query,
    /// A text to be found.
    Document,
}
