//! How each service encodes a request: what is requested, and what is rejected before embedding.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::http::Request;
use super::refusal::Problem;

/// The API of the fake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI: requires a key, and rejects fields that its reference does not name.
    OpenAi,
    /// An OpenAI-compatible server: requires no key unless it was given one, and ignores unknown fields.
    OpenAiCompatible,
    /// Voyage AI.
    Voyage,
    /// Google's Gemini API.
    Gemini,
    /// Ollama.
    Ollama,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Dialect; 5] = [
        Dialect::OpenAi,
        Dialect::OpenAiCompatible,
        Dialect::Voyage,
        Dialect::Gemini,
        Dialect::Ollama,
    ];

    /// The path of the base URL.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Dialect::OpenAi | Dialect::OpenAiCompatible | Dialect::Voyage => "/v1",
            Dialect::Gemini => "/v1beta",
            Dialect::Ollama => "",
        }
    }

    /// Whether a key is required.
    pub(super) fn needs_key(self) -> bool {
        matches!(self, Dialect::OpenAi | Dialect::Voyage | Dialect::Gemini)
    }

    /// The limit of texts in a request.
    pub(super) fn most_texts(self) -> usize {
        match self {
            Dialect::OpenAi => 2048,
            Dialect::Voyage => 1000,
            Dialect::Gemini => 100,
            Dialect::OpenAiCompatible | Dialect::Ollama => usize::MAX,
        }
    }

    /// Whether an empty text is an error.
    fn refuses_empty_texts(self) -> bool {
        self.needs_key()
    }

    /// The key of a request: the value of the header that the service reads, or of the configured one.
    pub(super) fn key<'a>(self, request: &'a Request, own: Option<&str>) -> Option<&'a str> {
        if let Some(own) = own {
            return request.header(own);
        }
        let bearer = || request.header("authorization")?.strip_prefix("Bearer ");
        match self {
            Dialect::OpenAi | Dialect::OpenAiCompatible => {
                bearer().or_else(|| request.header("api-key"))
            }
            Dialect::Gemini => request.header("x-goog-api-key"),
            Dialect::Voyage | Dialect::Ollama => bearer(),
        }
    }

    /// Parses a request.
    pub(super) fn read(self, request: &Request) -> Result<Asked, Problem> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let mut path_model = None;
        let known = match self {
            Dialect::OpenAi | Dialect::OpenAiCompatible | Dialect::Voyage => {
                path.ends_with("/embeddings")
            }
            Dialect::Ollama => path.ends_with("/api/embed"),
            Dialect::Gemini => {
                let model = path.strip_suffix(":batchEmbedContents");
                path_model = model.and_then(|path| path.split_once("/models/")).map(|(_, m)| m);
                path_model.is_some()
            }
        };
        if !known || request.method != "POST" {
            return Err(Problem::NoSuchPath);
        }
        if self == Dialect::Gemini && query.split('&').any(|pair| pair.starts_with("key=")) {
            return Err(Problem::Bad("a key in an address ends up in logs".to_string()));
        }
        let not_json = |error: serde_json::Error| Problem::Bad(error.to_string());
        let asked = match path_model {
            Some(model) => gemini(serde_json::from_slice(&request.body).map_err(not_json)?, model)?,
            None => {
                let body: Body = serde_json::from_slice(&request.body).map_err(not_json)?;
                self.asked(body)?
            }
        };
        if asked.texts.is_empty() && self != Dialect::Ollama {
            return Err(Problem::Bad("the list of texts is empty".to_string()));
        }
        if self.refuses_empty_texts() && asked.texts.iter().any(String::is_empty) {
            return Err(Problem::Bad("a text is empty".to_string()));
        }
        Ok(asked)
    }

    /// Extracts what this service reads from a body, and rejects unknown fields.
    fn asked(self, body: Body) -> Result<Asked, Problem> {
        let names: &[&str] = match self {
            Dialect::OpenAi => &["input", "model", "encoding_format", "dimensions", "user"],
            Dialect::Voyage => &[
                "input",
                "model",
                "input_type",
                "truncation",
                "output_dimension",
                "output_dtype",
                "encoding_format",
            ],
            Dialect::OpenAiCompatible | Dialect::Ollama | Dialect::Gemini => &[],
        };
        if !names.is_empty()
            && let Some(stranger) = body.names.iter().find(|name| !names.contains(&name.as_str()))
        {
            return Err(Problem::UnknownArgument(stranger.clone()));
        }
        let base64 = match (self, body.encoding_format.as_deref()) {
            (Dialect::Ollama, _) | (_, None) => false,
            (_, Some("base64")) => true,
            (Dialect::OpenAi | Dialect::OpenAiCompatible, Some("float")) => false,
            (_, Some(other)) => {
                return Err(Problem::Bad(format!("encoding_format cannot be {other}")));
            }
        };
        if let (Dialect::Voyage, Some(other)) = (self, body.input_type.as_deref())
            && !["query", "document"].contains(&other)
        {
            return Err(Problem::Bad(format!("input_type cannot be {other}")));
        }
        let (input_type, dimensions) = match self {
            Dialect::Voyage => (body.input_type, body.output_dimension),
            _ => (None, body.dimensions),
        };
        Ok(Asked { texts: body.input, model: body.model, input_type, dimensions, base64 })
    }
}

