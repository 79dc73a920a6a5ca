//! Groups and their offsets as replayable state machines.
//!
//! Architecture invariant: pure. No clock, disk, socket, thread or task; time and random ids are
//! arguments. Nothing here waits, knows an API version or looks at a partition's log: a request
//! that cannot be answered yet is remembered by its [`RequestId`] and answered by a later plan.
//! - A plan changes nothing. State changes only by replaying what a plan says has happened, and
//!   what is durable of it is exactly what the records say: a shard that is loaded from them
//!   continues as the one that wrote them would after all its members fell silent.
//! - Every request gets exactly one response, in some plan.

pub mod partitioner;
pub mod request;

pub use partitioner::partition_for;
pub use request::{GroupRequest, GroupResponse, Now, RequestId};
