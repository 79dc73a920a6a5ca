//! Record batches as producers send them.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tidelog_types::{
    BATCH_HEADER_LEN, BatchHeader, LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch_header::{BATCH_CRC_START, BATCH_OVERHEAD_LEN, field},
};

/// The batch format that every broker of today takes.
const MAGIC: i8 = 2;

/// A batch of records with random values, without keys or a producer id.
pub(crate) fn random_batch(records: usize, value_bytes: usize, now_ms: i64, seed: u64) -> Bytes {
    let mut random = StdRng::seed_from_u64(seed);
    let mut value = vec![0; value_bytes];
    let mut body = Vec::new();
    for offset_delta in 0..records {
        random.fill(value.as_mut_slice());
        put_record(&mut body, offset_delta, &value);
    }
    let count = i32::try_from(records).unwrap_or(i32::MAX);
    let bytes = BATCH_HEADER_LEN - BATCH_OVERHEAD_LEN + body.len();
    let header = BatchHeader {
        base_offset: Offset(0),
        length: i32::try_from(bytes).unwrap_or(i32::MAX),
        leader_epoch: LeaderEpoch(-1),
        magic: MAGIC,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: now_ms,
        max_timestamp: now_ms,
        producer_id: ProducerId(-1),
        producer_epoch: ProducerEpoch(-1),
        base_sequence: -1,
        records_count: count,
    };
    let mut batch = [&header.encode()[..], &body].concat();
    let crc = crc_of(&batch);
    batch[field::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(batch)
}

/// The CRC-32C that a batch's header should hold.
pub(crate) fn crc_of(batch: &[u8]) -> u32 {
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, &batch[BATCH_CRC_START..]);
    u32::try_from(crc).unwrap_or(0)
}

fn put_record(out: &mut Vec<u8>, offset_delta: usize, value: &[u8]) {
    let mut record = vec![0]; // attributes
    put_varint(&mut record, 0); // timestamp delta
    put_varint(&mut record, offset_delta as i64);
    put_varint(&mut record, -1); // no key
    put_varint(&mut record, value.len() as i64);
    record.extend_from_slice(value);
    put_varint(&mut record, 0); // no headers
    put_varint(out, record.len() as i64);
    out.extend_from_slice(&record);
}

/// Seven bits a byte, small ones first, signs folded in (zigzag).
fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut folded = ((value << 1) ^ (value >> 63)) as u64;
    while folded >= 0x80 {
        out.push((folded & 0x7f) as u8 | 0x80);
        folded >>= 7;
    }
    out.push(folded as u8);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;

    #[test]
    fn a_batch_is_what_other_decoders_expect() {
        for (records, value_bytes) in [(1, 0), (1, 100), (100, 100), (3, 20_000)] {
            let mut batch = random_batch(records, value_bytes, 1_700_000_000_000, 7);
            let decoded = RecordBatchDecoder::decode(&mut batch).expect("a good batch").records;
            let facts: Vec<_> = decoded
                .iter()
                .map(|r| (r.offset, r.timestamp, r.value.as_ref().map(Bytes::len)))
                .collect();
            let expected = |offset| (offset, 1_700_000_000_000, Some(value_bytes));
            assert_eq!(facts, (0..records as i64).map(expected).collect::<Vec<_>>());
        }
    }
}
