//! One partition's records from a producer: judged by their header, then opened and walked.

#[path = "../../../crates/protocol/tests/common/allocation.rs"]
pub mod allocation;
mod input;

use allocation::{Counting, peak_of};
use bytes::Bytes;
use input::Input;
use tidelog_protocol::{
    record_batch::{self, BatchRules, TimestampType, validate},
    records::{Records, first_at_or_after, with_max_timestamp},
};
use tidelog_types::{BATCH_HEADER_LEN, Entry, Offset};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a batch's records may become.
const OPENED_BYTES_MAX: usize = 1 << 20;
/// Doubling while the output grows, and what the codecs hold themselves.
const OPENED_MEMORY_MAX: usize = 4 * OPENED_BYTES_MAX + (1 << 20);
const JUDGE_MEMORY_MAX: usize = 64 << 10;
const LENGTH_AT: usize = 8;
const CRC_AT: usize = 17;
const NOW_MS: i64 = 1_700_000_000_000;

/// Flags, then the batch. Bit 0: the broker's timestamps. Bit 1: how old a record may be is
/// bounded. Bits 2 and 3: length and checksum are made right first.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let rules = BatchRules {
        batch_bytes_max: 1 << 20,
        segment_bytes: 1 << 30,
        timestamp_type: match flags & 1 {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        },
        timestamp_before_max_ms: if flags & 2 == 0 { i64::MAX } else { 3_600_000 },
        timestamp_after_max_ms: if flags & 2 == 0 { i64::MAX } else { 3_600_000 },
        now_ms: NOW_MS,
        produce_version: i16::from(input.byte() % 14),
        needs_keys: flags & 64 != 0,
    };
    let mut batch = input.rest().to_vec();
    if batch.len() >= BATCH_HEADER_LEN {
        mend(&mut batch, flags);
        walk(&entry(&batch));
    }
    let records = Bytes::from(batch);
    let (judged, peak) = peak_of(|| validate(records, &rules));
    let may_open = rules.timestamp_before_max_ms != i64::MAX || rules.needs_keys;
    let bound = if may_open { OPENED_MEMORY_MAX } else { JUDGE_MEMORY_MAX };
    assert!(peak <= bound, "{peak} bytes to judge a batch: {judged:?}");
    if let Ok(entry) = judged {
        let facts = entry.facts();
        assert_eq!(entry.len() as i64, facts.batch_bytes());
        assert_eq!(record_batch::crc(&entry.header, &entry.records), facts.crc);
        walk(&entry);
    }
}

fn mend(batch: &mut [u8], flags: u8) {
    if flags & 4 != 0 {
        let length = (batch.len() - LENGTH_AT - 4) as i32;
        batch[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    }
    if flags & 8 != 0 {
        let Entry { header, records } = entry(batch);
        batch[CRC_AT..CRC_AT + 4]
            .copy_from_slice(&record_batch::crc(&header, &records).to_be_bytes());
    }
}

fn entry(batch: &[u8]) -> Entry {
    let (header, records) = batch.split_first_chunk().expect("a whole header");
    Entry { header: *header, records: Bytes::copy_from_slice(records) }
}

fn walk(entry: &Entry) {
    let (opened, peak) = peak_of(|| Records::open(entry, OPENED_BYTES_MAX));
    assert!(peak <= OPENED_MEMORY_MAX, "{peak} bytes to open {}", entry.len());
    let Ok(records) = opened else { return };
    let count = records.take_while(Result::is_ok).count();
    assert!(count <= entry.facts().records_count.max(0) as usize, "{count} records");
    let answers = peak_of(|| {
        let first = first_at_or_after(entry, Offset::ZERO, NOW_MS, OPENED_BYTES_MAX);
        (first, with_max_timestamp(entry, Offset::ZERO, OPENED_BYTES_MAX))
    });
    assert!(answers.1 <= OPENED_MEMORY_MAX, "{} bytes to search", answers.1);
}
