//! The messages between the embedder and its clients: requests and replies, and their encoding.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::frame::{
    LENGTH_BYTES, MAX_FRAME, WireError, close_frame, json_frame, malformed, read_json,
};
use crate::{Embeddings, InputType, Model, Provider, Status};

/// The path of the embedder's socket, relative to the data directory.
pub const SOCKET_PATH: &str = "pg_stat_tmp/embedd.sock";

/// Bytes of a reply before its payload: the tag and the id.
const REPLY_HEADER: usize = 1 + 8;

/// First byte of a reply that carries vectors.
const TAG_EMBEDDINGS: u8 = 1;

/// First byte of a reply that carries a failure.
const TAG_FAILURE: u8 = 2;

/// The body of the frame that asks for the embedder's status; a request is JSON and begins with a brace.
const STATUS_REQUEST: &[u8] = b"status";

/// The priority of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// A session waits for the answer.
    Question,
    /// A row has changed.
    Change,
    /// A row of a backfill.
    Backfill,
}

/// Texts to be embedded, all by one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by the client, and repeated in the reply.
    pub id: u64,
    /// The provider.
    pub provider: Provider,
    /// The model.
    pub model: Model,
    /// Whether the texts are queries or documents.
    pub input_type: InputType,
    /// The priority.
    pub priority: Priority,
    /// Whether another request follows at once, so that both should be sent in one batch.
    pub more: bool,
    /// How long the client will wait, in milliseconds.
    pub timeout_ms: u64,
    /// Whether this is a test of the provider, which is neither retried nor bisected.
    pub is_test: bool,
    /// The texts.
    pub texts: Vec<String>,
}

/// The texts without a vector, as encoded in a reply.
#[derive(Default, Serialize, Deserialize)]
struct WithoutVector {
    refused: Vec<(u32, String)>,
    unanswered: Vec<u32>,
    failure: Option<Failure>,
}

/// The class of a failure, which decides how to handle it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// A retry may succeed.
    Unavailable,
    /// The provider is rate limited.
    RateLimited,
    /// The provider rejects the key.
    KeyRejected,
    /// The provider refuses the request, and would refuse it again.
    Refused,
    /// The provider's reply is invalid.
    BadReply,
    /// An administrator has to change a setting.
    BadSetting,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{message}")]
pub struct Failure {
    /// The class.
    pub class: FailureClass,
    /// The message, in PostgreSQL's style.
    pub message: String,
    /// The DETAIL.
    pub detail: Option<String>,
    /// The HINT.
    pub hint: Option<String>,
    /// After how many milliseconds a retry makes sense.
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure without DETAIL or HINT.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Failure {
        Failure { class, message: message.into(), detail: None, hint: None, retry_after_ms: None }
    }

    /// Message and DETAIL, for a status.
    pub fn reason(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.message),
            None => self.message.clone(),
        }
    }

    /// Whether a later retry may succeed without any change.
    pub fn is_transient(&self) -> bool {
        matches!(self.class, FailureClass::Unavailable | FailureClass::RateLimited)
    }

    /// Sets when a retry makes sense.
    pub fn with_retry_after(mut self, wait: Duration) -> Failure {
        self.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Sets the DETAIL.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Failure {
        self.detail = Some(detail.into());
        self
    }

    /// Sets the HINT.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

/// The reply to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// Its vectors, or why it failed.
    pub outcome: Result<Embeddings, Failure>,
}

/// Whether the reply to a request of this size fits into a frame.
pub fn reply_fits(texts: usize, dimensions: usize) -> bool {
    payload_bytes(texts, dimensions)
        .and_then(|bytes| bytes.checked_add(REPLY_HEADER))
        .is_some_and(|bytes| bytes <= MAX_FRAME)
}

/// Bytes of encoded vectors: the two counts, a flag for each text, the elements.
fn payload_bytes(texts: usize, dimensions: usize) -> Option<usize> {
    dimensions.checked_mul(4)?.checked_add(1)?.checked_mul(texts)?.checked_add(8)
}

/// A request as a frame, its length in front.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, WireError> {
    json_frame(b"", request)
}

/// Reads a request from a frame's body.
pub fn decode_request(body: &[u8]) -> Result<Request, WireError> {
    read_json(b"", body)
}

/// The frame that asks for the embedder's status.
pub fn encode_status_request() -> Vec<u8> {
    let length = STATUS_REQUEST.len() as u32;
    [&length.to_le_bytes()[..], STATUS_REQUEST].concat()
}

