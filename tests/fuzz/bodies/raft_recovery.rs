//! A Raft log's directory with spoiled files: a node starts from it or says why not, hands out
//! entries in order, and starts a second time with what the first start kept.

mod disk;
mod input;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;
use crossbeam::channel::{Receiver, bounded};
use input::Input;
use tidelog_raft::{
    Event, NoTransport, RaftConfig, RaftError, RaftMetrics, Role, Step, SteppedNode,
};
use tidelog_wal::env::mem::MemFileSystem;

/// Turns of a node's parts that are enough for any start.
const TURNS_MAX: usize = 10_000;

/// Every byte says how the files of one group are spoiled: see `disk`.
pub fn run(data: &[u8]) {
    static IMAGE: OnceLock<MemFileSystem> = OnceLock::new();
    let fs = IMAGE.get_or_init(image).fork();
    disk::spoil(&fs, &mut Input(data));
    let Some(first) = survey(&fs) else { return };
    fs.kill();
    let second = survey(&fs).expect("what a start left, the next one starts from");
    assert_eq!(first, second, "starting twice equals starting once");
}

/// What a state machine is told: a snapshot's index and bytes if there is one, then entries.
#[derive(Debug, Default, PartialEq)]
struct Told {
    restored: Option<(u64, Bytes)>,
    committed: Vec<(u64, Bytes)>,
}

/// Starts, leads, applies all there is. `None` where the directory is refused.
fn survey(fs: &MemFileSystem) -> Option<Told> {
    let mut node = match Node::open(fs) {
        Ok(node) => node,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    node.lead();
    let mut last = node.told.restored.as_ref().map_or(0, |(index, _)| *index);
    for (index, _) in &node.told.committed {
        assert!(*index > last, "entry {index} was handed out after {last}");
        last = *index;
    }
    Some(node.told)
}

struct Node {
    parts: SteppedNode,
    events: Receiver<Event>,
    told: Told,
    leads: bool,
}

impl Node {
    fn open(fs: &MemFileSystem) -> Result<Node, RaftError> {
        let (sender, events) = bounded(4096);
        let metrics =
            RaftMetrics::register(&prometheus::Registry::new()).expect("a fresh registry");
        let (fs, transport) = (Arc::new(fs.clone()), Box::new(NoTransport));
        let parts = SteppedNode::open(config(), fs, transport, sender, metrics, Instant::now())?;
        Ok(Node { parts, events, told: Told::default(), leads: false })
    }

    /// Gives every part its turn until this node leads and nothing more is to do.
    fn lead(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.turn() && self.leads {
                return;
            }
        }
        panic!("a sole voter does not lead: {:?}", self.parts.handle().status());
    }

    fn turn(&mut self) -> bool {
        let mut worked = self.parts.step_raft(Instant::now());
        worked |= self.parts.step_log().expect("a disk that works") == Step::Worked;
        worked |= self.parts.step_cold().expect("a disk that works");
        for event in self.events.try_iter() {
            worked = true;
            match event {
                Event::Leader { .. } => self.leads = true,
                Event::Committed { index, data, .. } => {
                    self.told.committed.push((index, data));
                    self.parts.handle().applied(index);
                }
                Event::Restore { index, data, .. } => {
                    assert!(self.told.committed.is_empty(), "a start restores first");
                    self.told.restored = Some((index, data));
                    self.parts.handle().applied(index);
                }
                Event::Follower { .. } | Event::SnapshotWanted { .. } => {}
                Event::ProposalDropped { tickets } => panic!("dropped {tickets:?}"),
            }
        }
        worked
    }

    fn propose(&mut self, data: Vec<u8>) {
        let status = self.parts.handle().status();
        assert_eq!(status.role, Role::Leader);
        let proposed = self.parts.handle().propose(status.term, data.into(), 0);
        proposed.expect("a leader takes proposals");
        while self.turn() {}
    }
}

/// Small bounds, so that a short history meets all of them.
fn config() -> RaftConfig {
    let mut config = RaftConfig::sole_voter(1, PathBuf::from("/data/raft/group-0"));
    config.settings.segment_bytes = 64 << 10;
    config.settings.entries_memory_max = 8;
    config.settings.cold_cache_bytes = 8 << 10;
    config.settings.snapshot_entries = 1_000_000;
    config.settings.tail_entries = 40;
    config
}

/// A log over several files with a snapshot in the middle of it, whose process was killed.
fn image() -> MemFileSystem {
    let fs = MemFileSystem::new();
    let mut node = Node::open(&fs).expect("an empty machine");
    node.lead();
    for round in 0..120_u32 {
        node.propose(vec![round as u8; 500 + round as usize]);
        if round == 80 {
            let index = node.parts.handle().status().applied_index;
            node.parts.handle().snapshot(index, Bytes::from(vec![9; 3000]));
            while node.turn() {}
        }
    }
    let image = fs.fork();
    image.kill();
    image
}
