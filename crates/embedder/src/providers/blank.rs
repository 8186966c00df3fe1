//! Makes a service's message fit to be shown: one short line without keys and without the user's texts.

/// The most characters of a message.
const LENGTH: usize = 300;

/// The most bytes of a text that are examined: more than a message needs, less than a page of HTML.
const LOOKED_AT: usize = 8192;

/// Quotations from this length on may be the user's text, and are shortened.
const QUOTED: usize = 80;

/// Replaces a key.
const BLANK: &str = "***";

/// Prefixes of keys: OpenAI and compatible services, Voyage (pa-, al-), Google, Hugging Face, Groq, NVIDIA, xAI, Jina,
/// JSON web tokens.
const BEGINNINGS: [&str; 12] =
    ["sk-", "sk_", "pa-", "al-", "AIza", "AQ.", "ya29.", "hf_", "gsk_", "nvapi-", "xai-", "jina_"];

/// One line of at most 300 characters without control characters, keys and long quotations.
pub(super) fn tidy(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(LOOKED_AT)];
    shorten(&without_keys(&without_quotations(&one_line(text))))
}

/// A message without a known secret, even if the message was cut within the secret.
pub fn without(message: &str, secret: &str) -> String {
    let secret = secret.trim();
    if secret.is_empty() {
        return message.to_string();
    }
    let message = message.replace(secret, BLANK);
    let (body, end) = match message.strip_suffix("...") {
        Some(body) => (body, "..."),
        None => (message.as_str(), ""),
    };
    // At least six characters, because a shorter end is more often an ordinary word than part of a key.
    let cut = (6..secret.len())
        .rev()
        .filter_map(|length| secret.get(..length))
        .find_map(|piece| body.strip_suffix(piece));
    match cut {
        Some(front) => format!("{front}{BLANK}{end}"),
        None => message,
    }
}

/// The text with each run of white space, control and direction characters replaced by a space.
fn one_line(text: &str) -> String {
    let visible = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
    };
    let text: String = text.chars().map(|c| if visible(c) { c } else { ' ' }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text with long quotations shortened to their first words.
fn without_quotations(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let word =
        |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|c| c.is_alphanumeric());
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&quote) = chars.get(at) {
        kept.push(quote);
        at += 1;
        // An apostrophe within a word is not a quote.
        let opens = matches!(quote, '"' | '`') || quote == '\'' && !word(at.checked_sub(2));
        let closes = |end: usize| chars[end] == quote && (quote != '\'' || !word(Some(end + 1)));
        if opens && let Some(end) = (at..chars.len()).find(|end| closes(*end)) {
            if end - at > QUOTED {
                kept.extend(&chars[at..at + 20]);
                kept.push_str("...");
            } else {
                kept.extend(&chars[at..end]);
            }
            kept.push(quote);
            at = end + 1;
        }
    }
    kept
}

/// The text with everything that looks like a key replaced.
fn without_keys(text: &str) -> String {
    let of_a_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*' | '.');
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let start = rest.find(of_a_key).unwrap_or(rest.len());
        let (between, run) = rest.split_at(start);
        kept.push_str(between);
        let end = run.find(|c| !of_a_key(c)).unwrap_or(run.len());
        let (run, behind) = run.split_at(end);
        // A full stop after a key is not part of it.
        let key = run.trim_end_matches('.');
        if looks_like_a_key(key, &kept) {
            kept.push_str(BLANK);
            kept.push_str(&run[key.len()..]);
        } else {
            kept.push_str(run);
        }
        rest = behind;
    }
    kept
}

/// Whether a run of characters looks like a key, or like a masked key.
fn looks_like_a_key(run: &str, before: &str) -> bool {
    let telling = |text: &str| {
        text.contains(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase() || c == '*')
    };
    if run.contains('*') && run.len() >= 4 && run.contains(|c: char| c.is_ascii_alphanumeric()) {
        return true;
    }
    if run.starts_with("eyJ") && run.len() >= 20 {
        return true;
    }
    let behind = BEGINNINGS.iter().find_map(|beginning| run.strip_prefix(beginning));
    if behind.is_some_and(|behind| behind.len() >= 4 && telling(behind)) {
        return true;
    }
    let before = &before[before.floor_char_boundary(before.len().saturating_sub(16))..];
    let before = before.to_ascii_lowercase();
    if (before.ends_with("bearer ") || before.ends_with("provided: "))
        && (run.len() >= 16 || run.len() >= 4 && telling(run))
    {
        return true;
    }
    // Keys without a prefix (Azure's) are long; names of that length have no digits.
    run.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|part| {
        part.len() >= 28
            && part.contains(|c: char| c.is_ascii_digit())
            && part.contains(|c: char| c.is_ascii_alphabetic())
    })
}

/// The text, shortened with dots if it is too long.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(LENGTH) {
        None => text.to_string(),
        Some(_) => {
            let end = text.char_indices().nth(LENGTH - 3).map_or(text.len(), |(at, _)| at);
            format!("{}...", text[..end].trim_end())
        }
    }
}
