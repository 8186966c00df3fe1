//! The key of a source: one or several columns, and the SQL that converts its values to pk_value and back.

use crate::name::quote_ident;

/// One column of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its current name in the source.
    pub name: String,
    /// Its type for casts, or the base type of a domain.
    pub type_name: String,
    /// The equality and greater-than operators of its type, as `operator(schema.=)`; empty if the type has none.
    pub equals: String,
    pub greater: String,
}

/// How a key value is represented in pk_value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A JSON number.
    Number,
    /// A JSON boolean.
    Boolean,
    /// Text without padding blanks.
    Padded,
    /// The output of the type.
    Text,
    /// The cast to text, for types where it equals the output.
    Cast,
}

impl Form {
    /// The form of a type by the name of its base type.
    pub fn of_type(type_name: &str) -> Self {
        match type_name {
            "smallint" | "integer" | "bigint" | "numeric" => Form::Number,
            "boolean" => Form::Boolean,
            "bpchar" | "character" => Form::Padded,
            "text" | "character varying" | "uuid" | "oid" => Form::Cast,
            _ => Form::Text,
        }
    }
}

/// The key of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub columns: Vec<KeyColumn>,
}

impl Key {
    /// Whether settings of a session decide how a key is written.
    pub fn depends_on_settings(&self) -> bool {
        const TYPES: [&str; 10] = [
            "date",
            "timestamp with time zone",
            "timestamp without time zone",
            "interval",
            "bytea",
            "real",
            "double precision",
            "daterange",
            "tsrange",
            "tstzrange",
        ];
        self.columns.iter().any(|column| TYPES.contains(&column.type_name.as_str()))
    }

    /// The value of primary_key_column for these columns: the name of a single one, otherwise a JSON array.
    pub fn shown(names: &[String]) -> String {
        match names {
            [name] => name.clone(),
            _ => serde_json::Value::from(names.to_vec()).to_string(),
        }
    }

    /// The column names in a value of primary_key_column, for a key with this many columns.
    pub fn names(shown: &str, columns: usize) -> Vec<String> {
        match columns {
            1 => vec![shown.to_string()],
            _ => serde_json::from_str(shown).unwrap_or_default(),
        }
    }

    /// Whether pk_value is a JSON array.
    pub fn is_composite(&self) -> bool {
        self.columns.len() > 1
    }

    /// The expression of pk_value for the row alias.
    pub fn pk_value(&self, alias: &str) -> String {
        let values: Vec<String> =
            self.columns.iter().map(|c| format!("{alias}.{}", quote_ident(&c.name))).collect();
        self.pk_of(&values)
    }

    /// The expression of pk_value for given SQL values.
    fn pk_of(&self, values: &[String]) -> String {
        // The key gets the collation of the vector table's pk_value, so that the index there can serve a join.
        const COLLATION: &str = "collate pg_catalog.\"default\"";
        let text = |column: &KeyColumn, value: &str| match Form::of_type(&column.type_name) {
            // The output of the type, which the trigger stores too; a cast may differ.
            Form::Text | Form::Boolean => format!("pg_catalog.format('%s', {value})"),
            Form::Number | Form::Padded | Form::Cast => format!("{value}::text"),
        };
        if let ([column], [value]) = (self.columns.as_slice(), values) {
            return format!("{} {COLLATION}", text(column, value));
        }
        let elements: Vec<String> = self
            .columns
            .iter()
            .zip(values)
            .map(|(column, value)| match Form::of_type(&column.type_name) {
                Form::Number | Form::Boolean => format!("{value}::{}", column.type_name),
                _ => text(column, value),
            })
            .collect();
        format!("pg_catalog.jsonb_build_array({})::text {COLLATION}", elements.join(", "))
    }

    /// The key values of a pk_value given as SQL, each cast to its type.
    pub fn values(&self, pk_value: &str) -> Vec<String> {
        if let [column] = self.columns.as_slice() {
            return vec![format!("({pk_value})::{}", column.type_name)];
        }
        let each = self.columns.iter().enumerate();
        each.map(|(n, column)| format!("(({pk_value})::jsonb ->> {n})::{}", column.type_name))
            .collect()
    }

    /// The condition that a source row has these values: by the key's index, and then exactly, because 1.0 and 1.00
    /// are equal but not identical.
    pub fn matches(&self, alias: &str, values: &[String], pk_value: &str) -> String {
        format!("{} and {} = {pk_value}", self.equals(alias, values), self.pk_value(alias))
    }

    /// The condition that the key of a row equals these values, however they are written.
    pub fn equals(&self, alias: &str, values: &[String]) -> String {
        let conditions: Vec<String> = self
            .columns
            .iter()
            .zip(values)
            .map(|(column, value)| {
                format!("{alias}.{} {} {value}", quote_ident(&column.name), column.equals)
            })
            .collect();
        conditions.join(" and ")
    }

    /// The key of a row as one SQL value for [`Key::values`]: its column, or a JSON array.
    pub fn value(&self, alias: &str) -> String {
        let each = self.columns.iter();
        let columns: Vec<String> =
            each.map(|c| format!("{alias}.{}", quote_ident(&c.name))).collect();
        match columns.as_slice() {
            [column] => column.clone(),
            _ => format!("pg_catalog.jsonb_build_array({})", columns.join(", ")),
        }
    }

    /// The condition that no part of the key is null.
    pub fn is_complete(&self, alias: &str) -> String {
        let each = self.columns.iter();
        let conditions: Vec<String> =
            each.map(|c| format!("{alias}.{} is not null", quote_ident(&c.name))).collect();
        conditions.join(" and ")
    }

