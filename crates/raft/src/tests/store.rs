//! A store with its log and no Raft above it: the test says what is appended, and when it is
//! written, synced, crashed and read.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use crossbeam::channel::bounded;
use raft::{
    Error, GetEntriesContext, Storage as _, StorageError,
    eraftpb::{Entry, HardState, Snapshot},
};
use tidelog_wal::{
    env::{FileSystem, mem::MemFileSystem},
    error::Fatal,
};

use crate::{
    NoTransport, RaftConfig, RaftError,
    cold_reads::Answer,
    log::{Request, SnapshotMeta, Step},
    start::SteppedNode,
    storage::RaftStorage,
};

/// A store over a machine in memory, with small files and a small window.
pub(super) struct StoreTest {
    pub(super) fs: MemFileSystem,
    pub(super) config: RaftConfig,
    pub(super) parts: SteppedNode,
    number: u64,
}

/// A machine with a data directory, which is somebody else's to create durably.
pub(super) fn machine() -> MemFileSystem {
    let fs = MemFileSystem::new();
    fs.create_dir_all(Path::new("/data")).expect("a directory");
    fs.sync_dir(Path::new("/")).expect("a disk that works");
    fs
}

/// Small bounds, so that a short history meets all of them. Three voters, so that this one does
/// not stand for election.
pub(super) fn small_config() -> RaftConfig {
    let mut config = RaftConfig::sole_voter(1, PathBuf::from("/data/raft/group-0"));
    config.voters = vec![1, 2, 3];
    config.settings.segment_bytes = 64 << 10;
    config.settings.entries_memory_max = 8;
    config.settings.cold_cache_bytes = 8 << 10;
    config.settings.tail_entries = 20;
    config
}

pub(super) fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit, ..HardState::default() }
}

impl StoreTest {
    pub(super) fn new() -> StoreTest {
        StoreTest::open(machine(), small_config()).expect("an empty machine")
    }

    pub(super) fn open(fs: MemFileSystem, config: RaftConfig) -> Result<StoreTest, RaftError> {
        let parts = open_parts(Arc::new(fs.clone()), &config)?;
        Ok(StoreTest { fs, config, parts, number: 0 })
    }

    /// A store over parts that were opened by hand.
    pub(super) fn over(fs: MemFileSystem, parts: SteppedNode) -> StoreTest {
        StoreTest { fs, config: small_config(), parts, number: 0 }
    }

    /// Opens again what the disk holds.
    pub(super) fn reopen(self) -> Result<StoreTest, RaftError> {
        let StoreTest { fs, config, parts, .. } = self;
        drop(parts);
        fs.kill();
        StoreTest::open(fs, config)
    }

    pub(super) fn store(&mut self) -> &mut RaftStorage {
        self.parts.node.raw.mut_store()
    }

    /// As the node does for a Ready: visible at once, queued for the disk.
    pub(super) fn persist(&mut self, entries: &[Entry], hard_state: Option<HardState>) -> u64 {
        self.store().append(entries);
        if let Some(hard_state) = &hard_state {
            self.store().set_hard_state(hard_state.clone());
        }
        self.queue(entries.to_vec(), hard_state, None)
    }

    /// As the node does for a Ready with a leader's snapshot.
    pub(super) fn install(&mut self, snapshot: &Snapshot, hard_state: HardState) -> u64 {
        self.store().install(snapshot);
        self.store().set_hard_state(hard_state.clone());
        self.queue(Vec::new(), Some(hard_state), Some(snapshot.clone()))
    }

    /// As the node does when a snapshot of its own is durable.
    pub(super) fn compact(&mut self, meta: &SnapshotMeta, point: u64, data: &[u8]) {
        let written = crate::snapshot::write(&self.parts.worker.files, meta, data);
        assert!(written.expect("a disk that works"), "a disk with space");
        self.compact_written(meta, point);
    }

    /// The same, where the snapshot's file is there already.
    pub(super) fn compact_written(&mut self, meta: &SnapshotMeta, point: u64) {
        self.store().set_snapshot(meta.clone());
        let term = self.store().truncate_prefix(point);
        let request = Request::Compact { snapshot: meta.clone(), truncate: (point, term) };
        self.parts.node.links.requests.try_send(request).expect("room in the queue");
    }

    /// Lets the log writer write and sync all that waits.
    pub(super) fn sync(&mut self) -> Result<(), Fatal> {
        while self.parts.writer.step()? == Step::Worked {}
        Ok(())
    }

    /// Entries as raft-rs gets them that can wait.
    pub(super) fn read(
        &mut self,
        low: u64,
        high: u64,
        max: Option<u64>,
    ) -> raft::Result<Vec<Entry>> {
        for _ in 0..4 {
            let context = GetEntriesContext::empty(true);
            match self.store().entries(low, high, max, context) {
                Err(Error::Store(StorageError::LogTemporarilyUnavailable)) => self.work(),
                answer => return answer,
            }
        }
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    /// Every entry of the log.
    pub(super) fn read_all(&mut self) -> Vec<Entry> {
        let (truncated, last) = self.store().bounds();
        let mut entries = Vec::new();
        while truncated + (entries.len() as u64) < last {
            let low = truncated + entries.len() as u64 + 1;
            entries.extend(self.read(low, last + 1, Some(4096)).expect("entries"));
        }
        entries
    }

    /// Lets the cold worker do what it was asked for, and the store take the answers.
    pub(super) fn work(&mut self) {
        for task in self.store().take_tasks() {
            self.parts.worker.work(task).expect("a disk that works");
        }
        self.answers();
    }

    /// The store takes the answers there are.
    pub(super) fn answers(&mut self) {
        let answers: Vec<Answer> = self.parts.node.links.answers.try_iter().collect();
        for answer in answers {
            self.store().on_answer(answer);
        }
    }

    fn queue(
        &mut self,
        entries: Vec<Entry>,
        hard_state: Option<HardState>,
        snapshot: Option<Snapshot>,
    ) -> u64 {
        self.number += 1;
        let request = Request::Ready { number: self.number, entries, hard_state, snapshot };
        self.parts.node.links.requests.try_send(request).expect("room in the queue");
        self.number
    }
}

pub(super) fn open_parts(
    fs: Arc<dyn FileSystem>,
    config: &RaftConfig,
) -> Result<SteppedNode, RaftError> {
    let (events, _) = bounded(1);
    let metrics = super::metrics();
    SteppedNode::open(config.clone(), fs, Box::new(NoTransport), events, metrics, Instant::now())
}

/// A snapshot as a leader would send it.
pub(super) fn snapshot(meta: &SnapshotMeta, data: &[u8]) -> Snapshot {
    let mut snapshot = Snapshot { data: data.to_vec().into(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (meta.index, meta.term);
    metadata.set_conf_state(meta.conf_state.clone());
    snapshot
}
