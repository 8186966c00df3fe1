//! Tests of the columns argument and of the generated SQL.

use serde_json::json;

use super::sql::expressions;
use super::*;
use crate::key::{Key, KeyColumn};

/// A key of one integer column.
fn key(name: &str) -> Key {
    let operator = |op: &str| format!("operator(pg_catalog.{op})");
    let column = KeyColumn {
        name: name.to_string(),
        type_name: "integer".to_string(),
        equals: operator("="),
        greater: operator(">"),
    };
    Key { columns: vec![column] }
}

fn column(name: &str, role: Role, ordinal: Option<i32>, prefix: Option<&str>) -> Column {
    let name_prefix = prefix.map(str::to_string);
    Column {
        name: name.to_string(),
        role,
        ordinal,
        name_prefix,
        filter_type: None,
        index: false,
        source_column: None,
    }
}

fn names(columns: &[Column]) -> Vec<&str> {
    embedding_columns(columns).into_iter().map(|column| column.name.as_str()).collect()
}

#[test]
fn columns_of_the_example_are_parsed() {
    let argument = json!([
        {"name": "name", "role": "embedding", "ordinal": 1, "name_prefix": "Product: "},
        {"name": "description", "role": "embedding", "ordinal": null, "filter_type": "keyword"},
        {"name": "price", "role": "metadata", "filter_type": "float"},
        {"name": "seen", "role": "metadata", "filter_type": "datetime"},
        {"name": "in_stock", "role": "metadata"}]);
    let columns = parse_columns(&argument).unwrap();
    assert_eq!(columns[0], column("name", Role::Embedding, Some(1), Some("Product: ")));
    assert_eq!(columns[1].filter_type, Some(FilterType::Keyword));
    assert_eq!(columns[2].filter_type, Some(FilterType::Float));
    assert_eq!(columns[3].filter_type, Some(FilterType::Datetime));
    assert_eq!(columns[4], column("in_stock", Role::Metadata, None, None));
}

#[test]
fn columns_survive_being_stored() {
    let columns = vec![
        column("a", Role::Embedding, Some(0), Some("A: ")),
        Column {
            filter_type: Some(FilterType::Datetime),
            index: false,
            source_column: None,
            ..column("b", Role::Metadata, None, None)
        },
    ];
    let stored = serde_json::to_value(&columns).unwrap();
    assert_eq!(stored[1], json!({"name": "b", "role": "metadata", "filter_type": "datetime"}));
    assert_eq!(parse_columns(&stored).unwrap(), columns);
    assert_eq!(serde_json::from_value::<Vec<Column>>(stored).unwrap(), columns);
}

#[test]
fn filter_types_round_trip() {
    for filter_type in FilterType::ALL {
        assert_eq!(serde_json::to_value(filter_type).unwrap(), json!(filter_type.as_str()));
        let argument = json!([
            {"name": "a", "role": "embedding", "filter_type": filter_type.as_str()}]);
        assert_eq!(parse_columns(&argument).unwrap()[0].filter_type, Some(filter_type));
    }
}

#[test]
fn the_default_filter_type_follows_the_column_type() {
    use FilterType::*;
    for (filter_type, type_names) in [
        (Integer, "smallint integer bigint integer[]".split(' ').collect::<Vec<_>>()),
        (Float, vec!["real", "double precision", "numeric", "numeric[]"]),
        (Boolean, vec!["boolean"]),
        (Datetime, vec!["date", "timestamp without time zone", "timestamp with time zone"]),
        (Keyword, vec!["text", "character varying", "uuid", "jsonb", "money", "text[]", "oid"]),
        (Keyword, vec!["timestamp with time zone[]", "time without time zone", "interval", ""]),
    ] {
        for type_name in type_names {
            assert_eq!(FilterType::of_type(type_name), filter_type, "{type_name}");
        }
    }
}

