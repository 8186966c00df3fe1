//! Generated filters against a plain evaluator: the right rows, or SQLSTATE 22023.
//!
//! EMBEDD_FILTERS and EMBEDD_FILTERS_SEED set how many, and which.

use std::env;

use fastrand::Rng;
use serde_json::{Map, Value, json};
use support::source::wait_synced;

use super::SHARED;

/// The fields, and the values that generated filters and rows are made of.
const FIELDS: [&str; 5] = ["word", "n", "x", "flag", "tags"];

fn words() -> Vec<Value> {
    ["a", "b", "ab", "", "it's", "10", "true", "%", "\"", "$1", "é"].map(Value::from).into()
}

fn values(field: &str) -> Vec<Value> {
    match field {
        "n" => vec![json!(-1), json!(0), json!(3), json!(10), json!(9_007_199_254_740_993_i64)],
        "x" => vec![json!(-0.5), json!(0), json!(0.1), json!(10), json!(1e20)],
        "flag" => vec![json!(true), json!(false)],
        _ => words(),
    }
}

/// The rows: every field is null in some of them.
fn rows(random: &mut Rng) -> Vec<Map<String, Value>> {
    let row = |random: &mut Rng| {
        let mut row = Map::new();
        for field in FIELDS {
            let all = values(field);
            let value = match (random.u64(..5), field) {
                (0, _) => Value::Null,
                (_, "tags") => (0..random.u64(..4))
                    .map(|_| all[random.u64(..all.len() as u64) as usize].clone())
                    .collect(),
                _ => all[random.u64(..all.len() as u64) as usize].clone(),
            };
            row.insert(field.to_string(), value);
        }
        row
    };
    (0..40).map(|_| row(random)).collect()
}

/// A filter, which is not always valid.
fn filter(random: &mut Rng, depth: u64) -> Value {
    let mut filter = Map::new();
    for _ in 0..random.u64(..3) {
        let (key, value) = match random.u64(..if depth < 3 { 9 } else { 6 }) {
            combined @ (6 | 7) => {
                let key = if combined == 6 { "$or" } else { "$and" };
                let parts = if random.u64(..20) == 0 { 0 } else { 1 + random.u64(..3) };
                (key, (0..parts).map(|_| self::filter(random, depth + 1)).collect())
            }
            8 => ("$not", self::filter(random, depth + 1)),
            _ => {
                let field = FIELDS[random.u64(..5) as usize];
                (field, tests(random, field))
            }
        };
        filter.insert(key.to_string(), value);
    }
    Value::Object(filter)
}

/// A bare value, or some operators with values, of the field's type or of another.
fn tests(random: &mut Rng, field: &str) -> Value {
    let value = |random: &mut Rng| {
        let of = if random.u64(..30) == 0 { FIELDS[random.u64(..5) as usize] } else { field };
        let all = values(of);
        all[random.u64(..all.len() as u64) as usize].clone()
    };
    if random.u64(..4) == 0 {
        return if random.u64(..10) == 0 { Value::Null } else { value(random) };
    }
    let mut tests = Map::new();
    for _ in 0..=random.u64(..2) {
        const NAMES: [&str; 12] =
            ["eq", "ne", "neq", "gt", "gte", "lt", "lte", "in", "nin", "all", "prefix", "exists"];
        let name = NAMES[random.u64(..12) as usize];
        let operand = match name {
            "in" | "nin" | "all" => (0..random.u64(..4)).map(|_| value(random)).collect(),
            "exists" => json!(random.u64(..2) == 0),
            _ => value(random),
        };
        tests.insert(name.to_string(), operand);
    }
    Value::Object(tests)
}

/// Whether a row matches; None for an invalid filter, whatever the row.
fn matches(filter: &Value, row: &Map<String, Value>) -> Option<bool> {
    let mut all = true;
    for (key, value) in filter.as_object()? {
        let parts = || value.as_array().filter(|parts| !parts.is_empty());
        all &= match key.as_str() {
            "$or" | "$and" => {
                let found: Option<Vec<bool>> =
                    parts()?.iter().map(|part| matches(part, row)).collect();
                let found = found?;
                if key == "$or" { found.contains(&true) } else { !found.contains(&false) }
            }
            "$not" => !matches(value, row)?,
            field => match value.as_object() {
                Some(tests) => {
                    let mut each = true;
                    for (name, operand) in tests {
                        each &= holds(field, name, operand, &row[field])?;
                    }
                    (!tests.is_empty()).then_some(each)?
                }
                None => holds(field, "eq", value, &row[field])?,
            },
        };
    }
    Some(all)
}

