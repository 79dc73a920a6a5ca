//! The partitioned group-commit log.
//!
//! Architecture invariants:
//! * No tokio, no socket, no clock that decides when to sync, no Kafka request in here.
//! * No file is touched but through [`env::FileSystem`]; no thread body blocks on anything else.
//! * Nobody is told of a record before the sync that covers it returned.
//! * A failed sync, and any failed write but a full disk, ends the process.

mod cache;
pub mod chain;
mod checkpoint;
pub mod checksum;
pub mod compaction;
pub mod config;
mod doorbell;
pub mod env;
pub mod error;
pub mod file_cache;
mod filler;
mod frame;
mod group_commit;
mod index;
pub mod inspect;
pub mod log;
pub mod metrics;
mod partition;
mod read_ahead;
mod read_buffers;
mod reader;
mod recovery;
mod removals;
pub mod reservations;
mod retention;
mod rules;
pub mod segment;
mod shard;
mod snapshot;
mod spill;
#[cfg(any(test, feature = "test-fs"))]
mod stepped;
mod threads;
pub mod wal;
mod writer;

pub use compaction::{BatchRewriter, CleanerConfig, Compaction, OpenedBatch, OpenedRecord};
pub use config::{Durability, LogSettings, WalConfig};
pub use error::{Fatal, ReadError, StorageError, WalError, die};
pub use log::{
    ColdRead, ColdReply, FoundBatch, HeadersFound, Log, LogObserver, ReadOutcome,
    RecoveredPartition, Snapshot,
};
pub use metrics::WalMetrics;
pub use reservations::{Reservation, ReserveTicket};
pub use segment::{SegmentError, SegmentReader, Segments, SegmentsConfig, SegmentsReport};
#[cfg(any(test, feature = "test-fs"))]
pub use stepped::SteppedWal;
pub use wal::{CutReport, Recovered, Wal};

// Fuzz bodies name the crate from outside.
#[cfg(test)]
extern crate self as tidelog_wal;

#[cfg(test)]
mod tests;
