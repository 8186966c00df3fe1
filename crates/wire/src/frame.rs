//! Frames: each message has its length in front.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest body of a frame, in bytes.
pub const MAX_FRAME: usize = 256 << 20;

/// Bytes of the length.
pub(crate) const LENGTH_BYTES: usize = 4;

/// A buffer that grew beyond this is freed once it is empty.
const KEPT_BUFFER: usize = 1 << 20;

/// Splits a stream of bytes into frames.
///
/// Its memory grows with the bytes received, never with a length that was only announced.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// The start of the bytes that are not part of a frame yet.
    start: usize,
}

impl FrameBuffer {
    /// Appends received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() && self.bytes.capacity() > KEPT_BUFFER {
            *self = FrameBuffer::default();
        } else if self.start * 2 >= self.bytes.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The body of the next frame, if it is complete; after an error the stream is unusable.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, WireError> {
        let Some((length, rest)) = self.bytes[self.start..].split_first_chunk::<LENGTH_BYTES>()
        else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(WireError::TooLarge { bytes: length });
        }
        if rest.len() < length {
            return Ok(None);
        }
        let body = self.start + LENGTH_BYTES;
        self.start = body + length;
        Ok(Some(&self.bytes[body..self.start]))
    }
}

/// A framing error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame is too large.
    #[error("a frame of {bytes} bytes is larger than {MAX_FRAME} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A frame is malformed.
    #[error("malformed frame: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
}

/// The error for a malformed frame.
pub(crate) fn malformed(what: impl Into<String>) -> WireError {
    WireError::Malformed { what: what.into() }
}

/// A frame whose body is a tag and a value in JSON, its length in front.
pub(crate) fn json_frame(tag: &[u8], value: &impl Serialize) -> Result<Vec<u8>, WireError> {
    let mut frame = vec![0; LENGTH_BYTES];
    frame.extend_from_slice(tag);
    serde_json::to_writer(&mut frame, value).map_err(|error| malformed(error.to_string()))?;
    close_frame(frame)
}

/// Reads the value behind a tag.
pub(crate) fn read_json<T: DeserializeOwned>(tag: &[u8], body: &[u8]) -> Result<T, WireError> {
    let json = body.strip_prefix(tag).ok_or_else(|| malformed("a body without its tag"))?;
    serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))
}

/// Fills in the length of a finished frame.
pub(crate) fn close_frame(mut frame: Vec<u8>) -> Result<Vec<u8>, WireError> {
    let bytes = frame.len() - LENGTH_BYTES;
    match u32::try_from(bytes) {
        Ok(length) if bytes <= MAX_FRAME => {
            frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(frame)
        }
        _ => Err(WireError::TooLarge { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split_regardless_of_chunks_and_too_large_ones_are_errors() {
        let bodies: Vec<Vec<u8>> = (0..50u8).map(|n| vec![n; usize::from(n) * 7]).collect();
        let frames = bodies.iter();
        let frames = frames.map(|body| [&(body.len() as u32).to_le_bytes(), &body[..]].concat());
        let stream = frames.collect::<Vec<_>>().concat();
        for step in [1, 3, 64, 1000, stream.len()] {
            let (mut buffer, mut found) = (FrameBuffer::default(), Vec::new());
            for bytes in stream.chunks(step) {
                buffer.extend(bytes);
                while let Some(body) = buffer.next_frame().unwrap() {
                    found.push(body.to_vec());
                }
            }
            assert_eq!(found, bodies);
        }
        let bytes = MAX_FRAME + 1;
        let mut buffer = FrameBuffer::default();
        buffer.extend(&(bytes as u32).to_le_bytes());
        assert_eq!(buffer.next_frame(), Err(WireError::TooLarge { bytes }));
        assert!(close_frame(vec![0; bytes + 4]).is_err());
    }
}
