//! How much: what the Raft node counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Bounds of a read that left memory, in seconds. The alert on slow reads needs 0.05 exactly.
const FALLBACK_SECONDS: &[f64] =
    &[0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];
/// Bounds of a proposal's way to its commitment, in seconds.
const PROPOSE_SECONDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Handles of every metric of one Raft node; clones share them.
#[derive(Debug, Clone)]
pub struct RaftMetrics {
    pub(crate) entries_hit: IntCounter,
    pub(crate) fallback_cache: IntCounter,
    pub(crate) fallback_disk: IntCounter,
    pub(crate) fallback_seconds: Histogram,
    pub(crate) cold_cache_bytes: IntGauge,
    pub(crate) memory_bytes: IntGauge,
    pub(crate) memory_entries: IntGauge,
    pub(crate) term: IntGauge,
    pub(crate) is_leader: IntGauge,
    pub(crate) leader_id: IntGauge,
    pub(crate) leader_changes: IntCounter,
    pub(crate) first_index: IntGauge,
    pub(crate) last_index: IntGauge,
    pub(crate) commit_index: IntGauge,
    pub(crate) applied_index: IntGauge,
    pub(crate) proposals_pending: IntGauge,
    pub(crate) propose_seconds: Histogram,
    pub(crate) messages_dropped: IntCounter,
    pub(crate) log_files: IntGauge,
    pub(crate) log_write_bytes: IntCounter,
    pub(crate) log_sync_seconds: Histogram,
    pub(crate) snapshots_taken: IntCounter,
    pub(crate) snapshots_sent: IntCounter,
    pub(crate) snapshots_installed: IntCounter,
}

impl RaftMetrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When one of the names is already registered.
    #[rustfmt::skip]
    pub fn register(registry: &Registry) -> Result<RaftMetrics, prometheus::Error> {
        let r = registry;
        let fallback = IntCounterVec::new(
            Opts::new("tidelog_raft_wal_fallback_total",
                "Reads of Raft entries that left memory, by where they ended."),
            &["result"],
        )?;
        r.register(Box::new(fallback.clone()))?;
        Ok(RaftMetrics {
            entries_hit: counter(r, "tidelog_raft_entries_hit_total", "Reads of Raft entries answered from memory.")?,
            fallback_cache: fallback.with_label_values(&["cache"]),
            fallback_disk: fallback.with_label_values(&["disk"]),
            fallback_seconds: histogram(r, "tidelog_raft_wal_fallback_duration_seconds", "Time of reads of Raft entries that left memory.", FALLBACK_SECONDS)?,
            cold_cache_bytes: gauge(r, "tidelog_raft_cold_cache_bytes", "Bytes of Raft entries read back from the log and kept decoded.")?,
            memory_bytes: gauge(r, "tidelog_raft_entries_memory_bytes", "Bytes of recent Raft entries in memory.")?,
            memory_entries: gauge(r, "tidelog_raft_entries_memory", "Recent Raft entries in memory.")?,
            term: gauge(r, "tidelog_raft_term", "Current Raft term.")?,
            is_leader: gauge(r, "tidelog_raft_is_leader", "1 where this node leads the metadata group.")?,
            leader_id: gauge(r, "tidelog_raft_leader_id", "Raft id of the leader, 0 where none is known.")?,
            leader_changes: counter(r, "tidelog_raft_leader_changes_total", "Changes of the Raft leader seen by this node.")?,
            first_index: gauge(r, "tidelog_raft_first_index", "First index of the Raft log on disk.")?,
            last_index: gauge(r, "tidelog_raft_last_index", "Last index of the Raft log.")?,
            commit_index: gauge(r, "tidelog_raft_commit_index", "Highest committed index.")?,
            applied_index: gauge(r, "tidelog_raft_applied_index", "Highest applied index.")?,
            proposals_pending: gauge(r, "tidelog_raft_proposals_pending", "Proposals taken and not yet committed.")?,
            propose_seconds: histogram(r, "tidelog_raft_propose_duration_seconds", "Time from a proposal to its commitment.", PROPOSE_SECONDS)?,
            messages_dropped: counter(r, "tidelog_raft_messages_dropped_total", "Raft messages dropped at a full queue.")?,
            log_files: gauge(r, "tidelog_raft_log_files", "Files of the Raft log.")?,
            log_write_bytes: counter(r, "tidelog_raft_log_write_bytes_total", "Bytes written to the Raft log.")?,
            log_sync_seconds: histogram(r, "tidelog_raft_log_sync_duration_seconds", "Time of one sync of the Raft log.", PROPOSE_SECONDS)?,
            snapshots_taken: counter(r, "tidelog_raft_snapshots_taken_total", "Snapshots of the own state made durable.")?,
            snapshots_sent: counter(r, "tidelog_raft_snapshots_sent_total", "Snapshots sent to followers.")?,
            snapshots_installed: counter(r, "tidelog_raft_snapshots_installed_total", "Snapshots received from a leader and made durable.")?,
        })
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
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
        for family in registry.gather() {
            assert!(family.name().starts_with("tidelog_raft_"), "{}", family.name());
            assert!(!family.help().is_empty(), "{}", family.name());
        }
    }
}
