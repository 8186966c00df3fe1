//! Compiles a JSON filter into a typed SQL condition on the metadata, with bound parameters.
//!
//! These are the expressions that fields are compared as, and on which an expression index can be created:
//! keyword `(metadata->>'f')`, and for gt, gte, lt, lte and prefix `((metadata->>'f') collate "C")`;
//! integer and float `((metadata->>'f')::numeric)`; boolean `((metadata->>'f')::boolean)`.
//! datetime `((metadata->>'f')::timestamptz)` depends on TimeZone, so no index can hold it. A field whose column has
//! `"index": true` is compared as the key of that index. Fields that hold lists are tested element by element.

pub use self::field::Field;
use self::operator::Operator;
pub use self::param::{Binder, Param, Values};
use self::value::{bad_value, is_json, scalar};

use serde_json::{Map, Value};

use crate::document::{FilterType, json_type};
use crate::name::quote_literal;

mod datetime;
mod elements;
mod field;
mod operator;
mod param;
mod value;

/// The deepest nesting of $or, $and and $not.
const MAX_DEPTH: usize = 32;

/// The most conditions in one filter.
const MAX_CONDITIONS: usize = 1000;

/// The most characters of a value quoted in a message.
const MAX_SHOWN: usize = 60;

/// A filter as SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// A boolean expression on the column metadata; NULL is no match, as in WHERE.
    pub sql: String,
    /// The values to bind, in the order of the parameters' numbers.
    pub params: Vec<Param>,
    /// Whether an index on a field finds the rows, so that not every row is read.
    pub is_served: bool,
}

impl Condition {
    /// The condition that every row matches.
    pub fn all() -> Condition {
        Condition { sql: "true".to_string(), params: Vec::new(), is_served: false }
    }

    /// The same condition for the rows with these keys only, which the primary key finds. Its parameters begin with `first`.
    pub fn with_keys(mut self, keys: Vec<String>, first: usize) -> Condition {
        let number = first + self.params.len();
        self.sql = format!("({}) and v.pk_value = any(${number})", self.sql);
        self.params.push(Param::TextArray(keys));
        Condition { is_served: true, ..self }
    }
}

/// An invalid filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FilterError {
    /// The message.
    pub message: String,
    /// The DETAIL.
    pub detail: Option<String>,
    /// The HINT.
    pub hint: Option<String>,
}

impl FilterError {
    fn new(message: impl Into<String>, detail: impl Into<String>) -> Self {
        let (message, detail, hint) = (message.into(), Some(detail.into()), None);
        FilterError { message, detail, hint }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Compiles a filter on the given fields into SQL.
///
/// null and {} match everything. Fields and operators of one object are ANDed, `$or` and `$and` take an array of filters, `$not`
/// takes a filter and matches what that does not, and a bare value means eq. ne and nin also match if the field is missing
/// or null.
pub fn condition(
    filter: &Value,
    fields: &[Field],
    values: Values,
) -> Result<Condition, FilterError> {
    let binder = Binder::new(values);
    let mut builder = Builder { fields, binder, conditions: 0, is_served: false };
    let sql = match filter {
        Value::Null => "true".to_string(),
        Value::Object(object) => builder.all_of(object, 0)?,
        other => {
            let detail = format!("It is {}.", json_type(other));
            return Err(FilterError::new("filters must be a JSON object", detail)
                .hint("Write it as {\"field\": {\"operator\": value}}."));
        }
    };
    let Builder { binder, is_served, .. } = builder;
    Ok(Condition { sql, params: binder.into_params(), is_served })
}

/// The state of the compiler.
struct Builder<'a> {
    fields: &'a [Field],
    binder: Binder,
    conditions: usize,
    is_served: bool,
}

impl<'a> Builder<'a> {
    /// A filter object: all of it must match.
    fn all_of(&mut self, filter: &Map<String, Value>, depth: usize) -> Result<String, FilterError> {
        let mut parts = Vec::with_capacity(filter.len());
        for (key, value) in filter {
            match key.as_str() {
                "$or" => parts.push(self.combined(key, " or ", value, depth + 1)?),
                "$and" => parts.push(self.combined(key, " and ", value, depth + 1)?),
                "$not" => parts.push(self.not(value, depth + 1)?),
                _ => self.field(key, value, depth, &mut parts)?,
            }
        }
        if parts.is_empty() {
            parts.push("true".to_string());
        }
        Ok(parts.join(" and "))
    }

