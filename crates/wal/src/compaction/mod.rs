//! Log compaction: of each key the newest record stays, as Kafka's log cleaner does it.
//!
//! Architecture invariants:
//! * Offsets never change, and no record moves in front of another.
//! * The last segment is never touched, nor anything that may not be told to everybody yet.
//! * What cannot be understood stays as it is, and with it every tombstone behind it.
//!
//! `plan`, `keys`, `retain` and `throttle` decide; `cleaner` reads and writes in steps of
//! its thread; the spill thread, which owns segments, puts the result in its place.

pub(crate) mod cleaner;
mod keys;
mod pass;
mod plan;
mod retain;
mod throttle;

pub(crate) use self::plan::Piece;
use bytes::Bytes;
use tidelog_types::Entry;

/// What a topic asks of compaction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compaction {
    /// Part of the log that must be dirty before it is compacted again.
    /// `min.cleanable.dirty.ratio`
    pub min_dirty_ratio: f64,
    /// Milliseconds before a record may be compacted. `min.compaction.lag.ms`
    pub min_lag_ms: i64,
    /// Milliseconds after which it must have been. `max.compaction.lag.ms`
    pub max_lag_ms: i64,
    /// Milliseconds that a tombstone outlives what it deletes. `delete.retention.ms`
    pub delete_retention_ms: i64,
}

/// What compaction may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CleanerConfig {
    /// Bytes for the keys of one pass over a log. `log.cleaner.dedupe.buffer.size`
    pub dedupe_bytes: u64,
    /// Bytes read and written in a second. `log.cleaner.io.max.bytes.per.second`
    pub io_bytes_per_second: f64,
}

impl Default for CleanerConfig {
    fn default() -> CleanerConfig {
        CleanerConfig { dedupe_bytes: 128 << 20, io_bytes_per_second: f64::MAX }
    }
}

/// Understands the records of a batch, which to the log are bytes.
pub trait BatchRewriter: Send + Sync {
    /// Opens a batch's records into `opened`, whatever it held before. False where they take too
    /// much room or are not what the header says: the batch stays as it is then.
    fn open(&self, batch: &Entry, opened: &mut OpenedBatch) -> bool;

    /// The batch with only the records whose place in `keeps` says so, and the time until which
    /// its tombstones stay, if that is to be set. Offsets, sequences and codec are what they were.
    fn rewrite(
        &self,
        batch: &Entry,
        opened: &OpenedBatch,
        keeps: &[bool],
        delete_horizon_ms: Option<i64>,
    ) -> Entry;

    /// The batch without a record.
    fn empty(&self, batch: &Entry) -> Entry;
}

/// A batch's records, open.
#[derive(Debug, Default)]
pub struct OpenedBatch {
    /// All of them, without compression.
    pub bytes: Bytes,
    /// Where each lies in them.
    pub records: Vec<OpenedRecord>,
}

/// One record of an opened batch. Positions are in [`OpenedBatch::bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedRecord {
    /// Its offset less the batch's base offset.
    pub offset_delta: i32,
    /// Where its bytes start and end.
    pub bytes: (u32, u32),
    /// Where its key starts and ends, if it has one.
    pub key: Option<(u32, u32)>,
    /// Whether its value is not null.
    pub has_value: bool,
    /// In milliseconds since 1970.
    pub timestamp_ms: i64,
}

impl OpenedBatch {
    /// A record's key.
    #[must_use]
    pub fn key(&self, record: &OpenedRecord) -> Option<&[u8]> {
        record.key.map(|(start, end)| &self.bytes[start as usize..end as usize])
    }
}
