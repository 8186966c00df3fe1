//! The argument `config` of estimate(): the arguments of create_vector_table() that a change would give. Pure.

use serde_json::{Map, Value};

use crate::catalog::VectorTable;
use crate::document::{Column, json_type};
use crate::error::{Error, Result};

/// The keys of the argument.
const KEYS: [&str; 4] =
    ["embedding_provider", "embedding_model", "embedding_dimensions", "columns"];

/// A change of a vector table; None leaves a value as it is.
#[derive(Debug, Default, PartialEq)]
pub struct Change {
    pub provider: Option<String>,
    pub model: Option<String>,
    pub dimensions: Option<i32>,
    pub columns: Option<Value>,
}

impl Change {
    /// Parses the argument. A null member counts as left out.
    pub fn parse(config: &Value) -> Result<Self> {
        let valid = || Some(format!("Valid keys: {}.", KEYS.join(", ")));
        let Value::Object(members) = config else {
            return Err(Error::BadArgument {
                message: format!("config must be a JSON object, not {}", json_type(config)),
                detail: valid(),
                hint: None,
            });
        };
        if let Some(name) = members.keys().find(|name| !KEYS.contains(&name.as_str())) {
            let message = format!("unknown key \"{name}\" in config");
            return Err(Error::BadArgument { message, detail: valid(), hint: None });
        }
        Ok(Self {
            provider: text(members, "embedding_provider")?,
            model: text(members, "embedding_model")?,
            dimensions: integer(members, "embedding_dimensions")?,
            columns: given(members, "columns").cloned(),
        })
    }

    /// The change beside one that waits already: what this one does not name is as it is there.
    pub fn beside(self, shadow: &VectorTable) -> Result<Self> {
        let present = |column: &Column| Column {
            name: column.source().to_string(),
            index: false,
            source_column: None,
            ..column.clone()
        };
        let columns: Vec<Column> = shadow.columns.iter().map(present).collect();
        let columns = serde_json::to_value(columns)
            .map_err(|e| Error::Damaged { what: format!("columns: {e}") })?;
        let names_no_model = self.provider.is_none() && self.model.is_none();
        Ok(Self {
            dimensions: self.dimensions.or(names_no_model.then_some(shadow.dimensions)),
            model: self.model.or(self.provider.is_none().then(|| shadow.model.clone())),
            provider: self.provider.or_else(|| Some(shadow.provider.clone())),
            columns: self.columns.or(Some(columns)),
        })
    }
}

fn given<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).filter(|value| !value.is_null())
}

fn text(members: &Map<String, Value>, name: &str) -> Result<Option<String>> {
    match given(members, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(name, "a string", json_type(other))),
    }
}

fn integer(members: &Map<String, Value>, name: &str) -> Result<Option<i32>> {
    let Some(value) = given(members, name) else { return Ok(None) };
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
    match (number, value) {
        (Some(number), _) => Ok(Some(number)),
        (None, Value::Number(number)) => Err(wrong(name, "an integer", &number.to_string())),
        (None, other) => Err(wrong(name, "an integer", json_type(other))),
    }
}

fn wrong(name: &str, wanted: &str, found: &str) -> Error {
    Error::bad_argument(format!("\"{name}\" in config must be {wanted}, not {found}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_keys_and_none() {
        let columns = json!([{"name": "a", "role": "embedding"}]);
        let config = json!({"embedding_provider": "p", "embedding_model": "m",
            "embedding_dimensions": 8, "columns": columns});
        let expected = Change {
            provider: Some("p".to_string()),
            model: Some("m".to_string()),
            dimensions: Some(8),
            columns: Some(columns),
        };
        assert_eq!(Change::parse(&config).ok(), Some(expected));
        for config in [json!({}), json!({"embedding_model": null, "columns": null})] {
            assert_eq!(Change::parse(&config).ok(), Some(Change::default()));
        }
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused() {
        for (config, said) in [
            (json!([]), "config must be a JSON object, not an array"),
            (json!({"dimensions": 8}), "unknown key \"dimensions\" in config"),
            (
                json!({"embedding_provider": 1}),
                "\"embedding_provider\" in config must be a string, not a number",
            ),
            (
                json!({"embedding_dimensions": "8"}),
                "\"embedding_dimensions\" in config must be an integer, not a string",
            ),
            (
                json!({"embedding_dimensions": 8.5}),
                "\"embedding_dimensions\" in config must be an integer, not 8.5",
            ),
            (
                json!({"embedding_dimensions": 1i64 << 40}),
                "\"embedding_dimensions\" in config must be an integer, not 1099511627776",
            ),
        ] {
            let refused = Change::parse(&config).err();
            assert_eq!(refused.map(|error| error.to_string()).as_deref(), Some(said));
        }
        let unknown = Change::parse(&json!({"x": 1})).err();
        let detail =
            "Valid keys: embedding_provider, embedding_model, embedding_dimensions, columns.";
        assert_eq!(unknown.and_then(|error| error.detail()).as_deref(), Some(detail));
    }
}
