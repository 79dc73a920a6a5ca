//! raft-rs driven over segment files, with a store of two tiers behind it.
//!
//! Architecture invariants:
//! * No socket, no task, no tokio: a transport hands messages in and takes them out.
//! * The Raft thread touches no file; no lock is held and nothing is awaited between a `Ready` and
//!   its `advance`.
//! * Nothing is answered to a peer, and nothing counts as committed here, before the sync that
//!   covers it returned; a failed sync ends the process.
//! * `first_index` is the first index **on disk**. The entries in memory are a cache that always
//!   covers everything unapplied, so that only reads for lagging followers ever leave memory.
//! * `entries` never answers an empty list for a range that is not empty, and never `Unavailable`.
//! * Every queue has an end, and every thread body is a `step()` that a simulator can drive.

mod cold_reads;
pub mod config;
mod driver;
mod entry_cache;
pub mod error;
pub mod handle;
pub mod inspect;
mod log;
mod logger;
pub mod metrics;
mod node;
mod snapshot;
mod start;
mod storage;
mod terms;
pub mod transport;

pub use config::{RaftConfig, RaftSettings};
pub use error::{ProposeError, RaftError};
pub use handle::{Event, RaftHandle, RaftStatus, Report, Role};
pub use inspect::{Inspection, LogFile};
pub use log::Step;
pub use metrics::RaftMetrics;
pub use raft::eraftpb;
pub use start::{RaftNode, SteppedNode};
pub use transport::{ChannelTransport, Envelope, NoTransport, Transport};

// Fuzz bodies name the crate from outside.
#[cfg(test)]
extern crate self as tidelog_raft;

#[cfg(test)]
mod tests;
