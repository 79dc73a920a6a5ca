//! Failures that brokers of this shape had in production, each with the test that would have
//! caught it.

use std::time::Duration;

use bytes::Bytes;
use raft::{GetEntriesContext, Storage as _};

use super::{
    cluster::Cluster,
    entries, entry,
    store::{StoreTest, hard_state, snapshot},
};
use crate::log::SnapshotMeta;

/// An answer of nothing is sent as an empty append: the follower acknowledges what it had, and
/// both wait for ever, without an error.
#[test]
fn an_empty_answer_never_strands_a_follower() {
    let mut test = StoreTest::new();
    test.persist(&entries(1..=200, 1), Some(hard_state(1, 1, 200)));
    test.sync().expect("a disk that works");
    test.store().evict(200);
    for low in 1..=200 {
        for max in [Some(0), Some(1), Some(100), None] {
            let found = test.read(low, 201, max).expect("entries");
            assert_eq!(found[..], entries(low..=low - 1 + found.len() as u64, 1)[..]);
            assert!(!found.is_empty(), "nothing from {low} within {max:?}");
        }
    }
}

/// One entry larger than a message's limit must still be sent, from memory and from disk.
#[test]
fn an_entry_larger_than_a_message_reaches_a_follower_that_lags() {
    let mut cluster = Cluster::new(3, |config| {
        config.settings.entries_memory_max = 8;
        config.settings.segment_bytes = 1 << 20;
    });
    cluster.propose(10, 8);
    cluster.isolated.insert(3);
    cluster.propose(1, 300 << 10);
    cluster.propose(50, 8);
    cluster.isolated.clear();
    cluster.converge();
    assert_eq!(cluster.snapshots_sent, 0);
}

/// The unstable log is exhausted: a store that overwrites without cutting its old tail claims
/// entries that raft-rs does not know, and raft-rs panics in `log_unstable.rs`.
#[test]
fn a_tail_that_was_overwritten_does_not_exhaust_the_unstable_log() {
    let mut cluster = Cluster::new(3, |_| {});
    cluster.propose(20, 8);
    let old = cluster.leader();
    cluster.isolated.insert(old);
    for ticket in 0..30 {
        cluster.peer(old).propose(Bytes::from_static(b"alone"), ticket).expect("it still leads");
    }
    cluster.run(20);
    let alone = cluster.peer(old).status().last_index;
    let new = cluster.leader();
    cluster.propose(3, 8);
    cluster.isolated.clear();
    cluster.converge();
    let (ours, theirs) = (cluster.peer(old).status(), cluster.peer(new).status());
    assert!(ours.last_index < alone, "the tail of {alone} is still there");
    assert_eq!(ours.last_index, theirs.last_index);
    let raft = &cluster.peer(old).running.as_ref().expect("running").parts.node.raw.raft;
    let log = &raft.raft_log;
    assert_eq!(log.store.last_index(), Ok(log.unstable.offset - 1));
    let all = log.entries(1, None, GetEntriesContext::empty(false)).expect("entries");
    assert_eq!(all.len() as u64, ours.last_index);
    // And it may lead again.
    cluster.crash(new, 3);
    cluster.propose(3, 8);
    cluster.start(new);
    cluster.converge();
}

/// `advance` moves past what it hands out in a LightReady; dropping that one leaves the state
/// machine behind for ever, silently. Ours is driven without LightReadies, and nothing is lost.
#[test]
fn no_committed_entry_is_lost_on_its_way_to_the_state_machine() {
    let mut cluster = Cluster::new(3, |config| config.settings.entries_memory_max = 16);
    cluster.propose(50, 8);
    cluster.run(20);
    cluster.isolated.insert(3);
    cluster.propose(500, 8);
    cluster.isolated.clear();
    cluster.converge();
    cluster.run(5);
    for raft_id in 1..=3 {
        let (status, machine) =
            (cluster.peer(raft_id).status(), cluster.peer(raft_id).machine.clone());
        assert_eq!(machine.count, 550, "of peer {raft_id}");
        assert_eq!(status.applied_index, status.commit_index, "of peer {raft_id}");
    }
}

/// A recovery that fills its window from the front keeps the oldest entries and drops newer ones.
#[test]
fn recovery_keeps_the_newest_entries_and_not_the_first_ones() {
    let mut test = StoreTest::new();
    test.persist(&entries(1..=500, 1), Some(hard_state(1, 1, 0)));
    test.sync().expect("a disk that works");
    let mut test = test.reopen().expect("a readable disk");
    assert_eq!(test.store().bounds(), (0, 500));
    assert_eq!(test.read_all(), entries(1..=500, 1));
}

/// A recovery that takes the highest term for each index brings cut tails back to life.
#[test]
fn recovery_replays_in_file_order_so_that_cut_tails_stay_dead() {
    let mut test = StoreTest::new();
    test.persist(&entries(1..=10, 5), Some(hard_state(5, 1, 4)));
    test.sync().expect("a disk that works");
    test.persist(&[entry(6, 7)], Some(hard_state(7, 2, 4)));
    test.sync().expect("a disk that works");
    let mut test = test.reopen().expect("a readable disk");
    let mut expected = entries(1..=5, 5);
    expected.push(entry(6, 7));
    assert_eq!(test.read_all(), expected);
    assert_eq!(test.store().term(6), Ok(7));
}

/// A term that is not known was once answered with the snapshot's.
#[test]
fn a_term_is_never_the_snapshots_by_default() {
    let mut test = StoreTest::new();
    test.persist(&entries(1..=10, 3), Some(hard_state(9, 1, 10)));
    test.sync().expect("a disk that works");
    test.store().evict(10);
    let meta = SnapshotMeta { index: 8, term: 3, ..test.store().newest_snapshot() };
    test.compact(&meta, 5, b"state");
    test.sync().expect("a disk that works");
    let terms: Vec<Option<u64>> = (3..=12).map(|index| test.store().term(index).ok()).collect();
    let expected = [None, None, Some(3), Some(3), Some(3), Some(3), Some(3), Some(3), None, None];
    assert_eq!(terms, expected);
}

/// A loop that skipped `advance` after a snapshot handed the same Ready out again, or none.
#[test]
fn a_snapshot_is_advanced_past_and_entries_follow_it() {
    let mut test = StoreTest::new();
    let meta = SnapshotMeta { index: 40, term: 2, ..test.store().newest_snapshot() };
    test.install(&snapshot(&meta, b"state"), hard_state(2, 0, 40));
    test.persist(&entries(41..=45, 2), None);
    test.sync().expect("a disk that works");
    let mut test = test.reopen().expect("a readable disk");
    assert_eq!(test.store().bounds(), (40, 45));
    assert_eq!(test.read_all(), entries(41..=45, 2));
}

/// A loop that woke up at fixed times only made every commitment wait for it.
#[test]
fn a_proposal_does_not_wait_for_a_tick() {
    let mut cluster = Cluster::new(3, |config| config.settings.tick_ms = 10);
    cluster.propose(1, 8);
    let leader = cluster.leader();
    let count = cluster.peer(leader).machine.count;
    cluster.run(1);
    let begun = cluster.now;
    cluster.peer(leader).propose(Bytes::from_static(b"now"), 77).expect("a leader");
    cluster.until("it is applied", |cluster| cluster.peer(leader).machine.count > count);
    assert!(cluster.now - begun <= Duration::from_millis(5), "{:?}", cluster.now - begun);
}
