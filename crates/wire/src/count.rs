//! The messages that count the tokens of texts as they would be sent. Nothing is sent to a provider for them.

use serde::{Deserialize, Serialize};

use crate::frame::{WireError, json_frame, read_json};
use crate::{Failure, Model, Provider};

/// The beginning of a frame's body that asks for counts; a request is JSON and begins with a brace.
const TAG: &[u8] = b"count";

/// Texts whose tokens are to be counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountRequest {
    /// The provider, without its key and its headers.
    pub provider: Provider,
    /// The model, with the prefix of documents.
    pub model: Model,
    /// The texts, which are documents.
    pub texts: Vec<String>,
}

/// The count of one text as it would be sent: with the prefix, and cut to what the model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub tokens: u32,
    pub bytes: u32,
    pub is_truncated: bool,
}

/// The counts of texts, and what a request takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// The counts, in the order of the texts.
    pub texts: Vec<Count>,
    /// Whether they are the counts of the model's own tokenizer, and not estimates.
    pub are_exact: bool,
    /// The limits of a request; none where nothing is sent to a provider.
    pub most: Option<MostOfRequest>,
}

/// Texts, tokens and bytes that a request takes, unless a single text has more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MostOfRequest {
    pub texts: u64,
    pub tokens: u64,
    pub bytes: u64,
}

/// A request for counts as a frame, its length in front.
pub fn encode_count_request(request: &CountRequest) -> Result<Vec<u8>, WireError> {
    json_frame(TAG, request)
}

/// Whether a frame's body asks for counts.
pub fn is_count_request(body: &[u8]) -> bool {
    body.starts_with(TAG)
}

/// Reads a request for counts from a frame's body.
pub fn decode_count_request(body: &[u8]) -> Result<CountRequest, WireError> {
    read_json(TAG, body)
}

/// Counts, or why there are none, as a frame, its length in front.
pub fn encode_counts(counts: &Result<Counts, Failure>) -> Result<Vec<u8>, WireError> {
    json_frame(b"", counts)
}

/// Reads counts from a frame's body.
pub fn decode_counts(body: &[u8]) -> Result<Result<Counts, Failure>, WireError> {
    read_json(b"", body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::LENGTH_BYTES;
    use crate::{FailureClass, decode_request, is_status_request};

    #[test]
    fn requests_and_counts_round_trip_and_are_distinct() {
        let model = Model::of_unknown_limits("m", 2);
        let texts = vec!["a \"b\"\n".to_string(), String::new()];
        let request = CountRequest { provider: Provider::local(), model, texts };
        let frame = encode_count_request(&request).unwrap();
        let body = &frame[LENGTH_BYTES..];
        assert!(is_count_request(body) && !is_count_request(b"{}") && !is_status_request(body));
        assert!(decode_request(body).is_err() && decode_count_request(&body[1..]).is_err());
        assert_eq!(decode_count_request(body), Ok(request));
        let counts = Counts {
            texts: vec![Count { tokens: 1, bytes: u32::MAX, is_truncated: true }],
            are_exact: true,
            most: Some(MostOfRequest { texts: 1, tokens: u64::MAX, bytes: 3 }),
        };
        for counts in [Ok(counts), Err(Failure::new(FailureClass::BadSetting, "no model"))] {
            let frame = encode_counts(&counts).unwrap();
            assert_eq!(decode_counts(&frame[LENGTH_BYTES..]), Ok(counts));
        }
        assert!(decode_counts(b"{").is_err());
    }
}
