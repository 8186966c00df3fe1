//! Tests of the forms of a condition: with literals, and as the keys of indexes.

use serde_json::{Value, json};

use super::{Field, Values, condition, fields};

#[test]
fn values_may_be_literals() {
    let filter = json!({"category": {"in": ["a'b", "$1"]}, "stock": {"gte": 5}});
    let condition = condition(&filter, &fields(), Values::Literal).unwrap();
    assert_eq!(
        condition.sql,
        "(metadata->>'category') = any(array['a''b', '$1']::text[]) and (metadata->>'stock')::numeric >= '5'::text::numeric"
    );
    assert!(condition.params.is_empty());
}

#[test]
fn a_field_with_an_index_is_compared_as_its_key() {
    let fields: Vec<Field> = fields()
        .into_iter()
        .map(|field| Field { is_indexed: true, has_zone: false, ..field })
        .collect();
    let sql = |filter: Value| {
        let condition = condition(&filter, &fields, Values::From(1)).unwrap();
        (condition.sql, condition.is_served)
    };
    for (filter, expected, is_served) in [
        (
            json!({"category": "a"}),
            "((metadata->>'category') collate pg_catalog.\"C\") = $1::text",
            true,
        ),
        (
            json!({"category": {"in": ["a"]}}),
            "((metadata->>'category') collate pg_catalog.\"C\") = any($1::text[])",
            true,
        ),
        (
            json!({"category": {"nin": ["a"]}}),
            "((metadata->>'category') <> all($1::text[]) or (metadata->>'category') is null)",
            false,
        ),
        (json!({"stock": {"gt": 1}}), "(metadata->>'stock')::numeric > $1::text::numeric", true),
        (
            json!({"seen": {"lt": "2024-01-01"}}),
            "embedd.utc_datetime((metadata->>'seen')) < (($1::text::timestamptz)::timestamp at time zone 'UTC')",
            true,
        ),
        (
            json!({"seen": {"in": ["2024-01-01"]}}),
            "(metadata->>'seen')::timestamptz = any($1::text[]::timestamptz[])",
            false,
        ),
        (
            json!({"$or": [{"stock": 1}]}),
            "(((metadata->>'stock')::numeric = $1::text::numeric))",
            false,
        ),
    ] {
        assert_eq!(sql(filter), (expected.to_string(), is_served));
    }
}
