//! What each service's published API allows in a request, transcribed by hand, and a check against it.

use serde_json::Value;

/// The type of a field.
pub(super) enum Holds {
    Text,
    OneOf(&'static [&'static str]),
    Flag,
    Whole,
    Texts,
    Object(&'static [Field]),
    Objects(&'static [Field]),
}

/// A field of a request.
pub(super) struct Field {
    name: &'static str,
    holds: Holds,
    required: bool,
}

const fn required(name: &'static str, holds: Holds) -> Field {
    Field { name, holds, required: true }
}

const fn optional(name: &'static str, holds: Holds) -> Field {
    Field { name, holds, required: false }
}

/// OpenAI's own description of its API, CreateEmbeddingRequest (no other fields are allowed).
/// https://github.com/openai/openai-openapi, openapi.yaml of 2026-08-21, looked up on 2026-11-21.
pub(super) const OPENAI: &[Field] = &[
    required("input", Holds::Texts),
    required("model", Holds::Text),
    optional("encoding_format", Holds::OneOf(&["float", "base64"])),
    optional("dimensions", Holds::Whole),
    optional("user", Holds::Text),
];

/// Voyage AI's description of its API, POST /embeddings.
/// https://github.com/voyage-ai/openapi, voyage-openapi.yml of 2025-03-31, and
/// https://docs.voyageai.com/reference/embeddings-api, both looked up on 2026-11-21.
pub(super) const VOYAGE: &[Field] = &[
    required("input", Holds::Texts),
    required("model", Holds::Text),
    optional("input_type", Holds::OneOf(&["query", "document"])),
    optional("truncation", Holds::Flag),
    optional("output_dimension", Holds::Whole),
    optional("output_dtype", Holds::OneOf(&["float", "int8", "uint8", "binary", "ubinary"])),
    optional("encoding_format", Holds::OneOf(&["base64"])),
];

/// Google's reference of models.batchEmbedContents and EmbedContentRequest.
/// https://ai.google.dev/api/embeddings, looked up on 2026-11-21.
pub(super) const GEMINI: &[Field] = &[required("requests", Holds::Objects(GEMINI_REQUEST))];

const GEMINI_REQUEST: &[Field] = &[
    required("model", Holds::Text),
    required("content", Holds::Object(GEMINI_CONTENT)),
    optional(
        "taskType",
        Holds::OneOf(&[
            "RETRIEVAL_QUERY",
            "RETRIEVAL_DOCUMENT",
            "SEMANTIC_SIMILARITY",
            "CLASSIFICATION",
            "CLUSTERING",
            "QUESTION_ANSWERING",
            "FACT_VERIFICATION",
            "CODE_RETRIEVAL_QUERY",
        ]),
    ),
    optional("title", Holds::Text),
    optional("outputDimensionality", Holds::Whole),
];

const GEMINI_CONTENT: &[Field] =
    &[required("parts", Holds::Objects(GEMINI_PART)), optional("role", Holds::Text)];

const GEMINI_PART: &[Field] = &[required("text", Holds::Text)];

/// Ollama's EmbedRequest: docs/api.md and api/types.go.
/// https://github.com/ollama/ollama, of 2026-08-21, looked up on 2026-11-21.
pub(super) const OLLAMA: &[Field] = &[
    required("model", Holds::Text),
    required("input", Holds::Texts),
    optional("truncate", Holds::Flag),
    optional("dimensions", Holds::Whole),
    optional("keep_alive", Holds::Text),
    optional("options", Holds::Object(&[])),
];

/// Fails unless an object holds all required fields, and nothing but allowed fields of the right type.
pub(super) fn check(value: &Value, fields: &[Field]) {
    let object = value.as_object().unwrap_or_else(|| panic!("not an object: {value}"));
    for field in fields.iter().filter(|field| field.required) {
        assert!(object.contains_key(field.name), "{} is missing in {value}", field.name);
    }
    for (name, value) in object {
        let field = fields.iter().find(|field| field.name == name);
        let field = field.unwrap_or_else(|| panic!("{name} is not allowed"));
        let objects = |fields: &[Field]| {
            let list = value.as_array().unwrap();
            list.iter().for_each(|value| check(value, fields));
            !list.is_empty()
        };
        let good = match &field.holds {
            Holds::Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Holds::OneOf(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Holds::Flag => value.is_boolean(),
            Holds::Whole => value.as_u64().is_some_and(|number| number > 0),
            Holds::Texts => value
                .as_array()
                .is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_string)),
            Holds::Object(fields) => {
                check(value, fields);
                true
            }
            Holds::Objects(fields) => objects(fields),
        };
        assert!(good, "{name} may not be {value}");
    }
}
