//! Parses the limit of a request from a service's refusal.

/// A measure of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    Texts,
    Tokens,
    Bytes,
}

impl Measure {
    /// All measures, the most frequently limited first.
    pub const ALL: [Measure; 3] = [Measure::Texts, Measure::Tokens, Measure::Bytes];
}

/// A limit that a refusal names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    pub measure: Measure,
    /// Candidates for the limit, the likeliest first; the size of the request is one of them too.
    pub numbers: Vec<u64>,
}

/// Phrases about a rate, or about a single text that is too long, where a smaller batch does not help.
const OTHERWISE: [&str; 12] = [
    "per minute",
    "per min",
    "per day",
    "rate limit",
    "physical batch size",
    "context length",
    "context size",
    "maximum input length",
    "input length exceeds",
    "must have less than",
    "after truncation exceeds",
    "loading",
];

/// Phrases in front of a limit.
const LIMIT: [&str; 17] = [
    "maximum",
    "max ",
    "max_",
    "at most",
    "limit",
    "larger than",
    "greater than",
    "exceed",
    "less than",
    "no more than",
    "more than",
    "up to",
    "<=",
    "≤",
    "must be",
    "too long",
    "the most",
];

/// Phrases for the bytes of a request, for its tokens in total, and for its texts.
const BYTES: [&str; 7] = [
    "payload",
    "request body",
    "bytes",
    "entity too large",
    "content too large",
    "request size",
    "body size",
];
const TOGETHER: [&str; 6] = ["request", "batch", "overall", "total", "sum", "altogether"];
const TEXTS: [&str; 9] = [
    "batch",
    "array",
    "inputs",
    "texts",
    "items",
    "documents",
    "instances",
    "requests can be",
    "sentences",
];

/// Parses a service's message; none where it does not name such a limit.
pub fn stated(status: u16, message: &str) -> Option<Stated> {
    let message = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&OTHERWISE) {
        return None;
    }
    let measure = if message.contains("token") {
        has(&TOGETHER).then_some(Measure::Tokens)?
    } else if has(&BYTES) {
        Measure::Bytes
    } else if has(&TEXTS) {
        Measure::Texts
    } else {
        return (status == 413).then(|| Stated { measure: Measure::Bytes, numbers: Vec::new() });
    };
    let at = LIMIT.iter().filter_map(|word| message.find(word)).min();
    let numbers = at.map_or_else(Vec::new, |at| {
        let (before, after) = message.split_at(at);
        let before = numbers(before, measure).into_iter().rev();
        numbers(after, measure).into_iter().chain(before).collect()
    });
    Some(Stated { measure, numbers })
}

/// The whole numbers of a text, with a byte unit multiplied out.
fn numbers(text: &str, measure: Measure) -> Vec<u64> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut last = ' ';
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        last = rest[..start].chars().next_back().unwrap_or(last);
        let run = &rest[start..];
        let is_part = |(at, c): (usize, char)| {
            let next = || run[at + c.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
            c.is_ascii_digit() || matches!(c, ',' | '_') && next()
        };
        let end = run.char_indices().find(|part| !is_part(*part)).map_or(run.len(), |(at, _)| at);
        let (digits, behind) = run.split_at(end);
        let plain: String = digits.chars().filter(char::is_ascii_digit).collect();
        let is_name = last.is_alphanumeric() || matches!(last, '-' | '[' | '.' | '\'');
        if !is_name && let Ok(number) = plain.parse::<u64>() {
            let factor = if measure == Measure::Bytes { unit(behind) } else { 1 };
            found.extend(number.checked_mul(factor).filter(|number| *number > 0));
        }
        last = digits.chars().next_back().unwrap_or(last);
        rest = behind;
    }
    found
}

/// The bytes of the unit that a text begins with.
fn unit(text: &str) -> u64 {
    let text = text.trim_start();
    match text.as_bytes().first() {
        Some(b'k') if text.starts_with("kb") || text.starts_with("kib") => 1 << 10,
        Some(b'm')
            if text.starts_with("mb") || text.starts_with("mib") || text.starts_with("meg") =>
        {
            1 << 20
        }
        _ => 1,
    }
}
