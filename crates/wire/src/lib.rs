//! The messages between the extension and the embedder: requests, replies, settings, log lines, and their encoding.
//!
//! Nothing here reads a file or opens a socket, so each side can be tested without the other.

mod account;
mod batch;
mod cap;
mod control;
mod count;
mod embeddings;
mod frame;
mod message;
mod provider;
mod secret;
mod sql;
mod usage;

pub use account::{AccountId, account};
pub use batch::{
    BatchAnswer, BatchEnd, BatchOrder, BatchReply, BatchRequest, BatchState, BatchText,
    decode_batch_reply, decode_batch_request, encode_batch_reply, encode_batch_request,
    is_batch_reply, is_batch_request,
};
pub use cap::{Period, Reached, tokens_since};
pub use control::{Config, Log, LogLevel, Order, Report, Status};
pub use count::{
    Count, CountRequest, Counts, MostOfRequest, decode_count_request, decode_counts,
    encode_count_request, encode_counts, is_count_request,
};
pub use embeddings::Embeddings;
pub use frame::{FrameBuffer, MAX_FRAME, WireError};
pub use message::{
    Failure, FailureClass, Priority, Reply, Request, SOCKET_PATH, decode_reply, decode_request,
    decode_status, encode_reply, encode_request, encode_status, encode_status_request,
    is_status_request, reply_fits,
};
pub use provider::{
    Encoding, InputType, Kind, LOCAL_MODEL, LOCAL_MODEL_FILES, Limits, Model, Provider,
};
pub use secret::Secret;
pub use sql::quote_literal;
pub use usage::{RequestError, USAGE_PATH, Usage};

/// The version of extension and embedder, which must be the same: they are installed together.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
