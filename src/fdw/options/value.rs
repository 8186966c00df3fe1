//! The format of each option's value, and the errors for invalid values.

use std::fmt::Display;
use std::str::FromStr;

use embedd_wire::{Encoding, Kind, Secret};
use serde_json::Value;
use url::Url;

use super::kinds;
use crate::error::OptionError;

/// The DETAIL for invalid headers.
pub const HEADERS_FORM: &str = "It must be a JSON object of strings: {\"name\": \"value\"}.";

/// The most headers of a provider.
const MOST_HEADERS: usize = 32;
/// The longest value of an option, in bytes.
const LONGEST: usize = 8192;
/// The longest prefix, in bytes.
const LONGEST_PREFIX: usize = 2000;
/// The longest name of a model, in bytes.
const LONGEST_MODEL: usize = 200;

/// Headers that define the framing or the target of a request, which options must not change.
const RESERVED_HEADERS: [&str; 12] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// URL parameters that carry a secret at some services: a base_url is visible to all roles.
const SECRET_PARAMETERS: [&str; 18] = [
    "access_token",
    "api-key",
    "api-token",
    "api_key",
    "apikey",
    "auth",
    "authorization",
    "bearer",
    "code",
    "key",
    "ocp-apim-subscription-key",
    "password",
    "secret",
    "sig",
    "signature",
    "subscription-key",
    "token",
    "x-api-key",
];

/// The minimum and maximum of a number.
#[derive(Clone, Copy)]
pub struct Range<N>(pub N, pub N);

/// An option to be parsed.
pub struct Form<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

impl Form<'_> {
    fn invalid(&self, detail: impl Into<String>) -> OptionError {
        // A base_url may contain a password by mistake, and a key may be passed in the place of the provider.
        let is_secret = matches!(self.name, "api_key" | "headers" | "base_url" | "provider");
        let shown = self.text.chars().take(100).collect();
        OptionError::Invalid {
            name: self.name.to_string(),
            shown: (!is_secret).then_some(shown),
            detail: detail.into(),
        }
    }

    /// The service.
    pub fn kind(&self) -> Result<Kind, OptionError> {
        Kind::parse(self.text).ok_or_else(|| self.invalid(format!("Valid values: {}.", kinds())))
    }

    /// The name of a model.
    pub fn model(&self) -> Result<String, OptionError> {
        let fits = !self.text.trim().is_empty()
            && self.text.len() <= LONGEST_MODEL
            && !self.text.chars().any(char::is_control);
        match fits {
            true => Ok(self.text.to_string()),
            false => Err(self.invalid(format!(
                "It must be the name of a model: 1 to {LONGEST_MODEL} bytes, no control characters."
            ))),
        }
    }

    /// A prefix. White space is significant, and line ends are allowed.
    pub fn prefix(&self) -> Result<String, OptionError> {
        let is_text = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        match self.text.len() <= LONGEST_PREFIX && self.text.chars().all(is_text) {
            true => Ok(self.text.to_string()),
            false => Err(self.invalid(format!(
                "It must be a string of at most {LONGEST_PREFIX} bytes, without control characters except line ends and tabs."
            ))),
        }
    }

    /// The URL of a service.
    pub fn url(&self) -> Result<String, OptionError> {
        const FORM: &str = "It must be a URL such as https://host:port/path.";
        // The URL parser accepts blanks, line ends, and extra or reversed slashes, so they are checked here.
        let lower = self.text.to_ascii_lowercase();
        let place = lower.strip_prefix("http://").or_else(|| lower.strip_prefix("https://"));
        if place.is_none_or(|place| place.starts_with('/'))
            || !self.text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
            || self.text.len() > LONGEST
        {
            return Err(self.invalid(FORM));
        }
        let url = Url::parse(self.text).map_err(|_| self.invalid(FORM))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.invalid(
                "It must not contain a user name or a password, because all roles can read it.",
            ));
        }
        if url.fragment().is_some() {
            return Err(self.invalid("It must not contain a fragment (#)."));
        }
        let secret = url
            .query_pairs()
            .find(|(name, _)| SECRET_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()));
        match secret {
            Some((name, _)) => Err(self.invalid(format!(
                "It must not contain the parameter {name}, because all roles can read it. Pass a key as api_key."
            ))),
            None => Ok(self.text.to_string()),
        }
    }

    /// The name of a header.
    pub fn header_name(&self) -> Result<String, OptionError> {
        match header_name_error(self.text) {
            None => Ok(self.text.to_string()),
            Some(failure) => Err(self.invalid(failure)),
        }
    }

    /// The encoding of vectors in replies.
    pub fn encoding(&self) -> Result<Encoding, OptionError> {
        match self.text {
            "auto" => Ok(Encoding::Auto),
            "float" => Ok(Encoding::Float),
            "base64" => Ok(Encoding::Base64),
            _ => Err(self.invalid("Valid values: auto, float, base64.")),
        }
    }

    /// A whole number.
    pub fn number<N>(&self, range: Range<N>) -> Result<N, OptionError>
    where
        N: FromStr + PartialOrd + Display + Copy,
    {
        digits(self.text).filter(|n| (range.0..=range.1).contains(n)).ok_or_else(|| {
            self.invalid(format!("It must be a whole number from {} to {}.", range.0, range.1))
        })
    }

    /// A duration in the format of PostgreSQL's settings, in milliseconds.
    pub fn duration(&self, range: Range<u32>) -> Result<u32, OptionError> {
        let text = self.text.trim();
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let factor = match unit.trim_start() {
            "" | "ms" => Some(1),
            "s" => Some(1000),
            "min" => Some(60_000),
            _ => None,
        };
        digits::<u32>(&text[..text.len() - unit.len()])
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .filter(|ms| (range.0..=range.1).contains(ms))
            .ok_or_else(|| {
                self.invalid("It must be from 100 ms to 1 hour: a number of milliseconds, or a number with the unit ms, s or min.")
            })
    }

    /// A timestamp in the only format that create_provider() writes, which does not depend on DateStyle.
    pub fn timestamp(&self) -> Result<(), OptionError> {
        match is_timestamp(self.text) {
            true => Ok(()),
            false => Err(self.invalid("It must have the format 2025-12-31T23:59:59.999999Z.")),
        }
    }

    /// A key, or a reference to it.
    pub fn key(&self) -> Result<Secret, OptionError> {
        let failure = if let Some(name) = self.text.strip_prefix("env:") {
            let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            let fits = starts && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            (!fits).then_some("env: must be followed by the name of an environment variable.")
        } else if let Some(path) = self.text.strip_prefix("file:") {
            let fits = path.starts_with('/') && !path.chars().any(char::is_control);
            (!fits).then_some("file: must be followed by an absolute path.")
        } else if self.text.is_empty() {
            Some("It must not be empty.")
        } else {
            // It is sent in a header.
            let fits = self.text.bytes().all(|b| b.is_ascii_graphic());
            (!fits).then_some("It must be printable ASCII without spaces.")
        };
        match failure {
            None if self.text.len() <= LONGEST => Ok(Secret::new(self.text)),
            None => Err(self.invalid(format!("It must not exceed {LONGEST} bytes."))),
            Some(failure) => Err(self.invalid(failure)),
        }
    }

    /// Headers by name.
    pub fn headers(&self) -> Result<Vec<(String, Secret)>, OptionError> {
        // The JSON parser's own errors can quote the input, so they are not used.
        let Ok(Value::Object(members)) = serde_json::from_str(self.text) else {
            return Err(self.invalid(HEADERS_FORM));
        };
        if members.len() > MOST_HEADERS || self.text.len() > LONGEST {
            return Err(self.invalid(format!(
                "The limit is {MOST_HEADERS} headers with {LONGEST} bytes in total."
            )));
        }
        let mut headers: Vec<(String, Secret)> = Vec::with_capacity(members.len());
        for (name, value) in members {
            if let Some(failure) = header_name_error(&name) {
                return Err(self.invalid(failure));
            }
            if headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                return Err(self.invalid(format!("Header {name} occurs twice.")));
            }
            let Value::String(value) = value else { return Err(self.invalid(HEADERS_FORM)) };
            if !value.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
                return Err(
                    self.invalid(format!("The value of header {name} must be printable ASCII."))
                );
            }
            headers.push((name, Secret::new(value)));
        }
        Ok(headers)
    }
}

