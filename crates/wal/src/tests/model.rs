//! What a history is compared with.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidelog_types::{Entry, Offset};

use crate::checksum::crc32c;

pub(super) const PARTITIONS: usize = 3;

/// A small generator: a history is its seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What a history may do besides crashing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// Bits of WAL frames that something vouches for.
    FlipWal,
    /// Bits of segments, indexes and snapshots.
    FlipSegments,
    /// The disk is full now and then.
    DiskFull,
    /// Descriptors are short now and then.
    FewDescriptors,
    /// Nobody waits for syncs.
    PageCache,
}

#[derive(Debug, Clone)]
pub(super) enum Operation {
    Append { sequence: u64, entry: Entry },
    Truncate { sequence: u64, to: Offset },
    Reset { sequence: u64, start: Offset },
    HighWatermark(Offset),
}

/// What was asked of one partition.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) operations: Vec<Operation>,
    pub(super) exists: bool,
    /// Log start offsets that somebody was told are durable.
    pub(super) log_start_told: Arc<Mutex<Offset>>,
}

/// What a partition must be.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) batches: Vec<Entry>,
    pub(super) end: Offset,
    pub(super) high_watermark: Offset,
}

impl Model {
    pub(super) fn expected(&self) -> Expected {
        let mut expected = Expected::default();
        for operation in &self.operations {
            match operation {
                Operation::Append { entry, .. } => {
                    expected.end = entry.facts().next_offset();
                    expected.batches.push(entry.clone());
                }
                Operation::Truncate { to, .. } => {
                    expected.batches.retain(|batch| batch.facts().base_offset < *to);
                    expected.end = *to;
                    expected.high_watermark = expected.high_watermark.min(*to);
                }
                Operation::Reset { start, .. } => {
                    expected.batches.clear();
                    expected.end = *start;
                    expected.high_watermark = *start;
                }
                Operation::HighWatermark(offset) => {
                    expected.high_watermark = expected.high_watermark.max(*offset);
                }
            }
        }
        expected
    }

    pub(super) fn forget_above(&mut self, kept: u64) {
        self.operations.retain(|operation| match operation {
            Operation::Append { sequence, .. }
            | Operation::Truncate { sequence, .. }
            | Operation::Reset { sequence, .. } => *sequence <= kept,
            Operation::HighWatermark(_) => true,
        });
    }

    pub(super) fn has_frame_between(&self, above: u64, through: u64) -> bool {
        self.operations.iter().any(|operation| match operation {
            Operation::Append { sequence, .. }
            | Operation::Truncate { sequence, .. }
            | Operation::Reset { sequence, .. } => *sequence > above && *sequence <= through,
            Operation::HighWatermark(_) => false,
        })
    }
}

/// Stands for the producers of a partition: depends on every batch below the tag.
pub(super) fn state_of(batches: &[Entry], tag: Offset) -> Bytes {
    let below = batches.iter().filter(|batch| batch.facts().base_offset < tag);
    let parts: Vec<&[u8]> = below.map(|batch| &batch.header[..]).collect();
    Bytes::copy_from_slice(&crc32c(&[&parts.concat()]).to_le_bytes())
}
