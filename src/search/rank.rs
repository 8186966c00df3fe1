//! Boosts and decays: what metadata adds to the similarity of a row. Pure.
//!
//! The score of a row is its cosine similarity, plus for each boost `weight * (x - min) / (max - min)` over the candidates,
//! where x is the value or ln(1 + value), plus for each decay `weight * 0.5 ^ (|value - origin| / half_life)`. A row without
//! the value gets nothing for it.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::order::names;
use crate::document::FilterType;
use crate::error::{Error, Result};
use crate::filter::Field;
use crate::name::quote_literal;

/// The most boosts and decays of a question.
const MOST: usize = 20;
/// How many candidates there are for each row that is wanted, and at least.
const CANDIDATES_PER_ROW: i32 = 10;
const LEAST_CANDIDATES: i32 = 100;
/// Numbers beyond this are not compared: the sum of two would be infinite.
const LARGEST: &str = "1e300";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Boost {
    column: String,
    weight: f64,
    #[serde(default)]
    modifier: Modifier,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Modifier {
    #[default]
    None,
    /// ln(1 + value), for counts of which few are large.
    Log1p,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decay {
    column: String,
    weight: f64,
    half_life: Value,
    #[serde(default)]
    origin: Value,
}

/// How one value changes the score.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Effect {
    Boost(Modifier),
    /// The value is the distance from the origin.
    Decay {
        half_life: f64,
    },
}

/// What a question adds to the similarity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranking {
    terms: Vec<(String, f64, Effect)>,
}

impl Ranking {
    /// Parses the arguments. `seconds` is the length of an interval that PostgreSQL has read.
    pub fn parse(
        boosts: Option<&Value>,
        decays: Option<&Value>,
        fields: &[Field],
        seconds: impl Fn(&str) -> Result<f64>,
    ) -> Result<Ranking> {
        let mut terms = Vec::new();
        for (place, boost) in list::<Boost>("boosts", boosts)? {
            let field = field(&place, &boost.column, fields)?;
            let value = match field.filter_type {
                FilterType::Integer | FilterType::Float => number(&field.typed()),
                FilterType::Boolean => format!("({})::int::float8", field.typed()),
                FilterType::Keyword | FilterType::Datetime => {
                    return Err(wrong_type(&place, field, "a number or a boolean"));
                }
            };
            terms.push((value, weight(&place, boost.weight)?, Effect::Boost(boost.modifier)));
        }
        for (place, decay) in list::<Decay>("decays", decays)? {
            let field = field(&place, &decay.column, fields)?;
            let (value, half_life) = match field.filter_type {
                FilterType::Integer | FilterType::Float => {
                    let origin = origin(field, &decay.origin)?.ok_or_else(|| {
                        refused(&place, "origin is missing: the number that nothing is taken off.")
                    })?;
                    let value = number(&format!("({} - {origin})", field.typed()));
                    (value, decay.half_life.as_f64())
                }
                FilterType::Datetime => {
                    let origin = origin(field, &decay.origin)?;
                    let origin = origin.unwrap_or_else(|| "now()".to_string());
                    let at = field.typed();
                    let value = format!(
                        "case when isfinite({at}) then extract(epoch from {origin} - {at})::float8 end"
                    );
                    (value, decay.half_life.as_str().map(&seconds).transpose()?)
                }
                FilterType::Keyword | FilterType::Boolean => {
                    return Err(wrong_type(&place, field, "a number or a datetime"));
                }
            };
            let Some(half_life) = half_life.filter(|h| h.is_finite() && *h > 0.0) else {
                let what = "half_life must be positive: an interval such as \"30 days\" for a datetime, a number for a number.";
                return Err(refused(&place, what));
            };
            terms.push((value, weight(&place, decay.weight)?, Effect::Decay { half_life }));
        }
        Ok(Ranking { terms })
    }

    /// Whether the similarity alone is the score.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The values to read for each row, of type double precision.
    pub fn expressions(&self) -> String {
        let values: Vec<&str> = self.terms.iter().map(|(value, ..)| value.as_str()).collect();
        values.join(", ")
    }

    /// How many of the nearest rows are candidates for so many rows that are wanted.
    pub fn candidates(&self, wanted: i32) -> i32 {
        match self.is_empty() {
            true => wanted,
            false => (wanted * CANDIDATES_PER_ROW).max(LEAST_CANDIDATES),
        }
    }

