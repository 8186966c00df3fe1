//! The errors of each service.

use std::time::Duration;

use serde_json::{Value, json};

use super::dialect::Dialect;

/// Why a request is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// There is nothing at this path, or not for this method.
    NoSuchPath,
    /// The key is missing.
    KeyMissing,
    /// The key is wrong.
    KeyRejected,
    /// The model does not exist.
    ModelUnknown,
    /// The model has fixed dimensions.
    DimensionsFixed,
    /// The body has an unknown field.
    UnknownArgument(String),
    /// Too many texts in the request.
    TooManyTexts(usize),
    /// The request is above a limit; the error has this status and no number.
    TooMuch(u16),
    /// The body is invalid in another way.
    Bad(String),
    /// Rate limited.
    RateLimited,
    /// The account has no credit; waiting does not help.
    QuotaExhausted,
    /// The service's own error with this status.
    Status(u16),
}

impl Problem {
    /// The HTTP status.
    pub fn status(&self, dialect: Dialect) -> u16 {
        match self {
            Problem::NoSuchPath | Problem::ModelUnknown if dialect != Dialect::Voyage => 404,
            Problem::NoSuchPath => 404,
            Problem::KeyMissing if dialect == Dialect::Gemini => 403,
            Problem::KeyRejected if dialect == Dialect::Gemini => 400,
            Problem::KeyMissing | Problem::KeyRejected => 401,
            Problem::ModelUnknown
            | Problem::DimensionsFixed
            | Problem::UnknownArgument(_)
            | Problem::TooManyTexts(_)
            | Problem::Bad(_) => 400,
            Problem::RateLimited | Problem::QuotaExhausted => 429,
            Problem::Status(status) | Problem::TooMuch(status) => *status,
        }
    }

    /// The message.
    fn message(&self, dialect: Dialect, model: &str) -> String {
        let text = match (self, dialect) {
            (Problem::NoSuchPath, _) => "Not Found",
            (Problem::KeyMissing, Dialect::Gemini) => {
                "Method doesn't allow unregistered callers (callers without established identity). \
                 Please use API Key or other form of API consumer identity to call this API."
            }
            (Problem::KeyMissing, _) => "You didn't provide an API key.",
            (Problem::KeyRejected, Dialect::Gemini) => {
                "API key not valid. Please pass a valid API key."
            }
            (Problem::KeyRejected, Dialect::Voyage) => "Provided API key is invalid.",
            (Problem::KeyRejected, _) => {
                "Incorrect API key provided: sk-***. You can find your API key at \
                 https://platform.openai.com/account/api-keys."
            }
            (Problem::ModelUnknown, Dialect::Gemini) => {
                return format!(
                    "models/{model} is not found for API version v1beta, or is not supported for embedContent. Call \
                     ListModels to see the list of available models and their supported methods."
                );
            }
            (Problem::ModelUnknown, Dialect::Ollama) => {
                return format!("model {model:?} not found, try pulling it first");
            }
            (Problem::ModelUnknown, Dialect::Voyage) => {
                return format!(
                    "Model {model} is not supported. Supported models are ['voyage-4']"
                );
            }
            (Problem::ModelUnknown, _) => {
                return format!(
                    "The model `{model}` does not exist or you do not have access to it."
                );
            }
            (Problem::DimensionsFixed, _) => "This model does not support specifying dimensions.",
            (Problem::UnknownArgument(name), Dialect::Voyage) => {
                return format!("Argument '{name}' is not supported by our API");
            }
            (Problem::UnknownArgument(name), _) => {
                return format!("Unrecognized request argument supplied: {name}");
            }
            (Problem::TooManyTexts(most), Dialect::Gemini) => {
                return format!(
                    "* BatchEmbedContentsRequest.requests: at most {most} requests can be in one batch\n"
                );
            }
            (Problem::TooManyTexts(most), Dialect::Voyage) => {
                return format!("The batch size limit is {most}.");
            }
            (Problem::TooManyTexts(most), _) => {
                return format!("Invalid 'input': array too long, at most {most} texts.");
            }
            (Problem::TooMuch(_), _) => "the request is not valid",
            (Problem::Bad(message), _) => return message.clone(),
            (Problem::RateLimited, Dialect::Gemini) => {
                "Resource has been exhausted (e.g. check quota)."
            }
            (Problem::RateLimited, _) => {
                return format!("Rate limit reached for {model} on requests per min (RPM).");
            }
            (Problem::QuotaExhausted, _) => {
                "You exceeded your current quota, please check your plan and billing details."
            }
            (Problem::Status(503), Dialect::Ollama) => {
                "server busy, please try again.  maximum pending requests exceeded"
            }
            (Problem::Status(503), Dialect::Gemini) => {
                "The model is overloaded. Please try again later."
            }
            (Problem::Status(status), _) => {
                return match status {
                    500.. => "The server had an error while processing your request.".to_string(),
                    status => format!("The request was refused with status {status}."),
                };
            }
        };
        text.to_string()
    }

    /// OpenAI's "type" and "code".
    fn open_ai_words(&self) -> (&'static str, Option<&'static str>) {
        const INVALID: &str = "invalid_request_error";
        match self {
            Problem::KeyMissing => (INVALID, None),
            Problem::KeyRejected | Problem::Status(401) => (INVALID, Some("invalid_api_key")),
            Problem::ModelUnknown => (INVALID, Some("model_not_found")),
            Problem::RateLimited | Problem::Status(429) => {
                ("requests", Some("rate_limit_exceeded"))
            }
            Problem::QuotaExhausted => ("insufficient_quota", Some("insufficient_quota")),
            Problem::Status(500..) => ("server_error", None),
            _ => (INVALID, None),
        }
    }
}

/// The body of an error, in the service's own form. The message can be replaced; `retry_in` is Gemini's form of
/// Retry-After, which is not a header.
pub(super) fn body(
    dialect: Dialect,
    problem: &Problem,
    model: &str,
    message: Option<&str>,
    code: Option<&str>,
    retry_in: Option<Duration>,
) -> String {
    let message =
        message.map_or_else(|| problem.message(dialect, model), std::string::ToString::to_string);
    let body = match dialect {
        Dialect::OpenAi | Dialect::OpenAiCompatible => {
            let (kind, own) = problem.open_ai_words();
            let kind = if code == Some("insufficient_quota") { "insufficient_quota" } else { kind };
            json!({"error": {"message": message, "type": kind, "param": null, "code": code.or(own)}})
        }
        Dialect::Voyage => json!({"detail": message}),
        Dialect::Ollama => json!({"error": message}),
        Dialect::Gemini => gemini(problem, &message, code, retry_in),
    };
    body.to_string()
}

/// Gemini's error, with the details that distinguish errors of the same status.
fn gemini(
    problem: &Problem,
    message: &str,
    reason: Option<&str>,
    retry_in: Option<Duration>,
) -> Value {
    let code = problem.status(Dialect::Gemini);
    let status = match code {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    let mut details = Vec::new();
    let own = (*problem == Problem::KeyRejected).then_some("API_KEY_INVALID");
    if let Some(reason) = reason.or(own) {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        }));
    }
    if *problem == Problem::QuotaExhausted {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": "EmbedContentRequestsPerDayPerProjectPerModel-FreeTier"}],
        }));
    }
    if let Some(wait) = retry_in {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{}s", wait.as_secs_f64()),
        }));
    }
    let mut error = json!({"code": code, "message": message, "status": status});
    if !details.is_empty() {
        error["details"] = Value::Array(details);
    }
    json!({"error": error})
}
