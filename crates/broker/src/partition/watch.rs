//! A place among those who are told of what happens to a partition.

use std::sync::Weak;

use tidelog_replica::Ticket;
use tidelog_types::{LeaderEpoch, Offset};

use super::Shared;

/// A place among those who are told of what happens to the partition; leaving it is dropping it.
pub struct Watch {
    /// A session may watch a partition long after it is gone.
    pub(super) shared: Weak<Shared>,
    pub(super) ticket: Ticket,
    /// The epoch in which it holds.
    pub leader_epoch: LeaderEpoch,
    /// Where records became readable when it was made: what was before must be looked for.
    pub high_watermark: Offset,
}

impl Watch {
    /// Whether the partition is still led in the epoch of the watch, so that it goes on.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| {
            let state = shared.lock();
            state.leader.as_ref().is_some_and(|l| l.leader_epoch() == self.leader_epoch)
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().purgatory.fetches.remove(self.ticket);
        }
    }
}
