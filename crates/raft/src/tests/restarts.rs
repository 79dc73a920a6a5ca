//! A node that is started again and again and is told nothing takes no more disk for it.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam::channel::{Receiver, bounded};
use tidelog_wal::env::mem::MemFileSystem;

use super::{metrics, store::machine};
use crate::{Event, NoTransport, RaftConfig, log::Step, start::SteppedNode};

/// A sole voter that is stepped, and its owner: a state machine that is the list of what it was
/// told.
struct Life {
    parts: SteppedNode,
    events: Receiver<Event>,
    now: Instant,
    state: Vec<u8>,
    applied: u64,
    snapshots: u64,
}

impl Life {
    fn begin(fs: &MemFileSystem) -> Life {
        let mut config = RaftConfig::sole_voter(1, PathBuf::from("/data/raft/group-0"));
        config.settings.segment_bytes = 64 << 10;
        let (sender, events) = bounded(64);
        let now = Instant::now();
        let (fs, transport) = (Arc::new(fs.clone()), Box::new(NoTransport));
        let parts = SteppedNode::open(config, fs, transport, sender, metrics(), now);
        let parts = parts.expect("a log that was only killed");
        let mut life = Life { parts, events, now, state: Vec::new(), applied: 0, snapshots: 0 };
        life.rest();
        life
    }

    /// Steps every part until none has anything to do.
    fn rest(&mut self) {
        let mut quiet = 0;
        while quiet < 5 {
            self.now += Duration::from_millis(10);
            let mut is_busy = self.parts.step_raft(self.now);
            is_busy |= self.parts.step_log().expect("a disk that works") == Step::Worked;
            is_busy |= self.parts.step_cold().expect("a disk that works");
            is_busy |= self.take_events();
            quiet = if is_busy { 0 } else { quiet + 1 };
        }
    }

    fn take_events(&mut self) -> bool {
        let handle = self.parts.handle().clone();
        let mut is_told = false;
        for event in self.events.try_iter() {
            is_told = true;
            match event {
                Event::Restore { index, data, .. } => {
                    (self.state, self.applied) = (data.to_vec(), index);
                    handle.applied(index);
                }
                Event::Committed { index, data, .. } => {
                    self.state.extend_from_slice(&data);
                    self.applied = index;
                    handle.applied(index);
                }
                Event::SnapshotWanted { index } => {
                    self.snapshots += 1;
                    // Entries without data change nothing.
                    let index = self.applied.max(index);
                    handle.snapshot(index, Bytes::copy_from_slice(&self.state));
                }
                Event::Leader { .. } | Event::Follower { .. } => {}
                Event::ProposalDropped { tickets } => panic!("dropped {tickets:?}"),
            }
        }
        is_told
    }

    fn propose(&mut self, data: &'static [u8]) {
        let handle = self.parts.handle();
        handle.propose(handle.status().term, Bytes::from_static(data), 1).expect("it leads");
        self.rest();
    }
}

fn log_bytes(fs: &MemFileSystem) -> usize {
    let logs = fs.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "wal"));
    logs.map(|path| fs.contents(path).expect("a file").len()).sum()
}

#[test]
fn the_log_of_an_idle_node_stays_as_large_as_it_is_however_often_it_is_killed() {
    let fs = machine();
    let mut life = Life::begin(&fs);
    life.propose(b"the only fact");
    let (mut sizes, mut snapshots) = (Vec::new(), 0);
    for _ in 0..40 {
        drop(life);
        fs.kill();
        life = Life::begin(&fs);
        assert_eq!(life.state, b"the only fact");
        sizes.push(log_bytes(&fs) >> 10);
        snapshots += life.snapshots;
    }
    let (early, late) = sizes.split_at(8);
    assert!(late.iter().max() <= early.iter().max(), "KiB of log after each start: {sizes:?}");
    assert!(sizes[39] <= 64 * 8, "KiB of log after each start: {sizes:?}");
    assert!((8..=20).contains(&snapshots), "{snapshots} snapshots in 40 starts");
}