/// Whether a frame's body asks for the embedder's status.
pub fn is_status_request(body: &[u8]) -> bool {
    body == STATUS_REQUEST
}

/// The embedder's status as a frame, its length in front.
pub fn encode_status(status: &Status) -> Result<Vec<u8>, WireError> {
    json_frame(b"", status)
}

/// Reads the embedder's status from a frame's body.
pub fn decode_status(body: &[u8]) -> Result<Status, WireError> {
    read_json(b"", body)
}

/// A reply as a frame, its length in front.
pub fn encode_reply(reply: &Reply) -> Result<Vec<u8>, WireError> {
    let mut frame = vec![0; LENGTH_BYTES];
    match &reply.outcome {
        Ok(embeddings) => {
            frame.push(TAG_EMBEDDINGS);
            frame.extend_from_slice(&reply.id.to_le_bytes());
            encode_embeddings(embeddings, &mut frame)?;
        }
        Err(failure) => {
            frame.push(TAG_FAILURE);
            frame.extend_from_slice(&reply.id.to_le_bytes());
            serde_json::to_writer(&mut frame, failure)
                .map_err(|error| malformed(error.to_string()))?;
        }
    }
    close_frame(frame)
}

/// Reads a reply from a frame's body.
pub fn decode_reply(body: &[u8]) -> Result<Reply, WireError> {
    let (header, payload) =
        body.split_at_checked(REPLY_HEADER).ok_or_else(|| malformed("a reply without an id"))?;
    let mut id = [0; 8];
    id.copy_from_slice(&header[1..]);
    let outcome = match header[0] {
        TAG_EMBEDDINGS => Ok(decode_embeddings(payload)?),
        TAG_FAILURE => {
            Err(serde_json::from_slice(payload).map_err(|error| malformed(error.to_string()))?)
        }
        tag => return Err(malformed(format!("a reply of unknown kind {tag}"))),
    };
    Ok(Reply { id: u64::from_le_bytes(id), outcome })
}

/// Appends vectors: dimensions, number of vectors, the flags, the elements, and the texts without a vector as JSON.
pub(crate) fn encode_embeddings(
    embeddings: &Embeddings,
    frame: &mut Vec<u8>,
) -> Result<(), WireError> {
    let (count, dimensions) = (embeddings.count(), embeddings.dimensions);
    if count.checked_mul(dimensions) != Some(embeddings.values.len()) {
        return Err(malformed("numbers and vectors do not match"));
    }
    let bytes = payload_bytes(count, dimensions).unwrap_or(usize::MAX);
    let counts = (u32::try_from(dimensions), u32::try_from(count));
    let ((Ok(width), Ok(height)), true) = (counts, bytes <= MAX_FRAME) else {
        return Err(WireError::TooLarge { bytes });
    };
    frame.reserve_exact(bytes);
    frame.extend_from_slice(&width.to_le_bytes());
    frame.extend_from_slice(&height.to_le_bytes());
    let (marks, values) = (&embeddings.truncated, &embeddings.values);
    frame.extend(marks.iter().map(|mark| u8::from(*mark)));
    frame.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let aside = WithoutVector {
        refused: embeddings.refused.clone(),
        unanswered: embeddings.unanswered.clone(),
        failure: embeddings.failure.clone(),
    };
    serde_json::to_writer(frame, &aside).map_err(|error| malformed(error.to_string()))
}

