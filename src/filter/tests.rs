//! Tests of every operator on every type, of errors, and of injections.

use serde_json::json;

use super::*;

mod forms;
mod refused;

fn field(name: &str, filter_type: FilterType) -> Field {
    let name = name.to_string();
    Field { name, filter_type, is_list: false, is_indexed: false, has_zone: true }
}

fn fields() -> Vec<Field> {
    [
        ("category", FilterType::Keyword),
        ("stock", FilterType::Integer),
        ("price", FilterType::Float),
        ("active", FilterType::Boolean),
        ("seen", FilterType::Datetime),
    ]
    .map(|(name, filter_type)| field(name, filter_type))
    .into()
}

fn accepted(filter: Value) -> (String, Vec<Param>) {
    match condition(&filter, &fields(), Values::From(1)) {
        Ok(condition) => (condition.sql, condition.params),
        Err(error) => panic!("{filter}: {error} {:?}", error.detail),
    }
}

fn refused(filter: Value) -> (String, String, Option<String>) {
    match condition(&filter, &fields(), Values::From(1)) {
        Ok(condition) => panic!("{filter} gave {}", condition.sql),
        Err(error) => (error.message, error.detail.unwrap(), error.hint),
    }
}

fn one(text: &str) -> Vec<Param> {
    vec![Param::Text(text.to_string())]
}

fn list(texts: &[&str]) -> Vec<Param> {
    vec![Param::TextArray(texts.iter().map(|text| text.to_string()).collect())]
}

/// Each field with a value, its text, its expression and its cast.
fn samples() -> Vec<(&'static str, Value, &'static str, &'static str, &'static str)> {
    vec![
        ("category", json!("It's"), "It's", "(metadata->>'category')", ""),
        ("stock", json!(-5), "-5", "(metadata->>'stock')::numeric", "::numeric"),
        ("price", json!(0.1), "0.1", "(metadata->>'price')::numeric", "::numeric"),
        ("active", json!(true), "true", "(metadata->>'active')::boolean", "::boolean"),
        (
            "seen",
            json!("2024-05-31T12:00:00Z"),
            "2024-05-31T12:00:00Z",
            "(metadata->>'seen')::timestamptz",
            "::timestamptz",
        ),
    ]
}

#[test]
fn an_empty_filter_is_no_condition() {
    for filter in [json!(null), json!({})] {
        assert_eq!(accepted(filter), ("true".to_string(), vec![]));
    }
}

#[test]
fn equality_works_on_every_type() {
    for (name, value, text, column, cast) in samples() {
        let equal = (format!("{column} = $1::text{cast}"), one(text));
        assert_eq!(accepted(json!({name: value})), equal);
        assert_eq!(accepted(json!({name: {"eq": value}})), equal);
        assert_eq!(accepted(json!({name: {"$eq": value}})), equal);
        let unequal = (format!("{column} is distinct from $1::text{cast}"), one(text));
        for operator in ["ne", "neq", "$ne", "$neq"] {
            assert_eq!(accepted(json!({name: {operator: value}})), unequal);
        }
    }
}

#[test]
fn order_works_on_every_type_but_boolean() {
    for (name, value, text, column, cast) in samples() {
        for (operator, sql) in [("gt", ">"), ("gte", ">="), ("lt", "<"), ("$lte", "<=")] {
            let filter = json!({name: {operator: value}});
            if name == "active" {
                let (message, detail, hint) = refused(filter);
                assert_eq!(
                    message,
                    format!("operator \"{operator}\" cannot be used on filter field \"active\"")
                );
                assert_eq!(
                    detail,
                    "Its filter_type is boolean, which takes eq, ne, neq, in, nin and exists."
                );
                assert_eq!(hint, None);
                continue;
            }
            let column = match name {
                "category" => "((metadata->>'category') collate pg_catalog.\"C\")",
                _ => column,
            };
            assert_eq!(accepted(filter), (format!("{column} {sql} $1::text{cast}"), one(text)));
        }
    }
}

#[test]
fn lists_work_on_every_type() {
    for (name, value, text, column, cast) in samples() {
        let array = if cast.is_empty() { String::new() } else { format!("{cast}[]") };
        assert_eq!(
            accepted(json!({name: {"in": [value, value]}})),
            (format!("{column} = any($1::text[]{array})"), list(&[text, text]))
        );
        assert_eq!(
            accepted(json!({name: {"$nin": [value]}})),
            (
                format!("({column} <> all($1::text[]{array}) or (metadata->>'{name}') is null)"),
                list(&[text])
            )
        );
        assert_eq!(accepted(json!({name: {"in": []}})), ("false".to_string(), vec![]));
        assert_eq!(accepted(json!({name: {"nin": []}})), ("true".to_string(), vec![]));
    }
}

