//! Extracts the reason from the body of a refusal, in all its common forms.

use std::time::Duration;

use serde_json::{Map, Value};

use super::blank::tidy;
use super::pace::duration;

/// Longer bodies are not parsed as JSON: no service's explanation is that long.
const LONGEST: usize = 1 << 20;

/// The deepest nesting of an explanation.
const DEPTH: usize = 8;

/// The fields that may hold an explanation, the innermost first. Fields that repeat the request are not among them.
const EXPLANATIONS: [&str; 6] = ["error", "errors", "detail", "message", "msg", "title"];

/// What a service said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The reason, fit to be shown.
    pub message: Option<String>,
    /// Machine-readable reasons in lower case: codes, types, reasons, quotas.
    pub words: Vec<String>,
    /// The field of the request that it is about.
    pub param: Option<String>,
    /// How long it asks to wait.
    pub wait: Option<Duration>,
}

impl Said {
    /// Parses a body of any form.
    pub(super) fn anywhere(body: &[u8]) -> Said {
        Said::in_json(body).unwrap_or_else(|| Said { message: in_text(body), ..Said::default() })
    }

    /// Parses a JSON body.
    pub(super) fn in_json(body: &[u8]) -> Option<Said> {
        if body.len() > LONGEST {
            return None;
        }
        let value: Value = serde_json::from_slice(body).ok()?;
        let message = message_in(&value, DEPTH).map(|message| tidy(&message));
        let mut said = Said { message, ..Said::default() };
        said.gather(&value, DEPTH);
        Some(said)
    }

    /// Whether one of the machine-readable reasons is this.
    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|said| said == word)
    }

    /// Whether one of the machine-readable reasons contains this.
    pub(super) fn mentions(&self, piece: &str) -> bool {
        self.words.iter().any(|said| said.contains(piece))
    }

    /// Collects the machine-readable reasons.
    fn gather(&mut self, value: &Value, depth: usize) {
        if depth == 0 {
            return;
        }
        match value {
            Value::Array(items) => {
                for item in items.iter().take(8) {
                    self.gather(item, depth - 1);
                }
            }
            Value::Object(object) => {
                for field in ["code", "type", "status", "error_type", "reason", "quotaId"] {
                    match object.get(field) {
                        Some(Value::String(word)) => self.words.push(word.to_ascii_lowercase()),
                        Some(Value::Number(word)) => self.words.push(word.to_string()),
                        _ => {}
                    }
                }
                if let Some(Value::String(param)) = object.get("param") {
                    self.param = Some(param.clone());
                }
                if let Some(Value::String(wait)) = object.get("retryDelay") {
                    self.wait = duration(wait);
                }
                // Hugging Face: the seconds until a model is loaded.
                if let Some(Value::Number(seconds)) = object.get("estimated_time") {
                    self.wait = duration(&seconds.to_string());
                }
                for field in ["error", "errors", "details", "violations"] {
                    if let Some(inner) = object.get(field) {
                        self.gather(inner, depth - 1);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The explanation in a JSON value.
fn message_in(value: &Value, depth: usize) -> Option<String> {
    if depth == 0 {
        return None;
    }
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Array(items) => items.iter().find_map(|item| message_in(item, depth - 1)),
        Value::Object(object) => {
            let message = EXPLANATIONS
                .iter()
                .filter_map(|field| object.get(*field))
                .find_map(|inner| message_in(inner, depth - 1))?;
            Some(match place(object) {
                Some(place) => format!("{place}: {message}"),
                None => message,
            })
        }
        _ => None,
    }
}

/// The part of the request that FastAPI complains about.
fn place(object: &Map<String, Value>) -> Option<String> {
    let Some(Value::Array(steps)) = object.get("loc") else { return None };
    let steps = steps.iter().take(4).map(|step| match step {
        Value::String(name) => name.clone(),
        other => other.to_string(),
    });
    Some(steps.collect::<Vec<_>>().join("."))
}

/// The first words of a body that is not JSON: plain text, or the page of a proxy.
fn in_text(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]);
    let text = text.trim();
    let text = if text.starts_with('<') { tidy(&words_of_page(text)) } else { tidy(text) };
    Some(text).filter(|text| !text.is_empty())
}

/// The title of a page, or all its text if it has none.
fn words_of_page(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    if let Some(start) = lower.find("<title>").map(|at| at + "<title>".len())
        && let Some(end) = lower[start..].find("</title>").map(|length| start + length)
    {
        return page[start..end].to_string();
    }
    let mut words = String::new();
    let mut in_tag = false;
    for c in page.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                words.push(' ');
            }
            _ if in_tag => {}
            _ => words.push(c),
        }
    }
    words
}