    /// The scores of the candidates, of which each has a similarity and its values.
    pub fn scores(&self, candidates: &[(f64, &[Option<f64>])]) -> Vec<f64> {
        let mut scores: Vec<f64> = candidates.iter().map(|(similarity, _)| *similarity).collect();
        for (at, (_, weight, effect)) in self.terms.iter().enumerate() {
            let values = candidates.iter().map(|(_, values)| {
                let value = values.get(at).copied().flatten().filter(|value| value.is_finite())?;
                Some(match effect {
                    Effect::Boost(Modifier::None) => value,
                    Effect::Boost(Modifier::Log1p) => value.max(0.0).ln_1p(),
                    Effect::Decay { half_life } => 0.5_f64.powf(value.abs() / half_life),
                })
            });
            let mut values: Vec<Option<f64>> = values.collect();
            if matches!(effect, Effect::Boost(_)) {
                normalize(&mut values);
            }
            for (score, value) in scores.iter_mut().zip(values) {
                *score += weight * value.unwrap_or(0.0);
            }
        }
        scores
    }
}

/// Maps the least value to 0 and the greatest to 1.
fn normalize(values: &mut [Option<f64>]) {
    let least = values.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    let width = greatest - least;
    for value in values.iter_mut().flatten() {
        *value = if width > 0.0 { (*value - least) / width } else { 0.0 };
    }
}

/// The elements of an argument, each with its place for messages.
fn list<T: DeserializeOwned>(name: &str, value: Option<&Value>) -> Result<Vec<(String, T)>> {
    let values = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() <= MOST => values,
        Some(Value::Array(_)) => {
            return Err(refused(name, &format!("At most {MOST} are allowed.")));
        }
        Some(_) => return Err(refused(name, "It must be an array of objects.")),
    };
    let parse = |(at, value): (usize, &Value)| {
        let place = format!("element {} of {name}", at + 1);
        let parsed = T::deserialize(value).map_err(|e| refused(&place, &format!("{e}.")))?;
        Ok((place, parsed))
    };
    values.iter().enumerate().map(parse).collect()
}

fn field<'a>(place: &str, name: &str, fields: &'a [Field]) -> Result<&'a Field> {
    match fields.iter().find(|field| field.name == name) {
        Some(field) if field.is_list => {
            Err(refused(place, &format!("Column \"{name}\" may hold lists.")))
        }
        Some(field) => Ok(field),
        None => {
            let fields = names(fields);
            Err(refused(
                place,
                &format!("No column is named \"{name}\". The columns are: {fields}."),
            ))
        }
    }
}

fn weight(place: &str, weight: f64) -> Result<f64> {
    match weight.abs() <= 1000.0 {
        true => Ok(weight),
        false => Err(refused(place, "weight must be between -1000 and 1000.")),
    }
}

/// The origin as SQL of the type of the field, if one is given.
fn origin(field: &Field, origin: &Value) -> Result<Option<String>> {
    if origin.is_null() {
        return Ok(None);
    }
    let text = quote_literal(&field.value("origin", origin)?);
    Ok(Some(match field.filter_type {
        FilterType::Datetime => format!("{text}::timestamptz"),
        _ => format!("{text}::numeric"),
    }))
}

/// A numeric expression as double precision.
fn number(numeric: &str) -> String {
    format!("case when abs({numeric}) < {LARGEST} then ({numeric})::float8 end")
}

fn wrong_type(place: &str, field: &Field, wanted: &str) -> Error {
    let (name, filter_type) = (&field.name, field.filter_type.as_str());
    refused(place, &format!("Column \"{name}\" is a {filter_type}, and must be {wanted}."))
}