#[test]
fn existence_and_null_work_on_every_type() {
    for (name, ..) in samples() {
        let there = (format!("(metadata->>'{name}') is not null"), vec![]);
        let missing = (format!("(metadata->>'{name}') is null"), vec![]);
        for filter in [
            json!({name: {"exists": true}}),
            json!({name: {"$exists": true}}),
            json!({name: {"ne": null}}),
            json!({name: {"neq": null}}),
        ] {
            assert_eq!(accepted(filter), there);
        }
        for filter in
            [json!({name: {"exists": false}}), json!({name: {"eq": null}}), json!({name: null})]
        {
            assert_eq!(accepted(filter), missing);
        }
    }
}

#[test]
fn fields_and_operators_are_anded_and_numbered() {
    let filter = json!({"price": {"gte": 10, "lt": 20.5}, "category": {"in": ["a"]}});
    let condition = condition(&filter, &fields(), Values::From(4)).unwrap();
    assert_eq!(
        condition.sql,
        "(metadata->>'price')::numeric >= $4::text::numeric and \
         (metadata->>'price')::numeric < $5::text::numeric and \
         (metadata->>'category') = any($6::text[])"
    );
    assert_eq!(condition.params, [one("10"), one("20.5"), list(&["a"])].concat());
}

#[test]
fn alternatives_nest() {
    let filter = json!({"active": true, "$or": [
        {"stock": 1, "category": "x"}, {}, {"$or": [{"stock": null}]}]});
    assert_eq!(
        accepted(filter).0,
        "(metadata->>'active')::boolean = $1::text::boolean and \
         (((metadata->>'stock')::numeric = $2::text::numeric and \
         (metadata->>'category') = $3::text) or (true) or \
         ((((metadata->>'stock') is null))))"
    );
}

#[test]
fn integers_keep_every_digit_and_floats_their_shortest_form() {
    for number in [i64::MIN, i64::MAX, 0] {
        assert_eq!(accepted(json!({"stock": number})).1, one(&number.to_string()));
        assert_eq!(accepted(json!({"price": number})).1, one(&number.to_string()));
    }
    assert_eq!(accepted(json!({"price": u64::MAX})).1, one("18446744073709551615"));
    assert_eq!(accepted(json!({"price": 150.0})).1, one("150.0"));
}

#[test]
fn values_are_never_in_the_sql_and_names_only_as_literals() {
    let (sql, params) = accepted(json!({"category": "'; drop table t; --"}));
    assert_eq!(sql, "(metadata->>'category') = $1::text");
    assert_eq!(params, one("'; drop table t; --"));
    let name = "x' or \\'1'='1";
    let odd = [field(name, FilterType::Keyword)];
    let condition = condition(&json!({name: {"nin": ["$2"]}}), &odd, Values::From(1)).unwrap();
    assert_eq!(
        condition.sql,
        "((metadata->>E'x'' or \\\\''1''=''1') <> all($1::text[]) or \
         (metadata->>E'x'' or \\\\''1''=''1') is null)"
    );
    assert_eq!(condition.params, list(&["$2"]));
}

#[test]
fn long_values_are_truncated_in_messages() {
    let message = refused(json!({"price": "é".repeat(100)})).0;
    let shown = format!("\"{}...", "é".repeat(59));
    assert_eq!(message, format!("invalid value for filter field \"price\": {shown}"));
}

#[test]
fn depth_and_size_are_limited() {
    let nested =
        |depth: usize| (0..depth).fold(json!({"stock": 1}), |filter, _| json!({"$or": [filter]}));
    accepted(nested(32));
    assert_eq!(
        refused(nested(33)),
        (
            "filters are nested too deeply".to_string(),
            "At most 32 levels of $or, $and and $not are allowed.".to_string(),
            None
        )
    );
    for filter in [json!({"stock": 1}), json!({})] {
        accepted(json!({"$or": vec![filter.clone(); 1000]}));
        assert_eq!(
            refused(json!({"$or": vec![filter; 1001]})),
            (
                "filters have too many conditions".to_string(),
                "At most 1000 are allowed.".to_string(),
                Some("Use the operator in to match any of many values.".to_string())
            )
        );
    }
}

#[test]
fn exact_values_sent_as_text_are_accepted() {
    for (field, text) in [("stock", "-5"), ("price", "0.10"), ("price", "1e3"), ("active", "false")]
    {
        assert_eq!(accepted(json!({ field: text })).1, one(text), "{field} {text}");
    }
    assert_eq!(accepted(json!({"stock": {"in": ["1", 2]}})).1, list(&["1", "2"]));
    for (text, sql) in [("true", "not null"), ("false", "null")] {
        let (is, params) = accepted(json!({"stock": {"exists": text}}));
        assert!(is.ends_with(&format!(" is {sql}")) && params.is_empty(), "{is}");
    }
    for (field, text) in [
        ("stock", "5.0"),
        ("stock", " 5"),
        ("stock", "9223372036854775808"),
        ("stock", ""),
        ("price", "1,5"),
        ("price", "NaN"),
        ("price", "0x1"),
        ("price", "1e400000"),
        ("active", "yes"),
        ("active", "True"),
    ] {
        refused(json!({ field: text }));
    }
}