#[test]
fn errors_name_the_element_and_the_valid_values() {
    let example = Some("Write it as [{\"name\": \"title\", \"role\": \"embedding\"}].");
    let roles = Some("Valid roles: embedding and metadata.");
    let ordinal = "\"ordinal\" of column \"a\" must be an integer from 0 to 2147483647";
    let prefix = Some("Its role is metadata, so it is not part of the text.");
    let ok = json!({"name": "ok", "role": "embedding"});
    let cases = [
        (json!({}), "columns must be a JSON array", Some("An object was given."), example),
        (json!(null), "columns must be a JSON array", Some("Null was given."), example),
        (json!([]), "columns must not be empty", None, example),
        (
            json!([ok, "title"]),
            "element 2 of columns must be an object",
            Some("A string was given."),
            example,
        ),
        (
            json!([ok, {"name": "a", "role": "metadata", "typ": 1}]),
            "unknown key \"typ\" in element 2 of columns",
            Some("Valid keys: name, role, ordinal, name_prefix, filter_type and index."),
            None,
        ),
        (
            json!([ok, {"name": "a", "role": "metadata", "index": "yes"}]),
            "\"index\" of column \"a\" must be true or false",
            Some("A string was given."),
            None,
        ),
        (
            json!([{"name": "a", "role": "embedding", "index": true}]),
            "\"index\" is not allowed for column \"a\"",
            Some("Its role is embedding, and its text may be longer than an index entry."),
            None,
        ),
        (json!([{"role": "embedding"}]), "element 1 of columns has no \"name\"", None, None),
        (
            json!([{"name": "", "role": "embedding"}]),
            "\"name\" in element 1 of columns must not be empty",
            None,
            None,
        ),
        (
            json!([{"name": 5, "role": "embedding"}]),
            "\"name\" in element 1 of columns must be a string",
            Some("A number was given."),
            None,
        ),
        (
            json!([{"name": "a"}]),
            "element 1 of columns, column \"a\", has no \"role\"",
            roles,
            None,
        ),
        (
            json!([{"name": "a", "role": "Embedding"}]),
            "unknown role \"Embedding\" of column \"a\"",
            roles,
            None,
        ),
        (
            json!([{"name": "a", "role": ["embedding"]}]),
            "\"role\" in element 1 of columns must be a string",
            Some("An array was given."),
            None,
        ),
        (
            json!([{"name": "a", "role": "embedding", "filter_type": "number"}]),
            "unknown filter_type \"number\" of column \"a\"",
            Some("Valid filter types: keyword, integer, float, boolean and datetime."),
            None,
        ),
        (
            json!([{"name": "a", "role": "embedding", "name_prefix": true}]),
            "\"name_prefix\" in element 1 of columns must be a string",
            Some("A boolean was given."),
            None,
        ),
        (
            json!([{"name": "a", "role": "embedding", "ordinal": -1}]),
            ordinal,
            Some("-1 was given."),
            None,
        ),
        (
            json!([{"name": "a", "role": "embedding", "ordinal": 1.5}]),
            ordinal,
            Some("1.5 was given."),
            None,
        ),
        (
            json!([{"name": "a", "role": "embedding", "ordinal": 2147483648_i64}]),
            ordinal,
            Some("2147483648 was given."),
            None,
        ),
        (
            json!([{"name": "a", "role": "embedding", "ordinal": "1"}]),
            ordinal,
            Some("A string was given."),
            None,
        ),
        (
            json!([ok, {"name": "a", "role": "metadata", "ordinal": 1}]),
            "\"ordinal\" is not allowed for column \"a\"",
            prefix,
            None,
        ),
        (
            json!([ok, {"name": "a", "role": "metadata", "name_prefix": ""}]),
            "\"name_prefix\" is not allowed for column \"a\"",
            prefix,
            None,
        ),
        (json!([ok, ok]), "column \"ok\" appears more than once in columns", None, None),
        (
            json!([ok, {"name": "ok", "role": "metadata"}]),
            "column \"ok\" appears more than once in columns",
            None,
            Some("Keep the one with role embedding: its value is part of the metadata too."),
        ),
        (
            json!([{"name": "a", "role": "embedding", "ordinal": 1}, ok,
                   {"name": "b", "role": "embedding", "ordinal": 1}]),
            "columns \"a\" and \"b\" have the same ordinal",
            Some("The ordinal of both is 1."),
            None,
        ),
        (
            json!([{"name": "a", "role": "metadata"}]),
            "columns has no column with role embedding",
            None,
            Some("Write \"role\": \"embedding\" for each column that is to be embedded."),
        ),
    ];
    for (argument, message, detail, hint) in cases {
        let error = parse_columns(&argument).unwrap_err();
        assert_eq!(error.to_string(), message, "{argument}");
        assert_eq!(error.detail.as_deref(), detail, "{argument}");
        assert_eq!(error.hint.as_deref(), hint, "{argument}");
    }
}

