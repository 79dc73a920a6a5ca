//! Compressed batches that are far larger than they look, and queries that have to look inside.

use std::{
    io::{self, Read as _, Write as _},
    thread,
};

use bytes::{Bytes, BytesMut};
use tidelog_tests::{
    batch::{self, Batch},
    node::{Node, Options},
};

const MIB: u64 = 1024 * 1024;
const UNPACKED_BYTES: u64 = 256 * MIB;
const LOOKUPS_AT_ONCE: usize = 16;
const START_MS: i64 = 1_700_000_000_000;

#[test]
fn a_small_batch_that_unpacks_to_256_mib_costs_little_memory() {
    for (name, attributes, packed) in
        [("gzip", 1, gzip()), ("snappy", 2, snappy()), ("lz4", 3, lz4()), ("zstd", 4, zstd())]
    {
        let node = Node::start(Options::default());
        let mut wire = node.wire();
        assert_eq!(wire.create_topic("bomb", &[]).expect("an answer"), 0);
        let idle = node.resident_bytes();
        assert!(packed.len() < 10_000_000, "{name}: {} bytes", packed.len());
        let start = &packed[..packed.len().min(900_000)];
        let (code, _) = wire.produce("bomb", with_records(attributes, start)).expect(name);
        let lookups: Vec<_> = (0..LOOKUPS_AT_ONCE)
            .map(|_| {
                let mut wire = node.wire();
                // Between the batch's first timestamp and its last: only its records could tell.
                thread::spawn(move || wire.list_offset("bomb", START_MS + 500))
            })
            .collect();
        for lookup in lookups {
            lookup.join().expect("no panic").expect(name);
        }
        let peak = node.peak_resident_bytes();
        eprintln!("{name}: error {code}; idle {} MiB, peak {} MiB", idle / MIB, peak / MIB);
        // A batch is opened up to a limit, and not several at once.
        assert!(peak < idle + 96 * MIB, "{name}: peak {} MiB", peak / MIB);
        wire.api_versions().expect("it serves on");
    }
}

/// A batch whose header is honest about everything but what its records unpack to.
fn with_records(attributes: i16, records: &[u8]) -> Bytes {
    let mut batch = Batch::new(vec![b"x".to_vec(); 3]).encode();
    batch.truncate(batch::HEADER_BYTES);
    batch.extend_from_slice(records);
    let length = i32::try_from(batch.len() - 12).expect("a small batch");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[27..35].copy_from_slice(&START_MS.to_be_bytes());
    batch[35..43].copy_from_slice(&(START_MS + 1_000).to_be_bytes());
    batch::seal(&mut batch);
    BytesMut::freeze(batch)
}

/// What a record of half a gigabyte would begin with, then zeros.
fn unpacked() -> impl io::Read {
    const HUGE_RECORD: &[u8] = &[0x80, 0x80, 0x80, 0x80, 0x08, 0, 0, 0, 0x01];
    HUGE_RECORD.chain(io::repeat(0).take(UNPACKED_BYTES))
}

fn gzip() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::copy(&mut unpacked(), &mut encoder).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd() -> Vec<u8> {
    zstd::stream::encode_all(unpacked(), 3).expect("memory")
}

fn lz4() -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    io::copy(&mut unpacked(), &mut encoder).expect("memory");
    encoder.flush().expect("memory");
    encoder.finish().expect("memory")
}

/// A block that claims 4 GB and holds nothing.
fn snappy() -> Vec<u8> {
    vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]
}
