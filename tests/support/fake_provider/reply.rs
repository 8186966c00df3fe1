//! The successful replies of each service, and the ways in which the script can spoil them.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::dialect::{Asked, Dialect};
use super::vector;

/// What is wrong with a reply that has status 200. A text is identified by a part of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Fault {
    #[default]
    None,
    /// The last vector is missing.
    OneLess,
    /// There is an extra vector.
    OneMore,
    /// The vectors come in the wrong order, with the right indexes where the dialect has any.
    Shuffled,
    /// All vectors have these dimensions.
    Dimensions(usize),
    /// The vector of one text has these dimensions.
    DimensionsOf(String, usize),
    /// The vector of one text contains NaN.
    NotANumber(String),
    /// The vector of one text contains a number too large for a 32-bit float.
    Infinite(String),
    /// The vector of one text is zero.
    Zero(String),
    /// Zeros are omitted, as in the JSON of protocol buffers: the first vector has no index.
    NoZeros,
    /// There is one vector for all texts, that of the first.
    Aggregated,
    /// Each text has the vector of the first.
    Same,
    /// All vectors have another length than 1, which is valid: Gemini's do if fewer dimensions are requested.
    Scaled(f32),
}

impl Fault {
    /// Whether the reply contains a valid vector for this text at the right position.
    pub fn spares(&self, text: &str) -> bool {
        match self {
            Fault::None | Fault::Shuffled | Fault::NoZeros | Fault::Scaled(_) => true,
            Fault::DimensionsOf(part, _)
            | Fault::NotANumber(part)
            | Fault::Infinite(part)
            | Fault::Zero(part) => !text.contains(part),
            Fault::OneLess
            | Fault::OneMore
            | Fault::Aggregated
            | Fault::Same
            | Fault::Dimensions(_) => false,
        }
    }

    /// Spoils the vector of a text.
    fn spoil(&self, text: &str, numbers: &mut [f32]) {
        let hit = |part: &String| text.contains(part.as_str());
        match self {
            Fault::NotANumber(part) if hit(part) => numbers[0] = f32::NAN,
            Fault::Infinite(part) if hit(part) => numbers[0] = f32::INFINITY,
            Fault::Zero(part) if hit(part) => numbers.fill(0.0),
            Fault::Scaled(factor) => numbers.iter_mut().for_each(|number| *number *= factor),
            _ => {}
        }
    }
}

/// Writes replies, and reuses its buffers.
#[derive(Default)]
pub(super) struct Writer {
    numbers: Vec<f32>,
    bytes: Vec<u8>,
}

impl Writer {
    /// Appends the body of a reply to the buffer.
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        dialect: Dialect,
        asked: &Asked,
        dimensions: usize,
        fault: &Fault,
    ) {
        let count = asked.texts.len();
        let mut order: Vec<usize> = (0..count).collect();
        match fault {
            Fault::OneLess => drop(order.pop()),
            Fault::OneMore => order.push(count),
            Fault::Shuffled => order.reverse(),
            Fault::Aggregated => order.truncate(1),
            _ => {}
        }
        out.extend_from_slice(match dialect {
            Dialect::OpenAi | Dialect::OpenAiCompatible | Dialect::Voyage => {
                br#"{"object":"list","data":["#
            }
            Dialect::Gemini | Dialect::Ollama => br#"{"embeddings":["#,
        });
        for (place, index) in order.iter().copied().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            // The extra vector is that of the last text.
            let text = match fault {
                Fault::Same => asked.texts.first(),
                _ => asked.texts.get(index).or(asked.texts.last()),
            };
            let text = text.map_or("", String::as_str);
            let long = match fault {
                Fault::Dimensions(other) => *other,
                Fault::DimensionsOf(part, other) if text.contains(part) => *other,
                _ => dimensions,
            };
            let seed = vector::seed(&asked.model, text);
            vector::fill(&mut self.numbers, seed, asked.input_type.as_deref(), long);
            fault.spoil(text, &mut self.numbers);
            match dialect {
                Dialect::OpenAi | Dialect::OpenAiCompatible | Dialect::Voyage => {
                    print(out, format_args!(r#"{{"object":"embedding","#));
                    if *fault != Fault::NoZeros || index > 0 {
                        print(out, format_args!(r#""index":{index},"#));
                    }
                    print(out, format_args!(r#""embedding":"#));
                    self.numbers(out, asked.base64);
                    out.push(b'}');
                }
                Dialect::Gemini => {
                    out.extend_from_slice(br#"{"values":"#);
                    self.numbers(out, false);
                    out.push(b'}');
                }
                Dialect::Ollama => self.numbers(out, false),
            }
        }
        tail(out, dialect, asked);
    }

    /// Appends the current vector.
    fn numbers(&mut self, out: &mut Vec<u8>, base64: bool) {
        if base64 {
            self.bytes.clear();
            self.bytes.resize(self.numbers.len() * 4, 0);
            for (bytes, number) in self.bytes.as_chunks_mut().0.iter_mut().zip(&self.numbers) {
                *bytes = number.to_le_bytes();
            }
            out.push(b'"');
            let begin = out.len();
            out.resize(begin + self.bytes.len().div_ceil(3) * 4, 0);
            let written = STANDARD.encode_slice(&self.bytes, &mut out[begin..]);
            out.truncate(begin + written.expect("there is room"));
            out.push(b'"');
            return;
        }
        out.push(b'[');
        for (i, number) in self.numbers.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            if number.is_infinite() {
                out.extend_from_slice(b"1e39");
            } else {
                // null stands for NaN
                serde_json::to_writer(&mut *out, number).expect("a buffer takes everything");
            }
        }
        out.push(b']');
    }
}

/// The part after the vectors.
fn tail(out: &mut Vec<u8>, dialect: Dialect, asked: &Asked) {
    let tokens: u64 = asked.texts.iter().map(|text| vector::tokens(text)).sum();
    let model = serde_json::Value::from(asked.model.as_str());
    match dialect {
        Dialect::OpenAi | Dialect::OpenAiCompatible => print(
            out,
            format_args!(
                r#"],"model":{model},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#
            ),
        ),
        Dialect::Voyage => {
            print(out, format_args!(r#"],"model":{model},"usage":{{"total_tokens":{tokens}}}}}"#));
        }
        Dialect::Gemini => {
            print(out, format_args!(r#"],"usageMetadata":{{"promptTokenCount":{tokens}}}}}"#));
        }
        Dialect::Ollama => print(
            out,
            format_args!(
                r#"],"model":{model},"total_duration":14143917,"load_duration":1019500,"prompt_eval_count":{tokens}}}"#
            ),
        ),
    }
}

/// Formats into the buffer.
fn print(out: &mut Vec<u8>, words: std::fmt::Arguments) {
    out.write_fmt(words).expect("a buffer takes everything");
}
