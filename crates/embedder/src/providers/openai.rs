//! Requests and replies of OpenAI and of compatible servers.

use serde::{Deserialize, Serialize};

use super::reply::{Lenient, Vector, index, read, same_number};
use embedd_wire::{Encoding, Kind, Model, Provider};

use super::{Answer, Call, address};

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding_format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
struct Reply {
    data: Vec<Item>,
    #[serde(default)]
    usage: Option<Lenient<Usage>>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default, deserialize_with = "index")]
    index: Option<u64>,
    embedding: Vector,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    total_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens: Option<u64>,
}

/// Builds a request. These models do not distinguish a question from a document.
pub(super) fn call(provider: &Provider, model: &Model, texts: &[&str]) -> Call {
    let encoding_format = match (provider.encoding, provider.kind) {
        (Encoding::Float, _) => Some("float"),
        (Encoding::Base64, _) | (Encoding::Auto, Kind::Openai) => Some("base64"),
        // JSON numbers are the default, and some gateways reject fields that their model does not need.
        (Encoding::Auto, _) => None,
    };
    let request = Request {
        model: &model.name,
        input: texts,
        encoding_format,
        dimensions: model.requested_dimensions(),
    };
    Call::json(
        address::url(provider, "/embeddings"),
        address::bearer(provider),
        serde_json::to_vec(&request).unwrap_or_default(),
    )
}

/// Parses a reply of OpenAI, or of Voyage.
pub(super) fn answer(body: &[u8], texts: usize) -> Result<Answer, String> {
    let reply: Reply = read(body)?;
    same_number(reply.data.len(), texts)?;
    let usage = reply.usage.and_then(Lenient::good);
    let tokens = usage.and_then(|usage| usage.total_tokens.or(usage.prompt_tokens));
    Ok(Answer { vectors: in_order(reply.data)?, tokens })
}

/// Sorts the vectors by their index, since the service need not keep the order of the texts. Without any index the
/// order of the reply counts; a server that omits zeros (proto3) leaves out the index 0 only.
fn in_order(items: Vec<Item>) -> Result<Vec<Vec<f32>>, String> {
    let texts = items.len();
    match items.iter().filter(|item| item.index.is_none()).count() {
        missing if missing == texts => {
            return Ok(items.into_iter().map(|item| item.embedding.0).collect());
        }
        0 | 1 => {}
        _ => return Err("provider returned an index for some of the vectors only".to_string()),
    }
    let mut places: Vec<Option<Vec<f32>>> = vec![None; texts];
    for item in items {
        let index = item.index.unwrap_or_default();
        let place = usize::try_from(index).ok().and_then(|index| places.get_mut(index));
        let place = place.ok_or_else(|| {
            format!(
                "provider returned index {index} for {texts} text{}",
                if texts == 1 { "" } else { "s" }
            )
        })?;
        if place.replace(item.embedding.0).is_some() {
            return Err(match item.index {
                Some(_) => format!("provider returned index {index} twice"),
                None => "provider returned an index for some of the vectors only".to_string(),
            });
        }
    }
    // The indexes are distinct and as many as the texts, so each text has one.
    Ok(places.into_iter().flatten().collect())
}
