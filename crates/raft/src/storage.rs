//! What raft-rs reads: recent entries from memory, older ones from decoded blocks or, later, from
//! the log on disk.
//!
//! * `first_index` is the first index on disk, never the first in memory.
//! * Memory covers everything above the applied index, so whoever cannot wait finds it there.
//! * An answer is never empty and never `Unavailable`; a prefix is legal.
//! * New entries are readable from the moment they are appended, before they are durable: raft-rs
//!   asks for their terms when it learns that they are.

use std::{cell::RefCell, time::Instant};

use raft::{
    Error, GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
    util::limit_size,
};
use tracing::error;

use crate::{
    cold_reads::{Answer, ColdEntries, Task},
    entry_cache::EntryCache,
    log::{LogFiles, LogState, SnapshotMeta},
    metrics::RaftMetrics,
    terms::TermIndex,
};

/// Both tiers, as one thread owns them.
#[derive(Debug)]
pub(crate) struct RaftStorage {
    // raft-rs reads through a shared reference, and a read may begin a fetch.
    tiers: RefCell<Tiers>,
    files: LogFiles,
    metrics: RaftMetrics,
}

#[derive(Debug)]
struct Tiers {
    hard_state: HardState,
    conf_state: ConfState,
    terms: TermIndex,
    memory: EntryCache,
    cold: ColdEntries,
    snapshot: SnapshotMeta,
    /// The newest snapshot with its contents, while somebody needs it.
    loaded: Option<Snapshot>,
    is_loading: bool,
    /// A snapshot was asked for that includes at least this index, and there is none yet.
    wanted_snapshot: Option<u64>,
    /// What the cold worker is to be asked.
    tasks: Vec<Task>,
    /// Entries up to here do not read any more; whoever needs them needs a snapshot.
    damaged_through: u64,
}

/// What a start finds.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: SnapshotMeta,
    pub(crate) terms: TermIndex,
    pub(crate) memory: EntryCache,
    pub(crate) cold_bytes_max: u64,
}

impl Found {
    /// The same for the log writer, which begins every file with it.
    pub(crate) fn log_state(&self) -> LogState {
        let last = self.terms.last();
        LogState {
            hard_state: self.hard_state.clone(),
            snapshot: self.snapshot.clone(),
            truncated: self.terms.truncated(),
            last: (last, self.terms.term(last).unwrap_or_default()),
        }
    }
}

impl RaftStorage {
    /// The store over what a start found. The commit index is put where the log can bear it: one
    /// that was written alone may be lost, and one that was written first may be ahead.
    pub(crate) fn new(found: Found, files: LogFiles, metrics: RaftMetrics) -> RaftStorage {
        let Found { mut hard_state, snapshot, terms, mut memory, cold_bytes_max } = found;
        memory.evict(snapshot.index);
        hard_state.commit = hard_state.commit.max(snapshot.index).min(terms.last());
        assert!(memory.first() <= snapshot.index + 1, "memory begins above what is applied");
        assert!(terms.truncated().0 <= snapshot.index, "the log begins above its snapshot");
        let tiers = Tiers {
            hard_state,
            conf_state: snapshot.conf_state.clone(),
            terms,
            memory,
            cold: ColdEntries::new(cold_bytes_max),
            snapshot,
            loaded: None,
            is_loading: false,
            wanted_snapshot: None,
            tasks: Vec::new(),
            damaged_through: 0,
        };
        RaftStorage { tiers: RefCell::new(tiers), files, metrics }
    }

