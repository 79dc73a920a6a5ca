//! One voter on threads of its own over the operating system's files.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam::channel::{Receiver, bounded};
use prometheus::Registry;
use tidelog_wal::env::std::StdFileSystem;

use crate::{
    Event, Inspection, NoTransport, ProposeError, RaftConfig, RaftHandle, RaftMetrics, RaftNode,
};

/// A started node and what it told.
struct Started {
    handle: RaftHandle,
    events: Receiver<Event>,
}

fn start(config: &RaftConfig) -> Started {
    let (sender, events) = bounded(64);
    let metrics = RaftMetrics::register(&Registry::new()).expect("a registry of its own");
    let fs = Arc::new(StdFileSystem);
    let handle = RaftNode::start(config.clone(), fs, Box::new(NoTransport), sender, metrics);
    Started { handle: handle.expect("a node"), events }
}

impl Started {
    fn next(&self) -> Event {
        self.events.recv_timeout(Duration::from_secs(10)).expect("an event")
    }

    /// Takes events up to the one that says that this node leads; applies everything on the way.
    fn lead(&self) -> (u64, Vec<Bytes>) {
        let mut applied = Vec::new();
        loop {
            match self.next() {
                Event::Leader { term } => return (term, applied),
                Event::Committed { index, data, .. } => {
                    applied.push(data);
                    self.handle.applied(index);
                }
                Event::Restore { index, data, .. } => {
                    applied = vec![data];
                    self.handle.applied(index);
                }
                Event::Follower { .. } | Event::SnapshotWanted { .. } => {}
                Event::ProposalDropped { tickets } => panic!("dropped {tickets:?}"),
            }
        }
    }
}

#[test]
fn a_sole_voter_leads_within_milliseconds_and_keeps_what_it_committed() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = RaftConfig::sole_voter(7, directory.path().join("raft/group-0"));
    let mut expected: Vec<Bytes> = Vec::new();
    for life in 0..5u64 {
        let begun = Instant::now();
        let node = start(&config);
        let (term, recovered) = node.lead();
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(500), "led after {took:?} in life {life}");
        assert_eq!(recovered, expected, "life {life}");
        for ticket in 0..100 {
            let data = Bytes::from(format!("{life}/{ticket}"));
            node.handle.propose(term, data.clone(), ticket).expect("a leader");
            expected.push(data);
        }
        for ticket in 0..100 {
            let Event::Committed { index, data, .. } = node.next() else { panic!("an entry") };
            assert_eq!(data, expected[life as usize * 100 + ticket]);
            node.handle.applied(index);
        }
        let stale = node.handle.propose(term - 1, Bytes::from_static(b"old plan"), 1);
        assert_eq!(stale, Err(ProposeError::NotLeader { term: term - 1, leader: Some(7) }));
        node.handle.shutdown().expect("a clean end");
    }
}

#[test]
fn a_snapshot_takes_the_place_of_the_entries_before_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = RaftConfig::sole_voter(1, directory.path().join("group-0"));
    config.settings.snapshot_entries = 50;
    config.settings.tail_entries = 10;
    let node = start(&config);
    let (term, _) = node.lead();
    let mut applied = 0;
    for ticket in 0..49 {
        node.handle.propose(term, Bytes::from(vec![ticket as u8; 10]), ticket).expect("a leader");
        let Event::Committed { index, .. } = node.next() else { panic!("an entry") };
        node.handle.applied(index);
        applied = index;
    }
    assert_eq!(node.next(), Event::SnapshotWanted { index: applied });
    node.handle.snapshot(applied, Bytes::from_static(b"everything"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.handle.status().first_index != applied - 10 + 1 {
        assert!(Instant::now() < deadline, "{:?}", node.handle.status());
        std::thread::yield_now();
    }
    node.handle.shutdown().expect("a clean end");
    let node = start(&config);
    let (_, recovered) = node.lead();
    assert_eq!(recovered, [Bytes::from_static(b"everything")]);
    assert_eq!(node.handle.status().first_index, applied - 10 + 1);
    node.handle.shutdown().expect("a clean end");
}

#[test]
fn a_look_inside_says_what_a_start_would_find_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = RaftConfig::sole_voter(7, directory.path().join("group-0"));
    config.settings.snapshot_entries = 50;
    config.settings.tail_entries = 10;
    let node = start(&config);
    let (term, _) = node.lead();
    for ticket in 0..60 {
        node.handle
            .propose(term, Bytes::from(format!("entry {ticket}")), ticket)
            .expect("a leader");
        let index = loop {
            match node.next() {
                Event::Committed { index, .. } => break index,
                Event::SnapshotWanted { index } => {
                    node.handle.snapshot(index, Bytes::from_static(b"everything"));
                }
                other => panic!("{other:?}"),
            }
        };
        node.handle.applied(index);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.handle.status().first_index == 1 {
        assert!(Instant::now() < deadline, "the snapshot was never named");
        std::thread::yield_now();
    }
    node.handle.shutdown().expect("a clean end");
    let status = node.handle.status();

    let before = contents(&config.dir);
    let found = Inspection::read(&StdFileSystem, &config.dir, config.group).expect("a whole log");
    assert_eq!(contents(&config.dir), before, "nothing was written");
    assert_eq!((found.term, found.vote, found.voters.clone()), (term, 7, vec![7]));
    assert_eq!((found.first_index, found.last_index), (status.first_index, status.last_index));
    assert!(found.snapshot.is_some_and(|(index, _)| index >= 50), "{:?}", found.snapshot);
    let last = found.entries(found.last_index, 5);
    assert_eq!(last.iter().map(|entry| &entry.data[..]).collect::<Vec<_>>(), [b"entry 59"]);
    assert_eq!(found.entries(0, 3)[0].index, found.first_index);
    assert_eq!(found.entries(found.last_index + 1, 3), []);

    let file = config.dir.join("log").join(&found.files.last().expect("a file").name);
    let mut bytes = std::fs::read(&file).expect("a file");
    let place = bytes.windows(8).position(|window| window == b"entry 55").expect("an entry");
    bytes[place] ^= 1;
    std::fs::write(&file, bytes).expect("a file");
    let refused = Inspection::read(&StdFileSystem, &config.dir, config.group);
    assert!(matches!(refused, Err(crate::RaftError::Damaged { .. })), "{refused:?}");
}

/// Every file below a directory, with what it holds.
fn contents(dir: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => found.push((path.clone(), std::fs::read(path).expect("a file"))),
        }
    }
    found.sort();
    found
}
