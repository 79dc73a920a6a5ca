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

/// Sans-io: told what arrived, it says which frames are complete. Between them it holds no memory.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: usize = 100 * 1024 * 1024;

    fn framed(body: &[u8]) -> Vec<u8> {
        [&(body.len() as i32).to_be_bytes(), body].concat()
    }

    fn announced(length: i32, api_key: i16) -> Vec<u8> {
        [&length.to_be_bytes()[..], &api_key.to_be_bytes()[..]].concat()
    }

    #[test]
    fn an_unlawful_start_is_refused() {
        let bytes_max = BYTES_MAX;
        let over = BYTES_MAX as i32 + 1;
        let cases = [
            (announced(-1, 0), FrameError::TooSmall { length: -1 }),
            (announced(i32::MIN, 0), FrameError::TooSmall { length: i32::MIN }),
            (announced(0, 0), FrameError::TooSmall { length: 0 }),
            (announced(7, 18), FrameError::TooSmall { length: 7 }),
            (announced(over, 0), FrameError::TooLarge { length: over, bytes_max }),
            (announced(i32::MAX, 0), FrameError::TooLarge { length: i32::MAX, bytes_max }),
            (b"GET / HTTP".to_vec(), FrameError::TooLarge { length: 0x4745_5420, bytes_max }),
            (
                announced(2 << 20, 18),
                FrameError::TooLargeForApi { length: 2 << 20, api_key: 18, bytes_max: 1 << 20 },
            ),
            (
                announced(9 << 20, 3),
                FrameError::TooLargeForApi { length: 9 << 20, api_key: 3, bytes_max: 8 << 20 },
            ),
            (announced(9, 7), FrameError::TooLargeForApi { length: 9, api_key: 7, bytes_max: 0 }),
        ];
        for (bytes, error) in cases {
            let decoded = FrameDecoder::new(BYTES_MAX).decode(&mut &bytes[..]);
            assert_eq!(decoded, Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn an_announcement_of_100_mb_holds_little_memory() {
        let mut decoder = FrameDecoder::new(BYTES_MAX);
        let mut input = &announced(BYTES_MAX as i32, 0)[..];
        assert_eq!(decoder.decode(&mut input), Ok(None));
        assert!(decoder.held_bytes() <= EAGER_BYTES, "{}", decoder.held_bytes());
        for arrived in [1000, 100_000, 1_000_000] {
            let mut input = &vec![0; arrived][..];
            assert_eq!(decoder.decode(&mut input), Ok(None));
            let here = BYTES_MAX - decoder.wanted();
            assert!(decoder.held_bytes() <= EAGER_BYTES.max(2 * here), "{here} arrived");
        }
    }

    #[test]
    fn nothing_is_held_between_frames() {
        let mut decoder = FrameDecoder::new(BYTES_MAX);
        assert!(decoder.body_mut().is_none());
        let frame = framed(&[0; 100_000]);
        assert!(decoder.decode(&mut &frame[..]).unwrap().is_some());
        assert_eq!((decoder.held_bytes(), decoder.is_mid_frame()), (0, false));
        assert_eq!(decoder.wanted(), START_LEN);
    }

    #[test]
    fn a_frame_can_be_read_into_its_own_memory() {
        let body: Vec<u8> = (0..200_000_u32).map(|place| (place / 7) as u8).collect();
        let body = [&[0, 0][..], &body].concat();
        let frame = framed(&body);
        let mut decoder = FrameDecoder::new(BYTES_MAX);
        let mut input = &frame[..START_LEN];
        assert_eq!(decoder.decode(&mut input), Ok(None));
        let mut rest = &frame[START_LEN..];
        while let Some(mut room) = decoder.body_mut() {
            let (now, later) = rest.split_at(room.remaining_mut().min(rest.len()).min(30_000));
            room.put_slice(now);
            rest = later;
        }
        assert_eq!(decoder.take_frame().as_deref(), Some(&body[..]));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 6..300), 0..8),
            cuts in prop::collection::vec(1_usize..100, 1..20),
        ) {
            let bodies: Vec<Vec<u8>> =
                bodies.into_iter().map(|body| [&[0, 1][..], &body].concat()).collect();
            let stream: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
            let mut decoder = FrameDecoder::new(1000);
            let mut decoded = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (mut input, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                while !input.is_empty() {
                    decoded.extend(decoder.decode(&mut input).unwrap());
                }
            }
            prop_assert_eq!(decoded, bodies);
        }

        #[test]
        fn no_stream_panics(stream: Vec<u8>) {
            let mut decoder = FrameDecoder::new(100);
            let mut input = &stream[..];
            while !input.is_empty() {
                let before = input.len();
                match decoder.decode(&mut input) {
                    Ok(_) => prop_assert!(input.len() < before),
                    Err(_) => break,
                }
            }
        }
    }
}