/// Whether a key is a reference.
pub fn is_reference(key: &str) -> bool {
    key.starts_with("env:") || key.starts_with("file:")
}

/// What is wrong with the name of a header. The error does not quote it: it may be a secret in the wrong place.
fn header_name_error(name: &str) -> Option<String> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 100 || !name.bytes().all(is_token) {
        return Some(
            "The name of a header consists of 1 to 100 letters, digits and any of !#$%&'*+-.^_`|~."
                .to_string(),
        );
    }
    let reserved = RESERVED_HEADERS.iter().find(|r| r.eq_ignore_ascii_case(name))?;
    Some(format!("Header {reserved} is set by embedd itself."))
}

fn digits<N: FromStr>(text: &str) -> Option<N> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Whether a text is `YYYY-MM-DDTHH:MM:SS[.ffffff]Z` with a valid date and time.
fn is_timestamp(text: &str) -> bool {
    let Some((date, time)) = text.strip_suffix('Z').and_then(|t| t.split_once('T')) else {
        return false;
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let parts = |text: &str, separator: char| -> Option<[u32; 3]> {
        let mut lengths = text.split(separator).enumerate();
        let fits =
            lengths.all(|(i, part)| part.len() == if separator == '-' && i == 0 { 4 } else { 2 });
        let parts: Vec<u32> = text.split(separator).map_while(digits).collect();
        fits.then(|| parts.try_into().ok()).flatten()
    };
    let (Some([year, month, day]), Some([hour, minute, second])) =
        (parts(date, '-'), parts(time, ':'))
    else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    year > 0
        && (1..=days).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && fraction.len() <= 6
        && digits::<u32>(fraction).is_some()
}
