//! The argument `index`: whether a vector table has an index, and the options of its graph.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::json_type;
use crate::error::{Error, Result};

/// The range of m, and its default (pgvector).
const M: RangeInclusive<i32> = 2..=100;
const DEFAULT_M: i32 = 16;

/// The range of ef_construction, and its default (pgvector).
const EF_CONSTRUCTION: RangeInclusive<i32> = 4..=1000;
const DEFAULT_EF_CONSTRUCTION: i32 = 64;

/// How vectors are indexed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A graph (pgvector).
    #[default]
    Hnsw,
    /// Not at all: each query reads all rows, unless the owner creates an index.
    None,
}

/// What an index stores of each vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// The sign of each element. Candidates that it finds are compared exactly.
    Bit,
}

/// The index of a vector table, as configured: an option that is None has pgvector's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexOptions {
    #[serde(default)]
    pub method: Method,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub m: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ef_construction: Option<i32>,
    /// None for the vectors as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
}

impl IndexOptions {
    /// Parses the argument; None if it leaves every option at its default.
    pub fn parse(argument: &Value) -> Result<Option<Self>> {
        let object = match argument {
            Value::Null => return Ok(None),
            Value::Object(object) => object,
            other => {
                let message = format!("index must be a JSON object, not {}", json_type(other));
                return Err(refused(message, KEYS));
            }
        };
        let mut options = Self::default();
        let mut is_set = false;
        for (key, value) in object {
            // As elsewhere, null means omitted.
            is_set |= !value.is_null();
            match key.as_str() {
                "method" => options.method = method(value)?,
                "m" => options.m = number(key, value, &M)?,
                "ef_construction" => {
                    options.ef_construction = number(key, value, &EF_CONSTRUCTION)?;
                }
                "quantization" => options.quantization = quantization(value)?,
                other => {
                    return Err(refused(format!("unknown key \"{other}\" in index"), KEYS));
                }
            }
        }
        options.check()?;
        Ok(is_set.then_some(options))
    }

    /// Rejects options that do not fit each other.
    fn check(&self) -> Result<()> {
        let given = [
            ("m", self.m.is_some()),
            ("ef_construction", self.ef_construction.is_some()),
            ("quantization", self.quantization.is_some()),
        ];
        if self.method == Method::None
            && let Some((key, _)) = given.into_iter().find(|(_, is_given)| *is_given)
        {
            let message = format!("\"{key}\" in index needs method \"hnsw\"");
            return Err(refused(message, "With method none there is no index."));
        }
        let m = self.m.unwrap_or(DEFAULT_M);
        let ef_construction = self.ef_construction.unwrap_or(DEFAULT_EF_CONSTRUCTION);
        if ef_construction < 2 * m {
            let message =
                format!("\"ef_construction\" in index must be at least twice \"m\": {}", 2 * m);
            let detail = format!("It is {ef_construction}, and m is {m}.");
            return Err(refused(message, &detail));
        }
        Ok(())
    }

    /// The WITH clause of CREATE INDEX; empty for the defaults of pgvector.
    pub fn with_clause(&self) -> String {
        let given = [("m", self.m), ("ef_construction", self.ef_construction)];
        let options: Vec<String> = given
            .into_iter()
            .filter_map(|(key, value)| value.map(|value| format!("{key} = {value}")))
            .collect();
        match options.is_empty() {
            true => String::new(),
            false => format!(" WITH ({})", options.join(", ")),
        }
    }
}

/// The DETAIL with the valid keys.
const KEYS: &str = "Valid keys: method, m, ef_construction and quantization.";

fn refused(message: String, detail: &str) -> Error {
    Error::BadArgument { message, detail: Some(detail.to_string()), hint: None }
}

fn quantization(value: &Value) -> Result<Option<Quantization>> {
    match value {
        Value::Null => Ok(None),
        Value::String(name) if name == "bit" => Ok(Some(Quantization::Bit)),
        Value::String(name) => Err(Error::BadArgument {
            message: format!("quantization \"{name}\" of the index is not available"),
            detail: Some("Valid values: bit.".to_string()),
            hint: Some(
                "To halve the size of vectors and index, use vector_type => 'halfvec'.".to_string(),
            ),
        }),
        other => {
            let given = json_type(other);
            let message = format!("\"quantization\" in index must be a string, not {given}");
            Err(refused(message, "Valid values: bit."))
        }
    }
}

