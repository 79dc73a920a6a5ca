//! What raft-rs relies on and does not check, one test for each line of the contract.

use std::sync::{Arc, atomic::Ordering};

use raft::{
    Error, GetEntriesContext, Storage as _, StorageError,
    eraftpb::{Message, MessageType},
};
use tidelog_wal::env::fault::{Call, Fault, FaultFileSystem};

use super::{
    cluster::Cluster,
    entries, entry,
    store::{StoreTest, hard_state, machine, open_parts, small_config, snapshot},
};
use crate::{
    ProposeError, RaftError, Transport,
    log::{SnapshotMeta, Step},
};

/// 200 entries, all applied, so that only the newest are in memory.
fn long_log() -> StoreTest {
    let mut test = StoreTest::new();
    test.persist(&entries(1..=200, 1), Some(hard_state(1, 1, 200)));
    test.sync().expect("a disk that works");
    test.store().evict(200);
    test
}

fn temporarily() -> raft::Result<Vec<raft::eraftpb::Entry>> {
    Err(Error::Store(StorageError::LogTemporarilyUnavailable))
}

#[test]
fn contract_01_first_index_is_the_first_on_disk_not_the_first_in_memory() {
    let mut test = long_log();
    assert_eq!(test.store().first_index(), Ok(1));
    let meta = SnapshotMeta { index: 150, term: 1, ..test.store().newest_snapshot() };
    test.compact(&meta, 120, b"state");
    assert_eq!(test.store().first_index(), Ok(121));
    let mut test = test.sync().map(|()| test).expect("a disk that works").reopen().expect("open");
    assert_eq!(test.store().first_index(), Ok(121));
    let below = test.store().entries(120, 130, None, GetEntriesContext::empty(true));
    assert_eq!(below, Err(Error::Store(StorageError::Compacted)));
}

#[test]
fn contract_02_last_index_is_what_raft_appended_and_nothing_else() {
    let mut cluster = Cluster::new(3, |_| {});
    for _ in 0..20 {
        cluster.propose(7, 8);
        for peer in &mut cluster.peers {
            let raft = &peer.running.as_ref().expect("running").parts.node.raw.raft;
            let unstable = &raft.raft_log.unstable;
            assert!(unstable.entries.is_empty(), "a step leaves nothing unstable");
            assert_eq!(raft.raft_log.store.last_index(), Ok(unstable.offset - 1));
        }
    }
}

#[test]
fn contract_03_an_append_cuts_memory_disk_terms_decoded_blocks_and_reads_under_way() {
    let mut test = long_log();
    // Decode the middle, and have a read of it under way while it is cut.
    assert_eq!(test.read(90, 120, None).expect("entries")[0], entry(90, 1));
    let under_way = test.store().entries(60, 80, None, GetEntriesContext::empty(true));
    assert_eq!(under_way, temporarily());
    let tasks = test.store().take_tasks();
    test.persist(&[entry(100, 3), entry(101, 3)], Some(hard_state(3, 1, 50)));
    test.sync().expect("a disk that works");
    tasks.into_iter().for_each(|task| test.parts.worker.work(task).expect("a disk that works"));
    test.answers();
    test.store().evict(101);
    let mut expected = entries(1..=99, 1);
    expected.extend([entry(100, 3), entry(101, 3)]);
    assert_eq!(test.store().bounds(), (0, 101));
    assert_eq!((test.store().term(100), test.store().term(102).is_err()), (Ok(3), true));
    assert_eq!(test.read_all(), expected);
    let mut test = test.reopen().expect("a readable disk");
    assert_eq!(test.read_all(), expected);
}

#[test]
fn contract_04_terms_are_known_from_the_truncated_index_to_the_last_without_a_disk() {
    let mut test = StoreTest::new();
    assert_eq!(test.store().term(0), Ok(0), "of an empty log");
    test.persist(&entries(1..=100, 2), None);
    test.persist(&entries(101..=200, 5), Some(hard_state(5, 1, 200)));
    test.sync().expect("a disk that works");
    test.store().evict(200);
    let meta = SnapshotMeta { index: 180, term: 5, ..test.store().newest_snapshot() };
    test.compact(&meta, 60, b"state");
    let calls = test.fs.calls();
    let terms: Vec<u64> =
        (60..=200).map(|index| test.store().term(index).expect("a term")).collect();
    let expected: Vec<u64> = (60..=200).map(|index| if index <= 100 { 2 } else { 5 }).collect();
    assert_eq!(terms, expected);
    assert!(test.store().take_tasks().is_empty() && test.fs.calls() == calls);
}