    /// Checks how deep a filter is nested.
    fn check_depth(depth: usize) -> Result<(), FilterError> {
        if depth <= MAX_DEPTH {
            return Ok(());
        }
        let detail = format!("At most {MAX_DEPTH} levels of $or, $and and $not are allowed.");
        Err(FilterError::new("filters are nested too deeply", detail))
    }

    /// The value of `$not`: its filter must not match. A condition that is NULL does not match.
    fn not(&mut self, value: &Value, depth: usize) -> Result<String, FilterError> {
        Self::check_depth(depth)?;
        let Value::Object(object) = value else {
            let detail = format!("It is {}.", json_type(value));
            return Err(FilterError::new("\"$not\" must be a filter object", detail)
                .hint("Write it as {\"$not\": {\"field\": value}}."));
        };
        self.count()?;
        Ok(format!("(({}) is not true)", self.all_of(object, depth)?))
    }

    /// The value of `$or` or `$and`: one of its filters, or each of them, must match.
    fn combined(
        &mut self,
        name: &str,
        separator: &str,
        value: &Value,
        depth: usize,
    ) -> Result<String, FilterError> {
        Self::check_depth(depth)?;
        let example =
            format!("Write it as {{\"{name}\": [{{\"field\": value}}, {{\"field\": value}}]}}.");
        let Value::Array(filters) = value else {
            let message = format!("\"{name}\" must be an array of filter objects");
            let detail = format!("It is {}.", json_type(value));
            return Err(FilterError::new(message, detail).hint(example));
        };
        if filters.is_empty() {
            let detail = "It needs at least one filter object.";
            let message = format!("\"{name}\" must not be empty");
            return Err(FilterError::new(message, detail).hint(example));
        }
        let mut parts = Vec::with_capacity(filters.len());
        for (index, filter) in filters.iter().enumerate() {
            let Value::Object(object) = filter else {
                let message =
                    format!("element {} of \"{name}\" must be a filter object", index + 1);
                let detail = format!("It is {}.", json_type(filter));
                return Err(FilterError::new(message, detail).hint(example));
            };
            if object.is_empty() {
                self.count()?;
            }
            parts.push(format!("({})", self.all_of(object, depth)?));
        }
        Ok(format!("({})", parts.join(separator)))
    }

    /// One field with a bare value or an object of operators.
    fn field(
        &mut self,
        name: &str,
        value: &Value,
        depth: usize,
        parts: &mut Vec<String>,
    ) -> Result<(), FilterError> {
        let Some(field) = self.fields.iter().find(|field| field.name == name) else {
            return Err(self.unknown_field(name));
        };
        match value {
            Value::Object(tests) if tests.is_empty() => {
                let message = format!("filter field \"{name}\" has no operator");
                let detail = Operator::allowed(field);
                return Err(FilterError::new(message, detail));
            }
            Value::Object(tests) => {
                for (operator, value) in tests {
                    parts.push(self.test(field, operator, value, depth)?);
                }
            }
            value => parts.push(self.test(field, "eq", value, depth)?),
        }
        Ok(())
    }