#[test]
fn a_thousand_columns_are_the_limit() {
    let many = |count: usize| {
        (0..count).map(|i| json!({"name": format!("c{i}"), "role": "embedding"})).collect()
    };
    assert_eq!(parse_columns(&Value::Array(many(1000))).unwrap().len(), 1000);
    let error = parse_columns(&Value::Array(many(1001))).unwrap_err();
    assert_eq!(error.message, "columns has too many elements");
    assert_eq!(error.detail.unwrap(), "It has 1001 elements; at most 1000 are allowed.");
}

#[test]
fn the_text_is_ordered_by_ordinal_then_by_position() {
    let columns = [
        column("x", Role::Embedding, None, None),
        column("second", Role::Embedding, Some(2), None),
        column("meta", Role::Metadata, None, None),
        column("first", Role::Embedding, Some(0), None),
        column("a", Role::Embedding, None, None),
    ];
    assert_eq!(names(&columns), ["first", "second", "x", "a"]);
}

#[test]
fn a_document_is_one_query() {
    let columns = [
        column("description", Role::Embedding, None, None),
        column("name", Role::Embedding, Some(1), Some("Product: ")),
        column("price", Role::Metadata, None, None),
    ];
    assert_eq!(
        document_sql(
            "\"public\".\"products\"",
            &key("id"),
            &columns,
            "s.\"id\" = any($1)",
            "s.\"x\" > 9"
        ),
        "select d.pk_value, d.embedded_text, d.metadata, \
         case when d.embedded_text is null then 'too large' else pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(\
         pg_catalog.length(d.embedded_text)::text || ':'::text || d.embedded_text \
         || d.metadata::text, 'UTF8')), 'hex') end as row_hash \
         from (select s.\"id\"::text collate pg_catalog.\"default\" as pk_value, \
         case when s.\"x\" > 9 then null else pg_catalog.array_to_string(array[\
         'Product: '::text || nullif(s.\"name\"::text collate pg_catalog.\"C\", ''), \
         nullif(s.\"description\"::text collate pg_catalog.\"C\", '')]::text[], \
         E'\\n'::text) end as embedded_text, \
         case when s.\"x\" > 9 then null else pg_catalog.jsonb_build_object('description'::text, s.\"description\", \
         'name'::text, s.\"name\", 'price'::text, s.\"price\") end as metadata \
         from \"public\".\"products\" s where s.\"id\" = any($1) offset 0) d offset 0"
    );
}

#[test]
fn names_and_prefixes_are_quoted() {
    let columns = [column("a\"'\\", Role::Embedding, None, Some("it's \\"))];
    let expressions = expressions(&columns, "t");
    assert_eq!(
        expressions.text,
        "pg_catalog.array_to_string(array[E'it''s \\\\'::text || \
         nullif(t.\"a\"\"'\\\"::text collate pg_catalog.\"C\", '')]::text[], E'\\n'::text)"
    );
    assert_eq!(
        expressions.metadata,
        "pg_catalog.jsonb_build_object(E'a\"''\\\\'::text, t.\"a\"\"'\\\")"
    );
    let sql = document_sql("t", &key("k\"; --"), &columns, "true", "false");
    assert!(sql.contains("s.\"k\"\"; --\"::text"));
}

#[test]
fn wide_metadata_is_built_in_pieces() {
    let columns: Vec<Column> =
        (0..101).map(|i| column(&format!("c{i}"), Role::Embedding, None, None)).collect();
    let metadata = expressions(&columns, "s").metadata;
    let pieces: Vec<&str> = metadata.split(" || ").collect();
    assert_eq!(pieces.len(), 3);
    for (piece, count) in pieces.into_iter().zip([50, 50, 1]) {
        assert!(piece.starts_with("pg_catalog.jsonb_build_object('c"));
        assert_eq!(piece.matches("s.\"").count(), count);
    }
}
