//! What a Raft node is told when it starts, and the options that follow from it.

use std::{path::PathBuf, time::Duration};

use raft::ReadOnlyOption;
use tidelog_types::{property::Kind, settings};

/// Ticks between two heartbeats of a leader.
const HEARTBEAT_TICKS: usize = 5;
/// Ticks without a leader before the voter of rank 0 stands; also the length of a leader's lease.
const ELECTION_TICKS: usize = 15;
/// Ticks that each rank waits longer than the one before, so that votes do not split.
const ELECTION_TICKS_A_RANK: usize = 3;
/// Most bytes of entries in one append message. raft-rs's default is one entry a message.
const MESSAGE_BYTES_MAX: u64 = 256 << 10;
/// Most append messages on their way to one follower; with the above, what one peer may pin.
const MESSAGES_IN_FLIGHT_MAX: usize = 64;
/// Most bytes that one Ready hands out to be applied, so that a restart does not come in one piece.
const HAND_OUT_BYTES_MAX: u64 = 4 << 20;

settings! {
    /// The settings of a Raft node.
    pub struct RaftSettings {
        /// Bytes of recent entries kept in memory; where the unapplied ones alone exceed it,
        /// proposals are refused.
        entries_memory_bytes: u64 = "raft.entries.memory.bytes",
            Kind::Long { min: 1024, max: 8 << 30 }, "16777216";
        /// Recent entries kept in memory; unapplied ones are kept beyond it.
        entries_memory_max: usize = "raft.entries.memory.max",
            Kind::Int { min: 1, max: i32::MAX as i64 }, "10000";
        /// Bytes of one file of the Raft log.
        segment_bytes: u64 = "raft.segment.bytes",
            Kind::Long { min: 65_536, max: 8 << 20 }, "4194304";
        /// Bytes of entries read back from the log that are kept decoded.
        cold_cache_bytes: u64 = "raft.cold.cache.bytes",
            Kind::Long { min: 0, max: 8 << 30 }, "16777216";
        /// Applied entries after which the state machine is asked for a snapshot.
        snapshot_entries: u64 = "raft.snapshot.entries",
            Kind::Long { min: 1, max: i64::MAX }, "10000";
        /// Entries that compaction leaves behind a snapshot for followers that lag.
        tail_entries: u64 = "raft.log.tail.entries",
            Kind::Long { min: 0, max: i64::MAX }, "50000";
        /// Bytes of log files that compaction leaves behind a snapshot at most.
        tail_bytes: u64 = "raft.log.tail.bytes",
            Kind::Long { min: 0, max: i64::MAX }, "268435456";
        /// Length of one tick: a heartbeat is 5 of them, an election timeout at least 15.
        tick_ms: u64 = "raft.tick.ms",
            Kind::Int { min: 1, max: 10_000 }, "10";
    }
}

/// Who a node is, where its files are, and how it behaves.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// The group, in every path, message and record. The metadata group is 0.
    pub group: u32,
    /// This node's id in the group: never `node.id`, so that a wiped disk comes back as another.
    pub raft_id: u64,
    /// The voters that a fresh directory starts with; a directory in use has its own.
    pub voters: Vec<u64>,
    /// This voter's place among the voters: the lower, the sooner it stands for election.
    pub rank: usize,
    /// The directory of this group's files, created if missing.
    pub dir: PathBuf,
    /// Everything an operator may set.
    pub settings: RaftSettings,
}

impl RaftConfig {
    /// A sole voter of the metadata group with default settings.
    #[must_use]
    pub fn sole_voter(raft_id: u64, dir: PathBuf) -> RaftConfig {
        let settings = RaftSettings::default();
        RaftConfig { group: 0, raft_id, voters: vec![raft_id], rank: 0, dir, settings }
    }

    /// The length of one tick.
    #[must_use]
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.settings.tick_ms)
    }

    /// raft-rs's options. `applied` is the index that the restored snapshot covers.
    #[must_use]
    pub(crate) fn options(&self, applied: u64) -> raft::Config {
        let election_ticks = ELECTION_TICKS + ELECTION_TICKS_A_RANK * self.rank;
        raft::Config {
            id: self.raft_id,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            // One value: nothing is left to chance, and no two voters stand in the same tick.
            min_election_tick: election_ticks,
            max_election_tick: election_ticks + 1,
            applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            max_uncommitted_size: self.uncommitted_bytes_max(),
            max_committed_size_per_ready: HAND_OUT_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            // Never: raft-rs 0.7 adds entries to an empty append that waits to be sent, whatever
            // index that one has. A rejection that comes twice makes the follower acknowledge
            // entries it never had. Proposals are many to a message already.
            batch_append: false,
            skip_bcast_commit: false,
            read_only_option: ReadOnlyOption::Safe,
            priority: 0,
        }
    }

    /// raft-rs must never be the one to refuse a proposal: what was planned after it would stay.
    fn uncommitted_bytes_max(&self) -> u64 {
        (self.settings.entries_memory_bytes * 4).max(MESSAGE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_gets_options_that_raft_accepts() {
        for rank in 0..7 {
            let config =
                RaftConfig { rank, ..RaftConfig::sole_voter(1, PathBuf::from("/raft/group-0")) };
            let options = config.options(0);
            assert!(options.validate().is_ok(), "rank {rank}");
            assert!(!options.batch_append, "it acknowledges entries that nobody has");
            let milliseconds = options.min_election_tick() as u64 * config.settings.tick_ms;
            assert_eq!(milliseconds, 150 + 30 * rank as u64);
            assert_eq!(options.max_election_tick(), options.min_election_tick() + 1);
        }
    }
}