/// Whether one operator holds for the value of a field.
fn holds(field: &str, name: &str, operand: &Value, stored: &Value) -> Option<bool> {
    let fits = |value: &Value| match field {
        "n" => value.is_i64() || value.as_str().is_some_and(|text| text == "10"),
        "x" => value.is_number() || value.as_str().is_some_and(|text| text == "10"),
        "flag" => value.is_boolean() || value == "true",
        _ => value.is_string(),
    };
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let equals = |stored: &Value, value: &Value| match field {
        "n" | "x" => number(stored) == number(value),
        "flag" => stored.as_bool() == value.as_bool().or(value.as_str().map(|text| text == "true")),
        _ => stored == value,
    };
    let is_list = field == "tags";
    let some_equals = |value: &Value| match stored {
        Value::Array(elements) => elements.iter().any(|element| equals(element, value)),
        Value::Null => false,
        one => equals(one, value),
    };
    match (name, operand) {
        ("exists", Value::Bool(expected)) => Some(stored.is_null() != *expected),
        ("exists", _) => None,
        ("eq", Value::Null) => Some(stored.is_null()),
        ("ne" | "neq", Value::Null) => Some(!stored.is_null()),
        ("eq", value) => fits(value).then(|| some_equals(value)),
        ("ne" | "neq", value) => fits(value).then(|| !some_equals(value)),
        ("in" | "nin" | "all", Value::Array(values)) => {
            let is_valid =
                values.iter().all(fits) && (name != "all" || (is_list && !values.is_empty()));
            is_valid.then(|| match name {
                "in" => values.iter().any(some_equals),
                "nin" => !values.iter().any(some_equals),
                _ => values.iter().all(some_equals),
            })
        }
        ("in" | "nin" | "all", _) => None,
        ("prefix", value) => (field == "word" && fits(value)).then(|| {
            stored.as_str().is_some_and(|text| text.starts_with(value.as_str().unwrap_or_default()))
        }),
        (order, value) => (!is_list && field != "flag" && fits(value)).then(|| {
            let compared = match field {
                "word" => stored.as_str().zip(value.as_str()).map(|(one, other)| one.cmp(other)),
                _ => number(stored).zip(number(value)).and_then(|(a, b)| a.partial_cmp(&b)),
            };
            compared.is_some_and(|compared| match order {
                "gt" => compared.is_gt(),
                "gte" => compared.is_ge(),
                "lt" => compared.is_lt(),
                _ => compared.is_le(),
            })
        }),
    }
}

#[test]
fn generated_filters_find_what_a_plain_evaluator_finds() {
    let number = |name: &str, default: u64| {
        env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (cases, seed) = (number("EMBEDD_FILTERS", 4000), number("EMBEDD_FILTERS_SEED", 1));
    let (cluster, db) = (SHARED.cluster(), "generated");
    let mut client = cluster.database(db);
    let mut random = Rng::with_seed(seed);
    let rows = rows(&mut random);
    client
        .batch_execute(
            "CREATE TABLE f (id int PRIMARY KEY, body text DEFAULT 'a text', word text, n bigint, x numeric, flag boolean, tags text[]);
             CREATE FUNCTION found(filter text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 RETURN (SELECT coalesce(string_agg(id, ' ' ORDER BY id::int), '') FROM embedd.query('f', 'q', 1000, filter::jsonb));
             EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE;
             END $$",
        )
        .unwrap();
    for (id, row) in rows.iter().enumerate() {
        let sql = "INSERT INTO f (id, word, n, x, flag, tags)
                   SELECT $1, r.word, r.n, r.x, r.flag, r.tags FROM jsonb_populate_record(NULL::f, $2::text::jsonb) r";
        client.execute(sql, &[&(id as i32), &Value::Object(row.clone()).to_string()]).unwrap();
    }
    client
        .batch_execute(
            r#"SELECT embedd.create_vector_table('f', 'f', '[{"name": "body", "role": "embedding"}, {"name": "word", "role": "metadata"},
                   {"name": "n", "role": "metadata"}, {"name": "x", "role": "metadata"}, {"name": "flag", "role": "metadata"},
                   {"name": "tags", "role": "metadata"}]', start_backfill => true)"#,
        )
        .unwrap();
    wait_synced(&cluster, db, "f");
    let found = client.prepare("SELECT found($1)").unwrap();
    let (mut valid, mut matching) = (0, 0);
    for case in 0..cases {
        let filter = filter(&mut random, 0);
        let expected: Option<Vec<String>> = rows
            .iter()
            .enumerate()
            .map(|(id, row)| matches(&filter, row).map(|is_match| (id, is_match)))
            .filter(|found| !matches!(found, Some((_, false))))
            .map(|found| found.map(|(id, _)| id.to_string()))
            .collect();
        valid += u64::from(expected.is_some());
        matching += u64::from(expected.as_ref().is_some_and(|ids| !ids.is_empty()));
        let expected = expected.map_or("22023".to_string(), |ids| ids.join(" "));
        let answer: String = client.query_one(&found, &[&filter.to_string()]).unwrap().get(0);
        assert_eq!(answer, expected, "case {case} of seed {seed}: {filter}");
    }
    println!("{cases} filters, {valid} valid, {matching} with matching rows");
    // The generator makes both, and neither is rare.
    assert!(valid * 10 > cases && (cases - valid) * 50 > cases && matching * 10 > cases);
}
