//! The options of foreign servers and user mappings: names, formats and ranges. Pure.

mod value;

use embedd_wire::{Encoding, Kind, Limits, Secret};

use crate::error::OptionError;
use serde_json::{Map, Value};

use value::{Form, Range};

/// Options of a foreign server, which any role may read.
pub const SERVER: [&str; 15] = [
    "provider",
    "default_model",
    "base_url",
    "key_header",
    "encoding",
    "requests_per_minute",
    "tokens_per_minute",
    "max_in_flight",
    "timeout",
    "texts_per_request",
    "max_tokens_per_day",
    "max_tokens_per_month",
    "query_prefix",
    "document_prefix",
    "created_at",
];

/// Options of a user mapping, which are secret.
pub const MAPPING: [&str; 2] = ["api_key", "headers"];

/// Server options that the argument `options` of create_provider() accepts.
const IN_JSON: [&str; 11] = [
    "key_header",
    "encoding",
    "requests_per_minute",
    "tokens_per_minute",
    "max_in_flight",
    "timeout",
    "texts_per_request",
    "max_tokens_per_day",
    "max_tokens_per_month",
    "query_prefix",
    "document_prefix",
];

/// Options with an argument of their own, which `options` of update_provider() can only remove.
const REMOVABLE: [&str; 3] = ["api_key", "default_model", "base_url"];

/// Option names and values, as PostgreSQL stores them.
pub type Pairs = Vec<(String, String)>;

/// The options of a foreign server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    pub kind: Kind,
    pub default_model: Option<String>,
    pub base_url: Option<String>,
    pub key_header: Option<String>,
    pub encoding: Encoding,
    pub limits: Limits,
    /// The prefixes of queries and documents; empty for none, None for the model's usual ones.
    pub query_prefix: Option<String>,
    pub document_prefix: Option<String>,
}

impl ServerOptions {
    /// Parses the options of a foreign server: each must be known and valid, and required ones must be present.
    pub fn parse(pairs: &[(String, String)]) -> Result<ServerOptions, OptionError> {
        let mut kind = None;
        let (mut default_model, mut base_url, mut key_header) = (None, None, None);
        let (mut query_prefix, mut document_prefix) = (None, None);
        let mut encoding = Encoding::Auto;
        let mut limits = Limits::DEFAULT;
        for (name, text) in pairs {
            let form = Form { name, text };
            match name.as_str() {
                "provider" => kind = Some(form.kind()?),
                "default_model" => default_model = Some(form.model()?),
                "base_url" => base_url = Some(form.url()?),
                "key_header" => key_header = Some(form.header_name()?),
                "encoding" => encoding = form.encoding()?,
                "requests_per_minute" => limits.requests_per_minute = Some(form.number(ANY)?),
                "tokens_per_minute" => limits.tokens_per_minute = Some(form.number(ANY)?),
                "max_in_flight" => limits.max_in_flight = form.number(Range(1, 64))?,
                "timeout" => limits.timeout_ms = form.duration(TIMEOUT)?,
                "texts_per_request" => limits.texts_per_request = Some(form.number(ANY)?),
                "max_tokens_per_day" => limits.max_tokens_per_day = Some(form.number(CAP)?),
                "max_tokens_per_month" => {
                    limits.max_tokens_per_month = Some(form.number(CAP)?);
                }
                "query_prefix" => query_prefix = Some(form.prefix()?),
                "document_prefix" => document_prefix = Some(form.prefix()?),
                "created_at" => form.timestamp()?,
                _ => return Err(unknown(name, &SERVER)),
            }
        }
        let kind = kind.ok_or_else(|| OptionError::Missing {
            name: "provider",
            detail: format!("Valid values: {}.", kinds()),
        })?;
        if base_url.is_none() && kind.needs_base_url() {
            return Err(OptionError::Missing {
                name: "base_url",
                detail: format!("Provider {} has no address of its own.", kind.as_str()),
            });
        }
        Ok(ServerOptions {
            kind,
            default_model,
            base_url,
            key_header,
            encoding,
            limits,
            query_prefix,
            document_prefix,
        })
    }
}

/// The range of a count.
const ANY: Range<u32> = Range(1, 2_000_000_000);
/// The range of a cap of tokens.
const CAP: Range<u64> = Range(1, 1_000_000_000_000_000);
/// The range of a timeout, in milliseconds.
const TIMEOUT: Range<u32> = Range(100, 3_600_000);

