//! What would happen to one group, played on a copy of it.

use std::sync::Arc;
use std::time::Duration;

use super::Group;
use super::change::Change;
use crate::event::{Event, ShardChange, Volatile};
use crate::record::{GroupMetadataValue, GroupRecord};
use crate::request::{GroupResponse, Now, RequestId};
use crate::settings::GroupSettings;
use crate::shard::{Planned, Rebalance, RebalanceCause};

/// A plan for one group in the making. What it says has happened has happened to its copy.
pub(crate) struct Draft<'a> {
    pub(crate) settings: &'a GroupSettings,
    pub(crate) now: Now,
    pub(crate) group_id: Arc<str>,
    pub(crate) group: Group,
    planned: Planned,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        settings: &'a GroupSettings,
        now: Now,
        group_id: Arc<str>,
        group: Group,
    ) -> Draft<'a> {
        Draft { settings, now, group_id, group, planned: Planned::default() }
    }

    /// The plan, to be carried out on the original.
    pub(crate) fn into_planned(self) -> Planned {
        self.planned
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.group.apply(&change);
        self.planned.events.push(volatile(&self.group_id, change));
    }

    pub(crate) fn record(&mut self, value: Option<GroupMetadataValue>) {
        self.group.replay(value.as_ref());
        let group_id = self.group_id.clone();
        self.planned.events.push(Event::Record(GroupRecord::GroupMetadata { group_id, value }));
    }

    pub(crate) fn reply(&mut self, id: RequestId, response: GroupResponse) {
        self.planned.replies.push((id, response));
    }

    /// Notes why all members have to join again.
    pub(crate) fn note_rebalance(&mut self, cause: RebalanceCause) {
        let group_id = self.group_id.clone();
        let generation_id = self.group.generation_id;
        self.planned.rebalances.push(Rebalance { group_id, generation_id, cause });
    }

    /// The moment so much later, for a deadline.
    pub(crate) fn after(&self, duration: Duration) -> Duration {
        self.now.elapsed.saturating_add(duration)
    }
}

/// A change of a group, as an event of its shard.
pub(crate) fn volatile(group_id: &Arc<str>, change: Change) -> Event {
    Event::Volatile(Volatile(ShardChange::Group { group_id: group_id.clone(), change }))
}
