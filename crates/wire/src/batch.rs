//! The messages about a provider's batch API: texts are handed in for half the price, and fetched hours later.

use serde::{Deserialize, Serialize};

use crate::frame::{LENGTH_BYTES, WireError, close_frame, json_frame, malformed, read_json};
use crate::message::{decode_embeddings, encode_embeddings};
use crate::{Embeddings, Failure, Model, Provider};

/// The beginning of a frame's body that is about a batch API; a request for vectors is JSON and begins with a brace.
const TAG: &[u8] = b"batch";

/// First byte of a reply about a batch API.
const TAG_REPLY: u8 = 3;

/// Bytes of a reply before its head: the tag, the id, and the length of the head.
const REPLY_HEADER: usize = 1 + 8 + 4;

/// What is asked of a provider's batch API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BatchOrder {
    /// Hand in texts as a batch that can be found by this token.
    Submit { token: String, texts: Vec<BatchText> },
    /// Find the batch that was handed in with this token, if there is one.
    Find { token: String },
    /// Tell how far a batch is; when it has ended, fetch its vectors.
    Collect { batch: String },
    /// Have a batch stopped: what is done by then is paid for and can be collected.
    Cancel { batch: String },
    /// Delete an ended batch with its texts and vectors at the provider.
    Delete { batch: String },
}

/// A text of a batch, with an identifier that its answer carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchText {
    /// At most 60 characters: letters, digits, hyphens and underscores.
    pub id: String,
    pub text: String,
}

/// A request about a provider's batch API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// Chosen by the client, and repeated in the reply; distinct from those of its other requests.
    pub id: u64,
    pub provider: Provider,
    pub model: Model,
    pub order: BatchOrder,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchAnswer {
    /// The provider has the batch under this name, with so many of the texts, from the first one.
    Submitted { batch: String, texts: u32 },
    /// The name of the batch with the token; none when there is none.
    Found { batch: Option<String> },
    /// It works on the batch; so many of all texts are done.
    Working { done: u64, total: u64 },
    /// The batch has ended.
    Ended(Box<BatchEnd>),
    /// A batch was cancelled or deleted.
    Done,
}

/// How a batch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Every text was worked on.
    Completed,
    /// The provider's time for it was over; some texts may be done.
    Expired,
    /// It was cancelled; some texts may be done.
    Cancelled,
    /// The provider could not work on it.
    Failed,
    /// The provider does not know it (any more).
    Gone,
}

/// What an ended batch brought.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchEnd {
    pub state: BatchState,
    /// Why it failed, in the provider's words.
    pub reason: Option<String>,
    /// The identifiers of the texts with a vector, in the order of the vectors.
    pub ids: Vec<String>,
    /// Their vectors.
    pub embeddings: Embeddings,
    /// Texts that the provider rejects, by identifier, with the reason.
    pub refused: Vec<(String, String)>,
}

/// The part of an answer that is encoded as JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Head {
    Submitted {
        batch: String,
        texts: u32,
    },
    Found {
        batch: Option<String>,
    },
    Working {
        done: u64,
        total: u64,
    },
    Ended {
        state: BatchState,
        reason: Option<String>,
        ids: Vec<String>,
        refused: Vec<(String, String)>,
    },
    Done,
    Failure(Failure),
}

/// The reply to a request about a batch API.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchReply {
    /// The request's id.
    pub id: u64,
    pub outcome: Result<BatchAnswer, Failure>,
}

/// A request about a batch API as a frame, its length in front.
pub fn encode_batch_request(request: &BatchRequest) -> Result<Vec<u8>, WireError> {
    json_frame(TAG, request)
}

/// Whether a frame's body is a request about a batch API.
pub fn is_batch_request(body: &[u8]) -> bool {
    body.starts_with(TAG)
}

/// Reads a request about a batch API from a frame's body.
pub fn decode_batch_request(body: &[u8]) -> Result<BatchRequest, WireError> {
    read_json(TAG, body)
}

/// A reply about a batch API as a frame, its length in front.
pub fn encode_batch_reply(reply: &BatchReply) -> Result<Vec<u8>, WireError> {
    let none = Embeddings::default();
    let (head, embeddings) = match &reply.outcome {
        Ok(BatchAnswer::Submitted { batch, texts }) => {
            (Head::Submitted { batch: batch.clone(), texts: *texts }, &none)
        }
        Ok(BatchAnswer::Found { batch }) => (Head::Found { batch: batch.clone() }, &none),
        Ok(BatchAnswer::Working { done, total }) => {
            (Head::Working { done: *done, total: *total }, &none)
        }
        Ok(BatchAnswer::Ended(end)) => {
            let (ids, refused) = (end.ids.clone(), end.refused.clone());
            let reason = end.reason.clone();
            (Head::Ended { state: end.state, reason, ids, refused }, &end.embeddings)
        }
        Ok(BatchAnswer::Done) => (Head::Done, &none),
        Err(failure) => (Head::Failure(failure.clone()), &none),
    };
    let json = serde_json::to_vec(&head).map_err(|error| malformed(error.to_string()))?;
    let length = u32::try_from(json.len()).map_err(|_| malformed("a head that is too long"))?;
    let mut frame = vec![0; LENGTH_BYTES];
    frame.push(TAG_REPLY);
    frame.extend_from_slice(&reply.id.to_le_bytes());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&json);
    encode_embeddings(embeddings, &mut frame)?;
    close_frame(frame)
}