fn method(value: &Value) -> Result<Method> {
    match value {
        Value::Null => Ok(Method::default()),
        Value::String(name) if name == "hnsw" => Ok(Method::Hnsw),
        Value::String(name) if name == "none" => Ok(Method::None),
        Value::String(name) => Err(Error::BadArgument {
            message: format!("index method \"{name}\" is not available"),
            detail: Some("Valid values: hnsw, none.".to_string()),
            hint: (name == "ivfflat").then(|| {
                "Use method none, and create the index yourself after the backfill: CREATE INDEX ON .. USING ivfflat (embedding vector_cosine_ops)."
                    .to_string()
            }),
        }),
        other => {
            let message = format!("\"method\" in index must be a string, not {}", json_type(other));
            Err(refused(message, "Valid values: hnsw, none."))
        }
    }
}

fn number(key: &str, value: &Value, range: &RangeInclusive<i32>) -> Result<Option<i32>> {
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    match number.filter(|number| range.contains(number)) {
        Some(number) => Ok(Some(number)),
        None => {
            let (from, to) = (range.start(), range.end());
            let message = format!("\"{key}\" in index must be a whole number from {from} to {to}");
            let detail = match value {
                Value::Number(number) => format!("It is {number}."),
                other => format!("It is {}.", json_type(other)),
            };
            Err(refused(message, &detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<IndexOptions>> {
        IndexOptions::parse(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn what_is_not_given_stays_the_default() {
        for nothing in ["null", "{}", r#"{"m": null, "method": null}"#] {
            assert_eq!(parse(nothing).unwrap(), None, "{nothing}");
        }
        let plain = parse(r#"{"method": "hnsw"}"#).unwrap().unwrap();
        assert_eq!((plain.clone(), plain.with_clause()), (IndexOptions::default(), String::new()));
        let own = parse(r#"{"ef_construction": 128, "m": 24}"#).unwrap().unwrap();
        assert_eq!(own.with_clause(), " WITH (m = 24, ef_construction = 128)");
        let bit = parse(r#"{"quantization": "bit"}"#).unwrap().unwrap();
        assert_eq!((bit.quantization, bit.with_clause().as_str()), (Some(Quantization::Bit), ""));
        assert_eq!(parse(r#"{"method": "none"}"#).unwrap().unwrap().method, Method::None);
    }

    #[test]
    fn what_is_stored_is_read_as_it_was() {
        for text in [
            r#"{"method":"hnsw","m":24}"#,
            r#"{"method":"hnsw","quantization":"bit"}"#,
            r#"{"method":"none"}"#,
        ] {
            let stored = serde_json::to_string(&parse(text).unwrap()).unwrap();
            assert_eq!(stored, text);
            assert_eq!(serde_json::from_str::<IndexOptions>(&stored).ok(), parse(text).unwrap());
        }
    }

    #[test]
    fn what_pgvector_does_not_take_is_refused() {
        for text in [
            "[]",
            "7",
            r#""hnsw""#,
            r#"{"method": "ivfflat"}"#,
            r#"{"method": 1}"#,
            r#"{"quantization": "binary"}"#,
            r#"{"quantization": 1}"#,
            r#"{"method": "none", "quantization": "bit"}"#,
            r#"{"M": 16}"#,
            r#"{"m": 1}"#,
            r#"{"m": 101}"#,
            r#"{"m": 16.5}"#,
            r#"{"m": "16"}"#,
            r#"{"m": 99999999999999999999}"#,
            r#"{"ef_construction": 3}"#,
            r#"{"ef_construction": 1001}"#,
            r#"{"m": 33}"#,
            r#"{"m": 50, "ef_construction": 99}"#,
            r#"{"ef_construction": 31}"#,
            r#"{"method": "none", "m": 16}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(r#"{"m": 100, "ef_construction": 200}"#).is_ok());
        assert!(parse(r#"{"m": 2, "ef_construction": 4}"#).is_ok());
    }
}
