//! Counts the tokens of a text, and truncates it to what a model reads.

use std::borrow::Cow;

use bpe_openai::{Tokenizer, cl100k_base};

use embedd_wire::{Kind, Model};

/// The most bytes sent for each token a model reads: far more than any ordinary text needs.
const BYTES_PER_TOKEN: usize = 16;

/// The tokens of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens of the text as sent; for an ordinary text not an underestimate.
    pub count: u32,
    /// Whether they were counted with the service's tokenizer, not estimated.
    pub exact: bool,
}

/// Measures a text: its tokens, the part of it to send, and whether it is truncated.
pub fn measure<'a>(kind: Kind, model: &Model, text: &'a str) -> (Tokens, Cow<'a, str>, bool) {
    let limit = model.tokens_per_text.map(|limit| limit as usize);
    if let Some(tokenizer) = tokenizer(kind, &model.name) {
        let (sent, count) = cut(tokenizer, text, limit.unwrap_or(usize::MAX));
        let tokens = Tokens { count: small(count), exact: true };
        return (tokens, Cow::Borrowed(sent), sent.len() < text.len());
    }
    let sent = match limit {
        Some(limit) => &text[..text.floor_char_boundary(limit.saturating_mul(BYTES_PER_TOKEN))],
        None => text,
    };
    let cut_here = sent.len() < text.len();
    let estimate = estimate(sent);
    let (count, truncated) = match limit {
        // These services truncate by themselves, so they never count more than the limit.
        Some(limit) if matches!(kind, Kind::Gemini | Kind::Voyage | Kind::Ollama) => {
            (estimate.min(limit), cut_here || at_least(sent) > limit)
        }
        _ => (estimate, cut_here),
    };
    (Tokens { count: small(count), exact: false }, Cow::Borrowed(sent), truncated)
}

/// The tokenizer of OpenAI's embedding models, also where another server offers them under the same names.
fn tokenizer(kind: Kind, model: &str) -> Option<&'static Tokenizer> {
    let name = model.rsplit('/').next().unwrap_or(model);
    let known = name.starts_with("text-embedding-3-") || name == "text-embedding-ada-002";
    (known && matches!(kind, Kind::Openai | Kind::OpenaiCompatible)).then(cl100k_base)
}

/// The longest prefix of a text, up to a few tokens, within the limit; and its tokens.
fn cut<'a>(tokenizer: &Tokenizer, text: &'a str, limit: usize) -> (&'a str, usize) {
    let mut aim = limit;
    loop {
        let (sent, count) = cut_once(tokenizer, text, aim);
        if sent.len() == text.len() {
            return (sent, count);
        }
        // A shorter text may be split into words differently, and then have a token or two more.
        match count_up_to(tokenizer, sent, limit) {
            Some(count) => return (sent, count),
            None => aim = aim.saturating_sub(1),
        }
    }
}

/// The prefix of a text that consists of its first `limit` tokens.
fn cut_once<'a>(tokenizer: &Tokenizer, text: &'a str, limit: usize) -> (&'a str, usize) {
    let (mut end, mut count) = (0, 0);
    for piece in tokenizer.split(text) {
        let left = limit - count;
        if let Some(tokens) = tokenizer.bpe.count_till_limit(piece.as_bytes(), left) {
            count += tokens;
            end += piece.len();
            continue;
        }
        let tokens = tokenizer.bpe.encode_via_backtracking(piece.as_bytes());
        let bytes: usize =
            tokens.iter().take(left).map(|token| tokenizer.bpe.token_len(*token)).sum();
        // A character may be several tokens: it is kept only if all of them are.
        end = text.floor_char_boundary(end + bytes);
        return (&text[..end], limit);
    }
    (text, count)
}

/// Counts the tokens of a text, if they are within the limit.
fn count_up_to(tokenizer: &Tokenizer, text: &str, limit: usize) -> Option<usize> {
    tokenizer.split(text).try_fold(0, |count, piece| {
        let tokens = tokenizer.bpe.count_till_limit(piece.as_bytes(), limit - count)?;
        Some(count + tokens)
    })
}

/// The class of a character in the estimate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Lower,
    Upper,
    Space,
    Other,
}

/// Estimates the tokens of a text for an unknown tokenizer; rather too many than too few.
fn estimate(text: &str) -> usize {
    // In sixteenths of a token. The weights were tried on prose, code and JSON in several scripts.
    let mut sixteenths = 0usize;
    let mut last = Class::Other;
    for c in text.chars() {
        let class = match c {
            'a'..='z' => Class::Lower,
            'A'..='Z' => Class::Upper,
            ' ' => Class::Space,
            _ => Class::Other,
        };
        sixteenths += match (class, last) {
            // A word is one token, a longer one several: its first letter counts more than the others.
            (Class::Lower, Class::Lower | Class::Upper) => 5,
            (Class::Upper, Class::Upper) => 8,
            (Class::Lower | Class::Upper, _) => 10,
            // A single space belongs to the next word; further ones are tokens.
            (Class::Space, Class::Space) => 4,
            (Class::Space, _) => 0,
            // A digit or a sign may be a token, a rare character several.
            (Class::Other, _) => match c.len_utf8() {
                1 => 16,
                2 => 12,
                3 => 20,
                _ => 48,
            },
        };
        last = class;
    }
    sixteenths.div_ceil(16)
}

/// A lower bound for the tokens of an ordinary text.
///
/// On average no alphabet has tokens of six letters, and no other script has tokens of four characters.
fn at_least(text: &str) -> usize {
    let wide = text.chars().filter(|c| c.len_utf8() > 2).count();
    let narrow = text.chars().count() - wide;
    narrow / 6 + wide / 4
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
