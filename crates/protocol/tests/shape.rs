//! The walk in front of the codec: it accepts what clients send and bounds what anyone sends.

mod common;

use bytes::Bytes;
use common::{
    Random,
    allocation::{Counting, peak_of},
    mutate::mutate,
    samples::{Sample, encode, versions},
};
use proptest::prelude::*;
use tidelog_protocol::{
    ApiKey, RequestError, request,
    shape::{self, MEMORY_FACTOR, MEMORY_SLACK_BYTES},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests spoiled for each API, version and seed.
const MUTATIONS: usize = 40;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_request_is_accepted_whole_and_decodes_equal(seed: u64) {
        for_every_codec_request!(check_round_trip, seed);
    }

    #[test]
    fn a_spoiled_request_never_takes_memory_beyond_its_bound(seed: u64) {
        for_every_codec_request!(check_memory, seed);
    }

    #[test]
    fn random_bytes_never_take_memory_beyond_their_bound(seed: u64) {
        for_every_codec_request!(check_noise, seed);
    }
}

fn check_round_trip<R: Sample>(seed: u64) {
    for version in versions(R::API) {
        let mut random = Random::new(seed);
        let request = R::sample(version, &mut random);
        let mut body = encode(&request, version);
        let request_bytes = body.len();
        body.extend(random.bytes(8)); // some clients leave bytes behind, and Kafka ignores them
        let walked = shape::check(R::API, version, &body).map(|cost| cost.bytes_walked);
        assert_eq!(walked, Ok(request_bytes), "{:?} version {version}", R::API);
        let decoded = request::decode::<R>(version, body.into());
        assert_eq!(decoded, Ok(request), "version {version}");
    }
}

fn check_memory<R: Sample>(seed: u64) {
    for version in versions(R::API) {
        let mut random = Random::new(seed);
        let body = encode(&R::sample(version, &mut random), version);
        for _ in 0..MUTATIONS {
            let mut body = body.clone();
            mutate(&mut body, &mut random);
            decode_within_bound::<R>(version, body);
        }
    }
}

fn check_noise<R: Sample>(seed: u64) {
    for version in versions(R::API) {
        let body = Random::new(seed).bytes(200);
        decode_within_bound::<R>(version, body);
    }
}

fn decode_within_bound<R: Sample>(version: i16, body: Vec<u8>) {
    let bytes = body.len();
    let cost = shape::check(R::API, version, &body);
    let body = Bytes::from(body);
    let (decoded, peak) = peak_of(|| request::decode::<R>(version, body));
    let context = format!("{:?} version {version}, {bytes} bytes", R::API);
    assert!(peak <= MEMORY_FACTOR * bytes + MEMORY_SLACK_BYTES, "{peak} bytes for {context}");
    match cost {
        Ok(cost) => {
            assert!(decoded.is_ok(), "the codec refuses what the walk allows: {context}");
            // Splitting a frame for the first time takes a few bytes of its own.
            assert!(peak <= cost.bytes_in_memory + 64, "{peak} of {cost:?} for {context}");
        }
        Err(refusal) => assert_eq!(decoded.err(), Some(refusal), "{context}"),
    }
}

#[test]
fn a_request_that_would_swell_in_memory_is_refused() {
    // Each topic is three bytes on the wire: no name, and one empty unknown tagged field.
    let topics = 100_000;
    let mut body = vec![0xa1, 0x8d, 0x06]; // 100,000 and one, compact
    for _ in 0..topics {
        body.extend([1, 1, 5, 0]);
    }
    body.extend([0, 0, 0, 0]);
    let refused = shape::check(ApiKey::Metadata, 9, &body);
    assert!(matches!(refused, Err(RequestError::TooCostly { .. })), "{refused:?}");
}

#[test]
fn a_request_over_its_apis_limit_is_refused() {
    let body = vec![0; 1024 * 1024 + 1];
    let refused = shape::check(ApiKey::ListOffsets, 1, &body);
    assert!(matches!(refused, Err(RequestError::TooLarge { .. })), "{refused:?}");
}
