//! What a plan says has happened.

use std::sync::Arc;
use std::time::Duration;

use crate::group::change::Change;
use crate::record::GroupRecord;

/// One thing that has happened to a shard. Replaying it is the only way to change the shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Goes to the log, in this order among the records of the plan.
    Record(GroupRecord),
    /// Of this process only: who waits, who was heard of. Forgotten when the shard moves.
    Volatile(Volatile),
}

/// A change that no log tells of. Only the shard knows what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volatile(pub(crate) ShardChange);

/// A volatile change, of one group or of the shard as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ShardChange {
    /// One group, which comes to be with its first change.
    Group {
        /// The group.
        group_id: Arc<str>,
        /// What happened to it.
        change: Change,
    },
    /// Old offsets were looked for, so far.
    Swept {
        /// The last group looked at; `None` after the last of all.
        up_to: Option<Arc<str>>,
        /// When to go on.
        next: Duration,
    },
}