    /// Adds entries, cutting everything that was there from the first one's index on.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let tiers = self.tiers.get_mut();
        tiers.cold.cut(first.index);
        entries.iter().for_each(|entry| tiers.terms.append(entry.index, entry.term));
        tiers.memory.append(entries);
    }

    /// Term, vote and commit index as they will be on disk.
    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.tiers.get_mut().hard_state = hard_state;
    }

    /// Everything up to `applied` is applied: older entries may leave memory.
    pub(crate) fn evict(&mut self, applied: u64) {
        let tiers = self.tiers.get_mut();
        tiers.memory.evict(applied);
        self.metrics.memory_bytes.set(tiers.memory.bytes() as i64);
        self.metrics.memory_entries.set(tiers.memory.len() as i64);
        self.metrics.cold_cache_bytes.set(tiers.cold.bytes() as i64);
    }

    /// A leader's snapshot replaces the log.
    pub(crate) fn install(&mut self, snapshot: &Snapshot) {
        let tiers = self.tiers.get_mut();
        let meta = SnapshotMeta::of(snapshot);
        tiers.terms = TermIndex::new(meta.index, meta.term);
        tiers.memory.reset(meta.index);
        tiers.cold.cut(0);
        tiers.conf_state = meta.conf_state.clone();
        tiers.loaded = None;
        tiers.snapshot = meta;
    }

    /// A snapshot of the own state machine is durable.
    pub(crate) fn set_snapshot(&mut self, meta: SnapshotMeta) {
        let tiers = self.tiers.get_mut();
        assert!(meta.index >= tiers.snapshot.index, "snapshots only get newer");
        tiers.loaded = None;
        tiers.snapshot = meta;
        tiers.wanted_snapshot = tiers.wanted_snapshot.filter(|i| *i > tiers.snapshot.index);
    }

    /// Forgets everything up to `index`; returns the term there, for the log.
    pub(crate) fn truncate_prefix(&mut self, index: u64) -> u64 {
        let tiers = self.tiers.get_mut();
        assert!(index <= tiers.snapshot.index, "what no snapshot includes must stay");
        tiers.terms.truncate_prefix(index);
        tiers.memory.drop_through(index);
        tiers.cold.drop_through(index);
        tiers.terms.truncated().1
    }

    /// Takes over what the cold worker read; returns who waited for it.
    pub(crate) fn on_answer(&mut self, answer: Answer) -> Vec<GetEntriesContext> {
        let tiers = self.tiers.get_mut();
        match answer {
            Answer::Read { low, blocks, damaged_through } => {
                tiers.damaged_through =
                    tiers.damaged_through.max(damaged_through.unwrap_or_default());
                tiers.cold.install(blocks, &tiers.terms);
                let Some((begun, callers)) = tiers.cold.end_wait(low) else { return Vec::new() };
                self.metrics.fallback_disk.inc();
                self.metrics.fallback_seconds.observe(begun.elapsed().as_secs_f64());
                callers
            }
            Answer::ReadAhead { blocks } => {
                tiers.cold.install_ahead(blocks, &tiers.terms);
                Vec::new()
            }
            Answer::SnapshotLoaded { meta, snapshot } => {
                tiers.is_loading = false;
                tiers.loaded = snapshot.filter(|_| meta == tiers.snapshot);
                Vec::new()
            }
            Answer::SnapshotWritten { .. } => unreachable!("the node handles it"),
        }
    }

    /// Nobody waits for entries any more.
    pub(crate) fn forget_waits(&mut self) {
        self.tiers.get_mut().cold.forget_waits();
    }

    /// Nobody needs the snapshot's contents any more.
    pub(crate) fn unload_snapshot(&mut self) {
        self.tiers.get_mut().loaded = None;
    }

    /// What the cold worker is to be asked, since the last call.
    pub(crate) fn take_tasks(&mut self) -> Vec<Task> {
        std::mem::take(&mut self.tiers.get_mut().tasks)
    }

    /// The index that a snapshot is to include, where one was asked for in vain.
    pub(crate) fn take_wanted_snapshot(&mut self) -> Option<u64> {
        self.tiers.get_mut().wanted_snapshot.take()
    }

    /// The newest durable snapshot.
    pub(crate) fn newest_snapshot(&self) -> SnapshotMeta {
        self.tiers.borrow().snapshot.clone()
    }

    /// Bytes of entries above `applied`.
    pub(crate) fn bytes_above(&self, applied: u64) -> u64 {
        self.tiers.borrow().memory.bytes_above(applied)
    }

    /// Bytes of entries in memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.tiers.borrow().memory.bytes()
    }

    /// Entries up to here are on disk and unreadable.
    pub(crate) fn damaged_through(&self) -> u64 {
        self.tiers.borrow().damaged_through
    }

    /// Where the log begins and ends: the truncated index and the last one.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        let tiers = self.tiers.borrow();
        (tiers.terms.truncated().0, tiers.terms.last())
    }

    /// Decoded blocks, and from their end on memory.
    fn read_decoded(tiers: &mut Tiers, low: u64, high: u64, max: Option<u64>) -> Vec<Entry> {
        let (mut entries, room) = tiers.cold.collect(low, high, max.unwrap_or(u64::MAX));
        let Some(next) = entries.last().map(|entry| entry.index + 1) else { return entries };
        if next < high && next >= tiers.memory.first() && room > 0 {
            entries.extend(tiers.memory.slice(next, high, Some(room)).unwrap_or_default());
            // Memory's first entry comes whether it fits or not.
            limit_size(&mut entries, max);
        }
        entries
    }

    /// For a caller that cannot wait. Memory covers all that raft-rs asks for this way, so whoever
    /// comes here broke a rule; a slow answer is better than a panic, and it is logged.
    fn read_now(&self, low: u64, high: u64, max: Option<u64>) -> raft::Result<Vec<Entry>> {
        error!(low, high, "Raft entries were read from disk by a caller that cannot wait");
        let begun = Instant::now();
        let blocks = self
            .files
            .read(low, high, max.unwrap_or(u64::MAX))
            .map_err(|error| Error::Store(StorageError::Other(Box::new(error))))?;
        let mut tiers = self.tiers.borrow_mut();
        let tiers = &mut *tiers;
        tiers.cold.install(blocks, &tiers.terms);
        self.metrics.fallback_disk.inc();
        self.metrics.fallback_seconds.observe(begun.elapsed().as_secs_f64());
        let entries = RaftStorage::read_decoded(tiers, low, high, max);
        assert!(!entries.is_empty(), "an empty answer would hide entries");
        Ok(entries)
    }
}

