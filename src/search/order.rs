//! The order of a list of rows, and the place after which it continues. Pure.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::filter::{Binder, Field, Param, Values};

/// The order of the keys, which makes every order total.
const KEY: &str = "v.pk_value collate \"C\"";

/// The name of the key in `order_by`.
const ID: &str = "id";

/// The order of a list.
#[derive(Debug)]
pub struct Order {
    /// The field, or None for the key alone.
    field: Option<Field>,
    is_descending: bool,
}

/// Where a list continues: a condition, and the values to bind.
pub struct Place {
    pub sql: String,
    pub params: Vec<Param>,
}

impl Order {
    /// Parses `order_by`: the name of a field or `id`, and `asc` or `desc`.
    pub fn parse(text: &str, fields: &[Field]) -> Result<Order> {
        let text = text.trim();
        let is_field = |name: &str| fields.iter().find(|field| field.name == name).cloned();
        let (name, is_descending) = match text.rsplit_once(char::is_whitespace) {
            _ if is_field(text).is_some() => (text, false),
            Some((name, direction)) if direction.eq_ignore_ascii_case("desc") => (name, true),
            Some((name, direction)) if direction.eq_ignore_ascii_case("asc") => (name, false),
            _ => (text, false),
        };
        let name = name.trim();
        match is_field(name) {
            Some(field) if field.is_list => Err(Error::BadArgument {
                message: format!("order_by cannot use field \"{name}\""),
                detail: Some("It may hold lists, which have no order.".to_string()),
                hint: None,
            }),
            None if name != ID => Err(Error::BadArgument {
                message: format!("order_by \"{text}\" names no field"),
                detail: Some(format!("The fields are: {}.", names(fields))),
                hint: Some("Write it as 'field', 'field desc' or 'id'.".to_string()),
            }),
            field => Ok(Order { field, is_descending }),
        }
    }

    /// The expressions of ORDER BY.
    pub fn sql(&self) -> String {
        let direction = if self.is_descending { "desc" } else { "asc" };
        match &self.field {
            None => format!("{KEY} {direction}"),
            Some(field) => format!("{} {direction} nulls last, {KEY}", field.ordered()),
        }
    }

    /// The condition of the rows after a place: the value of the field and the key of a row, or the key alone where the
    /// list is in the order of the keys.
    pub fn after(&self, after: &Value, values: Values) -> Result<Place> {
        let wrong = |what: &str| Error::BadArgument {
            message: "after is not a place in this order".to_string(),
            detail: Some(what.to_string()),
            hint: Some(match &self.field {
                None => "Write it as jsonb_build_array(id) of the last row.".to_string(),
                Some(field) => format!(
                    "Write it as jsonb_build_array(metadata->>{}, id) of the last row.",
                    crate::name::quote_literal(&field.name)
                ),
            }),
        };
        let (value, key) = match (after.as_array().map(Vec::as_slice), &self.field) {
            (Some([Value::String(key)]), None) => (None, key),
            (Some([value, Value::String(key)]), Some(field)) => (Some((value, field)), key),
            (Some(_), None) => return Err(wrong("It must be an array of a key, which is a text.")),
            _ => return Err(wrong("It must be an array of a value and a key, which is a text.")),
        };
        let mut binder = Binder::new(values);
        let key = binder.bind(Param::Text(key.clone()));
        let beyond = if self.is_descending { "<" } else { ">" };
        let later = |operator: &str| format!("{KEY} {operator} {key}::text");
        let sql = match value {
            None => later(beyond),
            Some((Value::Null, field)) => {
                format!("{} is null and {}", field.ordered(), later(">"))
            }
            Some((value, field)) => {
                let text = field.value("the value in after", value)?;
                let value = field.compared(&binder.bind(Param::Text(text)));
                let ordered = field.ordered();
                format!(
                    "({ordered} {beyond} {value} or {ordered} is null or ({ordered} = {value} and {}))",
                    later(">")
                )
            }
        };
        Ok(Place { sql, params: binder.into_params() })
    }
}

/// The names of fields, for a message.
pub fn names(fields: &[Field]) -> String {
    let named = fields.iter().map(|field| format!("\"{}\"", field.name));
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::FilterType;

    fn fields() -> Vec<Field> {
        [
            ("price", FilterType::Float, false),
            ("a desc", FilterType::Keyword, false),
            ("tags", FilterType::Keyword, true),
        ]
        .map(|(name, filter_type, is_list)| {
            let name = name.to_string();
            Field { name, filter_type, is_list, is_indexed: false, has_zone: true }
        })
        .into()
    }

    fn order(text: &str) -> Order {
        Order::parse(text, &fields()).unwrap()
    }

    #[test]
    fn an_order_is_a_field_and_a_direction() {
        let price = "(metadata->>'price')::numeric";
        let key = "v.pk_value collate \"C\"";
        for (text, sql) in [
            ("price", format!("{price} asc nulls last, {key}")),
            (" price  DESC ", format!("{price} desc nulls last, {key}")),
            ("price Asc", format!("{price} asc nulls last, {key}")),
            ("id", format!("{key} asc")),
            ("id desc", format!("{key} desc")),
            (
                "a desc",
                format!("((metadata->>'a desc') collate pg_catalog.\"C\") asc nulls last, {key}"),
            ),
            (
                "a desc desc",
                format!("((metadata->>'a desc') collate pg_catalog.\"C\") desc nulls last, {key}"),
            ),
        ] {
            assert_eq!(order(text).sql(), sql, "{text}");
        }
        for text in ["", "tags", "desc", "price; drop table t", "price, id", "price desc desc"] {
            assert!(Order::parse(text, &fields()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_continues_after_a_value_and_a_key() {
        let place = order("price").after(&json!([2.5, "7"]), Values::From(4)).unwrap();
        assert_eq!(
            place.sql,
            "((metadata->>'price')::numeric > $5::text::numeric or (metadata->>'price')::numeric is null \
             or ((metadata->>'price')::numeric = $5::text::numeric and v.pk_value collate \"C\" > $4::text))"
        );
        let texts = [Param::Text("7".to_string()), Param::Text("2.5".to_string())];
        assert_eq!(place.params, texts);
        let place = order("price desc").after(&json!([null, "7"]), Values::Literal).unwrap();
        assert_eq!(
            place.sql,
            "(metadata->>'price')::numeric is null and v.pk_value collate \"C\" > '7'::text"
        );
        let place = order("id desc").after(&json!(["7"]), Values::Literal).unwrap();
        assert_eq!(place.sql, "v.pk_value collate \"C\" < '7'::text");
        for (by, after) in [
            ("price", json!(["7"])),
            ("price", json!(["cheap", "7"])),
            ("price", json!([1, 7])),
            ("price", json!({"price": 1})),
            ("id", json!([1, "7"])),
            ("id", json!("7")),
        ] {
            assert!(order(by).after(&after, Values::Literal).is_err(), "{by} {after}");
        }
    }
}
