//! Has the embedder count the tokens of texts, and says how much of a text is sent.

use std::time::Duration;

use embedd_wire::{CountRequest, Counts, decode_counts, encode_count_request};

use super::{Deadline, connect_with_retries, too_large, unreachable};
use crate::error::Result;

/// The longest text that is sent to the embedder, in bytes: no model reads that far.
pub const LONGEST_TEXT: usize = 1024 * 1024;

/// The part of a text that is sent: whole, or its first megabyte.
pub fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

/// The counts of texts as they would be sent; nothing is sent to a provider.
pub fn count(request: &CountRequest, timeout: Duration) -> Result<Counts> {
    let deadline = Deadline::after(timeout);
    let frame = encode_count_request(request).map_err(too_large)?;
    let body = connect_with_retries(&deadline)?.answer_to(frame, &deadline)?;
    Ok(decode_counts(&body).map_err(|error| unreachable(error.to_string()))??)
}