#[test]
fn contract_05_entries_are_readable_before_they_are_durable() {
    let mut test = StoreTest::new();
    let number = test.persist(&entries(1..=5, 1), Some(hard_state(1, 1, 0)));
    assert_eq!(test.read(1, 6, None), Ok(entries(1..=5, 1)));
    assert_eq!(test.store().term(5), Ok(1));
    assert!(test.parts.handle.shared.persisted.load(Ordering::Acquire) < number);
    test.sync().expect("a disk that works");
    assert_eq!(test.parts.handle.shared.persisted.load(Ordering::Acquire), number);
}

#[test]
fn contract_06_memory_covers_everything_unapplied_also_after_a_restart() {
    let mut test = StoreTest::new();
    test.persist(&entries(1..=100, 1), Some(hard_state(1, 1, 100)));
    test.sync().expect("a disk that works");
    let now = GetEntriesContext::empty;
    test.store().evict(30);
    assert_eq!(test.store().entries(31, 101, None, now(false)), Ok(entries(31..=100, 1)));
    let meta = SnapshotMeta { index: 30, term: 1, ..test.store().newest_snapshot() };
    test.compact(&meta, 10, b"state");
    test.sync().expect("a disk that works");
    let mut test = test.reopen().expect("a readable disk");
    assert_eq!(test.store().entries(31, 101, None, now(false)), Ok(entries(31..=100, 1)));
    assert_eq!(test.store().entries(20, 101, None, now(true)), temporarily());
}

#[test]
#[should_panic(expected = "what no snapshot includes must stay")]
fn contract_07_compaction_stops_at_the_newest_durable_snapshot() {
    let mut test = long_log();
    let meta = SnapshotMeta { index: 100, term: 1, ..test.store().newest_snapshot() };
    test.store().set_snapshot(meta);
    test.store().truncate_prefix(101);
}

#[test]
fn contract_07_compaction_keeps_a_tail_and_what_a_live_follower_needs() {
    let mut cluster = Cluster::new(3, |config| {
        config.settings.snapshot_entries = 100;
        config.settings.tail_entries = 40;
    });
    cluster.propose(1000, 64);
    cluster.converge();
    cluster.run(50);
    for raft_id in 1..=3 {
        let status = cluster.peer(raft_id).status();
        assert!(status.snapshot_index + 101 > status.applied_index, "{status:?}");
        assert!(status.first_index <= status.snapshot_index - 40 + 1, "{status:?}");
        assert!(status.first_index > 1, "{status:?}");
    }
    assert_eq!(cluster.snapshots_sent, 0);
}

#[test]
fn contract_08_a_snapshot_is_never_older_than_what_was_asked_for() {
    let mut test = long_log();
    let temporarily = Error::Store(StorageError::SnapshotTemporarilyUnavailable);
    assert_eq!(test.store().snapshot(0, 2), Err(temporarily), "there is none");
    assert_eq!(test.store().take_wanted_snapshot(), Some(1));
    let meta = SnapshotMeta { index: 100, term: 1, ..test.store().newest_snapshot() };
    test.compact(&meta, 80, b"state");
    test.sync().expect("a disk that works");
    assert!(test.store().snapshot(0, 2).is_err(), "its file is not read yet");
    test.work();
    assert_eq!(test.store().snapshot(0, 2), Ok(snapshot(&meta, b"state")));
    assert_eq!(test.store().snapshot(100, 2), Ok(snapshot(&meta, b"state")));
    assert_eq!(test.store().take_wanted_snapshot(), None);
    assert!(test.store().snapshot(101, 2).is_err(), "too old");
    assert_eq!(test.store().take_wanted_snapshot(), Some(101));
}

#[test]
fn contract_09_nothing_is_said_before_the_sync_and_a_failed_sync_is_fatal() {
    let mut test = StoreTest::new();
    let number = test.persist(&entries(1..=3, 1), Some(hard_state(1, 2, 0)));
    test.fs.fail_sync_at(test.fs.syncs() + 1, 9);
    let failed = test.sync().expect_err("a failed sync");
    assert_eq!(failed.what, "cannot sync");
    assert!(test.parts.handle.shared.persisted.load(Ordering::Acquire) < number);
}

