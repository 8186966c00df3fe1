//! The configured columns of a vector table, and the SQL that turns a source row into its document.

mod sql;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use sql::{DIFFERS, TOO_LARGE, difference_sql, document_sql, expressions};

/// The most columns of a vector table.
const MAX_COLUMNS: usize = 1000;

/// The role of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Its text is embedded; its value is also part of the metadata.
    Embedding,
    /// Its value is part of the metadata only.
    Metadata,
}

/// How filters compare the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilterType {
    /// As text, exactly and case-sensitively.
    Keyword,
    /// As whole numbers.
    Integer,
    /// As numbers.
    Float,
    /// As true and false.
    Boolean,
    /// As timestamps.
    Datetime,
}

impl FilterType {
    const ALL: [FilterType; 5] = [
        FilterType::Keyword,
        FilterType::Integer,
        FilterType::Float,
        FilterType::Boolean,
        FilterType::Datetime,
    ];

    /// The name in the columns argument and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            FilterType::Keyword => "keyword",
            FilterType::Integer => "integer",
            FilterType::Float => "float",
            FilterType::Boolean => "boolean",
            FilterType::Datetime => "datetime",
        }
    }

    /// The filter type of a PostgreSQL base type, named as by format_type without modifiers.
    ///
    /// money is a keyword, because its JSON form is text such as `$1,000.00`.
    pub fn of_type(type_name: &str) -> FilterType {
        // Of an array it is that of its elements. Datetimes are compared with their offset, which JSON values are not.
        let (element, is_array) = match type_name.strip_suffix("[]") {
            Some(element) => (element, true),
            None => (type_name, false),
        };
        match element {
            "smallint" | "integer" | "bigint" => FilterType::Integer,
            "real" | "double precision" | "numeric" => FilterType::Float,
            "boolean" => FilterType::Boolean,
            "date" | "timestamp without time zone" | "timestamp with time zone" if !is_array => {
                FilterType::Datetime
            }
            _ => FilterType::Keyword,
        }
    }
}

/// One configured column of a vector table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The name of the source column.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its position in the text, lowest first; columns without one follow those with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<i32>,
    /// The text in front of its value, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_prefix: Option<String>,
    /// How filters compare it; by default according to the column's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_type: Option<FilterType>,
    /// Whether an index on the vector table serves filters on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub index: bool,
    /// The current name of the source column, if it was renamed; the metadata field keeps its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_column: Option<String>,
}

impl Column {
    /// The current name of the column in the source.
    pub fn source(&self) -> &str {
        self.source_column.as_deref().unwrap_or(&self.name)
    }
}

/// An error in the columns argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ColumnsError {
    /// The message.
    pub message: String,
    /// The DETAIL.
    pub detail: Option<String>,
    /// The HINT.
    pub hint: Option<String>,
}

