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
/// | 4 | number of producers, then each: |
/// | 8, 2, 8, 1 | producer id, epoch, last write in ms, number of batches, then each: |
/// | 4, 4, 8, 8 | base sequence, last offset delta, base offset, timestamp |
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::producer_state::tests::batch;

    fn snapshot() -> PartitionSnapshot {
        let mut snapshot = PartitionSnapshot::default();
        snapshot.leader_epochs.assign(LeaderEpoch(3), Offset(0));
        snapshot.leader_epochs.assign(LeaderEpoch(5), Offset(4));
        for n in 0..7 {
            let sent = batch(9 + i64::from(n % 2), 1, n / 2, 1, i64::from(n));
            snapshot.producers.replay(&sent, 1_000_000);
        }
        snapshot
    }

    #[test]
    fn any_damage_is_noticed() {
        let bytes = snapshot().encode().to_vec();
        assert_eq!(PartitionSnapshot::decode(&bytes), Ok(snapshot()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(PartitionSnapshot::decode(&damaged).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(PartitionSnapshot::decode(&bytes[..end]).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn the_bytes_are_what_the_documentation_says() {
        let mut snapshot = PartitionSnapshot::default();
        snapshot.leader_epochs.assign(LeaderEpoch(2), Offset(1));
        snapshot.producers.replay(&batch(258, 1, 3, 4, 5), 6);
        let body = [
            &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1][..], // one epoch: 2 from 1
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 1],           // one producer: 258, epoch 1
            &[0, 0, 0, 0, 0, 0, 0, 6, 1],                          // last write at 6, one batch
            &[0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 5],     // sequence 3, delta 3, offset 5
            &[0, 0, 0, 0, 0, 0, 0x03, 0xed],                       // timestamp 1005
        ]
        .concat();
        let bytes = snapshot.encode();
        assert_eq!(&bytes[..6], b"TLps\x00\x01");
        assert_eq!(&bytes[6..10], crc32c(&body).to_be_bytes());
        assert_eq!(&bytes[10..], body);
    }

    /// Bytes with a right frame around any body.
    fn framed(version: u16, body: &[u8]) -> Vec<u8> {
        let crc = crc32c(body).to_be_bytes();
        [&MAGIC.to_be_bytes()[..], &version.to_be_bytes(), &crc, body].concat()
    }

    #[test]
    fn bytes_that_contradict_themselves_are_refused() {
        let two_epochs = |first: i32, second: i32| {
            let epoch =
                |epoch: i32, start: i64| [&epoch.to_be_bytes()[..], &start.to_be_bytes()].concat();
            [vec![0, 0, 0, 2], epoch(first, 0), epoch(second, 5), vec![0; 4]].concat()
        };
        let malformed = |what| SnapshotError::Malformed { what };
        for (bytes, error) in [
            (framed(2, &[]), SnapshotError::UnknownVersion { found: 2, newest: 1 }),
            (framed(1, &[]), SnapshotError::Truncated { bytes: 10 }),
            (framed(1, &[0xff; 4]), SnapshotError::Truncated { bytes: 14 }),
            (framed(1, &two_epochs(3, 3)), malformed("leader epochs do not rise")),
            (framed(1, &two_epochs(-1, 3)), malformed("leader epochs do not rise")),
            (framed(1, &[0; 9]), malformed("bytes follow the last producer")),
            (vec![0; 40], SnapshotError::WrongMagic { found: 0 }),
        ] {
            assert_eq!(PartitionSnapshot::decode(&bytes), Err(error));
        }
    }

    proptest! {
        #[test]
        fn any_body_comes_back(body: Vec<u8>) {
            let _ = PartitionSnapshot::decode(&framed(1, &body));
        }

        #[test]
        fn a_snapshot_and_what_follows_make_the_same_state(
            ids in prop::collection::vec(0..4_i64, 1..40), cut: prop::sample::Index,
        ) {
            let mut sequences = [0; 4];
            let batches: Vec<_> = (0..).zip(&ids).map(|(offset, id)| {
                let sequence = &mut sequences[*id as usize];
                *sequence += 1;
                batch(*id, 0, *sequence - 1, 1, offset)
            }).collect();
            let cut = cut.index(batches.len());
            let mut whole = ProducerState::default();
            let mut part = PartitionSnapshot::default();
            batches.iter().for_each(|batch| whole.replay(batch, 5));
            batches[..cut].iter().for_each(|batch| part.producers.replay(batch, 5));
            let mut restored = PartitionSnapshot::decode(&part.encode()).unwrap();
            batches[cut..].iter().for_each(|batch| restored.producers.replay(batch, 5));
            prop_assert_eq!(restored.producers, whole);
        }
    }
}