#[test]
fn contract_09_a_commit_index_alone_waits_for_no_sync_and_a_vote_does() {
    let mut test = long_log();
    let syncs = test.fs.syncs();
    let number = test.persist(&[], Some(hard_state(1, 1, 150)));
    test.sync().expect("a disk that works");
    assert_eq!(test.parts.handle.shared.persisted.load(Ordering::Acquire), number);
    assert_eq!(test.fs.syncs(), syncs);
    test.persist(&[], Some(hard_state(2, 3, 150)));
    test.sync().expect("a disk that works");
    assert_eq!(test.fs.syncs(), syncs + 1);
}

#[test]
fn contract_10_a_start_puts_the_commit_index_where_the_log_can_bear_it() {
    // (commit index on disk, snapshot, last index) and what raft-rs gets.
    for (commit, snapshot_index, last, expected) in
        [(50, 80, 100, 80), (120, 0, 100, 100), (10, 40, 100, 40), (80, 80, 100, 80)]
    {
        let mut test = StoreTest::new();
        test.persist(&entries(1..=last, 1), Some(hard_state(1, 1, commit)));
        if snapshot_index > 0 {
            let meta =
                SnapshotMeta { index: snapshot_index, term: 1, ..test.store().newest_snapshot() };
            test.compact(&meta, snapshot_index, b"state");
        }
        test.sync().expect("a disk that works");
        let test = test.reopen().expect("a readable disk");
        let log = &test.parts.node.raw.raft.raft_log;
        assert_eq!((log.committed, log.applied), (expected, snapshot_index));
    }
}

/// Sends everything back to the node that sends it, in the middle of its Ready.
struct Echo(crate::RaftHandle);

impl Transport for Echo {
    fn send(&mut self, messages: Vec<Message>) {
        for mut message in messages {
            (message.from, message.to) = (message.to, message.from);
            message.set_msg_type(MessageType::MsgHeartbeatResponse);
            self.0.step(message);
        }
    }
}

#[test]
fn contract_11_what_arrives_during_a_ready_waits_until_it_is_advanced() {
    let mut cluster = Cluster::new(3, |_| {});
    let leader = cluster.leader();
    let now = cluster.now;
    let running = cluster.peer(leader).running.as_mut().expect("running");
    let node = &mut running.parts.node;
    node.transport = Box::new(Echo(running.parts.handle.clone()));
    for step in 1..200 {
        // A step between a Ready and its advance would panic inside raft-rs.
        node.step(now + std::time::Duration::from_millis(step));
        while running.parts.writer.step().expect("a disk that works") == Step::Worked {}
    }
    assert!(!node.inbox.messages.is_empty() || node.raw.raft.msgs.is_empty());
}

#[test]
fn contract_12_a_snapshot_of_unknown_fate_counts_as_lost_and_is_sent_again() {
    let mut cluster = Cluster::new(3, |config| {
        config.settings.snapshot_entries = 100;
        config.settings.tail_entries = 10;
    });
    cluster.propose(50, 8);
    cluster.isolated.insert(3);
    // Long enough that nothing is kept for it any more.
    cluster.run(400);
    cluster.propose(500, 8);
    cluster.run(100);
    cluster.loses_snapshots = true;
    cluster.isolated.clear();
    cluster.until("a snapshot is lost", |cluster| cluster.snapshots_sent == 1);
    cluster.loses_snapshots = false;
    cluster.converge();
    assert_eq!((cluster.snapshots_sent, cluster.peer(3).restored), (2, 1));
}

#[test]
fn contract_13_a_cold_read_that_fails_is_asked_for_again() {
    let fs = machine();
    let fault = FaultFileSystem::new(Arc::new(fs.clone()));
    let parts = open_parts(Arc::new(fault.clone()), &small_config()).expect("an empty machine");
    let mut test = StoreTest::over(fs, parts);
    test.persist(&entries(1..=200, 1), Some(hard_state(1, 1, 200)));
    test.sync().expect("a disk that works");
    test.store().evict(200);
    fault.inject(Fault::eio(Call::Read).times(2));
    for _ in 0..2 {
        let read = test.store().entries(1, 10, None, GetEntriesContext::empty(true));
        assert_eq!(read, temporarily());
        test.work();
    }
    assert_eq!(fault.faults_met(), 2);
    assert_eq!(test.read(1, 10, None), Ok(entries(1..=9, 1)));
}

