//! What the log counts. Children are resolved once, when the owner registers them.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// Counters of one data directory.
#[derive(Debug, Clone)]
pub struct WalMetrics {
    /// Bytes written to WAL files, padding included.
    pub wal_append_bytes: IntCounter,
    /// Groups written, each under one sync.
    pub wal_groups: IntCounter,
    /// Frames in a group.
    pub wal_group_frames: Histogram,
    /// Seconds one write of a group took.
    pub wal_write_duration: Histogram,
    /// Seconds one sync of a group took.
    pub wal_fsync_duration: Histogram,
    /// Bytes reserved or waiting to be written.
    pub wal_queue_depth_bytes: IntGauge,
    /// Bytes in memory that segments do not hold yet.
    pub wal_tail_bytes: IntGauge,
    /// WAL files that recovery would read.
    pub wal_segments: IntGauge,
    /// Frames found damaged.
    pub wal_corrupt_records: IntCounter,
    /// Recoveries that cut an unfinished group.
    pub wal_recovery_cuts: IntCounter,
    /// Seconds the last recovery took.
    pub wal_recovery_seconds: Histogram,
    /// Bytes moved from the WAL to segments.
    pub spill_bytes: IntCounter,
    /// Seconds one pass of the spill took, checkpoint included.
    pub spill_duration: Histogram,
    /// Checkpoints written.
    pub checkpoints: IntCounter,
    /// 1 while the disk is full.
    pub disk_full: IntGauge,
    /// Ranges of segments that a read found damaged.
    pub damaged_ranges: IntCounter,
    /// Segments that went out of their logs.
    pub dropped_segments: IntCounter,
    /// Their bytes.
    pub dropped_bytes: IntCounter,
    /// When old records were last searched for, in seconds since 1970.
    pub retention_last_run: IntGauge,
    /// Files and partitions that wait to be deleted.
    pub removals_waiting: IntGauge,
    /// Reads served from segments.
    pub cold_reads: IntCounter,
    /// Of these, reads that found their batches read ahead.
    pub cold_reads_ahead: IntCounter,
}

impl WalMetrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<WalMetrics, prometheus::Error> {
        let counter = |name, help| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name, help| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let histogram = |name, help, first, count| -> Result<Histogram, prometheus::Error> {
            let buckets = prometheus::exponential_buckets(first, 2.0, count)?;
            let opts = HistogramOpts::new(name, help).buckets(buckets);
            let histogram = Histogram::with_opts(opts)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        Ok(WalMetrics {
            wal_append_bytes: counter(
                "tidelog_wal_append_bytes_total",
                "Bytes written to WAL files, padding included.",
            )?,
            wal_groups: counter(
                "tidelog_wal_groups_total",
                "Groups written to the WAL, each under one sync.",
            )?,
            wal_group_frames: histogram(
                "tidelog_wal_group_frames",
                "Frames in one group.",
                1.0,
                14,
            )?,
            wal_write_duration: histogram(
                "tidelog_wal_write_duration_seconds",
                "Seconds that writing one group took.",
                16e-6,
                16,
            )?,
            wal_fsync_duration: histogram(
                "tidelog_wal_fsync_duration_seconds",
                "Seconds that syncing one group took.",
                64e-6,
                16,
            )?,
            wal_queue_depth_bytes: gauge(
                "tidelog_wal_queue_depth_bytes",
                "Bytes reserved or waiting to be written to the WAL.",
            )?,
            wal_tail_bytes: gauge(
                "tidelog_wal_tail_bytes",
                "Bytes in memory that segments do not hold yet.",
            )?,
            wal_segments: gauge("tidelog_wal_segments", "WAL files that a recovery would read.")?,
            wal_corrupt_records: counter(
                "tidelog_wal_corrupt_records_total",
                "WAL frames found damaged.",
            )?,
            wal_recovery_cuts: counter(
                "tidelog_wal_recovery_cuts_total",
                "Recoveries that cut an unfinished group off the WAL.",
            )?,
            wal_recovery_seconds: histogram(
                "tidelog_wal_recovery_seconds",
                "Seconds that recovery took.",
                1e-3,
                16,
            )?,
            spill_bytes: counter(
                "tidelog_wal_spill_bytes_total",
                "Bytes moved from the WAL to partition segments.",
            )?,
            spill_duration: histogram(
                "tidelog_wal_spill_duration_seconds",
                "Seconds that one pass of the spill took, checkpoint included.",
                1e-3,
                14,
            )?,
            checkpoints: counter("tidelog_wal_checkpoints_total", "Checkpoints written.")?,
            disk_full: gauge("tidelog_wal_disk_full", "1 while the disk is full.")?,
            damaged_ranges: counter(
                "tidelog_wal_damaged_ranges_total",
                "Ranges of segments that a read found damaged.",
            )?,
            dropped_segments: counter(
                "tidelog_log_dropped_segments_total",
                "Segments removed from their logs by retention and DeleteRecords.",
            )?,
            dropped_bytes: counter(
                "tidelog_log_dropped_bytes_total",
                "Bytes of segments removed from their logs by retention and DeleteRecords.",
            )?,
            retention_last_run: gauge(
                "tidelog_log_retention_last_run_timestamp_seconds",
                "When all logs had last been searched for old records, in seconds since 1970.",
            )?,
            removals_waiting: gauge(
                "tidelog_log_removals_waiting",
                "Files of dropped segments, and deleted partitions, that wait to be deleted.",
            )?,
            cold_reads: counter(
                "tidelog_wal_cold_reads_total",
                "Reads served from segments, not from memory.",
            )?,
            cold_reads_ahead: counter(
                "tidelog_wal_cold_reads_ahead_total",
                "Reads served from segments whose batches had been read ahead.",
            )?,
        })
    }
}