impl ColumnsError {
    fn new(message: impl Into<String>) -> Self {
        let (message, detail, hint) = (message.into(), None, None);
        ColumnsError { message, detail, hint }
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

/// Parses the columns argument, rejecting everything unknown.
pub fn parse_columns(columns: &Value) -> Result<Vec<Column>, ColumnsError> {
    const EXAMPLE: &str = "Write it as [{\"name\": \"title\", \"role\": \"embedding\"}].";
    let Value::Array(elements) = columns else {
        return Err(ColumnsError::new("columns must be a JSON array")
            .detail(given(columns))
            .hint(EXAMPLE));
    };
    if elements.is_empty() {
        return Err(ColumnsError::new("columns must not be empty").hint(EXAMPLE));
    }
    let length = elements.len();
    if length > MAX_COLUMNS {
        let detail = format!("It has {length} elements; at most {MAX_COLUMNS} are allowed.");
        return Err(ColumnsError::new("columns has too many elements").detail(detail));
    }
    let mut parsed: Vec<Column> = Vec::with_capacity(elements.len());
    for (index, element) in elements.iter().enumerate() {
        let place = format!("element {} of columns", index + 1);
        let Value::Object(object) = element else {
            return Err(ColumnsError::new(format!("{place} must be an object"))
                .detail(given(element))
                .hint(EXAMPLE));
        };
        let column = parse_column(object, &place)?;
        check_unique(&column, &parsed)?;
        parsed.push(column);
    }
    if parsed.iter().all(|column| column.role != Role::Embedding) {
        const HINT: &str = "Write \"role\": \"embedding\" for each column that is to be embedded.";
        return Err(ColumnsError::new("columns has no column with role embedding").hint(HINT));
    }
    Ok(parsed)
}

/// Parses one element of the columns argument.
fn parse_column(object: &Map<String, Value>, place: &str) -> Result<Column, ColumnsError> {
    const KEYS: [&str; 6] = ["name", "role", "ordinal", "name_prefix", "filter_type", "index"];
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let message = format!("unknown key \"{key}\" in {place}");
        return Err(ColumnsError::new(message)
            .detail("Valid keys: name, role, ordinal, name_prefix, filter_type and index."));
    }
    let Some(name) = text(object, "name", place)? else {
        return Err(ColumnsError::new(format!("{place} has no \"name\"")));
    };
    if name.is_empty() {
        let message = format!("\"name\" in {place} must not be empty");
        return Err(ColumnsError::new(message));
    }
    const ROLES: &str = "Valid roles: embedding and metadata.";
    let role = match text(object, "role", place)?.as_deref() {
        Some("embedding") => Role::Embedding,
        Some("metadata") => Role::Metadata,
        Some(role) => {
            let message = format!("unknown role \"{role}\" of column \"{name}\"");
            return Err(ColumnsError::new(message).detail(ROLES));
        }
        None => {
            let message = format!("{place}, column \"{name}\", has no \"role\"");
            return Err(ColumnsError::new(message).detail(ROLES));
        }
    };
    let filter_type = match text(object, "filter_type", place)? {
        None => None,
        Some(word) => {
            let known = FilterType::ALL.into_iter().find(|known| known.as_str() == word);
            if known.is_none() {
                let message = format!("unknown filter_type \"{word}\" of column \"{name}\"");
                return Err(ColumnsError::new(message)
                    .detail("Valid filter types: keyword, integer, float, boolean and datetime."));
            }
            known
        }
    };
    let ordinal = ordinal(object, &name)?;
    let name_prefix = text(object, "name_prefix", place)?;
    let index = match object.get("index") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(index)) => *index,
        Some(other) => {
            let message = format!("\"index\" of column \"{name}\" must be true or false");
            return Err(ColumnsError::new(message).detail(given(other)));
        }
    };
    if index && role == Role::Embedding {
        let message = format!("\"index\" is not allowed for column \"{name}\"");
        return Err(ColumnsError::new(message)
            .detail("Its role is embedding, and its text may be longer than an index entry."));
    }
    if role == Role::Metadata {
        let keys = [(ordinal.is_some(), "ordinal"), (name_prefix.is_some(), "name_prefix")];
        if let Some((_, key)) = keys.into_iter().find(|(present, _)| *present) {
            let message = format!("\"{key}\" is not allowed for column \"{name}\"");
            return Err(ColumnsError::new(message)
                .detail("Its role is metadata, so it is not part of the text."));
        }
    }
    Ok(Column { name, role, ordinal, name_prefix, filter_type, index, source_column: None })
}

/// Rejects a column that repeats the name or the ordinal of an earlier one.
fn check_unique(column: &Column, earlier: &[Column]) -> Result<(), ColumnsError> {
    let name = &column.name;
    if let Some(other) = earlier.iter().find(|other| other.name == *name) {
        let error =
            ColumnsError::new(format!("column \"{name}\" appears more than once in columns"));
        if other.role == column.role {
            return Err(error);
        }
        return Err(
            error.hint("Keep the one with role embedding: its value is part of the metadata too.")
        );
    }
    let Some(ordinal) = column.ordinal else {
        return Ok(());
    };
    let Some(twin) = earlier.iter().find(|other| other.ordinal == Some(ordinal)) else {
        return Ok(());
    };
    let message = format!("columns \"{}\" and \"{name}\" have the same ordinal", twin.name);
    Err(ColumnsError::new(message).detail(format!("The ordinal of both is {ordinal}.")))
}

/// The string of a key, or None if the key is absent or null.
fn text(
    object: &Map<String, Value>,
    key: &str,
    place: &str,
) -> Result<Option<String>, ColumnsError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => {
            let message = format!("\"{key}\" in {place} must be a string");
            Err(ColumnsError::new(message).detail(given(other)))
        }
    }
}

/// The ordinal, or None if it is absent or null.
fn ordinal(object: &Map<String, Value>, name: &str) -> Result<Option<i32>, ColumnsError> {
    let value = match object.get("ordinal") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    match value.as_i64().and_then(|ordinal| i32::try_from(ordinal).ok()) {
        Some(ordinal) if ordinal >= 0 => Ok(Some(ordinal)),
        _ => Err(ColumnsError::new(format!(
            "\"ordinal\" of column \"{name}\" must be an integer from 0 to {}",
            i32::MAX
        ))
        .detail(match value {
            Value::Number(number) => format!("{number} was given."),
            other => given(other),
        })),
    }
}

/// A sentence with the JSON type of a value.
fn given(value: &Value) -> String {
    let mut sentence = format!("{} was given.", json_type(value));
    sentence[..1].make_ascii_uppercase();
    sentence
}

/// The JSON type of a value, with its article, for messages.
pub fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The embedding columns in the order of the text: by ordinal, then those without one in the given order.
pub fn embedding_columns(columns: &[Column]) -> Vec<&Column> {
    let mut embedding: Vec<&Column> =
        columns.iter().filter(|column| column.role == Role::Embedding).collect();
    embedding.sort_by_key(|column| (column.ordinal.is_none(), column.ordinal));
    embedding
}

#[cfg(test)]
mod tests;