/// Whether a frame's body is a reply about a batch API.
pub fn is_batch_reply(body: &[u8]) -> bool {
    body.first() == Some(&TAG_REPLY)
}

/// Reads a reply about a batch API from a frame's body.
pub fn decode_batch_reply(body: &[u8]) -> Result<BatchReply, WireError> {
    let short = || malformed("a reply that ends too early");
    let (header, rest) = body.split_at_checked(REPLY_HEADER).ok_or_else(short)?;
    if !is_batch_reply(header) {
        return Err(malformed("a reply of another kind"));
    }
    let (mut id, mut length) = ([0; 8], [0; 4]);
    id.copy_from_slice(&header[1..9]);
    length.copy_from_slice(&header[9..]);
    let (json, vectors) =
        rest.split_at_checked(u32::from_le_bytes(length) as usize).ok_or_else(short)?;
    let head = serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
    let embeddings = decode_embeddings(vectors)?;
    let outcome = match head {
        Head::Submitted { batch, texts } => Ok(BatchAnswer::Submitted { batch, texts }),
        Head::Found { batch } => Ok(BatchAnswer::Found { batch }),
        Head::Working { done, total } => Ok(BatchAnswer::Working { done, total }),
        Head::Ended { state, reason, ids, refused } if ids.len() == embeddings.count() => {
            let end = BatchEnd { state, reason, ids, embeddings, refused };
            Ok(BatchAnswer::Ended(Box::new(end)))
        }
        Head::Ended { .. } => return Err(malformed("identifiers and vectors do not match")),
        Head::Done => Ok(BatchAnswer::Done),
        Head::Failure(failure) => Err(failure),
    };
    Ok(BatchReply { id: u64::from_le_bytes(id), outcome })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FailureClass, decode_request, is_count_request, is_status_request};

    #[test]
    fn requests_round_trip_and_are_distinct() {
        let model = Model::of_unknown_limits("m", 2);
        let text = BatchText { id: "a_-".to_string(), text: "a \"b\"\n".to_string() };
        for order in [
            BatchOrder::Submit { token: "t".to_string(), texts: vec![text] },
            BatchOrder::Find { token: "t".to_string() },
            BatchOrder::Collect { batch: "b".to_string() },
        ] {
            let (provider, model) = (Provider::local(), model.clone());
            let request = BatchRequest { id: u64::MAX, provider, model, order };
            let frame = encode_batch_request(&request).unwrap();
            let body = &frame[LENGTH_BYTES..];
            assert!(is_batch_request(body) && !is_count_request(body) && !is_status_request(body));
            assert!(decode_request(body).is_err() && decode_batch_request(&body[1..]).is_err());
            assert_eq!(decode_batch_request(body), Ok(request));
        }
    }

    #[test]
    fn only_complete_replies_are_decoded() {
        let embeddings = Embeddings {
            dimensions: 2,
            values: vec![1.5, -0.0, 2.0, 3.0],
            truncated: vec![false, true],
            ..Embeddings::default()
        };
        let end = BatchEnd {
            state: BatchState::Expired,
            reason: Some("late".to_string()),
            ids: vec!["a".to_string(), "b".to_string()],
            embeddings,
            refused: vec![("c".to_string(), "no".to_string())],
        };
        let shorter = BatchEnd { ids: vec!["a".to_string()], ..end.clone() };
        let reply = BatchReply { id: 1, outcome: Ok(BatchAnswer::Ended(Box::new(shorter))) };
        let frame = encode_batch_reply(&reply).unwrap();
        assert!(decode_batch_reply(&frame[LENGTH_BYTES..]).is_err());
        for outcome in [
            Ok(BatchAnswer::Ended(Box::new(end))),
            Ok(BatchAnswer::Submitted { batch: "b".to_string(), texts: 7 }),
            Ok(BatchAnswer::Found { batch: None }),
            Ok(BatchAnswer::Working { done: 1, total: u64::MAX }),
            Ok(BatchAnswer::Done),
            Err(Failure::new(FailureClass::Refused, "no")),
        ] {
            let reply = BatchReply { id: u64::MAX, outcome };
            let frame = encode_batch_reply(&reply).unwrap();
            let body = &frame[LENGTH_BYTES..];
            assert!(is_batch_reply(body) && !is_batch_reply(b""));
            for end in 0..body.len() {
                assert!(decode_batch_reply(&body[..end]).is_err(), "{end}");
            }
            assert!(decode_batch_reply(&[&[1], &body[1..]].concat()).is_err());
            assert_eq!(decode_batch_reply(body), Ok(reply));
        }
    }
}
