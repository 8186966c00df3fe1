//! How OpenAI, and every server that speaks its language, spells a request and a reply.

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

/// Spells a request. These models know no difference between a question and a document.
pub(super) fn call(provider: &Provider, model: &Model, texts: &[&str]) -> Call {
    let encoding_format = match (provider.encoding, provider.kind) {
        (Encoding::Float, _) => Some("float"),
        (Encoding::Base64, _) | (Encoding::Auto, Kind::Openai) => Some("base64"),
        // Numbers are what comes when nothing is said, and some gateways refuse fields their model does not need.
        (Encoding::Auto, _) => None,
    };
    let request =
        Request { model: &model.name, input: texts, encoding_format, dimensions: model.asked() };
    Call {
        url: address::url(provider, "/embeddings"),
        key_header: address::bearer(provider),
        body: serde_json::to_vec(&request).unwrap_or_default(),
    }
}

/// Reads a reply, of Voyage too.
pub(super) fn answer(body: &[u8], texts: usize) -> Result<Answer, String> {
    let reply: Reply = read(body)?;
    same_number(reply.data.len(), texts)?;
    let usage = reply.usage.and_then(Lenient::good);
    let tokens = usage.and_then(|usage| usage.total_tokens.or(usage.prompt_tokens));
    Ok(Answer { vectors: in_order(reply.data)?, tokens })
}

/// Puts the vectors in the order of their texts, which the service need not keep. Without any index their order counts; a
/// server that writes no zeros (proto3) leaves out the index 0 alone.
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
    // As many vectors as places, and no place taken twice: every place is taken.
    Ok(places.into_iter().flatten().collect())
}