/// Decodes what [`encode_embeddings`] wrote, and nothing else.
pub(crate) fn decode_embeddings(payload: &[u8]) -> Result<Embeddings, WireError> {
    let short = || malformed("vectors that end too early");
    let (width, rest) = payload.split_first_chunk::<4>().ok_or_else(short)?;
    let (height, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let dimensions = u32::from_le_bytes(*width) as usize;
    let count = u32::from_le_bytes(*height) as usize;
    let whole = payload_bytes(count, dimensions).and_then(|bytes| payload.split_at_checked(bytes));
    let Some((_, reasons)) = whole else {
        let bytes = payload.len();
        let what = format!("{count} vectors of {dimensions} dimensions in {bytes} bytes");
        return Err(malformed(what));
    };
    let (marks, rest) = rest.split_at_checked(count).ok_or_else(short)?;
    if marks.iter().any(|mark| *mark > 1) {
        return Err(malformed("a mark that is neither 0 nor 1"));
    }
    let WithoutVector { refused, unanswered, failure } =
        serde_json::from_slice(reasons).map_err(|error| malformed(error.to_string()))?;
    let numbers = rest.strip_suffix(reasons).unwrap_or(rest);
    let values = numbers.as_chunks::<4>().0.iter();
    Ok(Embeddings {
        dimensions,
        values: values.map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        truncated: marks.iter().map(|mark| *mark == 1).collect(),
        refused,
        unanswered,
        failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    /// A valid body, and variants of it that are a byte longer or any number of bytes shorter.
    fn spoilt(frame: &[u8]) -> (&[u8], Vec<Vec<u8>>) {
        assert_eq!(frame[..4], (frame.len() as u32 - 4).to_le_bytes());
        let body = &frame[4..];
        let mut bad: Vec<_> = (0..body.len()).map(|n| body[..n].to_vec()).collect();
        bad.push([body, b"x"].concat());
        (body, bad)
    }

    #[test]
    fn only_complete_requests_and_replies_are_decoded() {
        let request = Request {
            id: u64::MAX,
            provider: Provider {
                api_key: Some(Secret::new("sk")),
                headers: vec![("a".to_string(), Secret::new("b"))],
                ..Provider::local()
            },
            model: Model::of_unknown_limits("m", 2),
            input_type: InputType::Query,
            priority: Priority::Change,
            more: true,
            timeout_ms: 7,
            is_test: false,
            texts: vec!["a \"b\" \u{1f418}\n".to_string(), String::new()],
        };
        let frame = encode_request(&request).unwrap();
        let (body, bad) = spoilt(&frame);
        assert_eq!(decode_request(body), Ok(request.clone()));
        assert!(bad.iter().all(|body| decode_request(body).is_err()));
        let more = String::from_utf8_lossy(body).replace("\"id\"", "\"more_of\": 1, \"id\"");
        assert!(decode_request(more.as_bytes()).is_err());

        let embeddings = Embeddings {
            dimensions: 2,
            values: vec![1.5, -0.0, f32::MIN_POSITIVE, 3.0],
            truncated: vec![false, true],
            refused: Vec::new(),
            ..Embeddings::default()
        };
        let part = embeddings.part(1..2);
        assert_eq!((part.vector(0), part.count()), (embeddings.vector(1), 1));
        let partly = Embeddings { refused: vec![(1, "no".to_string())], ..embeddings.clone() };
        assert_eq!(partly.part(1..2).refused, [(0, "no".to_string())]);
        assert!(partly.part(0..1).refused.is_empty());
        assert_eq!(embeddings.vector(1), [f32::MIN_POSITIVE, 3.0]);
        assert!(embeddings.vector(usize::MAX).is_empty());
        let failure = Failure::new(FailureClass::Refused, "no").with_hint("Ask otherwise.");
        for (id, outcome) in [(7, Ok(embeddings)), (8, Ok(partly)), (u64::MAX, Err(failure))] {
            let reply = Reply { id, outcome };
            let frame = encode_reply(&reply).unwrap();
            let (body, mut bad) = spoilt(&frame);
            assert_eq!(decode_reply(body), Ok(reply));
            bad.push([&[9], &body[1..]].concat());
            bad.push([&[TAG_EMBEDDINGS][..], &[0; 8], &[0xff; 8]].concat());
            assert!(bad.iter().all(|body| decode_reply(body).is_err()));
        }
    }

    #[test]
    fn a_status_round_trips_and_its_request_is_distinct() {
        let ask = encode_status_request();
        let mut buffer = crate::FrameBuffer::default();
        buffer.extend(&ask);
        let body = buffer.next_frame().unwrap().unwrap().to_vec();
        assert!(is_status_request(&body) && decode_request(&body).is_err());
        assert!(!is_status_request(b"{}"));
        let status = Status { pid: 7, cache_hits: u64::MAX, ..Status::default() };
        let frame = encode_status(&status).unwrap();
        let (body, bad) = spoilt(&frame);
        assert_eq!(decode_status(body), Ok(status));
        assert!(bad.iter().all(|body| decode_status(body).is_err()));
    }

    #[test]
    fn a_reply_too_large_for_a_frame_is_known_beforehand() {
        assert!(reply_fits(1000, 1536) && !reply_fits(100_000, 1536));
        assert!(!reply_fits(usize::MAX, usize::MAX));
    }
}
