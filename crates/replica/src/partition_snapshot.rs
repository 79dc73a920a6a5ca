//! What a checkpoint keeps of one partition beside its records: producer state and leader epochs.

use bytes::{BufMut, Bytes, BytesMut};
use tidelog_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

use crate::{
    bytes_reader::BytesReader,
    error::SnapshotError,
    leader_epoch_cache::{EpochStart, LeaderEpochCache},
    producer_state::{BatchFacts, Producer, ProducerState},
};

/// `TLps`: the first four bytes of a partition snapshot.
const MAGIC: u32 = 0x544c_7073;
/// The version written, and the newest one read.
const VERSION: u16 = 1;
/// Magic, version and CRC.
const HEADER_LEN: usize = 10;

/// Everything that a partition would otherwise learn by reading its whole log.
///
/// All numbers are big-endian:
///
/// | bytes | what |
/// |---|---|
/// | 4 | magic `TLps` |
/// | 2 | version, 1 |
/// | 4 | CRC-32C of everything behind it |
/// | 4 | number of leader epochs, then each: epoch (4), start offset (8) |
/// | 4 | number of producers, then each: producer id (8), epoch (2), last write in ms (8), number of batches (1), then each batch: base sequence (4), last offset delta (4), base offset (8), timestamp (8) |
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionSnapshot {
    /// Idempotent producers.
    pub producers: ProducerState,
    /// Leader epochs.
    pub leader_epochs: LeaderEpochCache,
}

impl PartitionSnapshot {
    /// The bytes to store.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(&self.producers, &self.leader_epochs)
    }

    /// Reads back what [`encode`] wrote.
    ///
    /// # Errors
    /// For bytes that were damaged, cut short, or written by a later release.
    pub fn decode(bytes: &[u8]) -> Result<PartitionSnapshot, SnapshotError> {
        let mut reader = BytesReader::new(bytes);
        check_header(&mut reader)?;
        let leader_epochs = decode_leader_epochs(&mut reader)?;
        let producers = decode_producers(&mut reader)?;
        if !reader.rest().is_empty() {
            return Err(SnapshotError::Malformed { what: "bytes follow the last producer" });
        }
        Ok(PartitionSnapshot { producers, leader_epochs })
    }
}

/// The bytes of a snapshot, without taking its parts from their owner.
#[must_use]
pub fn encode(producers: &ProducerState, leader_epochs: &LeaderEpochCache) -> Bytes {
    let body = encode_body(producers, leader_epochs);
    let mut bytes = BytesMut::with_capacity(HEADER_LEN + body.len());
    bytes.put_u32(MAGIC);
    bytes.put_u16(VERSION);
    bytes.put_u32(crc32c(&body));
    bytes.put(body);
    bytes.freeze()
}

fn encode_body(producers: &ProducerState, leader_epochs: &LeaderEpochCache) -> BytesMut {
    let mut body = BytesMut::with_capacity(64 + 160 * producers.len());
    body.put_u32(leader_epochs.entries().len() as u32);
    for entry in leader_epochs.entries() {
        body.put_i32(entry.leader_epoch.0);
        body.put_i64(entry.start_offset.0);
    }
    body.put_u32(producers.len() as u32);
    for (producer_id, producer) in producers.producers() {
        body.put_i64(producer_id.0);
        body.put_i16(producer.epoch.0);
        body.put_i64(producer.last_write_ms);
        body.put_u8(producer.batches().len() as u8);
        for batch in producer.batches() {
            body.put_i32(batch.base_sequence);
            body.put_i32(batch.last_offset_delta);
            body.put_i64(batch.base_offset.0);
            body.put_i64(batch.timestamp);
        }
    }
    body
}

fn check_header(reader: &mut BytesReader<'_>) -> Result<(), SnapshotError> {
    let magic = reader.u32()?;
    if magic != MAGIC {
        return Err(SnapshotError::WrongMagic { found: magic });
    }
    let version = reader.u16()?;
    if version == 0 || version > VERSION {
        return Err(SnapshotError::UnknownVersion { found: version, newest: VERSION });
    }
    let (found, computed) = (reader.u32()?, crc32c(reader.rest()));
    if found != computed {
        return Err(SnapshotError::WrongChecksum { found, computed });
    }
    Ok(())
}

fn decode_leader_epochs(reader: &mut BytesReader<'_>) -> Result<LeaderEpochCache, SnapshotError> {
    let mut entries = Vec::new(); // no capacity by a count that the bytes may not hold
    for _ in 0..reader.u32()? {
        let leader_epoch = LeaderEpoch(reader.i32()?);
        entries.push(EpochStart { leader_epoch, start_offset: Offset(reader.i64()?) });
    }
    let what = "leader epochs do not rise";
    LeaderEpochCache::from_entries(entries).ok_or(SnapshotError::Malformed { what })
}

fn decode_producers(reader: &mut BytesReader<'_>) -> Result<ProducerState, SnapshotError> {
    let mut producers = ProducerState::default();
    for _ in 0..reader.u32()? {
        let producer_id = ProducerId(reader.i64()?);
        let producer = decode_producer(reader)?;
        if producer_id.0 < 0 || !producers.restore(producer_id, producer) {
            return Err(SnapshotError::Malformed {
                what: "a producer is not one, or one too many",
            });
        }
    }
    Ok(producers)
}

fn decode_producer(reader: &mut BytesReader<'_>) -> Result<Producer, SnapshotError> {
    let (epoch, last_write_ms) = (ProducerEpoch(reader.i16()?), reader.i64()?);
    let mut batches = Vec::new();
    for _ in 0..reader.u8()? {
        batches.push(BatchFacts {
            base_sequence: reader.i32()?,
            last_offset_delta: reader.i32()?,
            base_offset: Offset(reader.i64()?),
            timestamp: reader.i64()?,
        });
    }
    let what = "a producer's batches do not follow one another";
    Producer::from_parts(epoch, last_write_ms, &batches).ok_or(SnapshotError::Malformed { what })
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
