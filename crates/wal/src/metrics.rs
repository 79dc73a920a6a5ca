//! What the log counts. Children are resolved once, when the owner registers them.

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

use crate::config::WalConfig;

/// Defines a struct of metrics and its `register`. A line says field, type, how it is made, name
/// and whatever else that takes; the comment above it is the help text.
#[macro_export]
macro_rules! metrics_table {
    (
        $(#[$about:meta])*
        $vis:vis struct $name:ident {
            $(
                #[doc = $help:literal]
                $seen:vis $field:ident: $type:ty = $make:ident($metric:literal $(, $more:expr)*);
            )*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone)]
        $vis struct $name { $(#[doc = $help] $seen $field: $type,)* }

        impl $name {
            /// Registers every metric.
            ///
            /// # Errors
            /// When one of the names is already registered.
            pub fn register(
                registry: &prometheus::Registry,
            ) -> Result<$name, prometheus::Error> {
                Ok($name {
                    $($field: $make(registry, $metric, $help.trim_ascii() $(, $more)*)?,)*
                })
            }
        }
    };
}

metrics_table! {
    /// Metrics of one data directory; clones share them.
    pub struct WalMetrics {
        // Writer: groups, syncs, what waits and what is in memory.
        /// Bytes written to WAL files, padding included.
        pub wal_append_bytes: IntCounter = counter("tidelog_wal_append_bytes_total");
        /// Groups written to the WAL, each under one sync.
        pub wal_groups: IntCounter = counter("tidelog_wal_groups_total");
        /// Frames in one group.
        pub wal_group_frames: Histogram = histogram("tidelog_wal_group_frames", 1.0, 14);
        /// Bytes of one group, padding between its frames included.
        pub wal_group_bytes: Histogram = histogram("tidelog_wal_group_bytes", 256.0, 15);
        /// Seconds at most that the frames of one group had waited to be written.
        pub wal_queue_wait: Histogram = histogram("tidelog_wal_queue_wait_seconds", 16e-6, 16);
        /// Seconds that writing one group took.
        pub wal_write_duration: Histogram =
            histogram("tidelog_wal_write_duration_seconds", 16e-6, 16);
        /// Seconds that syncing one group took.
        pub wal_fsync_duration: Histogram =
            histogram("tidelog_wal_fsync_duration_seconds", 64e-6, 16);
        /// Bytes reserved or waiting to be written to the WAL.
        pub wal_queue_depth_bytes: IntGauge = gauge("tidelog_wal_queue_depth_bytes");
        /// Bound on the bytes reserved or waiting to be written to the WAL.
        pub wal_queue_depth_limit: IntGauge = gauge("tidelog_wal_queue_depth_bytes_limit");
        /// Bytes in memory that segments do not hold yet.
        pub wal_tail_bytes: IntGauge = gauge("tidelog_wal_tail_bytes");
        /// Bound on the bytes in memory that segments do not hold yet.
        pub wal_tail_limit: IntGauge = gauge("tidelog_wal_tail_bytes_limit");
        /// Bound on the bytes of all WAL files.
        pub wal_bytes_limit: IntGauge = gauge("tidelog_wal_bytes_limit");
        /// WAL files that a recovery would read.
        pub wal_segments: IntGauge = gauge("tidelog_wal_segments");

        // Recovery.
        /// WAL frames found damaged.
        pub wal_corrupt_records: IntCounter = counter("tidelog_wal_corrupt_records_total");
        /// Recoveries that cut an unfinished group off the WAL.
        pub wal_recovery_cuts: IntCounter = counter("tidelog_wal_recovery_cuts_total");
        /// Seconds that recovery took.
        pub wal_recovery_seconds: Histogram = histogram("tidelog_wal_recovery_seconds", 1e-3, 16);

        // Spill and checkpoint.
        /// Bytes moved from the WAL to partition segments.
        pub spill_bytes: IntCounter = counter("tidelog_wal_spill_bytes_total");
        /// Seconds that one pass of the spill took, checkpoint included.
        pub spill_duration: Histogram = histogram("tidelog_wal_spill_duration_seconds", 1e-3, 14);
        /// Checkpoints written.
        pub checkpoints: IntCounter = counter("tidelog_wal_checkpoints_total");
        /// 1 while the disk is full.
        pub disk_full: IntGauge = gauge("tidelog_wal_disk_full");

        // Reads.
        /// Reads of batches that were in memory.
        pub tail_hits: IntCounter = counter("tidelog_wal_tail_hits_total");
        /// Reads of batches that were not in memory any more.
        pub tail_misses: IntCounter = counter("tidelog_wal_tail_misses_total");
        /// Reads served from segments, not from memory.
        pub cold_reads: IntCounter = counter("tidelog_wal_cold_reads_total");
        /// Reads served from segments whose batches had been read ahead.
        pub cold_reads_ahead: IntCounter = counter("tidelog_wal_cold_reads_ahead_total");
        /// Bytes of batches served from segments.
        pub cold_read_bytes: IntCounter = counter("tidelog_wal_cold_read_bytes_total");
        /// Seconds that one read from segments took, once it had come to its turn.
        pub cold_read_duration: Histogram =
            histogram("tidelog_wal_cold_read_duration_seconds", 16e-6, 18);
        /// Bytes of segments read before anybody asked for them.
        pub read_ahead_bytes: IntCounter = counter("tidelog_wal_read_ahead_bytes_total");
        /// Ranges of segments that a read found damaged.
        pub damaged_ranges: IntCounter = counter("tidelog_wal_damaged_ranges_total");

        // Retention and removals.
        /// Segments removed from their logs by retention and DeleteRecords.
        pub dropped_segments: IntCounter = counter("tidelog_log_dropped_segments_total");
        /// Bytes of segments removed from their logs by retention and DeleteRecords.
        pub dropped_bytes: IntCounter = counter("tidelog_log_dropped_bytes_total");
        /// When all logs had last been searched for old records, in seconds since 1970.
        pub retention_last_run: IntGauge =
            gauge("tidelog_log_retention_last_run_timestamp_seconds");
        /// Files of dropped segments, and deleted partitions, that wait to be deleted.
        pub removals_waiting: IntGauge = gauge("tidelog_log_removals_waiting");

        // Compaction.
        /// Passes of compaction over a log that came to their end.
        pub cleaner_passes: IntCounter = counter("tidelog_log_cleaner_passes_total");
        /// Bytes of segments that compaction read.
        pub cleaner_read_bytes: IntCounter = counter("tidelog_log_cleaner_read_bytes_total");
        /// Bytes of segments that compaction wrote.
        pub cleaner_written_bytes: IntCounter = counter("tidelog_log_cleaner_written_bytes_total");
        /// Records that compaction removed.
        pub cleaner_removed_records: IntCounter =
            counter("tidelog_log_cleaner_removed_records_total");
        /// Batches that compaction kept as they are because it could not open them.
        pub cleaner_unread_batches: IntCounter =
            counter("tidelog_log_cleaner_unread_batches_total");
        /// Passes of compaction that ended early, for a damaged log or a full disk.
        pub cleaner_failures: IntCounter = counter("tidelog_log_cleaner_failures_total");
        /// Partitions that are not compacted until the next start because they are damaged.
        pub cleaner_uncleanable: IntGauge = gauge("tidelog_log_cleaner_uncleanable_partitions");
        /// Dirty part of the dirtiest compacted log when all were last looked at, 0 to 1.
        pub cleaner_dirty_ratio: Gauge = ratio("tidelog_log_cleaner_max_dirty_ratio");
        /// When every log that was due had last been compacted, in seconds since 1970.
        pub cleaner_last_run: IntGauge = gauge("tidelog_log_cleaner_last_run_timestamp_seconds");
    }
}

impl WalMetrics {
    /// Says what the bounds are.
    pub(crate) fn set_limits(&self, config: &WalConfig) {
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.wal_queue_depth_limit.set(gauge(config.queue_bytes_max));
        self.wal_tail_limit.set(gauge(config.tail_bytes_max));
        self.wal_bytes_limit.set(gauge(config.wal_bytes_max));
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

fn ratio(registry: &Registry, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    let gauge = Gauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

/// Buckets from `first` on, each twice the one before.
fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    first: f64,
    buckets: usize,
) -> Result<Histogram, prometheus::Error> {
    let buckets = prometheus::exponential_buckets(first, 2.0, buckets)?;
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}
