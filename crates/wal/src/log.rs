//! One partition's log, as the broker sees it.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use tidelog_types::{BatchHeader, Entry, LeaderEpoch, Offset, TopicIdPartition};

use crate::{
    error::{ReadError, StorageError},
    reservations::Reservation,
};

/// Told of what happens to a partition's log. Called on the log's own threads with none of its
/// locks held; must not wait.
pub trait LogObserver: Send + Sync {
    /// Everything below is on disk. Called after the sync that made it so.
    fn on_durable(&self, durable_end: Offset);
    /// The partition's high watermark, for the checkpoint. A partition that is truncated lowers
    /// it *before* it calls [`Log::truncate`] or [`Log::reset`].
    fn high_watermark(&self) -> Offset;
    /// The partition's producers and leader epochs as of the tag; `None` if there are none.
    fn snapshot(&self) -> Option<Snapshot>;
    /// The log start moved or damage was found.
    fn on_storage_changed(&self) {}
}

/// State that can be rebuilt from the log, kept so that it need not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The log end offset that the state includes.
    pub tag: Offset,
    /// The state, in the owner's own format.
    pub bytes: Bytes,
}

/// What a read found.
#[derive(Debug)]
pub enum ReadOutcome {
    /// Whole batches, from memory.
    Entries(Vec<Entry>),
    /// The batches lie on disk: hand this to [`Log::read_cold`].
    Cold(ColdRead),
}

/// A read that needs the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdRead {
    pub(crate) from: Offset,
    pub(crate) upper: Offset,
    pub(crate) max_bytes: usize,
    pub(crate) at_least_one: bool,
}

/// A batch that a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundBatch {
    /// The batch; the caller walks its records.
    pub entry: Entry,
}

/// What recovery kept of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredPartition {
    /// The partition.
    pub id: TopicIdPartition,
    /// First offset still readable.
    pub log_start_offset: Offset,
    /// The offset that the next record gets; everything below is durable.
    pub log_end_offset: Offset,
    /// What was known to be on all in-sync replicas.
    pub high_watermark: Offset,
    /// The newest state that is not above the end.
    pub snapshot: Option<Snapshot>,
    /// Offsets whose bytes are not what was written.
    pub damaged: Vec<Range<Offset>>,
    /// Records may be missing without a trace: no reads, no appends.
    pub suspect: bool,
}

/// Answers a search in the log.
pub type Found = Box<dyn FnOnce(Result<Option<FoundBatch>, ReadError>) + Send>;
/// Answers a cold read with whole batches.
pub type ReadDone = Box<dyn FnOnce(Result<Vec<Bytes>, ReadError>) + Send>;

/// One partition's log. Clones share it.
#[derive(Debug, Clone)]
pub struct Log {
    inner: Arc<LogInner>,
}

#[derive(Debug)]
struct LogInner {
    id: TopicIdPartition,
}

#[allow(unused_variables, reason = "being written")]
impl Log {
    /// The partition.
    #[must_use]
    pub fn id(&self) -> TopicIdPartition {
        self.inner.id
    }

    /// First offset still readable.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        unreachable!("being written")
    }

    /// The offset that the next record gets, durable or not.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        unreachable!("being written")
    }

    /// Everything below is on disk.
    #[must_use]
    pub fn durable_end_offset(&self) -> Offset {
        unreachable!("being written")
    }

    /// Enqueues placed batches: the first one's base offset is the log end offset. Takes its
    /// share of the reservation. [`LogObserver::on_durable`] tells when they are on disk.
    ///
    /// # Errors
    /// [`StorageError::Suspect`], [`StorageError::Closed`], [`StorageError::TooLarge`].
    pub fn append(
        &self,
        leader_epoch: LeaderEpoch,
        entries: Vec<Entry>,
        reservation: &mut Reservation,
    ) -> Result<(), StorageError> {
        unreachable!("being written")
    }

    /// Takes back everything from the batch that holds `to`; returns that batch's base offset.
    ///
    /// # Errors
    /// [`StorageError::Suspect`], [`StorageError::Closed`], [`StorageError::Damaged`] when `to`
    /// lies in a damaged range.
    pub fn truncate(&self, leader_epoch: LeaderEpoch, to: Offset) -> Result<Offset, StorageError> {
        unreachable!("being written")
    }

    /// Takes everything back and goes on at `start`. Ends damage and suspicion.
    ///
    /// # Errors
    /// [`StorageError::Closed`].
    pub fn reset(&self, leader_epoch: LeaderEpoch, start: Offset) -> Result<(), StorageError> {
        unreachable!("being written")
    }

    /// Raises the log start offset; `done` is called when that is durable (KIP-107). Segments
    /// wholly below it are unlinked afterwards.
    pub fn advance_log_start(&self, to: Offset, done: Box<dyn FnOnce() + Send>) {
        unreachable!("being written")
    }

    /// Whole batches from the one that holds `from`, ending at or below `upper`, of at most
    /// `max_bytes` in all, but one however large if `at_least_one`.
    ///
    /// # Errors
    /// As [`ReadError`] says.
    pub fn read(
        &self,
        from: Offset,
        upper: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<ReadOutcome, ReadError> {
        unreachable!("being written")
    }

    /// Has the reader thread do what [`Log::read`] could not do from memory.
    ///
    /// # Errors
    /// [`ReadError::Busy`] when too many wait; `done` is then not called.
    pub fn read_cold(&self, read: ColdRead, done: ReadDone) -> Result<(), ReadError> {
        unreachable!("being written")
    }

    /// Finds the first batch below `upper` whose greatest timestamp is at least `timestamp_ms`.
    pub fn find_by_timestamp(&self, timestamp_ms: i64, upper: Offset, done: Found) {
        unreachable!("being written")
    }

    /// Finds the batch below `upper` with the greatest timestamp, the first of equals.
    pub fn find_max_timestamp(&self, upper: Offset, done: Found) {
        unreachable!("being written")
    }

    /// Headers of all batches from the one that holds `from`. Reads the disk: start-up only.
    ///
    /// # Errors
    /// As [`ReadError`] says.
    pub fn headers_from(&self, from: Offset) -> Result<Vec<BatchHeader>, ReadError> {
        unreachable!("being written")
    }

    /// Bytes of all batches still readable.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        unreachable!("being written")
    }
}