    /// The order of the key, for keyset pagination.
    pub fn order(&self, alias: &str) -> String {
        let each = self.columns.iter();
        let columns: Vec<String> =
            each.map(|c| format!("{alias}.{}", quote_ident(&c.name))).collect();
        columns.join(", ")
    }

    /// The condition that a row follows these values in the order of the key, for keyset pagination.
    pub fn after(&self, alias: &str, values: &[String]) -> String {
        let column = |n: usize| format!("{alias}.{}", quote_ident(&self.columns[n].name));
        let same = |c: &KeyColumn| c.greater == self.columns[0].greater;
        if self.columns.iter().all(same) {
            // A row comparison starts the index scan where the last page ended, even if the first column has few
            // distinct values.
            return match self.is_composite() {
                false => format!("{} {} {}", column(0), self.columns[0].greater, values[0]),
                true => format!(
                    "row({}) {} row({})",
                    self.order(alias),
                    self.columns[0].greater,
                    values.join(", ")
                ),
            };
        }
        let mut alternatives = Vec::new();
        for (n, key) in self.columns.iter().enumerate() {
            let mut all: Vec<String> = (0..n)
                .map(|m| format!("{} {} {}", column(m), self.columns[m].equals, values[m]))
                .collect();
            all.push(format!("{} {} {}", column(n), key.greater, values[n]));
            alternatives.push(format!("({})", all.join(" and ")));
        }
        format!("({})", alternatives.join(" or "))
    }
}

/// Appends a value to the JSON array of a composite key, in jsonb's format; the text is the type's output.
pub fn push_element(array: &mut Vec<u8>, form: Form, text: &[u8]) {
    array.extend_from_slice(if array.is_empty() { b"[" } else { b", " });
    let is_finite = text.iter().all(|b| matches!(b, b'0'..=b'9' | b'-' | b'.'));
    match form {
        Form::Number if is_finite => array.extend_from_slice(text),
        Form::Boolean => array.extend_from_slice(if text == b"t" { b"true" } else { b"false" }),
        Form::Padded => push_string(array, without_blanks(text)),
        _ => push_string(array, text),
    }
}

/// A quoted string, escaped as by PostgreSQL's JSON.
fn push_string(array: &mut Vec<u8>, text: &[u8]) {
    array.push(b'"');
    for byte in text {
        match byte {
            b'"' => array.extend_from_slice(b"\\\""),
            b'\\' => array.extend_from_slice(b"\\\\"),
            0x08 => array.extend_from_slice(b"\\b"),
            0x0c => array.extend_from_slice(b"\\f"),
            b'\n' => array.extend_from_slice(b"\\n"),
            b'\r' => array.extend_from_slice(b"\\r"),
            b'\t' => array.extend_from_slice(b"\\t"),
            0..0x20 => array.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => array.push(*byte),
        }
    }
    array.push(b'"');
}

/// A text without the blanks that pad char(n); other white space is part of the value.
pub fn without_blanks(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|b| *b != b' ').map_or(0, |last| last + 1);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_name: &str) -> KeyColumn {
        KeyColumn {
            name: name.into(),
            type_name: type_name.into(),
            equals: "operator(pg_catalog.=)".into(),
            greater: "operator(pg_catalog.>)".into(),
        }
    }

    #[test]
    fn a_single_column_is_its_text() {
        let key = Key { columns: vec![column("the Id", "integer")] };
        assert_eq!(key.pk_value("s"), "s.\"the Id\"::text collate pg_catalog.\"default\"");
        assert_eq!(key.values("k.pk"), ["(k.pk)::integer"]);
        assert_eq!(
            key.after("s", &key.values("$1")),
            "s.\"the Id\" operator(pg_catalog.>) ($1)::integer"
        );
        assert_eq!(Key::names(&Key::shown(&["a,b".into()]), 1), ["a,b"]);
    }

    #[test]
    fn several_columns_are_a_json_array() {
        let key = Key { columns: vec![column("a", "bigint"), column("b", "date")] };
        assert_eq!(
            key.pk_value("s"),
            "pg_catalog.jsonb_build_array(s.\"a\"::bigint, pg_catalog.format('%s', s.\"b\"))::text collate pg_catalog.\"default\""
        );
        assert_eq!(key.values("p"), ["((p)::jsonb ->> 0)::bigint", "((p)::jsonb ->> 1)::date"]);
        assert_eq!(
            key.after("s", &["1".into(), "2".into()]),
            "row(s.\"a\", s.\"b\") operator(pg_catalog.>) row(1, 2)"
        );
        let names = ["a".to_string(), "b\"".to_string()];
        assert_eq!(Key::names(&Key::shown(&names), 2), names);
    }

    #[test]
    fn operators_of_different_schemas_are_compared_column_by_column() {
        let mut key = Key { columns: vec![column("a", "public.citext"), column("b", "integer")] };
        key.columns[0].greater = "operator(public.>)".into();
        assert_eq!(
            key.after("s", &["x".into(), "y".into()]),
            "((s.\"a\" operator(public.>) x) or (s.\"a\" operator(pg_catalog.=) x and s.\"b\" operator(pg_catalog.>) y))"
        );
    }

    #[test]
    fn elements_have_the_format_of_jsonb() {
        let mut array = Vec::new();
        push_element(&mut array, Form::Number, b"-1.50");
        push_element(&mut array, Form::Number, b"NaN");
        push_element(&mut array, Form::Boolean, b"t");
        push_element(&mut array, Form::Padded, b"ab\t  ");
        push_element(&mut array, Form::Text, "a\"\\\n\u{1}é\u{7f}".as_bytes());
        let expected = "[-1.50, \"NaN\", true, \"ab\\t\", \"a\\\"\\\\\\n\\u0001é\u{7f}\"";
        assert_eq!(String::from_utf8_lossy(&array), expected);
    }
}
