//! Classifies a service's refusal by status, body and headers.

use std::time::Duration;

use super::limit::{Stated, stated};
use super::pace::duration;
use super::reason::Said;
use embedd_wire::{Kind, RequestError};

/// The longest wait that is accepted.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the refusal means.
    pub kind: RefusalKind,
    /// The HTTP status.
    pub status: u16,
    /// The service's own reason: one short line, with everything replaced that looks like a key.
    pub message: String,
    /// How long the service asks to wait, at most an hour.
    pub retry_after: Option<Duration>,
    /// The limit of one request that it names.
    pub limit: Option<Stated>,
}

/// What a refusal means for the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The service does not accept the key, or not for this.
    KeyRejected,
    /// The service does not have the model, or not for embedding.
    UnknownModel,
    /// Rate limited.
    RateLimited,
    /// The paid credit or the daily quota is used up: waiting does not help soon.
    QuotaExhausted,
    /// The service rejects the texts, possibly because of one of them.
    Input,
    /// The service, or a proxy in front of it, is down.
    Unavailable,
    /// The service is loading its model.
    Loading,
    /// The service redirects elsewhere; redirects are not followed.
    Redirect,
    /// Anything else: the request is wrong, whatever its texts are.
    Other,
}

impl RefusalKind {
    /// How the counts of a provider distinguish it.
    pub fn as_error(self) -> RequestError {
        match self {
            RefusalKind::RateLimited | RefusalKind::QuotaExhausted => RequestError::RateLimited,
            RefusalKind::Unavailable | RefusalKind::Loading => RequestError::Unavailable,
            RefusalKind::KeyRejected => RequestError::KeyRejected,
            _ => RequestError::Refused,
        }
    }
}

/// Parses a reply whose status is not 200; header names are looked up in lower case.
pub fn refusal(
    kind: Kind,
    status: u16,
    header: &dyn Fn(&str) -> Option<String>,
    body: &[u8],
) -> Refusal {
    let said = Said::anywhere(body);
    let refusal_kind = classify(kind, status, &said);
    let wait = wait_in_headers(header).or(said.wait);
    let message = said.message.unwrap_or_else(|| format!("HTTP status {status}"));
    Refusal {
        status,
        kind: refusal_kind,
        limit: (refusal_kind == RefusalKind::Input).then(|| stated(status, &message)).flatten(),
        message,
        retry_after: wait.map(|wait| wait.min(LONGEST_WAIT)),
    }
}

/// Determines the kind of a refusal. The body takes precedence over the status, which several services use loosely.
fn classify(kind: Kind, status: u16, said: &Said) -> RefusalKind {
    let message = said.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    match status {
        300..400 => RefusalKind::Redirect,
        400..500 if quota_is_used_up(kind, status, said, &message) => RefusalKind::QuotaExhausted,
        400..500 if model_is_unknown(status, said, &message) => RefusalKind::UnknownModel,
        401 | 403 => RefusalKind::KeyRejected,
        400 if key_is_rejected(said, &message) => RefusalKind::KeyRejected,
        // OpenAI's message for more tokens than the limit a minute: waiting does not help.
        429 if message.contains("request too large") => RefusalKind::Input,
        429 => RefusalKind::RateLimited,
        400 | 422 if request_is_wrong(said, &message) => RefusalKind::Other,
        400 | 413 | 422 => RefusalKind::Input,
        // 424 is TEI's status for a model that failed, 499 Ollama's for an aborted request.
        408 | 409 | 424 | 425 | 499 => RefusalKind::Unavailable,
        // llama.cpp uses 500 for a text that is too long, which would be retried forever.
        500 if message.contains("too large to process") => RefusalKind::Input,
        // Other servers use 500 for a request that is too large.
        500 if stated(status, &message).is_some_and(|limit| !limit.numbers.is_empty()) => {
            RefusalKind::Input
        }
        503 if message.contains("loading") && !message.contains("fail") => RefusalKind::Loading,
        // The server was started without support for embeddings.
        501 | 505 => RefusalKind::Other,
        500.. => RefusalKind::Unavailable,
        _ => RefusalKind::Other,
    }
}

