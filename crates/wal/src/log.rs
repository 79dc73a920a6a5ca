//! One partition's log, as the broker sees it.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, MutexGuard, atomic::Ordering},
};

use bytes::Bytes;
use tidelog_types::{BatchHeader, Entry, LeaderEpoch, Offset, TopicIdPartition};

use crate::{
    chain::BLOCK_BYTES,
    error::{ReadError, StorageError},
    frame::{FrameKind, frame_bytes},
    partition::LogState,
    reader::ColdJob,
    reservations::Reservation,
    rules::{Rule, holds},
    shard::{LogInner, Queue, Queued, Shard},
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
    /// The first offset that may not be compacted yet, for a reader may still be told that it does
    /// not count: the last stable offset.
    fn stable_offset(&self) -> Offset {
        self.high_watermark()
    }
    /// The last offsets of the batches that are remembered of producers. Compaction keeps these
    /// batches, be it without their records: a restart finds the producers there.
    fn producers_last_offsets(&self) -> BTreeSet<Offset> {
        BTreeSet::new()
    }
    /// The log start offset is this on disk, and everything below it is going.
    fn on_log_start(&self, log_start: Offset) {
        let _ = log_start;
    }
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

/// Batches' headers, as [`Log::headers_from`] found them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadersFound {
    /// In order of their offsets.
    pub headers: Vec<BatchHeader>,
    /// Where a batch begins below, compaction may have left a hole in front of it.
    pub holes_below: Offset,
    /// Batches that are damaged were passed over; all of them lie below.
    pub damaged_below: Option<Offset>,
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
pub type Found = Box<dyn ColdReply<Option<FoundBatch>>>;
/// Answers a cold read with whole batches.
pub type ReadDone = Box<dyn ColdReply<Vec<Bytes>>>;

/// Whoever waits for what the disk has.
pub trait ColdReply<T>: Send {
    /// Whether nobody waits any more, so that the disk need not be asked.
    fn is_abandoned(&self) -> bool {
        false
    }

    /// Called once, on the reader thread; not at all where nobody waited any more.
    fn done(self: Box<Self>, outcome: Result<T, ReadError>);
}

impl<T, F: FnOnce(Result<T, ReadError>) + Send> ColdReply<T> for F {
    fn done(self: Box<Self>, outcome: Result<T, ReadError>) {
        self(outcome);
    }
}

/// One partition's log. Clones share it.
#[derive(Debug, Clone)]
pub struct Log {
    inner: Arc<LogInner>,
    shard: Arc<Shard>,
}

impl Log {
    pub(crate) fn new(inner: Arc<LogInner>, shard: Arc<Shard>) -> Log {
        Log { inner, shard }
    }

    /// The partition.
    #[must_use]
    pub fn id(&self) -> TopicIdPartition {
        self.inner.id
    }

    /// First offset still readable.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.inner.state().log_start
    }

    /// The offset that the next record gets, durable or not.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.inner.state().log_end
    }

    /// Everything below is on disk.
    #[must_use]
    pub fn durable_end_offset(&self) -> Offset {
        Offset(self.inner.durable_end.load(Ordering::Acquire))
    }

    /// Enqueues placed batches: the first one's base offset is the log end offset. Takes its
    /// share of the reservation. [`LogObserver::on_durable`] tells when they are on disk.
    ///
    /// # Errors
    /// [`StorageError::Suspect`], [`StorageError::Closed`], [`StorageError::TooLarge`]; nothing
    /// was enqueued then.
    pub fn append(
        &self,
        leader_epoch: LeaderEpoch,
        entries: Vec<Entry>,
        reservation: &mut Reservation,
    ) -> Result<(), StorageError> {
        let bytes_max = self.shard.config.file_bytes - BLOCK_BYTES;
        let too_large = |entry: &&Entry| frame_bytes(entry.len()) as u64 > bytes_max;
        if let Some(entry) = entries.iter().find(too_large) {
            return Err(StorageError::TooLarge { bytes: entry.len() as u64 });
        }
        let mut state = self.inner.state();
        if state.is_suspect {
            return Err(StorageError::Suspect);
        }
        let mut queue = self.open_queue()?;
        for entry in entries {
            let facts = entry.facts();
            assert!(facts.base_offset == state.log_end, "a batch starts at the log's end");
            let mut header = queue.header(FrameKind::Append, self.inner.id, leader_epoch);
            header.base_offset = facts.base_offset;
            header.last_offset = facts.last_offset();
            header.payload_bytes = entry.len() as u32;
            header.previous_sequence = state.note_frame(header.sequence);
            state.append(entry.clone(), header.sequence);
            reservation.take(entry.memory_bytes());
            queue.push(Queued { log: Arc::clone(&self.inner), header, entry: Some(entry) });
        }
        drop(queue);
        drop(state);
        self.shard.bells.writer.ring();
        Ok(())
    }

    /// Takes back everything from the batch that holds `to`; returns that batch's base offset.
    /// Reads the disk when that batch is not in memory.
    ///
    /// # Errors
    /// [`StorageError::Suspect`], [`StorageError::Closed`], [`StorageError::Damaged`] when `to`
    /// lies in a damaged range, [`StorageError::Busy`] when the disk cannot be asked now.
    pub fn truncate(&self, leader_epoch: LeaderEpoch, to: Offset) -> Result<Offset, StorageError> {
        let boundary = self.batch_boundary(to)?;
        let state = self.inner.state();
        if boundary >= state.log_end {
            return Ok(state.log_end);
        }
        if boundary < state.log_start {
            // The batch reaches below the log start: nothing of the log is left.
            let start = state.log_start;
            drop(state);
            self.reset(leader_epoch, start)?;
            return Ok(start);
        }
        self.enqueue_cut(state, FrameKind::Truncate, leader_epoch, boundary, |state, sequence| {
            state.truncate(boundary, sequence)
        })?;
        Ok(boundary)
    }

    /// Takes everything back and goes on at `start`. Ends damage and suspicion.
    ///
    /// # Errors
    /// [`StorageError::Closed`].
    pub fn reset(&self, leader_epoch: LeaderEpoch, start: Offset) -> Result<(), StorageError> {
        let state = self.inner.state();
        let (kind, to) = match holds(Rule::ResetFrame) {
            true => (FrameKind::Reset, start),
            false => (FrameKind::Truncate, state.log_start),
        };
        self.enqueue_cut(state, kind, leader_epoch, to, |state, sequence| {
            state.reset(start, sequence)
        })
    }

    /// Raises the log start offset, at most to the durable end; `done` is called when that is
    /// durable (KIP-107). Segments wholly below it are unlinked afterwards.
    pub fn advance_log_start(&self, to: Offset, done: Box<dyn FnOnce() + Send>) {
        let log_start = {
            let mut state = self.inner.state();
            state.log_start = to.min(state.durable_end).max(state.log_start);
            state.log_start
        };
        self.shard.wait_for_log_start(&self.inner, log_start, done);
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
        if self.inner.is_removed() {
            return Err(ReadError::Closed);
        }
        let state = self.inner.state();
        let upper = readable(&state, from, upper)?;
        if from >= upper {
            return Ok(ReadOutcome::Entries(Vec::new()));
        }
        let metrics = &self.shard.metrics;
        let Some(entries) = state.tail.from(from) else {
            metrics.tail_misses.inc();
            let upper = upper.min(state.spilled_end);
            return Ok(ReadOutcome::Cold(ColdRead { from, upper, max_bytes, at_least_one }));
        };
        metrics.tail_hits.inc();
        let mut read = Vec::new();
        let mut bytes = 0;
        for entry in entries.take_while(|entry| entry.last < upper) {
            bytes += entry.entry.len();
            if bytes > max_bytes && !(read.is_empty() && at_least_one) {
                break;
            }
            read.push(entry.entry.clone());
        }
        Ok(ReadOutcome::Entries(read))
    }

    /// Has the reader thread do what [`Log::read`] could not do from memory.
    ///
    /// # Errors
    /// [`ReadError::Busy`] when too many wait; `done` is then not called.
    pub fn read_cold(&self, read: ColdRead, done: ReadDone) -> Result<(), ReadError> {
        let job = ColdJob::Read { log: Arc::clone(&self.inner), read, done };
        self.shard.queue_cold(job).map_err(|_| ReadError::Busy)
    }

    /// Finds the first batch that ends behind `from`, below `upper`, and whose greatest timestamp
    /// is at least `timestamp_ms`.
    pub fn find_by_timestamp(&self, timestamp_ms: i64, from: Offset, upper: Offset, done: Found) {
        let log = Arc::clone(&self.inner);
        self.search(ColdJob::FindByTimestamp { log, timestamp_ms, from, upper, done });
    }

    /// Finds the batch with the greatest timestamp of those that end behind `from`, below `upper`;
    /// the first of equals.
    pub fn find_max_timestamp(&self, from: Offset, upper: Offset, done: Found) {
        let log = Arc::clone(&self.inner);
        self.search(ColdJob::FindMaxTimestamp { log, from, upper, done });
    }

    /// Headers of all batches from the one that holds `from`. Reads the disk: start-up only.
    ///
    /// # Errors
    /// As [`ReadError`] says, damage excepted.
    pub fn headers_from(&self, from: Offset) -> Result<HeadersFound, ReadError> {
        let (tail_start, tail, holes_below): (Offset, Vec<BatchHeader>, Offset) = {
            let state = self.inner.state();
            let from_tail = state.tail.iter().filter(|entry| entry.last >= from);
            let headers = from_tail.map(|entry| entry.entry.facts()).collect();
            (state.tail.start().unwrap_or(state.log_end), headers, state.holes_below)
        };
        let (mut headers, mut damaged_below) = (Vec::new(), None);
        if from < tail_start
            && let Some(reader) = self.inner.reader()
        {
            for header in reader.headers_from(from) {
                let header = match header {
                    Err(ReadError::Damaged { range }) => {
                        damaged_below = Some(range.end);
                        continue;
                    }
                    header => header?,
                };
                if header.base_offset >= tail_start {
                    break;
                }
                headers.push(header);
            }
        }
        headers.extend(tail);
        Ok(HeadersFound { headers, holes_below, damaged_below })
    }

    /// Bytes of all batches still readable. In the first moments after a start less: the segments
    /// are looked at afterwards.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.inner.segment_bytes.load(Ordering::Acquire) + self.inner.state().tail.unspilled_bytes()
    }

    /// Queues the frame of a truncation or reset and makes the change, which returns the bytes that
    /// left memory, under the same locks.
    fn enqueue_cut(
        &self,
        mut state: MutexGuard<'_, LogState>,
        kind: FrameKind,
        leader_epoch: LeaderEpoch,
        to: Offset,
        change: impl FnOnce(&mut LogState, u64) -> u64,
    ) -> Result<(), StorageError> {
        let mut queue = self.open_queue()?;
        let mut header = queue.header(kind, self.inner.id, leader_epoch);
        (header.base_offset, header.last_offset) = (to, to);
        header.previous_sequence = state.note_frame(header.sequence);
        let bytes = change(&mut state, header.sequence);
        queue.push(Queued { log: Arc::clone(&self.inner), header, entry: None });
        drop(queue);
        self.inner.publish(state.durable_end);
        drop(state);
        self.shard.budget.release(0, bytes);
        self.shard.bells.writer.ring();
        Ok(())
    }

    fn open_queue(&self) -> Result<MutexGuard<'_, Queue>, StorageError> {
        let queue = self.shard.queue();
        match queue.is_closing || self.inner.is_removed() {
            true => Err(StorageError::Closed),
            false => Ok(queue),
        }
    }

    /// Base offset of the batch that holds `to`.
    fn batch_boundary(&self, to: Offset) -> Result<Offset, StorageError> {
        {
            let state = self.inner.state();
            if state.is_suspect {
                return Err(StorageError::Suspect);
            }
            if to >= state.log_end {
                return Ok(state.log_end);
            }
            if state.damage_at(to).is_some() {
                return Err(StorageError::Damaged);
            }
            if let Some(mut entries) = state.tail.from(to) {
                return Ok(entries.next().map_or(to, |entry| entry.base.min(to)));
            }
            if to <= state.log_start {
                return Ok(to);
            }
        }
        let reader = self.inner.reader().ok_or(StorageError::Damaged)?;
        reader.batch_boundary(to).map_err(|error| match error {
            ReadError::TooManyOpenFiles | ReadError::Busy => StorageError::Busy,
            ReadError::Closed => StorageError::Closed,
            ReadError::Suspect => StorageError::Suspect,
            ReadError::Damaged { .. }
            | ReadError::OffsetOutOfRange { .. }
            | ReadError::Io { .. } => StorageError::Damaged,
        })
    }

    fn search(&self, job: ColdJob) {
        if let Err(job) = self.shard.queue_cold(job) {
            job.refuse(ReadError::Busy);
        }
    }
}

/// Checks that `from` can be read, and how far from there.
fn readable(state: &LogState, from: Offset, upper: Offset) -> Result<Offset, ReadError> {
    if state.is_suspect {
        return Err(ReadError::Suspect);
    }
    if from < state.log_start || from > state.log_end {
        return Err(ReadError::OffsetOutOfRange {
            offset: from,
            log_start_offset: state.log_start,
            log_end_offset: state.log_end,
        });
    }
    if let Some(range) = state.damage_at(from) {
        return Err(ReadError::Damaged { range });
    }
    Ok(upper.min(state.log_end).min(state.damage_above(from).unwrap_or(state.log_end)))
}
