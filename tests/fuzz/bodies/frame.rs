//! A connection's bytes, in pieces: no panic, and no more memory than was promised.

#[path = "../../../crates/protocol/tests/common/allocation.rs"]
pub mod allocation;
mod input;

use allocation::{Counting, peak_of};
use bytes::Bytes;
use input::Input;
use tidelog_protocol::{
    ApiKey,
    frame::FrameDecoder,
    header::decode_request_header,
    request,
    shape::{MEMORY_FACTOR, MEMORY_SLACK_BYTES},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FRAME_BYTES_MAX: usize = 1 << 20;
/// What the decoders of Produce and Fetch may take beyond twice the frame.
const OWN_SLACK_BYTES: usize = 64 << 10;
/// What one announcement may hold before its bytes arrive.
const EAGER_BYTES: usize = 64 << 10;

/// The first byte says in pieces of which size the others arrive.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let piece = usize::from(input.byte()) + 1;
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    for mut piece in input.rest().chunks(piece) {
        while !piece.is_empty() {
            let before = piece.len();
            let Ok(frame) = decoder.decode(&mut piece) else { return };
            assert!(piece.len() < before, "a decoder takes what it is given, or refuses it");
            let arrived = FRAME_BYTES_MAX.min(data.len());
            assert!(decoder.held_bytes() <= EAGER_BYTES.max(2 * arrived));
            if let Some(frame) = frame {
                handle(frame);
            }
        }
    }
}

fn handle(frame: Bytes) {
    let bytes = frame.len();
    let (cost, peak) = peak_of(|| request::cost(&frame));
    assert!(peak <= MEMORY_SLACK_BYTES, "{peak} bytes to learn a request's cost");
    let Ok((header, body)) = decode_request_header(frame) else { return };
    let key = header.api_key;
    let (decoded, peak) = peak_of(|| request::decode_any(key, header.api_version, body));
    let promised = match key {
        ApiKey::Produce | ApiKey::Fetch => 2 * bytes + OWN_SLACK_BYTES,
        _ => MEMORY_FACTOR * bytes + MEMORY_SLACK_BYTES,
    };
    assert!(peak <= promised, "{peak} bytes for {key:?} of {bytes}, cost {cost}: {decoded:?}");
}