impl Storage for RaftStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let tiers = self.tiers.borrow();
        Ok(RaftState::new(tiers.hard_state.clone(), tiers.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let max = max_size.into();
        let mut tiers = self.tiers.borrow_mut();
        if low < tiers.terms.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= tiers.terms.last() + 1, "entries beyond the end of the log");
        if low >= high {
            return Ok(Vec::new());
        }
        if let Some(entries) = tiers.memory.slice(low, high, max) {
            self.metrics.entries_hit.inc();
            return Ok(entries);
        }
        let begun = Instant::now();
        let entries = RaftStorage::read_decoded(&mut tiers, low, high, max);
        if !entries.is_empty() {
            self.metrics.fallback_cache.inc();
            self.metrics.fallback_seconds.observe(begun.elapsed().as_secs_f64());
            return Ok(entries);
        }
        if !context.can_async() {
            drop(tiers);
            return self.read_now(low, high, max);
        }
        tiers.ask_for(low, high, max, context);
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let tiers = self.tiers.borrow();
        match tiers.terms.term(index) {
            Some(term) => Ok(term),
            None if index < tiers.terms.first() => Err(Error::Store(StorageError::Compacted)),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.tiers.borrow().terms.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.tiers.borrow().terms.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let mut tiers = self.tiers.borrow_mut();
        let needed = request_index.max(tiers.terms.truncated().0).max(1);
        if tiers.snapshot.index < needed {
            tiers.wanted_snapshot = tiers.wanted_snapshot.max(Some(needed));
        } else if let Some(snapshot) = &tiers.loaded {
            return Ok(snapshot.clone());
        } else if !tiers.is_loading {
            tiers.is_loading = true;
            let meta = tiers.snapshot.clone();
            tiers.tasks.push(Task::LoadSnapshot { meta });
        }
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

impl Tiers {
    /// Begins to read entries for a caller that will be told, unless they cannot be read.
    fn ask_for(&mut self, low: u64, high: u64, max: Option<u64>, caller: GetEntriesContext) {
        if low <= self.damaged_through {
            self.wanted_snapshot = self.wanted_snapshot.max(Some(self.damaged_through));
            return;
        }
        if self.cold.wait(low, caller) {
            self.tasks.push(Task::Read { low, high, bytes_min: max.unwrap_or(u64::MAX) });
        }
    }
}