#[test]
fn and_and_not_nest() {
    let (sql, params) = accepted(json!({"$and": [{"active": true}, {"$not": {"stock": 1}}]}));
    assert_eq!(
        sql,
        "(((metadata->>'active')::boolean = $1::text::boolean) and ((((metadata->>'stock')::numeric = $2::text::numeric) is not true)))"
    );
    assert_eq!(params.len(), 2);
    assert_eq!(accepted(json!({"$not": {}})).0, "((true) is not true)");
    for (filter, message) in [
        (json!({"$and": []}), "\"$and\" must not be empty"),
        (json!({"$and": {}}), "\"$and\" must be an array of filter objects"),
        (json!({"$and": [1]}), "element 1 of \"$and\" must be a filter object"),
        (json!({"$not": [{}]}), "\"$not\" must be a filter object"),
    ] {
        let (found, _, hint) = refused(filter);
        assert_eq!(found, message);
        assert!(hint.is_some_and(|hint| hint.starts_with("Write it as {\"$")));
    }
    let mut deep = json!({"active": true});
    for level in 0..40 {
        deep = if level % 2 == 0 { json!({"$not": deep}) } else { json!({"$and": [deep]}) };
    }
    assert_eq!(refused(deep).0, "filters are nested too deeply");
}

#[test]
fn a_prefix_is_of_texts() {
    let (sql, params) = accepted(json!({"category": {"prefix": "It's"}}));
    assert_eq!(sql, "((metadata->>'category') collate pg_catalog.\"C\") ^@ $1::text");
    assert_eq!(params, one("It's"));
    let (message, detail, _) = refused(json!({"stock": {"prefix": "1"}}));
    assert_eq!(message, "operator \"prefix\" cannot be used on filter field \"stock\"");
    assert!(detail.starts_with("Its filter_type is integer, which takes eq"));
}

#[test]
fn lists_are_tested_by_element() {
    let list = |name: &str, filter_type| Field { is_list: true, ..field(name, filter_type) };
    let fields = [list("tags", FilterType::Keyword), list("it's", FilterType::Integer)];
    let sql = |filter: Value| match condition(&filter, &fields, Values::From(1)) {
        Ok(condition) => (condition.sql, condition.params),
        Err(error) => (error.to_string(), vec![]),
    };
    let path = "'lax $[*][*][*][*][*][*] ? (@ == $v[*])'";
    let some = |n: u8| format!("jsonb_path_exists(metadata->'tags', {path}, ${n}::text::jsonb)");
    assert_eq!(sql(json!({"tags": "a\"b"})), (some(1), one(r#"{"v": ["a\"b"]}"#)));
    assert_eq!(sql(json!({"tags": "10"})), (some(1), one(r#"{"v": ["10", 10]}"#)));
    assert_eq!(
        sql(json!({"tags": {"in": ["a", "true"]}})),
        (some(1), one(r#"{"v": ["a", "true", true]}"#))
    );
    assert_eq!(sql(json!({"tags": {"ne": "a"}})).0, format!("({} is not true)", some(1)));
    assert_eq!(sql(json!({"tags": {"nin": ["a"]}})).0, format!("({} is not true)", some(1)));
    assert_eq!(
        sql(json!({"tags": {"all": ["a", "b"]}})).0,
        format!("({} and {})", some(1), some(2))
    );
    assert_eq!(sql(json!({"tags": {"in": []}})).0, "false");
    assert_eq!(sql(json!({"tags": null})).0, "(metadata->>'tags') is null");
    let (found, params) = sql(json!({"it's": {"all": [7]}}));
    assert!(found.contains("metadata->'it''s'"), "{found}");
    assert_eq!(params, one(r#"{"v": [7]}"#));
    for (filter, message) in [
        (json!({"tags": {"gt": "a"}}), "operator \"gt\" cannot be used on filter field \"tags\""),
        (
            json!({"tags": {"prefix": "a"}}),
            "operator \"prefix\" cannot be used on filter field \"tags\"",
        ),
        (json!({"tags": {"all": []}}), "the list of all must not be empty"),
        (json!({"it's": {"all": ["x"]}}), "invalid value for filter field \"it's\": \"x\""),
    ] {
        assert_eq!(sql(filter).0, message);
    }
    assert_eq!(
        refused(json!({"category": {"all": ["a"]}})).0,
        "operator \"all\" cannot be used on filter field \"category\""
    );
}
