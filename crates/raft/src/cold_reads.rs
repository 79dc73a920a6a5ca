//! Entries older than memory: kept decoded for a while, and read from the log on a thread of its
//! own, so that the Raft thread never waits for a disk.
//!
//! The thread has the other slow work of the log too: writing and reading snapshot files, and
//! zeroing the next log file.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc, time::Instant};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender};
use lru::LruCache;
use raft::{
    GetEntriesContext,
    eraftpb::{Entry, Snapshot},
};
use tidelog_wal::{WalError, error::Fatal};
use tracing::error;

use crate::{
    error::RaftError,
    handle::Shared,
    log::{ColdError, DecodedBlock, LogFiles, SnapshotMeta},
    metrics::RaftMetrics,
    snapshot,
    terms::TermIndex,
};

/// Most reads that wait for the thread at once; the next ones are asked for again by a heartbeat.
pub(crate) const READS_MAX: usize = 16;
/// Most tasks that wait for the thread: reads, and one of each other kind.
pub(crate) const TASKS_MAX: usize = READS_MAX + 4;
/// Most answers that wait for the Raft thread: one a task, and what was read ahead.
pub(crate) const ANSWERS_MAX: usize = TASKS_MAX * 2;
/// Most bytes of the log that are read beyond what was asked for.
const READ_AHEAD_BYTES_MAX: u64 = 1 << 20;
/// Most decoded blocks, however small.
const BLOCKS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");
/// Most callers that wait for the entries from one index on; the rest ask again.
const CALLERS_MAX: usize = 8;

/// Decoded blocks of old entries, and the reads that are under way.
#[derive(Debug)]
pub(crate) struct ColdEntries {
    blocks: LruCache<u64, DecodedBlock>,
    /// End of each block by its first index, to find the block that holds an index.
    ends: BTreeMap<u64, u64>,
    bytes: u64,
    bytes_max: u64,
    reads: BTreeMap<u64, Read>,
}

/// A read under way, by the lowest index it asks for.
#[derive(Debug)]
struct Read {
    begun: Instant,
    callers: Vec<GetEntriesContext>,
}

impl ColdEntries {
    pub(crate) fn new(bytes_max: u64) -> ColdEntries {
        ColdEntries {
            blocks: LruCache::new(BLOCKS_MAX),
            ends: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            reads: BTreeMap::new(),
        }
    }

    /// Bytes of decoded blocks.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Entries of [low, high) that are decoded, without gaps from `low` on, within `max` encoded
    /// bytes, and how many of these are left. Empty where `low` is not decoded.
    pub(crate) fn collect(&mut self, low: u64, high: u64, max: u64) -> (Vec<Entry>, u64) {
        let mut entries = Vec::new();
        let (mut next, mut room) = (low, max);
        while next < high {
            let Some(first) = self.holder(next) else { break };
            let Some(block) = self.blocks.get(&first) else { break };
            let Some(left) = block.copy(next, high, room, &mut entries) else {
                return (entries, 0);
            };
            (next, room) = (block.end(), left);
        }
        (entries, room)
    }

    /// Notes who waits for the entries from `low` on. `true` where a read is to be begun.
    pub(crate) fn wait(&mut self, low: u64, caller: GetEntriesContext) -> bool {
        if let Some(read) = self.reads.get_mut(&low) {
            if read.callers.len() < CALLERS_MAX {
                read.callers.push(caller);
            }
            return false;
        }
        if self.reads.len() >= READS_MAX {
            return false;
        }
        self.reads.insert(low, Read { begun: Instant::now(), callers: vec![caller] });
        true
    }

    /// Ends a read: how long it took, and who waits for it.
    pub(crate) fn end_wait(&mut self, low: u64) -> Option<(Instant, Vec<GetEntriesContext>)> {
        self.reads.remove(&low).map(|read| (read.begun, read.callers))
    }

    /// Nobody waits any more: this node does not lead.
    pub(crate) fn forget_waits(&mut self) {
        self.reads.clear();
    }

    /// Keeps blocks, the first one as the most recently used. What the log does not have (any
    /// more) is dropped: while they were read, the log may have been cut or compacted.
    pub(crate) fn install(&mut self, blocks: Vec<DecodedBlock>, terms: &TermIndex) {
        for block in blocks.into_iter().rev().filter_map(|block| block.still_in(terms)) {
            self.insert(block);
        }
        self.evict();
    }

    /// Keeps blocks that nobody asked for yet, in the place of all but the one used last.
    pub(crate) fn install_ahead(&mut self, blocks: Vec<DecodedBlock>, terms: &TermIndex) {
        let used_last = self.blocks.iter().next().map(|(first, _)| *first);
        for block in blocks.into_iter().rev().filter_map(|block| block.still_in(terms)) {
            self.insert(block);
        }
        if let Some(first) = used_last {
            self.blocks.promote(&first);
        }
        self.evict();
    }

    /// Forgets every entry from `index` on.
    pub(crate) fn cut(&mut self, index: u64) {
        let stale: Vec<u64> =
            self.ends.iter().filter(|(_, end)| **end > index).map(|(first, _)| *first).collect();
        stale.into_iter().for_each(|first| self.remove(first));
    }

    /// Forgets every block with entries up to `index`.
    pub(crate) fn drop_through(&mut self, index: u64) {
        let stale: Vec<u64> = self.ends.range(..=index).map(|(first, _)| *first).collect();
        stale.into_iter().for_each(|first| self.remove(first));
    }

    /// The first index of the block that holds `index`.
    fn holder(&self, index: u64) -> Option<u64> {
        let (first, end) = self.ends.range(..=index).next_back()?;
        (*end > index).then_some(*first)
    }

