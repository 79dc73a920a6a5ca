//! The facts that a record batch's 61-byte header states, and the two fields a broker patches.

use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Bytes in a v2 batch header; the records follow.
pub const BATCH_HEADER_LEN: usize = 61;
/// Bytes in front of what a batch's own length counts: base offset and length.
pub const BATCH_OVERHEAD_LEN: usize = 12;
/// Where the bytes start that a batch's CRC-32C covers.
pub const BATCH_CRC_START: usize = 21;

/// The bit of the attributes that says that the base timestamp is a delete horizon.
const DELETE_HORIZON_BIT: i16 = 0b100_0000;

/// Where each field of the header starts, in bytes.
pub mod field {
    #![allow(missing_docs, reason = "the names are Kafka's own")]
    pub const BASE_OFFSET: usize = 0;
    pub const LENGTH: usize = 8;
    pub const PARTITION_LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORDS_COUNT: usize = 57;
}

/// How a batch's records are compressed: the low three bits of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the codecs' own")]
pub enum Compression {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// A batch header, decoded. Says what the bytes say; whether that is lawful is for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes after the first twelve.
    pub length: i32,
    /// Leader epoch in which the batch was appended.
    pub leader_epoch: LeaderEpoch,
    /// Format of the batch; 2 is the only one served.
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Compression, timestamp type, transactional and control bits.
    pub attributes: i16,
    /// Last record's offset less the base offset.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, in milliseconds since 1970.
    pub base_timestamp: i64,
    /// Greatest timestamp of all records, in milliseconds since 1970.
    pub max_timestamp: i64,
    /// The idempotent producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// Number of records.
    pub records_count: i32,
}

