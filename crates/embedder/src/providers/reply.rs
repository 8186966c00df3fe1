//! What the replies of all services have in common: vectors, counts, and the errors for invalid replies.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::blank::tidy;
use super::reason::Said;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The elements of a vector, sent as JSON numbers or as little-endian 32-bit floats in base64.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Vector(pub Vec<f32>);

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Vector, D::Error> {
        deserializer.deserialize_any(Numbers)
    }
}

struct Numbers;

impl<'de> Visitor<'de> for Numbers {
    type Value = Vector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers or base64")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vector, A::Error> {
        let mut numbers = Vec::new();
        // JSON has null for a value that is not a number; the check of the vector later rejects its text.
        while let Some(number) = seq.next_element::<Option<f32>>()? {
            numbers.push(number.unwrap_or(f32::NAN));
        }
        Ok(Vector(numbers))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vector, E> {
        // The error does not quote the text, which may be as long as a vector.
        let bytes = BASE64.decode(text).map_err(|_| E::custom("vector is not base64"))?;
        let (numbers, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(E::custom("vector is not a whole number of floats"));
        }
        Ok(Vector(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect()))
    }
}

/// An index: a whole number, which some servers write as 1.0 or "1"; null is none.
pub(super) fn index<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Whole(u64),
        Float(f64),
        Text(String),
    }
    match Option::<Written>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Written::Whole(index)) => Ok(Some(index)),
        Some(Written::Float(index)) if index.fract() == 0.0 && (0.0..1e15).contains(&index) => {
            Ok(Some(index as u64))
        }
        Some(Written::Text(text)) => {
            text.parse().map(Some).map_err(|_| D::Error::custom("index is not a whole number"))
        }
        Some(Written::Float(_)) => Err(D::Error::custom("index is not a whole number")),
    }
}

/// An optional part of a reply: if its form is not the expected one, it counts as missing.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Lenient<T> {
    Good(T),
    Other(IgnoredAny),
}

impl<T> Lenient<T> {
    /// The part, if it has the expected form.
    pub(super) fn good(self) -> Option<T> {
        match self {
            Lenient::Good(part) => Some(part),
            Lenient::Other(_) => None,
        }
    }

    /// The same, without taking it.
    pub(super) fn good_ref(&self) -> Option<&T> {
        match self {
            Lenient::Good(part) => Some(part),
            Lenient::Other(_) => None,
        }
    }
}

/// Parses a reply; if the body is an error in spite of the status, that error is returned.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| match Said::in_json(body) {
        Some(Said { message: Some(message), .. }) => {
            format!("provider returned an error: {message}")
        }
        _ => format!("provider returned a reply that cannot be read: {}", tidy(&error.to_string())),
    })
}

/// Checks that there is a vector for each text.
pub(super) fn same_number(vectors: usize, texts: usize) -> Result<(), String> {
    if vectors == texts {
        return Ok(());
    }
    let plural = |number: usize| if number == 1 { "" } else { "s" };
    Err(format!(
        "provider returned {vectors} vector{} for {texts} text{}",
        plural(vectors),
        plural(texts)
    ))
}