#[test]
fn contract_13_damaged_entries_are_not_served_and_a_snapshot_takes_their_place() {
    let mut cluster = Cluster::new(3, |config| {
        config.settings.entries_memory_max = 16;
        config.settings.cold_cache_bytes = 0;
        config.settings.snapshot_entries = 1_000_000;
    });
    cluster.isolated.insert(3);
    cluster.propose(500, 64);
    cluster.converge_but(3);
    for raft_id in 1..=2 {
        let fs = cluster.peer(raft_id).fs.clone();
        let path = fs.files().into_iter().find(|path| path.ends_with("00000000000000000000.wal"));
        let path = std::path::Path::new("/").join(path.expect("the first log file"));
        let contents = fs.contents(&path).expect("the log");
        let data = contents.windows(40).position(|bytes| bytes == [1; 40]).expect("the first data");
        fs.flip(&path, data as u64 + 20, 3).expect("a byte");
    }
    cluster.isolated.clear();
    cluster.converge();
    assert_eq!(cluster.snapshots_sent, 1);
}

#[test]
fn a_directory_without_its_log_is_refused() {
    let mut test = long_log();
    let meta = SnapshotMeta { index: 100, term: 1, ..test.store().newest_snapshot() };
    test.compact(&meta, 100, b"state");
    test.sync().expect("a disk that works");
    let StoreTest { fs, config, parts, .. } = test;
    drop(parts);
    for path in fs.files() {
        if path.extension().is_some_and(|extension| extension == "wal") {
            use tidelog_wal::env::FileSystem as _;
            fs.remove_file(&std::path::Path::new("/").join(path)).expect("a file");
        }
    }
    fs.kill();
    let refused = StoreTest::open(fs, config).err().expect("refused");
    assert!(matches!(refused, RaftError::Damaged { .. }), "{refused}");
}

#[test]
fn proposals_are_refused_past_the_byte_bound_and_taken_again_when_there_is_room() {
    let mut cluster = Cluster::new(1, |config| config.settings.entries_memory_bytes = 8 << 10);
    let leader = cluster.leader();
    let data = bytes::Bytes::from(vec![1; 1000]);
    let peer = cluster.peer(leader);
    let refused = (0..).find_map(|ticket| peer.propose(data.clone(), ticket).err());
    assert!(matches!(refused, Some(ProposeError::Full { .. })), "{refused:?}");
    cluster.until("there is room again", |cluster| {
        cluster.peer(leader).propose(data.clone(), 99).is_ok()
    });
    let large = cluster.peer(leader).propose(vec![1; 1 << 20].into(), 100);
    assert!(matches!(large, Err(ProposeError::TooLarge { .. })), "{large:?}");
    let peer = cluster.peer(leader);
    let term = peer.leads.expect("it leads");
    let handle = peer.running.as_ref().expect("running").parts.handle().clone();
    let stale = handle.propose(term - 1, data, 101);
    assert_eq!(stale, Err(ProposeError::NotLeader { term: term - 1, leader: Some(leader) }));
}

#[test]
fn descriptors_that_are_short_delay_a_snapshot_and_end_nothing() {
    let fs = machine();
    let fault = FaultFileSystem::new(Arc::new(fs));
    let parts = open_parts(Arc::new(fault.clone()), &small_config()).expect("an empty machine");
    let files = &parts.worker.files;
    let conf_state = raft::eraftpb::ConfState { voters: vec![1], ..Default::default() };
    let meta = SnapshotMeta { index: 5, term: 1, conf_state };
    for call in [Call::Create, Call::SyncDir] {
        fault.inject(Fault::emfile(call).times(1));
        assert!(
            !crate::snapshot::write(files, &meta, b"state").expect("no fatal error"),
            "{call:?}"
        );
    }
    assert!(crate::snapshot::write(files, &meta, b"state").expect("no fatal error"));
}

#[test]
fn two_nodes_do_not_share_a_directory() {
    let test = StoreTest::new();
    let second = open_parts(Arc::new(test.fs.clone()), &test.config).expect_err("refused");
    assert!(second.to_string().contains("another process has"), "{second}");
}