impl BatchHeader {
    /// Reads the fields; any 61 bytes decode to something.
    #[must_use]
    pub fn decode(bytes: &[u8; BATCH_HEADER_LEN]) -> BatchHeader {
        BatchHeader {
            base_offset: Offset(i64::from_be_bytes(take(bytes, field::BASE_OFFSET))),
            length: i32::from_be_bytes(take(bytes, field::LENGTH)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(take(
                bytes,
                field::PARTITION_LEADER_EPOCH,
            ))),
            magic: i8::from_be_bytes(take(bytes, field::MAGIC)),
            crc: u32::from_be_bytes(take(bytes, field::CRC)),
            attributes: i16::from_be_bytes(take(bytes, field::ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(take(bytes, field::LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(take(bytes, field::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(take(bytes, field::MAX_TIMESTAMP)),
            producer_id: ProducerId(i64::from_be_bytes(take(bytes, field::PRODUCER_ID))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(take(bytes, field::PRODUCER_EPOCH))),
            base_sequence: i32::from_be_bytes(take(bytes, field::BASE_SEQUENCE)),
            records_count: i32::from_be_bytes(take(bytes, field::RECORDS_COUNT)),
        }
    }

    /// Writes the fields; [`BatchHeader::decode`] reads them back.
    #[must_use]
    pub fn encode(&self) -> [u8; BATCH_HEADER_LEN] {
        let mut bytes = [0; BATCH_HEADER_LEN];
        put(&mut bytes, field::BASE_OFFSET, self.base_offset.0.to_be_bytes());
        put(&mut bytes, field::LENGTH, self.length.to_be_bytes());
        put(&mut bytes, field::PARTITION_LEADER_EPOCH, self.leader_epoch.0.to_be_bytes());
        put(&mut bytes, field::MAGIC, self.magic.to_be_bytes());
        put(&mut bytes, field::CRC, self.crc.to_be_bytes());
        put(&mut bytes, field::ATTRIBUTES, self.attributes.to_be_bytes());
        put(&mut bytes, field::LAST_OFFSET_DELTA, self.last_offset_delta.to_be_bytes());
        put(&mut bytes, field::BASE_TIMESTAMP, self.base_timestamp.to_be_bytes());
        put(&mut bytes, field::MAX_TIMESTAMP, self.max_timestamp.to_be_bytes());
        put(&mut bytes, field::PRODUCER_ID, self.producer_id.0.to_be_bytes());
        put(&mut bytes, field::PRODUCER_EPOCH, self.producer_epoch.0.to_be_bytes());
        put(&mut bytes, field::BASE_SEQUENCE, self.base_sequence.to_be_bytes());
        put(&mut bytes, field::RECORDS_COUNT, self.records_count.to_be_bytes());
        bytes
    }

    /// Bytes of the whole batch, header included. At least [`BATCH_OVERHEAD_LEN`] for a length
    /// that is not negative.
    #[must_use]
    pub fn batch_bytes(&self) -> i64 {
        i64::from(self.length) + BATCH_OVERHEAD_LEN as i64
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// The offset that the record after this batch gets.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// Sequence of the last record; sequences wrap from `i32::MAX` to 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last & i64::from(i32::MAX)) as i32
    }

    /// The codec, or `None` for a number that names none.
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        match self.attributes & 0b111 {
            0 => Some(Compression::None),
            1 => Some(Compression::Gzip),
            2 => Some(Compression::Snappy),
            3 => Some(Compression::Lz4),
            4 => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// Whether the timestamps are the broker's (LogAppendTime).
    #[must_use]
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & 0b1000 != 0
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & 0b1_0000 != 0
    }

    /// The time until which the batch's tombstones are to be kept, in milliseconds since 1970, once
    /// compaction has set one (KIP-534). It stands where the base timestamp stood.
    #[must_use]
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    /// Sets that time. Records' timestamps count from it then.
    pub fn set_delete_horizon(&mut self, horizon_ms: i64) {
        self.attributes |= DELETE_HORIZON_BIT;
        self.base_timestamp = horizon_ms;
    }

    /// Takes that time away; the base timestamp stays what it is.
    pub fn clear_delete_horizon(&mut self) {
        self.attributes &= !DELETE_HORIZON_BIT;
    }

    /// Whether the batch is a marker written by a coordinator.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & 0b10_0000 != 0
    }
}

/// Gives a batch its place. Both fields lie outside its CRC, so nothing is recomputed.
pub fn patch_place(header: &mut [u8; BATCH_HEADER_LEN], base: Offset, epoch: LeaderEpoch) {
    put(header, field::BASE_OFFSET, base.0.to_be_bytes());
    put(header, field::PARTITION_LEADER_EPOCH, epoch.0.to_be_bytes());
}

fn take<const N: usize>(bytes: &[u8; BATCH_HEADER_LEN], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn put<const N: usize>(bytes: &mut [u8; BATCH_HEADER_LEN], at: usize, field: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&field);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sequence_wraps_to_zero_after_the_greatest() {
        let mut header = BatchHeader::decode(&[0; BATCH_HEADER_LEN]);
        for (base_sequence, last_offset_delta, last) in
            [(0, 0, 0), (5, 9, 14), (i32::MAX, 0, i32::MAX), (i32::MAX, 1, 0), (i32::MAX - 1, 3, 1)]
        {
            header.base_sequence = base_sequence;
            header.last_offset_delta = last_offset_delta;
            assert_eq!(header.last_sequence(), last, "{base_sequence} + {last_offset_delta}");
        }
    }

    proptest! {
        #[test]
        fn every_header_reads_back(bytes: Vec<u8>) {
            let mut header = [0; BATCH_HEADER_LEN];
            let len = bytes.len().min(BATCH_HEADER_LEN);
            header[..len].copy_from_slice(&bytes[..len]);
            prop_assert_eq!(BatchHeader::decode(&header).encode(), header);
        }

        #[test]
        fn a_place_is_patched_and_nothing_else(base: i64, epoch: i32) {
            let mut header = [7; BATCH_HEADER_LEN];
            let mut expected = BatchHeader::decode(&header);
            patch_place(&mut header, Offset(base), LeaderEpoch(epoch));
            expected.base_offset = Offset(base);
            expected.leader_epoch = LeaderEpoch(epoch);
            prop_assert_eq!(BatchHeader::decode(&header), expected);
        }
    }
}
