//! Seeded chaos: three voters that crash, are cut off, lose, double and reorder messages, and take
//! snapshots all the while. One leader a term, one sequence of entries, and all of it comes back.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{Seed, cluster::Cluster, seeds};
use crate::Role;

/// Milliseconds of trouble in one history; quiet follows, and everybody must agree.
const TROUBLE_MS: u64 = 1500;

struct Chaos {
    rng: StdRng,
    cluster: Cluster,
    /// Who led in each term.
    leaders: BTreeMap<u64, u64>,
    /// The state after each index, as the first peer that got there had it.
    history: BTreeMap<u64, u64>,
    ticket: u64,
}

impl Chaos {
    fn new(seed: u64) -> Chaos {
        let mut rng = StdRng::seed_from_u64(seed);
        let (window, tail) = (rng.random_range(1..40), rng.random_range(0..60));
        let snapshot_entries = rng.random_range(10..80);
        let mut cluster = Cluster::new(3, |config| {
            config.settings.entries_memory_max = window;
            config.settings.cold_cache_bytes = 8 << 10;
            config.settings.snapshot_entries = snapshot_entries;
            config.settings.tail_entries = tail;
        });
        cluster.trouble = Some(StdRng::seed_from_u64(seed + 1_000_000));
        Chaos { rng, cluster, leaders: BTreeMap::new(), history: BTreeMap::new(), ticket: 0 }
    }

    fn step(&mut self) {
        self.propose();
        self.upset();
        self.cluster.step();
        self.check();
    }

    fn propose(&mut self) {
        for raft_id in 1..=3 {
            if self.cluster.peer(raft_id).may_plan() && self.rng.random_bool(0.4) {
                self.ticket += 1;
                let bytes = self.rng.random_range(8..300);
                let mut data = self.ticket.to_be_bytes().to_vec();
                data.resize(bytes, self.ticket as u8);
                // It may have lost its leadership meanwhile: nobody was promised anything.
                let _ = self.cluster.peer(raft_id).propose(Bytes::from(data), self.ticket);
            }
        }
    }

    fn upset(&mut self) {
        let raft_id = self.rng.random_range(1..=3);
        match self.rng.random_range(0..1000) {
            0..4 => {
                let seed = self.rng.random();
                self.cluster.crash(raft_id, seed);
                self.cluster.start(raft_id);
            }
            4..7 => {
                self.cluster.isolated.insert(raft_id);
            }
            7..17 => self.cluster.isolated.clear(),
            // The power fails in the middle of whatever it writes next.
            17..20 => {
                let fs = &self.cluster.peer(raft_id).fs;
                fs.crash_at(fs.calls() + self.rng.random_range(1..20));
            }
            _ => {}
        }
        for raft_id in 1..=3 {
            if self.cluster.peer(raft_id).fs.is_off() {
                let seed = self.rng.random();
                self.cluster.crash(raft_id, seed);
                self.cluster.start(raft_id);
            }
        }
    }

    fn check(&mut self) {
        for raft_id in 1..=3 {
            let peer = self.cluster.peer(raft_id);
            let Some(status) = peer.running.is_some().then(|| peer.status()) else { continue };
            let (applied, hash) = (peer.machine.applied, peer.machine.hash);
            if status.role == Role::Leader {
                let leader = *self.leaders.entry(status.term).or_insert(raft_id);
                assert_eq!(leader, raft_id, "two leaders in term {}", status.term);
            }
            let known = *self.history.entry(applied).or_insert(hash);
            assert_eq!(known, hash, "peer {raft_id} has another state at {applied}");
        }
    }

    fn calm(mut self) -> (u64, usize) {
        self.cluster.isolated.clear();
        self.cluster.trouble = None;
        for raft_id in 1..=3 {
            // A crash that was ordered and has not happened yet does not happen.
            let fs = &self.cluster.peer(raft_id).fs;
            fs.crash_at(u64::MAX);
        }
        self.cluster.propose(5, 8);
        self.cluster.converge();
        self.check();
        (self.cluster.peer(1).machine.count, self.leaders.len())
    }
}

#[test]
fn three_voters_agree_through_crashes_cuts_and_lost_messages() {
    let (mut entries, mut terms) = (0, 0);
    // The last two found, in this order, padding taken for damage, and raft-rs's `batch_append`
    // having a follower acknowledge entries that it never had.
    for seed in seeds(12).chain([195, 507]) {
        let _seed = Seed(seed);
        let mut chaos = Chaos::new(seed);
        (0..TROUBLE_MS).for_each(|_| chaos.step());
        let (count, leaders) = chaos.calm();
        entries += count;
        terms += leaders;
    }
    assert!(entries > 1000 && terms > 24, "{entries} entries in {terms} terms are no chaos");
}

#[test]
fn a_seed_gives_the_same_history_every_time() {
    let play = || {
        let mut chaos = Chaos::new(42);
        (0..400).for_each(|_| chaos.step());
        (chaos.leaders, chaos.history)
    };
    assert_eq!(play(), play());
}
