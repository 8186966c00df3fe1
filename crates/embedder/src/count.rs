//! Counts the tokens of documents as they would be sent: with the prefix, and cut to what the model reads.

use std::path::Path;

use embedd_wire::{Count, CountRequest, Counts, Failure, Kind};

use super::loading::load_failure;
use super::local::TextTokenizer;
use super::providers;
use super::server::put_in_front;

/// Counts the tokens of a request's texts; the local model's files are in this directory. What a request takes is
/// left to the caller.
pub fn count(mut request: CountRequest, local_model: &Path) -> Result<Counts, Failure> {
    put_in_front(&request.model.document_prefix, &mut request.texts);
    let CountRequest { provider, model, texts } = request;
    let mut are_exact = true;
    let mut counts = Vec::with_capacity(texts.len());
    if provider.kind == Kind::Local {
        let tokenizer = TextTokenizer::open(local_model).map_err(|error| load_failure(&error))?;
        for text in &texts {
            let tokens = tokenizer.tokenize(text);
            counts.push(of(tokens.ids.len(), text.len(), tokens.truncated));
        }
    } else {
        for text in &texts {
            let (tokens, sent, is_truncated) = providers::measure(provider.kind, &model, text);
            are_exact &= tokens.exact;
            counts.push(of(tokens.count as usize, sent.len(), is_truncated));
        }
    }
    Ok(Counts { texts: counts, are_exact, most: None })
}

fn of(tokens: usize, bytes: usize, is_truncated: bool) -> Count {
    let small = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Count { tokens: small(tokens), bytes: small(bytes), is_truncated }
}
