//! Groups and their offsets as replayable state machines.
//!
//! Architecture invariant: pure. No clock, disk, socket, thread or task; time and random ids are
//! arguments. Nothing here waits, knows an API version or looks at a partition's log: a request
//! that cannot be answered yet is remembered by its [`RequestId`] and answered by a later plan.
//! - A plan changes nothing. State changes only by replaying what a plan says has happened, and
//!   what is durable of it is exactly what the records say: a shard that is loaded from them has
//!   their generations and offsets, and each member has a session's time to be heard of.
//! - A plan is played on a copy of the one group that it is about. The copy shares the members, so
//!   that no request costs what its group is large; a heartbeat needs none.
//! - Every request gets exactly one response, in some plan.

pub mod event;
pub mod partitioner;
pub mod record;
pub mod request;
pub mod settings;
pub mod shard;

mod group;
#[cfg(test)]
mod tests;

pub use event::Event;
pub use partitioner::partition_for;
pub use record::{GroupRecord, RecordError};
pub use request::{GroupRequest, GroupResponse, Now, RequestId};
pub use settings::GroupSettings;
pub use shard::{GroupShard, GroupSummary, Planned, Rebalance, RebalanceCause};