/// Whether the credit or the daily quota is used up.
fn quota_is_used_up(kind: Kind, status: u16, said: &Said, message: &str) -> bool {
    if kind == Kind::Gemini || said.has("resource_exhausted") {
        // Google uses "quota" for every limit; only the daily one does not reset within a minute.
        return status == 402
            || said.mentions("perday")
            || message.contains("credits are depleted");
    }
    status == 402
        || said.mentions("insufficient_quota")
        || said.mentions("quota_exceeded")
        || said.mentions("billing_")
        || said.mentions("spend_limit_exceeded")
}

/// Whether the service does not have the model, or cannot embed with it.
fn model_is_unknown(status: u16, said: &Said, message: &str) -> bool {
    let codes = ["model_not_found", "model_not_supported", "invalid_model", "deploymentnotfound"];
    if codes.iter().any(|code| said.has(code)) {
        return true;
    }
    match status {
        404 => {
            message.contains("model") && (message.contains("not") || message.contains("no such"))
        }
        400 | 403 | 422 => {
            said.param.as_deref() == Some("model")
                || message.contains("does not support embedding")
                || message.contains("to generate embeddings from this model")
                || message.starts_with("model ") && message.contains(" is not supported")
                || message.starts_with("invalid model")
        }
        _ => false,
    }
}

/// Whether a bad request was caused by its key.
fn key_is_rejected(said: &Said, message: &str) -> bool {
    said.mentions("api_key_")
        || said.has("invalid_api_key")
        || message.starts_with("api key not valid")
        || message.starts_with("api key expired")
}

/// Whether the request is wrong regardless of its texts, so that bisecting is of no use.
fn request_is_wrong(said: &Said, message: &str) -> bool {
    let settings =
        ["output_dimension", "outputdimensionality", "'dimensions'", "dimensions is", "matryoshka"];
    // Gemini's status for a country or an account that it does not serve.
    said.has("failed_precondition")
        || matches!(said.param.as_deref(), Some("dimensions" | "encoding_format" | "user"))
        || settings.iter().any(|setting| message.contains(setting))
        || message.contains("encoding_format")
        || message.starts_with("body.") && !message.starts_with("body.input")
}

/// The wait in the headers.
fn wait_in_headers(header: &dyn Fn(&str) -> Option<String>) -> Option<Duration> {
    if let Some(value) = header("retry-after-ms")
        && let Some(wait) = duration(&format!("{}ms", value.trim()))
    {
        return Some(wait);
    }
    let value = header("retry-after")?;
    if let Some(wait) = duration(&value) {
        return Some(wait);
    }
    // The date is relative to the server's own clock, which may differ from ours.
    let wait = seconds_of_date(&value)?.checked_sub(seconds_of_date(&header("date")?)?)?;
    Some(Duration::from_secs(u64::try_from(wait).unwrap_or_default()))
}

/// Converts an HTTP date, in any of its three formats, to seconds since a fixed day.
fn seconds_of_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let (mut day, mut month, mut year, mut seconds) = (None, None, None, None);
    for word in text.split([' ', ',', '-']).filter(|word| !word.is_empty()) {
        let number = word.parse::<i64>().ok().filter(|number| (0..=9999).contains(number));
        if word.contains(':') {
            let mut parts = word.splitn(3, ':').map(|part| part.parse::<i64>().ok());
            let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
            let whole =
                (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
            seconds = whole.then_some(hour * 3600 + minute * 60 + second);
        } else if let Some(number) = number {
            // The day precedes the year in all three.
            if day.is_none() { day = Some(number) } else { year = year.or(Some(number)) }
        } else if month.is_none() {
            month = MONTHS.iter().position(|name| word.to_ascii_lowercase().starts_with(name));
        }
    }
    let (day, month, year) = (day?, i64::try_from(month?).ok()? + 1, year?);
    // Two-digit years are of this century.
    let year = if year < 100 { year + 2000 } else { year };
    // With years counted from March the leap day comes last, so the length of the months before it is fixed.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    Some(days * 86_400 + seconds?)
}