    /// One operator of one field.
    fn test(
        &mut self,
        field: &Field,
        name: &str,
        value: &Value,
        depth: usize,
    ) -> Result<String, FilterError> {
        self.count()?;
        let quoted = format!("\"{}\"", field.name);
        let Some(operator) = Operator::parse(name) else {
            let message = format!("unknown operator \"{name}\" of filter field {quoted}");
            return Err(FilterError::new(message, Operator::allowed(field)));
        };
        if !operator.is_allowed(field) {
            let message = format!("operator \"{name}\" cannot be used on filter field {quoted}");
            return Err(FilterError::new(message, Operator::allowed(field)));
        }
        let column = field.text();
        let typed = field.typed();
        let one = || format!("the value of {name}");
        Ok(match (operator, value) {
            (Operator::Exists, Value::String(text)) if is_json::<bool>(text) => {
                format!("{column} is {}null", if text == "true" { "not " } else { "" })
            }
            (Operator::Exists, Value::Bool(true)) | (Operator::Ne, Value::Null) => {
                format!("{column} is not null")
            }
            (Operator::Exists, Value::Bool(false)) | (Operator::Eq, Value::Null) => {
                format!("{column} is null")
            }
            (Operator::Exists, _) => {
                return Err(bad_value(field, &one(), "true or false", value));
            }
            (Operator::Eq | Operator::Ne, _) if field.is_list => {
                let text = scalar(field, &one(), value)?;
                let equals = self.some_equals(field, &[text]);
                if operator == Operator::Eq { equals } else { format!("({equals} is not true)") }
            }
            (Operator::Eq, _) => {
                self.serve(field, depth);
                format!("{} = {}", field.equated(), self.bind_one(field, &one(), value)?)
            }
            (Operator::Ne, _) => {
                let equated = field.equated();
                format!("{equated} is distinct from {}", self.bind_one(field, &one(), value)?)
            }
            (Operator::Order(order), _) => {
                self.serve(field, depth);
                let param = self.bind_one(field, &one(), value)?;
                format!("{} {order} {param}", field.ordered())
            }
            (Operator::Prefix, _) => {
                self.serve(field, depth);
                let param = self.bind_one(field, &one(), value)?;
                format!("{} ^@ {param}", field.ordered())
            }
            (Operator::In | Operator::Nin | Operator::All, Value::Array(values)) => {
                let element = format!("each element of {name}");
                let values = values
                    .iter()
                    .map(|value| scalar(field, &element, value))
                    .collect::<Result<Vec<String>, FilterError>>()?;
                match (operator, values.is_empty()) {
                    (Operator::All, true) => {
                        let detail = "It needs at least one value.";
                        let message = format!("the list of {name} must not be empty");
                        return Err(FilterError::new(message, detail));
                    }
                    (Operator::All, false) => {
                        for _ in &values[1..] {
                            self.count()?;
                        }
                        let each = values
                            .iter()
                            .map(|value| self.some_equals(field, std::slice::from_ref(value)));
                        format!("({})", each.collect::<Vec<_>>().join(" and "))
                    }
                    (_, true) => (operator == Operator::Nin).to_string(),
                    (Operator::In, false) if field.is_list => self.some_equals(field, &values),
                    (_, false) if field.is_list => {
                        format!("({} is not true)", self.some_equals(field, &values))
                    }
                    (Operator::In, false) => {
                        let param = self.binder.bind(Param::TextArray(values));
                        match field.compared_array(&param) {
                            Some(array) => {
                                self.serve(field, depth);
                                format!("{} = any({array})", field.equated())
                            }
                            None => format!("{typed} = any({})", field.typed_array(&param)),
                        }
                    }
                    (_, false) => {
                        let array = field.typed_array(&self.binder.bind(Param::TextArray(values)));
                        format!("({typed} <> all({array}) or {column} is null)")
                    }
                }
            }
            (Operator::In | Operator::Nin | Operator::All, _) => {
                return Err(bad_value(field, &one(), "an array", value)
                    .hint(format!("Write it as {{\"{name}\": [value, value]}}.")));
            }
        })
    }

    /// Counts a condition, up to the limit.
    fn count(&mut self) -> Result<(), FilterError> {
        self.conditions += 1;
        if self.conditions <= MAX_CONDITIONS {
            return Ok(());
        }
        let detail = format!("At most {MAX_CONDITIONS} are allowed.");
        Err(FilterError::new("filters have too many conditions", detail)
            .hint("Use the operator in to match any of many values."))
    }

    /// Binds values as JSON, and returns a condition that some element of the field is one of them.
    fn some_equals(&mut self, field: &Field, texts: &[String]) -> String {
        let param = Param::Text(elements::values(field.filter_type, texts));
        elements::some_equals(&field.name, &self.binder.bind(param))
    }

    /// Binds one value and returns its parameter, cast to the field's type.
    fn bind_one(&mut self, field: &Field, what: &str, one: &Value) -> Result<String, FilterError> {
        let param = self.binder.bind(Param::Text(scalar(field, what, one)?));
        Ok(field.compared(&param))
    }

    /// Notes that an index finds the rows of a test that all of them must pass.
    fn serve(&mut self, field: &Field, depth: usize) {
        self.is_served |= field.is_indexed && depth == 0;
    }

    fn unknown_field(&self, name: &str) -> FilterError {
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|field| format!("\"{}\" ({})", field.name, field.filter_type.as_str()))
            .collect();
        let detail = if fields.is_empty() {
            "There are no fields to filter on.".to_string()
        } else {
            format!("The fields are: {}.", fields.join(", "))
        };
        FilterError::new(format!("unknown filter field \"{name}\""), detail)
    }
}

#[cfg(test)]
mod tests;
