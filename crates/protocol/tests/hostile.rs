//! A corpus of frames that only an attacker sends. Each names what it tries.

mod common;

use bytes::Bytes;
use common::{
    Random,
    allocation::{Counting, peak_of},
};
use tidelog_protocol::{
    ApiKey, RequestError, api_versions::TABLE, batch_builder::BatchBuilder, compression,
    compression::DecompressError, header::decode_request_header, record_batch, request, shape,
};
use tidelog_types::Compression;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads a frame as a broker does, whatever it asks for.
fn serve(frame: Bytes) -> Result<ApiKey, RequestError> {
    let (header, body) = decode_request_header(frame)?;
    let version = header.api_version;
    let api = header.api_key;
    match api {
        ApiKey::ApiVersions if !api.serves(version) => Ok(()),
        _ => request::decode_any(api, version, body),
    }?;
    Ok(api)
}

fn frame(api: ApiKey, version: i16, body: &[u8]) -> Bytes {
    let mut frame = [api.code().to_be_bytes(), version.to_be_bytes()].concat();
    frame.extend([0, 0, 0, 1, 0xff, 0xff]);
    if api.is_flexible(version) {
        frame.push(0);
    }
    frame.extend(body);
    frame.into()
}

/// Serves a frame within twice (Produce, Fetch) or 64 times its size.
fn serve_within_bound(frame: &Bytes, context: &str) -> Result<ApiKey, RequestError> {
    let bytes = frame.len();
    let (served, peak) = peak_of(|| serve(frame.clone()));
    let is_ours = matches!(frame.get(..2), Some([0, 0 | 1]));
    let bound = match is_ours {
        true => 2 * bytes + 64 * 1024,
        false => shape::MEMORY_FACTOR * bytes + shape::MEMORY_SLACK_BYTES,
    };
    assert!(peak <= bound, "{context}: {peak} bytes of memory for {bytes}");
    served
}

#[test]
fn a_length_larger_than_the_frame_is_refused_wherever_it_stands() {
    const GREEDY: &[&[u8]] = &[
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0x00, 0x00, 0x00],
        &[0xff, 0xff, 0xff, 0xfe],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff],
    ];
    for api in TABLE {
        for version in api.served_min..=api.max {
            for greedy in GREEDY {
                for zeros in 0..40 {
                    let body = [&vec![0; zeros][..], greedy].concat();
                    let context = format!("{} {version}: {zeros} zeros, {greedy:?}", api.name);
                    let _ = serve_within_bound(&frame(api.key, version, &body), &context);
                    let body = [&vec![1; zeros][..], greedy, &[0; 100]].concat();
                    let _ = serve_within_bound(&frame(api.key, version, &body), &context);
                }
            }
        }
    }
}

#[test]
fn six_bytes_of_metadata_do_not_ask_for_154_gb() {
    let served = serve_within_bound(&frame(ApiKey::Metadata, 1, &[0x7f, 0xff, 0xff, 0xff]), "v1");
    assert!(matches!(served, Err(RequestError::Malformed(_))), "{served:?}");
    let compact = frame(ApiKey::Metadata, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
    let served = serve_within_bound(&compact, "v9");
    assert!(matches!(served, Err(RequestError::Malformed(_))), "{served:?}");
}

#[test]
fn what_librdkafka_leaves_behind_a_metadata_request_is_ignored() {
    // All topics; three bytes are left of the placeholder for their number.
    for version in 9..=13 {
        let body = [0, 0, 0, 0, 0, 1, 0, 0];
        assert_eq!(serve(frame(ApiKey::Metadata, version, &body)), Ok(ApiKey::Metadata));
    }
}

#[test]
fn a_flood_of_the_smallest_elements_stays_within_the_bound() {
    let count = 60_000_u32;
    let compact = [0x80 | (count + 1) as u8, 0x80 | ((count + 1) >> 7) as u8, 3];
    assert_eq!((count + 1) >> 14, 3);
    for api in TABLE {
        for version in api.served_min..=api.max {
            for prefix in 0..30 {
                for element in [&[0_u8][..], &[1], &[1, 1], &[1, 1, 0, 0], &[0, 0, 0, 0, 0, 0]] {
                    let mut body = vec![0; prefix];
                    match api.key.is_flexible(version) {
                        true => body.extend(compact),
                        false => body.extend(count.to_be_bytes()),
                    }
                    body.extend(element.repeat(count as usize));
                    let context = format!("{} {version}: {prefix}, {element:?}", api.name);
                    let _ = serve_within_bound(&frame(api.key, version, &body), &context);
                }
            }
        }
    }
}

#[test]
fn every_prefix_of_every_frame_is_refused_or_served() {
    let mut random = Random::new(3);
    for api in TABLE {
        for version in -1..=api.max + 1 {
            let whole = frame(api.key, version, &random.bytes(60));
            for length in 0..=whole.len() {
                let _ = serve_within_bound(&whole.slice(..length), api.name);
            }
        }
    }
}

#[test]
fn a_bomb_of_records_is_not_unpacked_beyond_its_limit() {
    let zeros = vec![0; 64 << 20];
    let bytes_max = 1 << 20;
    for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd, Compression::Snappy] {
        let bomb = Bytes::from(compression::compress(codec, &zeros));
        let (opened, peak) = peak_of(|| compression::decompress(codec, &bomb, bytes_max));
        assert_eq!(opened, Err(DecompressError::TooLarge { bytes_max }), "{codec:?}");
        // The codecs' own windows and tables come on top.
        assert!(peak < 2 * bytes_max + (9 << 20), "{codec:?}: {peak}");
    }
}

#[test]
fn a_batch_that_lies_about_itself_is_refused_without_opening_it() {
    let batch = BatchBuilder::new(0).record(0, None, Some(&[7; 5000])).build();
    let rules = record_batch::BatchRules {
        batch_bytes_max: 1 << 20,
        segment_bytes: 1 << 30,
        timestamp_type: record_batch::TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        now_ms: 0,
        produce_version: 13,
    };
    assert!(record_batch::validate(batch.clone(), &rules).is_ok());
    for place in 0..61 {
        for value in [0x00, 0x7f, 0x80, 0xff] {
            let mut lie = batch.to_vec();
            if lie[place] == value || (12..16).contains(&place) {
                continue;
            }
            lie[place] = value;
            let (judged, peak) = peak_of(|| record_batch::validate(lie.into(), &rules));
            assert!(judged.is_err(), "byte {place} set to {value}");
            assert!(peak < 1024, "{peak}");
        }
    }
}
