//! Requests of Voyage AI; its replies have OpenAI's form.

use serde::Serialize;

use embedd_wire::{Encoding, InputType, Model, Provider};

use super::{Call, address};

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [&'a str],
    input_type: &'static str,
    truncation: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimension: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding_format: Option<&'static str>,
}

/// Builds a request. The service truncates a text that is too long.
pub(super) fn call(
    provider: &Provider,
    model: &Model,
    input_type: InputType,
    texts: &[&str],
) -> Call {
    let request = Request {
        model: &model.name,
        input: texts,
        input_type: match input_type {
            InputType::Query => "query",
            InputType::Document => "document",
        },
        truncation: true,
        output_dimension: model.requested_dimensions(),
        // JSON numbers have no name here: omitting the field selects them.
        encoding_format: (provider.encoding != Encoding::Float).then_some("base64"),
    };
    Call::json(
        address::url(provider, "/embeddings"),
        address::bearer(provider),
        serde_json::to_vec(&request).unwrap_or_default(),
    )
}
