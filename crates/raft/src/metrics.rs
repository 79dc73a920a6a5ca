//! How much: what the Raft node counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

/// Bounds of a read that left memory, in seconds. The alert on slow reads needs 0.05 exactly.
const FALLBACK_SECONDS: &[f64] =
    &[0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];
/// Bounds of a proposal's way to its commitment, in seconds.
const PROPOSE_SECONDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

tidelog_wal::metrics_table! {
    /// Handles of every metric of one Raft node; clones share them.
    pub struct RaftMetrics {
        /// Reads of Raft entries answered from memory.
        pub(crate) entries_hit: IntCounter = counter("tidelog_raft_entries_hit_total");
        /// Reads of Raft entries that left memory, by where they ended.
        pub(crate) fallback_cache: IntCounter =
            counter_of("tidelog_raft_wal_fallback_total", "cache");
        /// Reads of Raft entries that left memory, by where they ended.
        pub(crate) fallback_disk: IntCounter =
            counter_of("tidelog_raft_wal_fallback_total", "disk");
        /// Time of reads of Raft entries that left memory.
        pub(crate) fallback_seconds: Histogram =
            histogram("tidelog_raft_wal_fallback_duration_seconds", FALLBACK_SECONDS);
        /// Bytes of Raft entries read back from the log and kept decoded.
        pub(crate) cold_cache_bytes: IntGauge = gauge("tidelog_raft_cold_cache_bytes");
        /// Bytes of recent Raft entries in memory.
        pub(crate) memory_bytes: IntGauge = gauge("tidelog_raft_entries_memory_bytes");
        /// Recent Raft entries in memory.
        pub(crate) memory_entries: IntGauge = gauge("tidelog_raft_entries_memory");
        /// Current Raft term.
        pub(crate) term: IntGauge = gauge("tidelog_raft_term");
        /// 1 where this node leads the metadata group.
        pub(crate) is_leader: IntGauge = gauge("tidelog_raft_is_leader");
        /// Raft id of the leader, 0 where none is known.
        pub(crate) leader_id: IntGauge = gauge("tidelog_raft_leader_id");
        /// Changes of the Raft leader seen by this node.
        pub(crate) leader_changes: IntCounter = counter("tidelog_raft_leader_changes_total");
        /// First index of the Raft log on disk.
        pub(crate) first_index: IntGauge = gauge("tidelog_raft_first_index");
        /// Last index of the Raft log.
        pub(crate) last_index: IntGauge = gauge("tidelog_raft_last_index");
        /// Highest committed index.
        pub(crate) commit_index: IntGauge = gauge("tidelog_raft_commit_index");
        /// Highest applied index.
        pub(crate) applied_index: IntGauge = gauge("tidelog_raft_applied_index");
        /// Proposals taken and not yet committed.
        pub(crate) proposals_pending: IntGauge = gauge("tidelog_raft_proposals_pending");
        /// Time from a proposal to its commitment.
        pub(crate) propose_seconds: Histogram =
            histogram("tidelog_raft_propose_duration_seconds", PROPOSE_SECONDS);
        /// Raft messages dropped at a full queue.
        pub(crate) messages_dropped: IntCounter = counter("tidelog_raft_messages_dropped_total");
        /// Files of the Raft log.
        pub(crate) log_files: IntGauge = gauge("tidelog_raft_log_files");
        /// Bytes written to the Raft log.
        pub(crate) log_write_bytes: IntCounter = counter("tidelog_raft_log_write_bytes_total");
        /// Time of one sync of the Raft log.
        pub(crate) log_sync_seconds: Histogram =
            histogram("tidelog_raft_log_sync_duration_seconds", PROPOSE_SECONDS);
        /// Snapshots of the own state made durable.
        pub(crate) snapshots_taken: IntCounter = counter("tidelog_raft_snapshots_taken_total");
        /// Snapshots sent to followers.
        pub(crate) snapshots_sent: IntCounter = counter("tidelog_raft_snapshots_sent_total");
        /// Snapshots received from a leader and made durable.
        pub(crate) snapshots_installed: IntCounter =
            counter("tidelog_raft_snapshots_installed_total");
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// One of the two results of a read that left memory; both have one name.
fn counter_of(
    registry: &Registry,
    name: &str,
    help: &str,
    result: &str,
) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::with_opts(Opts::new(name, help).const_label("result", result))?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    bounds: &[f64],
) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
    let histogram = Histogram::with_opts(options)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_registers_once_and_the_alert_finds_its_bucket() {
        let registry = Registry::new();
        RaftMetrics::register(&registry).expect("first registration");
        assert!(RaftMetrics::register(&registry).is_err(), "names are taken");
        assert!(FALLBACK_SECONDS.contains(&0.05));
        let families = registry.gather();
        let fallback = families.iter().find(|f| f.name() == "tidelog_raft_wal_fallback_total");
        assert_eq!(fallback.map(|family| family.get_metric().len()), Some(2), "cache and disk");
        for family in families {
            assert!(family.name().starts_with("tidelog_raft_"), "{}", family.name());
            assert!(!family.help().is_empty(), "{}", family.name());
        }
    }
}
