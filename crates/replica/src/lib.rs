//! One partition's replication as pure state machines.
//!
//! Architecture invariant: pure. No clock, disk, socket, thread or task; time and bytes are
//! arguments. Nothing here waits, and nothing knows an API version or a topic's name.
//! - A leader's high watermark never goes back, and never passes what each member of its
//!   maximal ISR has on disk.
//! - Leader epochs and their start offsets rise together.
//! - A client's view of its fetch session's partitions is what full fetches would have told it.
//! - A producer's state changes only by replaying batches that have their place in the log, so a
//!   restart, a follower and the leader all come to the same state.

pub mod error;
pub mod fetch_session;
pub mod isr;
pub mod leader;
pub mod leader_epoch_cache;
pub mod partition_snapshot;
pub mod producer_state;
pub mod purgatory;

mod bytes_reader;

pub use error::{EpochError, FetchError, ProducerError, SessionError, SnapshotError};
pub use fetch_session::{FetchSession, FetchSessionCache, SessionId, SessionRequest};
pub use isr::Isr;
pub use leader::Leader;
pub use leader_epoch_cache::{EpochEnd, LeaderEpochCache};
pub use partition_snapshot::PartitionSnapshot;
pub use producer_state::{ActiveProducer, ProducerState, Verdict};
pub use purgatory::{OffsetWaits, Purgatory, Ticket, Watchers};