/// The options of a user mapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MappingOptions {
    pub api_key: Option<Secret>,
    pub headers: Vec<(String, Secret)>,
}

impl MappingOptions {
    /// Parses the options of a user mapping.
    pub fn parse(pairs: &[(String, String)]) -> Result<MappingOptions, OptionError> {
        let mut options = MappingOptions::default();
        for (name, text) in pairs {
            let form = Form { name, text };
            match name.as_str() {
                "api_key" => options.api_key = Some(form.key()?),
                "headers" => options.headers = form.headers()?,
                _ => return Err(unknown(name, &MAPPING)),
            }
        }
        Ok(options)
    }

    /// Whether api_key is a reference (env: or file:) and not the key itself.
    pub fn is_reference(&self) -> bool {
        self.api_key.as_ref().is_some_and(|key| value::is_reference(key.expose()))
    }

    /// Parses options that a role is about to set: a reference requires a superuser.
    pub fn check(
        pairs: &[(String, String)],
        is_superuser: bool,
    ) -> Result<MappingOptions, OptionError> {
        let options = MappingOptions::parse(pairs)?;
        match options.is_reference() && !is_superuser {
            true => Err(OptionError::Reference),
            false => Ok(options),
        }
    }

    /// Whether the mapping has neither a key nor headers.
    pub fn has_nothing(&self) -> bool {
        self.api_key.is_none() && self.headers.is_empty()
    }
}

/// The parsed argument `options`: options to set, or to remove (None), by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RequestedOptions {
    pub server: Vec<(String, Option<String>)>,
    pub mapping: Vec<(String, Option<String>)>,
}

/// Parses the argument `options`; only an update can remove options that have an argument of their own.
pub fn requested_options(
    options: &Value,
    is_update: bool,
) -> Result<RequestedOptions, OptionError> {
    let Value::Object(members) = options else {
        return Err(OptionError::Invalid {
            name: "options".to_string(),
            shown: None,
            detail: format!(
                "It must be a JSON object with any of the keys: {}, headers.",
                IN_JSON.join(", ")
            ),
        });
    };
    let mut requested_options = RequestedOptions::default();
    for (name, member) in members {
        let name = name.as_str();
        let removes_argument = is_update && member.is_null() && REMOVABLE.contains(&name);
        if !removes_argument && name != "headers" && !IN_JSON.contains(&name) {
            return Err(match REMOVABLE.contains(&name) || name == "provider" {
                true => OptionError::Invalid {
                    name: name.to_string(),
                    shown: None,
                    detail: format!("It is not a key of options. Use the argument {name}."),
                },
                false => OptionError::UnknownKey {
                    name: name.to_string(),
                    detail: format!("Valid keys: {} and headers.", IN_JSON.join(", ")),
                },
            });
        }
        let value = text_of(name, member)?;
        match MAPPING.contains(&name) {
            true => requested_options.mapping.push((name.to_string(), value)),
            false => requested_options.server.push((name.to_string(), value)),
        }
    }
    Ok(requested_options)
}

/// A member of `options` as the text of an option; None for null.
fn text_of(name: &str, member: &Value) -> Result<Option<String>, OptionError> {
    match member {
        Value::Null => Ok(None),
        Value::Object(headers) if name == "headers" => Ok(Some(header_text(headers))),
        Value::String(text) if name != "headers" => Ok(Some(text.clone())),
        Value::Number(number) if name != "headers" => Ok(Some(number.to_string())),
        _ => Err(OptionError::Invalid {
            name: name.to_string(),
            shown: None,
            detail: match name {
                "headers" => value::HEADERS_FORM.to_string(),
                _ => "It must be a string or a number.".to_string(),
            },
        }),
    }
}

fn header_text(headers: &Map<String, Value>) -> String {
    Value::Object(headers.clone()).to_string()
}

fn unknown(name: &str, valid: &[&str]) -> OptionError {
    OptionError::Unknown { name: name.to_string(), valid: valid.join(", ") }
}

/// The names of the services, for messages.
pub fn kinds() -> String {
    Kind::SERVICES.map(Kind::as_str).join(", ")
}

#[cfg(test)]
mod tests;
