//! What one request may hold: by the provider's options, the catalog, and what services of a kind usually accept. Pure.

use embedd_wire::{Kind, Model, Provider};

use super::load::Load;
use super::pacer::{burst, reserved_for_questions};

/// Bytes of text in a batch, unless one text has more: Gemini accepts four megabytes, quotation marks included.
const BATCH_BYTES: u64 = 3 << 20;

/// The most vector elements in one reply.
const BATCH_NUMBERS: usize = 4 << 20;

/// What one request to a provider may hold.
pub fn caps(provider: &Provider, model: &Model) -> Load {
    // What services of a kind accept where neither the provider nor the catalog says: TEI accepts 32.
    let usual = match provider.kind {
        Kind::Openai => 2048,
        Kind::Voyage => 1000,
        Kind::Gemini => 100,
        Kind::Ollama => 64,
        Kind::Local | Kind::Test | Kind::OpenaiCompatible => 32,
    };
    let texts = [provider.limits.texts_per_request, model.texts_per_request];
    let texts = texts.into_iter().flatten().min().unwrap_or(usual);
    // Gemini counts every text as a request, so a larger batch would use up the requests reserved for questions.
    let counted = provider.limits.requests_per_minute.map(reserved_for_questions);
    let counted = counted.filter(|_| provider.kind == Kind::Gemini);
    let texts = counted.map_or(texts, |counted| texts.min(counted.max(1)));
    // A request that exceeds the burst would only make the others wait.
    let budget = provider.limits.tokens_per_minute.map(burst);
    let tokens = model.tokens_per_request.into_iter().chain(budget).min();
    within_reply(texts.into(), tokens.map_or(u64::MAX, u64::from), model.dimensions)
}

/// The most a batch may hold, given the limits of texts and tokens and the dimensions of the vectors: its reply must
/// stay within bounds too.
fn within_reply(texts: u64, tokens: u64, dimensions: u32) -> Load {
    let most = BATCH_NUMBERS / (dimensions.max(1) as usize);
    Load { texts: texts.clamp(1, most.max(1) as u64), tokens, bytes: BATCH_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_reply_is_bounded() {
        assert_eq!(within_reply(100_000, 1, 4096).texts, 1024);
        assert_eq!(within_reply(100, 1, 0).texts, 100);
    }

    #[test]
    fn options_and_the_catalog_bound_what_a_kind_accepts() {
        let mut provider = Provider { kind: Kind::Gemini, ..Provider::local() };
        let mut model = Model::of_unknown_limits("m", 8);
        assert_eq!(caps(&provider, &model).texts, 100);
        (model.texts_per_request, model.tokens_per_request) = (Some(50), Some(7));
        assert_eq!((caps(&provider, &model).texts, caps(&provider, &model).tokens), (50, 7));
        provider.limits.texts_per_request = Some(20);
        assert_eq!(caps(&provider, &model).texts, 20);
        provider.limits.requests_per_minute = Some(1);
        assert_eq!(caps(&provider, &model).texts, 1);
    }
}
