//! Reads of 1 and of 1,000 Raft entries: from memory, from decoded blocks, and from the log's
//! files, in the page cache and out of it.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam::channel::{Receiver, bounded};
use prometheus::Registry;
use tempfile::TempDir;
use tidelog_raft::{
    Event, NoTransport, RaftConfig, RaftMetrics, Role, Step, SteppedNode, eraftpb::Entry,
};
use tidelog_wal::env::{Caching, FileSystem as _, Open, std::StdFileSystem};

/// Entries of the log; the last 10,000 of them are in memory.
const ENTRIES: u64 = 60_000;
const DATA_BYTES: usize = 200;
/// What raft-rs allows one message.
const MESSAGE_BYTES: u64 = 256 << 10;
/// Cold reads that the percentiles are over.
const COLD_READS: u64 = 1000;

struct Store {
    node: SteppedNode,
    events: Receiver<Event>,
    directory: TempDir,
}

impl Store {
    /// A sole voter with a full log. Decoded blocks are kept in `cold_cache_bytes`.
    fn fill(cold_cache_bytes: u64) -> Store {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = RaftConfig::sole_voter(1, directory.path().join("group-0"));
        config.settings.cold_cache_bytes = cold_cache_bytes;
        config.settings.snapshot_entries = u64::from(u32::MAX);
        let (sender, events) = bounded(4096);
        let metrics = RaftMetrics::register(&Registry::new()).expect("a registry of its own");
        let (fs, transport) = (Arc::new(StdFileSystem), Box::new(NoTransport));
        let node = SteppedNode::open(config, fs, transport, sender, metrics, Instant::now());
        let mut store = Store { node: node.expect("a node"), events, directory };
        while store.node.handle().status().role != Role::Leader || store.applied() == 0 {
            store.step();
        }
        let term = store.node.handle().status().term;
        while store.applied() < ENTRIES {
            for _ in 0..1000 {
                let data = Bytes::from(vec![7; DATA_BYTES]);
                store.node.handle().propose(term, data, 0).expect("a leader");
            }
            let enough = store.applied() + 1000;
            while store.applied() < enough {
                store.step();
            }
        }
        store
    }

    fn step(&mut self) {
        while self.node.step_raft(Instant::now()) {}
        while self.node.step_log().expect("a disk that works") == Step::Worked {}
        while self.node.step_cold().expect("a disk that works") {}
        for event in self.events.try_iter() {
            if let Event::Committed { index, .. } = event {
                self.node.handle().applied(index);
            }
        }
    }

    fn applied(&self) -> u64 {
        self.node.handle().status().applied_index
    }

    /// Reads as Raft does: at once, or after the cold worker had its turn.
    fn read(&mut self, low: u64, count: u64) -> Vec<Entry> {
        loop {
            match self.node.entries(low, low + count, MESSAGE_BYTES) {
                Ok(entries) => return entries,
                Err(_) => {
                    self.node.step_raft(Instant::now());
                    self.node.step_cold().expect("a disk that works");
                    self.node.step_raft(Instant::now());
                }
            }
        }
    }

    /// Makes the next reads go to the disk.
    fn forget_pages(&self) {
        let log = self.directory.path().join("group-0/log");
        for path in StdFileSystem.list(&log).expect("the log's files") {
            let file = StdFileSystem.open(&path, Open::Read, Caching::Buffered).expect("a file");
            file.drop_cache().expect("pages that may go");
        }
    }
}

fn raft_storage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("raft_storage");
    let mut store = Store::fill(16 << 20);
    let recent = ENTRIES - 5000;
    for count in [1, 1000] {
        group.bench_function(format!("memory/{count}"), |bencher| {
            bencher.iter(|| black_box(store.read(recent, count)));
        });
        let decoded = store.read(20_000, count).len() as u64;
        assert_eq!(decoded, count, "a message holds them all");
        group.bench_function(format!("lru/{count}"), |bencher| {
            bencher.iter(|| black_box(store.read(20_000, count)));
        });
    }
    group.finish();
    let is_asked = |name: &str| std::env::args().any(|argument| argument == name);
    if is_asked("--bench") && !is_asked("--test") {
        cold_reads();
    }
}

/// Criterion has no percentiles, so the cold reads are timed by hand.
fn cold_reads() {
    let mut store = Store::fill(0);
    for (name, is_forgotten) in [("page cache", false), ("disk", true)] {
        let mut times: Vec<Duration> = Vec::new();
        for read in 0..COLD_READS {
            // Far from the last one, so that no block is there twice in a row.
            let low = 1 + read * 7919 % (ENTRIES - 20_000);
            if is_forgotten {
                store.forget_pages();
            }
            let begun = Instant::now();
            let mut entries = 0;
            while entries < 1000 {
                entries += store.read(low + entries, 1000 - entries).len() as u64;
            }
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        eprintln!("raft_storage/cold/1000 from the {name}: median {median:?}, p99 {p99:?}");
    }
}

criterion_group!(benches, raft_storage);
criterion_main!(benches);
