//! Coordinators: state machines over internal topics, and the loops that own them.
//!
//! Architecture invariants:
//! * A shard is changed by one thread alone, and only by replaying what its own plans say.
//! * Nobody is answered before everything that the answer's plan could have seen is on all in-sync
//!   replicas. Nothing is undone by hand: a shard whose records were not taken is loaded again.
//! * No timer, task or lock belongs to a group: a shard says when it has something to do.
//! * Commands, gathered records and parked replies have bounds; at a bound sockets are not read.

pub(crate) mod commands;
mod gathered;
pub(crate) mod groups;
mod lag;
mod loading;
pub(crate) mod metrics;
pub(crate) mod offsets_topic;
pub(crate) mod reply;
mod run;
mod serving;
mod shard;
