//! Batches that producers send: honest ones in every codec, and such as must be refused.

use std::io::Write as _;

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
        let bytes = compressed(batch.encode_with(&timestamps), codec);
        Sent { bytes, timestamps, producer }
    }

    /// One record, too large for any topic here.
    pub fn too_large() -> Bytes {
        Batch::new(vec![vec![b'x'; 300_000]]).encode().freeze()
    }

    /// The same with a bit of its last record flipped.
    pub fn damaged(&self) -> Bytes {
        let mut bytes = self.bytes.to_vec();
        *bytes.last_mut().expect("a batch") ^= 1;
        bytes.into()
    }

    /// The same, said to belong to a transaction.
    pub fn transactional(&self) -> Bytes {
        let mut bytes = self.bytes.to_vec();
        bytes[22] |= 0x10;
        batch::seal(&mut bytes);
        bytes.into()
    }
}

fn compressed(batch: bytes::BytesMut, codec: Codec) -> Bytes {
    let (header, records) = batch.split_at(batch::HEADER_BYTES);
    let records = match codec {
        Codec::None => return batch.freeze(),
        Codec::Gzip => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(records).expect("memory");
            encoder.finish().expect("memory")
        }
        Codec::Snappy => snappy_stored(records),
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

/// A raw snappy block of literals: no smaller, and as lawful as any.
fn snappy_stored(bytes: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(bytes.len() + 64);
    let mut length = bytes.len();
    while length >= 0x80 {
        block.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    block.push(length as u8);
    for chunk in bytes.chunks(1 << 16) {
        let length = u16::try_from(chunk.len() - 1).expect("at most 64 KiB");
        block.push(61 << 2); // a literal whose length takes two bytes
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(chunk);
    }
    block
}