/// The content of a request, in any dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The texts, in order.
    pub texts: Vec<String>,
    /// The model.
    pub model: String,
    /// The input type, as encoded.
    pub input_type: Option<String>,
    /// The requested dimensions.
    pub dimensions: Option<usize>,
    /// Whether base64 is requested.
    pub base64: bool,
}

/// The body of a request to all but Gemini.
#[derive(Default)]
struct Body {
    input: Vec<String>,
    model: String,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
    output_dimension: Option<usize>,
    input_type: Option<String>,
    /// All field names in it.
    names: Vec<String>,
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Body, D::Error> {
        from.deserialize_map(BodyVisitor)
    }
}

/// Parses a body in one pass, because a bench sends many.
struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut body = Body::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "input" => body.input = map.next_value::<Texts>()?.0,
                "model" => body.model = map.next_value()?,
                "encoding_format" => body.encoding_format = map.next_value()?,
                "dimensions" => body.dimensions = map.next_value()?,
                "output_dimension" => body.output_dimension = map.next_value()?,
                "input_type" => body.input_type = map.next_value()?,
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
            body.names.push(name);
        }
        Ok(body)
    }
}

/// One text, or a list of them.
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Texts, D::Error> {
        from.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
        Ok(Texts(vec![text.to_string()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = seq.next_element()? {
            texts.push(text);
        }
        Ok(Texts(texts))
    }
}

/// The body of a request to Gemini, which rejects unknown fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GeminiBody {
    requests: Vec<GeminiRequest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GeminiRequest {
    model: String,
    content: GeminiContent,
    task_type: Option<String>,
    output_dimensionality: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GeminiContent {
    parts: Vec<GeminiPart>,
    #[serde(rename = "role")]
    _role: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GeminiPart {
    text: String,
}

/// Extracts the content of Gemini's body; fields repeated for every text must be the same in all of them.
fn gemini(body: GeminiBody, model: &str) -> Result<Asked, Problem> {
    let first = body.requests.first();
    let input_type = first.and_then(|request| request.task_type.clone());
    let dimensions = first.and_then(|request| request.output_dimensionality);
    let mut texts = Vec::with_capacity(body.requests.len());
    for (i, mut request) in body.requests.into_iter().enumerate() {
        if request.model.strip_prefix("models/") != Some(model) {
            return Err(Problem::Bad(format!(
                "* BatchEmbedContentsRequest.requests[{i}].model: unexpected model name {}",
                request.model
            )));
        }
        if request.task_type != input_type || request.output_dimensionality != dimensions {
            return Err(Problem::Bad("the fake takes one kind of text a request".to_string()));
        }
        texts.push(match request.content.parts.len() {
            1 => std::mem::take(&mut request.content.parts[0].text),
            parts => return Err(Problem::Bad(format!("a text in {parts} parts"))),
        });
    }
    Ok(Asked { texts, model: model.to_string(), input_type, dimensions, base64: false })
}
