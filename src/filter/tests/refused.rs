//! Tests of a filter's errors, word for word.

use serde_json::json;

use super::{condition, refused};

#[test]
fn values_of_the_wrong_type_are_errors() {
    let integer = "an integer from -9223372036854775808 to 9223372036854775807, \
                   without a decimal point";
    let datetime = "a string with an ISO 8601 date or time such as \"2024-05-31T12:00:00Z\"";
    let cases = [
        ("category", "keyword", json!(5), "a string", "a number"),
        ("category", "keyword", json!(true), "a string", "a boolean"),
        ("stock", "integer", json!("5 pieces"), integer, "a string"),
        ("stock", "integer", json!(1.5), integer, "a number"),
        ("stock", "integer", json!(5.0), integer, "a number"),
        ("stock", "integer", json!(9223372036854775808_u64), integer, "a number"),
        ("price", "float", json!("cheap"), "a number", "a string"),
        ("price", "float", json!(false), "a number", "a boolean"),
        ("active", "boolean", json!("yes"), "true or false", "a string"),
        ("active", "boolean", json!(1), "true or false", "a number"),
        ("seen", "datetime", json!("yesterday"), datetime, "a string"),
        ("seen", "datetime", json!(1717156800), datetime, "a number"),
    ];
    for (name, filter_type, value, expected, given) in cases {
        let message = format!("invalid value for filter field \"{name}\": {value}");
        let detail = |what: &str| {
            format!(
                "Its filter_type is {filter_type}: {what} must be {expected}, \
                 and {given} was given."
            )
        };
        for filter in [json!({name: value}), json!({name: {"eq": value}})] {
            assert_eq!(refused(filter), (message.clone(), detail("the value of eq"), None));
        }
        assert_eq!(
            refused(json!({name: {"ne": value}})),
            (message.clone(), detail("the value of ne"), None)
        );
        for operator in ["in", "nin"] {
            let what = format!("each element of {operator}");
            assert_eq!(
                refused(json!({name: {operator: [value]}})),
                (message.clone(), detail(&what), None)
            );
        }
    }
}

#[test]
fn errors_have_message_detail_and_hint() {
    let every = "which takes eq, ne, neq, gt, gte, lt, lte, in, nin and exists.";
    let or_hint = Some("Write it as {\"$or\": [{\"field\": value}, {\"field\": value}]}.");
    let exists_hint =
        Some("To test whether the field exists, use {\"exists\": true} or {\"exists\": false}.");
    let cases = [
        (
            json!([]),
            "filters must be a JSON object",
            "It is an array.".to_string(),
            Some("Write it as {\"field\": {\"operator\": value}}."),
        ),
        (
            json!({"colour": "red"}),
            "unknown filter field \"colour\"",
            "The fields are: \"category\" (keyword), \"stock\" (integer), \"price\" (float), \
             \"active\" (boolean), \"seen\" (datetime)."
                .to_string(),
            None,
        ),
        (
            json!({"price": {"between": 1}}),
            "unknown operator \"between\" of filter field \"price\"",
            format!("Its filter_type is float, {every}"),
            None,
        ),
        (
            json!({"price": {"$$eq": 1}}),
            "unknown operator \"$$eq\" of filter field \"price\"",
            format!("Its filter_type is float, {every}"),
            None,
        ),
        (
            json!({"price": {}}),
            "filter field \"price\" has no operator",
            format!("Its filter_type is float, {every}"),
            None,
        ),
        (
            json!({"category": ["a", "b"]}),
            "invalid value for filter field \"category\": [\"a\",\"b\"]",
            "Its filter_type is keyword: the value of eq must be a string, and an array was given."
                .to_string(),
            Some("To match any of several values, write {\"in\": [value, value]}."),
        ),
        (
            json!({"category": {"in": "a"}}),
            "invalid value for filter field \"category\": \"a\"",
            "Its filter_type is keyword: the value of in must be an array, and a string was given."
                .to_string(),
            Some("Write it as {\"in\": [value, value]}."),
        ),
        (
            json!({"price": {"in": null}}),
            "invalid value for filter field \"price\": null",
            "Its filter_type is float: the value of in must be an array, and null was given."
                .to_string(),
            Some("Write it as {\"in\": [value, value]}."),
        ),
        (
            json!({"price": {"nin": [1, null]}}),
            "invalid value for filter field \"price\": null",
            "Its filter_type is float: each element of nin must be a number, and null was given."
                .to_string(),
            exists_hint,
        ),
        (
            json!({"price": {"gt": null}}),
            "invalid value for filter field \"price\": null",
            "Its filter_type is float: the value of gt must be a number, and null was given."
                .to_string(),
            exists_hint,
        ),
        (
            json!({"price": {"exists": "yes"}}),
            "invalid value for filter field \"price\": \"yes\"",
            "Its filter_type is float: the value of exists must be true or false, \
             and a string was given."
                .to_string(),
            None,
        ),
        (
            json!({"$or": {"price": 1}}),
            "\"$or\" must be an array of filter objects",
            "It is an object.".to_string(),
            or_hint,
        ),
        (
            json!({"$or": []}),
            "\"$or\" must not be empty",
            "It needs at least one filter object.".to_string(),
            or_hint,
        ),
        (
            json!({"$or": [{}, null]}),
            "element 2 of \"$or\" must be a filter object",
            "It is null.".to_string(),
            or_hint,
        ),
        (
            json!({"category": 1e5, "$nor": []}),
            "invalid value for filter field \"category\": 100000.0",
            "Its filter_type is keyword: the value of eq must be a string, and a number was given."
                .to_string(),
            None,
        ),
    ];
    for (filter, message, detail, hint) in cases {
        let expected = (message.to_string(), detail, hint.map(str::to_string));
        assert_eq!(refused(filter), expected);
    }
    assert_eq!(refused(json!({"$nor": []})).0, "unknown filter field \"$nor\"");
    let error = condition(&json!({"a": 1}), &[], super::Values::From(1)).unwrap_err();
    assert_eq!(error.detail.unwrap(), "There are no fields to filter on.");
}
