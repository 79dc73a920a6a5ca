//! Three voters in one process: catching up from cold segments, and from a snapshot.

use super::cluster::Cluster;
use crate::RaftConfig;

/// A window of 64 entries, and a log that keeps everything until told.
fn small_window(config: &mut RaftConfig) {
    config.settings.entries_memory_max = 64;
    config.settings.cold_cache_bytes = 64 << 10;
    config.settings.snapshot_entries = 1_000_000;
}

#[test]
fn a_follower_far_below_the_window_catches_up_from_cold_segments_without_a_snapshot() {
    let mut cluster = Cluster::new(3, small_window);
    cluster.propose(100, 64);
    cluster.converge();
    cluster.isolated.insert(3);
    cluster.propose(3000, 64);
    cluster.run(50);
    let leader = cluster.leader();
    let metrics = cluster.peer(leader).metrics.clone();
    assert_eq!((metrics.fallback_disk.get(), metrics.fallback_cache.get()), (0, 0));
    assert!(metrics.memory_entries.get() <= 64, "{} in memory", metrics.memory_entries.get());
    let behind = cluster.peer(3).status().last_index;
    cluster.isolated.clear();
    cluster.converge();
    assert_eq!(cluster.snapshots_sent, 0);
    assert!(cluster.peer(3).status().last_index >= behind + 3000);
    assert!(metrics.fallback_disk.get() >= 1, "nothing was read from disk");
    assert!(metrics.fallback_cache.get() >= 1, "nothing was read ahead");
    let reads = metrics.fallback_seconds.get_sample_count();
    assert_eq!(reads, metrics.fallback_disk.get() + metrics.fallback_cache.get());
    assert!(metrics.cold_cache_bytes.get() <= 64 << 10);
}

#[test]
fn a_follower_below_the_log_start_gets_exactly_one_snapshot() {
    let mut cluster = Cluster::new(3, |config| {
        small_window(config);
        config.settings.snapshot_entries = 1000;
        config.settings.tail_entries = 200;
    });
    cluster.propose(100, 64);
    cluster.converge();
    cluster.isolated.insert(3);
    cluster.propose(3000, 64);
    let behind = cluster.peer(3).status().last_index;
    cluster.until("the log of the others begins above the follower's end", |cluster| {
        let leader = cluster.leader();
        cluster.peer(leader).status().first_index > behind + 1
    });
    cluster.isolated.clear();
    cluster.converge();
    assert_eq!((cluster.snapshots_sent, cluster.peer(3).restored), (1, 1));
    cluster.propose(500, 64);
    cluster.converge();
    assert_eq!(cluster.snapshots_sent, 1);
    // And it is all there after a restart of the one that was restored.
    cluster.crash(3, 7);
    cluster.start(3);
    cluster.converge();
    assert_eq!(cluster.snapshots_sent, 1);
}

#[test]
fn a_new_leader_is_there_within_the_time_the_ranks_allow() {
    let mut cluster = Cluster::new(3, |_| {});
    cluster.propose(10, 64);
    for life in 0..6 {
        let leader = cluster.leader();
        cluster.crash(leader, life);
        let begun = cluster.now;
        let next = cluster.leader();
        let took = cluster.now - begun;
        assert!(took.as_millis() < 500, "{next} leads {took:?} after {leader} was lost");
        cluster.propose(10, 64);
        cluster.start(leader);
        cluster.converge();
    }
}

#[test]
fn a_cut_off_leader_stops_leading_and_its_plans_are_void() {
    let mut cluster = Cluster::new(3, |_| {});
    cluster.propose(10, 64);
    let old = cluster.leader();
    let term = cluster.peer(old).leads;
    cluster.isolated.insert(old);
    cluster.peer(old).propose(b"never committed".to_vec().into(), 999).expect("it still leads");
    let new = cluster.leader();
    assert_ne!(new, old);
    cluster.propose(10, 64);
    cluster.until("the old leader knows", |cluster| cluster.peer(old).leads.is_none());
    cluster.isolated.clear();
    cluster.converge();
    assert!(cluster.peer(new).leads > term);
    assert_eq!(cluster.peer(old).machine.count, 20);
}