    fn insert(&mut self, block: DecodedBlock) {
        let (first, end) = (block.first(), block.end());
        let overlapping: Vec<u64> =
            self.ends.range(..end).filter(|(_, e)| **e > first).map(|(f, _)| *f).collect();
        overlapping.into_iter().for_each(|first| self.remove(first));
        if self.blocks.len() == BLOCKS_MAX.get() {
            self.evict_one();
        }
        self.ends.insert(first, end);
        self.bytes += block.bytes;
        self.blocks.put(first, block);
    }

    /// The block used last stays, however large: somebody asked for it.
    fn evict(&mut self) {
        while self.bytes > self.bytes_max && self.blocks.len() > 1 {
            self.evict_one();
        }
    }

    fn evict_one(&mut self) {
        if let Some(first) = self.blocks.peek_lru().map(|(first, _)| *first) {
            self.remove(first);
        }
    }

    fn remove(&mut self, first: u64) {
        let ended = self.ends.remove(&first);
        assert!(ended.is_some(), "every block is in both maps");
        if let Some(block) = self.blocks.pop(&first) {
            self.bytes -= block.bytes;
        }
    }
}

/// What the Raft thread and the log writer ask of the thread.
#[derive(Debug)]
pub(crate) enum Task {
    /// Entries of [low, high), or as many as `bytes_min` of the log hold.
    Read { low: u64, high: u64, bytes_min: u64 },
    /// A snapshot of the own state machine.
    WriteSnapshot { meta: SnapshotMeta, data: Bytes },
    /// The contents of the newest snapshot, to be sent.
    LoadSnapshot { meta: SnapshotMeta },
    /// One more zeroed file.
    FillFile,
}

/// What the thread answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To [`Task::Read`].
    Read { low: u64, blocks: Vec<DecodedBlock>, damaged_through: Option<u64> },
    /// Blocks behind the ones that were asked for.
    ReadAhead { blocks: Vec<DecodedBlock> },
    /// To [`Task::WriteSnapshot`]; `false` where the disk is full.
    SnapshotWritten { meta: SnapshotMeta, is_durable: bool },
    /// To [`Task::LoadSnapshot`]; `None` where it is no longer there.
    SnapshotLoaded { meta: SnapshotMeta, snapshot: Option<Snapshot> },
}

/// The thread's own things.
#[derive(Debug)]
pub(crate) struct ColdWorker {
    pub(crate) files: LogFiles,
    pub(crate) tasks: Receiver<Task>,
    pub(crate) answers: Sender<Answer>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: RaftMetrics,
    pub(crate) read_ahead_bytes: u64,
}

/// Bytes to read ahead: little beside what is kept decoded, or it would drive out what was asked
/// for.
pub(crate) fn read_ahead_bytes(cold_cache_bytes: u64) -> u64 {
    (cold_cache_bytes / 4).min(READ_AHEAD_BYTES_MAX)
}

impl ColdWorker {
    /// Does one task, if one waits; `false` where none does.
    ///
    /// # Errors
    /// A failed sync ends the process.
    pub(crate) fn step(&self) -> Result<bool, Fatal> {
        let Ok(task) = self.tasks.try_recv() else { return Ok(false) };
        self.work(task)?;
        Ok(true)
    }

    /// Does a task.
    ///
    /// # Errors
    /// As [`ColdWorker::step`].
    pub(crate) fn work(&self, task: Task) -> Result<(), Fatal> {
        match task {
            Task::Read { low, high, bytes_min } => self.read(low, high, bytes_min),
            Task::WriteSnapshot { meta, data } => {
                let is_durable = snapshot::write(&self.files, &meta, &data)?;
                if is_durable {
                    self.metrics.snapshots_taken.inc();
                }
                self.answer(Answer::SnapshotWritten { meta, is_durable });
            }
            Task::LoadSnapshot { meta } => {
                let read = snapshot::read(&self.files, &meta);
                if let Err(error @ RaftError::Damaged { .. }) = &read {
                    error!(%error, "cannot send a snapshot");
                }
                self.answer(Answer::SnapshotLoaded { meta, snapshot: read.ok() });
            }
            Task::FillFile => match self.files.pool.fill_one() {
                Ok(_) => {}
                Err(WalError::Fatal(fatal)) => return Err(fatal),
                Err(error) => error!(%error, "cannot prepare the next file of the Raft log"),
            },
        }
        Ok(())
    }

    fn read(&self, low: u64, high: u64, bytes_min: u64) {
        let (blocks, damaged_through) = match self.files.read(low, high, bytes_min) {
            Ok(blocks) => (blocks, None),
            Err(ColdError::Gone) => (Vec::new(), None),
            Err(error @ ColdError::Io(_)) => {
                error!(%error, low, "cannot read old Raft entries");
                (Vec::new(), None)
            }
            Err(ref error @ ColdError::Damaged { ref block, .. }) => {
                error!(%error, "old Raft entries are damaged; followers get a snapshot instead");
                (Vec::new(), Some(block.end - 1))
            }
        };
        let next = blocks.last().map(DecodedBlock::end);
        self.answer(Answer::Read { low, blocks, damaged_through });
        if let Some(next) = next
            && self.read_ahead_bytes > 0
            && self.answers.len() < TASKS_MAX
            && let Ok(blocks) = self.files.read(next, u64::MAX, self.read_ahead_bytes)
        {
            self.answer(Answer::ReadAhead { blocks });
        }
    }

    /// The queue has room for every task's answer, so this does not wait; the Raft thread may be
    /// gone.
    fn answer(&self, answer: Answer) {
        let _ = self.answers.try_send(answer);
        self.shared.wake();
    }
}
