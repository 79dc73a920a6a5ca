//! One partition's replication as pure state machines.
//!
//! Architecture invariant: pure. No clock, disk, socket, thread or task; time and bytes are
//! arguments. Nothing here waits, and nothing knows an API version or a topic's name.
//! - A leader's high watermark never goes back, and never passes what each member of its
//!   maximal ISR has on disk.
//! - Leader epochs and their start offsets rise together.
//! - A producer's state changes only by replaying batches that have their place in the log, so a
//!   restart, a follower and the leader all come to the same state.

pub mod error;
pub mod isr;
pub mod leader;
pub mod leader_epoch_cache;
pub mod partition_snapshot;
pub mod producer_state;
pub mod purgatory;

mod bytes_reader;

pub use error::{EpochError, FetchError, ProducerError, SnapshotError};
pub use isr::Isr;
pub use leader::Leader;
pub use leader_epoch_cache::{EpochEnd, LeaderEpochCache};
pub use partition_snapshot::PartitionSnapshot;
pub use producer_state::{ActiveProducer, ProducerState, Verdict};
pub use purgatory::{FetchWaits, OffsetWaits, Purgatory, Ticket};
