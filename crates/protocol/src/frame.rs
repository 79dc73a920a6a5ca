//! Cuts a byte stream into request frames, within limits.

use bytes::{BufMut, Bytes, buf::Limit};

use crate::api_versions::frame_bytes_max;

/// Bytes of a frame's length, and of that with the API key behind it.
const LENGTH_LEN: usize = 4;
const START_LEN: usize = 6;
/// The smallest frame that says what it wants: key, version and correlation id.
const FRAME_BYTES_MIN: usize = 8;
/// Up to here a frame gets all its memory at once; a larger one grows as its bytes arrive, so that
/// an announcement costs nothing.
const EAGER_BYTES: usize = 64 * 1024;

/// Bytes that no frame starts with. The connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative, or too small for a request.
    #[error("a frame of {length} bytes cannot hold a request")]
    TooSmall {
        /// As announced.
        length: i32,
    },
    /// The length is over the listener's limit.
    #[error("a frame of {length} bytes is announced, at most {bytes_max} are read")]
    TooLarge {
        /// As announced.
        length: i32,
        /// The limit.
        bytes_max: usize,
    },
    /// The length is over what this API ever needs; 0 for an API that is not served.
    #[error(
        "a frame of {length} bytes is announced for API {api_key}, at most {bytes_max} are read"
    )]
    TooLargeForApi {
        /// As announced.
        length: usize,
        /// As the client wrote it.
        api_key: i16,
        /// The limit.
        bytes_max: usize,
    },
}

/// Sans-io: told what arrived, it says which frames are complete. Between frames it holds no memory.
#[derive(Debug)]
pub struct FrameDecoder {
    bytes_max: usize,
    /// Length and API key, as far as they have arrived.
    start: [u8; START_LEN],
    start_filled: usize,
    /// The frame so far, once its start has been checked.
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    bytes: Vec<u8>,
    length: usize,
}

impl FrameDecoder {
    /// Reads frames of at most `bytes_max` (`socket.request.max.bytes`).
    #[must_use]
    pub fn new(bytes_max: usize) -> FrameDecoder {
        FrameDecoder { bytes_max, start: [0; START_LEN], start_filled: 0, body: None }
    }

    /// Takes bytes from the front of `input`, as many as belong to the next frame, and returns it
    /// once it is complete. `None` asks for more input.
    ///
    /// # Errors
    /// The connection is to be closed; nothing more can be read from it.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, FrameError> {
        if self.body.is_none() && !self.begin(input)? {
            return Ok(None);
        }
        while !input.is_empty() {
            let Some(mut room) = self.body_mut() else { break };
            let (taken, rest) = input.split_at(room.remaining_mut().min(input.len()));
            room.put_slice(taken);
            *input = rest;
        }
        Ok(self.take_frame())
    }

    /// Where to read the rest of a begun frame without another copy: as much as belongs to it and
    /// is worth allocating now. `None` between frames and for a complete one, which
    /// [`FrameDecoder::take_frame`] hands out.
    pub fn body_mut(&mut self) -> Option<Limit<&mut Vec<u8>>> {
        let Body { bytes, length } = self.body.as_mut()?;
        if bytes.len() == *length {
            return None;
        }
        if bytes.len() == bytes.capacity() {
            let capacity = bytes.capacity().saturating_mul(2).clamp(EAGER_BYTES, *length);
            bytes.reserve_exact(capacity - bytes.len());
        }
        let room = bytes.capacity().min(*length) - bytes.len();
        assert!(room > 0, "a frame that misses bytes has room for some");
        Some(bytes.limit(room))
    }

    /// The frame, if its last byte has been read into [`FrameDecoder::body_mut`].
    pub fn take_frame(&mut self) -> Option<Bytes> {
        let complete = self.body.take_if(|body| body.bytes.len() == body.length)?;
        self.start_filled = 0;
        Some(Bytes::from(complete.bytes))
    }

    /// Bytes that the frame under way still misses, as far as is known.
    #[must_use]
    pub fn wanted(&self) -> usize {
        match &self.body {
            Some(body) => body.length - body.bytes.len(),
            None => START_LEN - self.start_filled,
        }
    }

    /// Whether part of a frame has arrived.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.start_filled > 0
    }

    /// Memory taken by the frame under way, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.bytes.capacity())
    }

    /// Reads length and API key. True once both are there and lawful.
    fn begin(&mut self, input: &mut &[u8]) -> Result<bool, FrameError> {
        let count = (START_LEN - self.start_filled).min(input.len());
        let (taken, rest) = input.split_at(count);
        *input = rest;
        self.start[self.start_filled..self.start_filled + count].copy_from_slice(taken);
        self.start_filled += count;
        if self.start_filled < LENGTH_LEN {
            return Ok(false);
        }
        let [a, b, c, d, key @ ..] = self.start;
        let length = self.check_length(i32::from_be_bytes([a, b, c, d]))?;
        if self.start_filled < START_LEN {
            return Ok(false);
        }
        check_api(i16::from_be_bytes(key), length)?;
        let mut bytes = Vec::with_capacity(length.min(EAGER_BYTES));
        bytes.extend_from_slice(&key);
        self.body = Some(Body { bytes, length });
        Ok(true)
    }

    fn check_length(&self, length: i32) -> Result<usize, FrameError> {
        match usize::try_from(length) {
            Ok(bytes) if bytes > self.bytes_max => {
                Err(FrameError::TooLarge { length, bytes_max: self.bytes_max })
            }
            Ok(bytes) if bytes >= FRAME_BYTES_MIN => Ok(bytes),
            _ => Err(FrameError::TooSmall { length }),
        }
    }
}

fn check_api(api_key: i16, length: usize) -> Result<(), FrameError> {
    let bytes_max = frame_bytes_max(api_key);
    match length > bytes_max {
        true => Err(FrameError::TooLargeForApi { length, api_key, bytes_max }),
        false => Ok(()),
    }
}
