//! What an operator may set about the log of one data directory.

use std::{path::PathBuf, time::Duration};

use crate::{chain::whole_blocks, compaction::Compaction};

/// When a producer may be told that its records are safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After the sync that covers them. `wal.durability=synced`
    Synced,
    /// After they reached the page cache, as Apache Kafka does: for comparison only, a power loss
    /// takes acknowledged records. `wal.durability=page-cache`
    PageCache,
}

/// One data directory. WAL files and the checkpoint lie in `wal/` below it, partitions in
/// `topics/<topic id>/<partition>/`.
#[derive(Debug, Clone)]
pub struct WalConfig {
    /// The data directory.
    pub dir: PathBuf,
    /// Bytes that may be in memory and not yet in segments before appends wait.
    pub tail_bytes_max: u64,
    /// Bytes that may wait to be written before appends wait. `wal.queue.max.bytes`
    pub queue_bytes_max: u64,
    /// Bytes that all WAL files may take on disk.
    pub wal_bytes_max: u64,
    /// Bytes of one WAL file; no batch may be larger.
    pub file_bytes: u64,
    /// Bytes of the WAL file of a fresh directory: small, so that the first start is quick.
    pub first_file_bytes: u64,
    /// Bytes written under one sync; bounds how long a group takes.
    pub commit_bytes_max: u64,
    /// When records count as written.
    pub durability: Durability,
    /// Segment files held open for reading.
    pub open_files_max: usize,
    /// Bytes of batches between two entries of a segment's index, until a partition's own settings
    /// are known.
    pub index_interval_bytes: u32,
    /// Bytes a partition writes between two snapshots of its producers.
    pub snapshot_interval_bytes: u64,
}

impl WalConfig {
    /// Defaults for a directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> WalConfig {
        WalConfig {
            dir: dir.into(),
            tail_bytes_max: 64 << 20,
            queue_bytes_max: 32 << 20,
            wal_bytes_max: 1 << 30,
            file_bytes: 64 << 20,
            first_file_bytes: 8 << 20,
            commit_bytes_max: 4 << 20,
            durability: Durability::Synced,
            open_files_max: 512,
            index_interval_bytes: 4096,
            snapshot_interval_bytes: 64 << 20,
        }
    }

    /// The same with files of whole blocks: groups, and writes past the page cache, are made of
    /// them.
    #[must_use]
    pub(crate) fn in_blocks(mut self) -> WalConfig {
        self.file_bytes = whole_blocks(self.file_bytes);
        self.first_file_bytes = whole_blocks(self.first_file_bytes);
        self
    }
}

/// What may differ from partition to partition, and change while it is open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogSettings {
    /// Bytes at which a segment is closed and the next one begun. `segment.bytes`
    pub segment_bytes: u64,
    /// Milliseconds of records at which a segment is closed. `segment.ms`
    pub segment_ms: i64,
    /// Milliseconds by which that is less, at random for each segment. `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// Bytes of batches between two entries of a segment's index. `index.interval.bytes`
    pub index_interval_bytes: u32,
    /// Milliseconds that records are kept; a negative number means for ever. `retention.ms`
    pub retention_ms: i64,
    /// Bytes that are kept; a negative number means all. `retention.bytes`
    pub retention_bytes: i64,
    /// How it is compacted, if it is. `cleanup.policy`
    pub compaction: Option<Compaction>,
    /// How long a segment's files outlive its removal from the log. `file.delete.delay.ms`
    pub file_delete_delay: Duration,
}

impl Default for LogSettings {
    /// Keeps everything.
    fn default() -> LogSettings {
        LogSettings {
            segment_bytes: 1 << 30,
            segment_ms: i64::MAX,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            retention_ms: -1,
            retention_bytes: -1,
            compaction: None,
            file_delete_delay: Duration::ZERO,
        }
    }
}
