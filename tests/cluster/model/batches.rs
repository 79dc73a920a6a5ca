//! Batches that producers send: honest ones in every codec, and such as must be refused.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use tidelog_tests::{
    batch::{self, Batch},
    seed::Random,
};

/// How records are compressed: Kafka's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

pub const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// A batch on its way.
#[derive(Debug, Clone)]
pub struct Sent {
    /// As it goes into the request.
    pub bytes: Bytes,
    pub codec: Codec,
    /// Its records without compression.
    pub opened: Bytes,
    /// Of each record.
    pub timestamps: Vec<i64>,
    /// Producer id, epoch and base sequence.
    pub producer: Option<(i64, i16, i32)>,
}

impl Sent {
    /// Records with random timestamps and values of random length.
    pub fn random(
        random: &mut Random,
        codec: Codec,
        now_ms: i64,
        producer: Option<(i64, i16, i32)>,
    ) -> Sent {
        let count = 1 + random.index(5);
        let value_bytes = match random.below(10) {
            0 => 20_000,
            1..4 => 2_000,
            _ => 40,
        };
        let value = |random: &mut Random| {
            let bytes = random.index(value_bytes);
            let start = random.bits();
            (0..bytes as u64).map(|at| (start.wrapping_mul(at | 1) >> 56) as u8).collect()
        };
        let values = (0..count).map(|_| value(random)).collect();
        // Few different ones, so that several records share a time.
        let timestamps: Vec<i64> =
            (0..count).map(|_| now_ms - 1_000 * random.below(50).cast_signed()).collect();
        let (producer_id, producer_epoch, base_sequence) = producer.unwrap_or((-1, -1, -1));
        let batch = Batch { producer_id, producer_epoch, base_sequence, ..Batch::new(values) };
        let plain = batch.encode_with(&timestamps).freeze();
        let opened = plain.slice(batch::HEADER_BYTES..);
        Sent { bytes: compressed(&plain, codec), codec, opened, timestamps, producer }
    }

    /// One record, too large for any topic here.
    pub fn too_large(now_ms: i64) -> Sent {
        let bytes = Batch::new(vec![vec![b'x'; 300_000]]).encode().freeze();
        let opened = bytes.slice(batch::HEADER_BYTES..);
        Sent { bytes, codec: Codec::None, opened, timestamps: vec![now_ms], producer: None }
    }

    /// The same with a bit of its last record flipped.
    pub fn damaged(self) -> Sent {
        let mut bytes = self.bytes.to_vec();
        *bytes.last_mut().expect("a batch") ^= 1;
        Sent { bytes: bytes.into(), ..self }
    }

    /// The same, said to belong to a transaction.
    pub fn transactional(self) -> Sent {
        let mut bytes = self.bytes.to_vec();
        bytes[22] |= 0x10;
        batch::seal(&mut bytes);
        Sent { bytes: bytes.into(), ..self }
    }
}

impl Codec {
    /// As a topic's `compression.type` has it.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "uncompressed",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// What the codec's bytes hold.
    pub fn open(self, bytes: &[u8]) -> Vec<u8> {
        let mut opened = Vec::new();
        match self {
            Codec::None => opened.extend_from_slice(bytes),
            Codec::Gzip => {
                let read = flate2::read::GzDecoder::new(bytes).read_to_end(&mut opened);
                read.expect("gzip");
            }
            Codec::Snappy => {
                opened = snap::raw::Decoder::new().decompress_vec(bytes).expect("snappy");
            }
            Codec::Lz4 => {
                let read = lz4_flex::frame::FrameDecoder::new(bytes).read_to_end(&mut opened);
                read.expect("lz4");
            }
            Codec::Zstd => opened = zstd::stream::decode_all(bytes).expect("zstd"),
        }
        opened
    }
}

fn compressed(batch: &Bytes, codec: Codec) -> Bytes {
    let (header, records) = batch.split_at(batch::HEADER_BYTES);
    let records = match codec {
        Codec::None => return batch.clone(),
        Codec::Gzip => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(records).expect("memory");
            encoder.finish().expect("memory")
        }
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(records).expect("memory"),
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(records).expect("memory");
            encoder.finish().expect("memory")
        }
        Codec::Zstd => zstd::stream::encode_all(records, 1).expect("memory"),
    };
    let mut batch = [header, &records].concat();
    let length = i32::try_from(batch.len() - 12).expect("a small batch");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] |= codec as u8;
    batch::seal(&mut batch);
    batch.into()
}