fn refused(place: &str, detail: &str) -> Error {
    Error::BadArgument {
        message: format!("{place} is not valid"),
        detail: Some(detail.to_string()),
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields() -> Vec<Field> {
        [
            ("likes", FilterType::Integer, false),
            ("new", FilterType::Boolean, false),
            ("at", FilterType::Datetime, false),
            ("name", FilterType::Keyword, false),
            ("tags", FilterType::Integer, true),
        ]
        .map(|(name, filter_type, is_list)| {
            let name = name.to_string();
            Field { name, filter_type, is_list, is_indexed: false, has_zone: true }
        })
        .into()
    }

    fn parse(boosts: Value, decays: Value) -> Result<Ranking> {
        let seconds = |text: &str| {
            text.strip_suffix(" s").and_then(|n| n.parse().ok()).ok_or(Error::NotPreloaded)
        };
        Ranking::parse(Some(&boosts), Some(&decays), &fields(), seconds)
    }

    #[test]
    fn nothing_is_added_by_default() {
        let none = Ranking::parse(None, None, &[], |_| Ok(1.0)).unwrap();
        assert_eq!(none, parse(json!([]), json!(null)).unwrap());
        assert_eq!((none.candidates(7), none.expressions().as_str()), (7, ""));
        assert_eq!(none.scores(&[(0.5, &[])]), [0.5]);
    }

    #[test]
    fn boosts_are_normalized_and_decays_halve() {
        let boosts = json!([{"column": "likes", "weight": 0.2}, {"column": "new", "weight": -0.1}]);
        let decays = json!([{"column": "at", "half_life": "10 s", "weight": 0.4}]);
        let ranking = parse(boosts, decays).unwrap();
        assert_eq!((ranking.candidates(1), ranking.candidates(1000)), (100, 10_000));
        let scores = ranking.scores(&[
            (0.5, &[Some(10.0), Some(1.0), Some(0.0)]),
            (0.5, &[Some(20.0), Some(0.0), Some(-10.0)]),
            (0.5, &[Some(15.0), None, Some(20.0)]),
            (0.5, &[None, None, None]),
            (0.5, &[Some(f64::NAN), Some(0.0), Some(1e9)]),
        ]);
        for (score, expected) in scores.iter().zip([0.8, 0.9, 0.7, 0.5, 0.5]) {
            assert!((score - expected).abs() < 1e-12, "{scores:?}");
        }
    }

    #[test]
    fn a_logarithm_flattens_large_counts() {
        let boosts = json!([{"column": "likes", "weight": 1, "modifier": "log1p"}]);
        let ranking = parse(boosts, json!(null)).unwrap();
        let scores =
            ranking.scores(&[(0.0, &[Some(-5.0)]), (0.0, &[Some(9.0)]), (0.0, &[Some(99.0)])]);
        for (score, expected) in scores.iter().zip([0.0, 0.5, 1.0]) {
            assert!((score - expected).abs() < 1e-12, "{scores:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let none = || json!(null);
        for (boosts, decays) in [
            (json!({}), none()),
            (json!(["likes"]), none()),
            (json!([{"column": "likes"}]), none()),
            (json!([{"column": "likes", "weight": 1, "wait": 1}]), none()),
            (json!([{"column": "likes", "weight": 1001}]), none()),
            (json!([{"column": "no such", "weight": 1}]), none()),
            (json!([{"column": "name", "weight": 1}]), none()),
            (json!([{"column": "at", "weight": 1}]), none()),
            (json!([{"column": "tags", "weight": 1}]), none()),
            (json!([{"column": "likes", "weight": 1, "modifier": "square"}]), none()),
            (json!(vec![json!({"column": "likes", "weight": 1}); 21]), none()),
            (none(), json!([{"column": "likes", "half_life": 5, "weight": 1}])),
            (none(), json!([{"column": "likes", "half_life": 0, "origin": 5, "weight": 1}])),
            (none(), json!([{"column": "likes", "half_life": "5", "origin": 5, "weight": 1}])),
            (none(), json!([{"column": "likes", "half_life": 5, "origin": "x", "weight": 1}])),
            (none(), json!([{"column": "at", "half_life": 5, "weight": 1}])),
            (none(), json!([{"column": "at", "half_life": "-5 s", "weight": 1}])),
            (none(), json!([{"column": "at", "half_life": "soon", "weight": 1}])),
            (none(), json!([{"column": "at", "half_life": "5 s", "weight": 1, "origin": "now"}])),
            (none(), json!([{"column": "name", "half_life": 5, "weight": 1}])),
        ] {
            assert!(parse(boosts.clone(), decays.clone()).is_err(), "{boosts} {decays}");
        }
        let numbers = json!([{"column": "likes", "half_life": 5, "origin": 10, "weight": 1}]);
        assert!(parse(none(), numbers).unwrap().expressions().contains("- '10'::numeric"));
    }
}
