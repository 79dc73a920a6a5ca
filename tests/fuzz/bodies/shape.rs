//! One request's body: what the walk lets through decodes, within the memory that it counted.

#[path = "../../../crates/protocol/tests/common/allocation.rs"]
pub mod allocation;
mod input;

use allocation::{Counting, peak_of};
use bytes::Bytes;
use input::Input;
use tidelog_protocol::{
    ApiKey,
    api_versions::TABLE,
    request,
    shape::{self, MEMORY_FACTOR, MEMORY_SLACK_BYTES},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the decoders of Produce and Fetch may take beyond twice the frame.
const OWN_SLACK_BYTES: usize = 64 << 10;
/// Splitting a frame for the first time takes a few bytes of its own.
const SPLIT_BYTES: usize = 64;

/// The first byte chooses the API, the second its version.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let api = &TABLE[usize::from(input.byte()) % TABLE.len()];
    let versions = i32::from(api.max - api.served_min) + 1;
    let version = api.served_min + (i32::from(input.byte()) % versions) as i16;
    let body = Bytes::copy_from_slice(input.rest());
    match api.key {
        ApiKey::Produce | ApiKey::Fetch => own_decoder(api.key, version, body),
        key => codec(key, version, body),
    }
}

fn own_decoder(api: ApiKey, version: i16, body: Bytes) {
    let promised = 2 * body.len() + OWN_SLACK_BYTES;
    let (decoded, peak) = peak_of(|| request::decode_any(api, version, body));
    assert!(peak <= promised, "{peak} bytes for {api:?} version {version}: {decoded:?}");
}

fn codec(api: ApiKey, version: i16, body: Bytes) {
    let (cost, walked) = peak_of(|| shape::check(api, version, &body));
    assert_eq!(walked, 0, "a walk allocates nothing");
    let promised = match &cost {
        Ok(cost) => cost.bytes_in_memory + SPLIT_BYTES,
        Err(_) => MEMORY_SLACK_BYTES,
    };
    assert!(promised <= MEMORY_FACTOR * body.len() + MEMORY_SLACK_BYTES + SPLIT_BYTES);
    let (decoded, peak) = peak_of(|| request::decode_any(api, version, body));
    assert!(peak <= promised, "{peak} bytes for {api:?} version {version}: {cost:?}");
    assert_eq!(decoded.err(), cost.err(), "{api:?} version {version}");
}
