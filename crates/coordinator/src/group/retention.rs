//! Which offsets nobody needs any more.

use std::sync::Arc;

use super::offsets::{Offsets, tombstone};
use super::subscription::Subscription;
use super::{Group, State};
use crate::record::{GroupRecord, OffsetCommitValue};
use crate::request::Now;
use crate::settings::GroupSettings;

/// Since when an offset has not been needed.
enum Unneeded {
    /// Since the group came into its state, or the offset was committed if that is not known.
    SinceState,
    /// Since it was committed.
    SinceCommit,
    /// It is.
    Never,
}

/// The tombstones of what has expired of a group, and of the group if nothing remains of it.
pub(crate) fn expire(
    settings: &GroupSettings,
    group_id: &Arc<str>,
    group: &Group,
    offsets: &Offsets,
    now: Now,
) -> Vec<GroupRecord> {
    let mut records = Vec::new();
    let subscription = group.subscription();
    for (topic, partition, value) in offsets.iter() {
        let since = match group.unneeded(&subscription) {
            Unneeded::SinceState => group.state_ms.unwrap_or(value.commit_timestamp_ms),
            Unneeded::SinceCommit => value.commit_timestamp_ms,
            Unneeded::Never => break,
        };
        if !subscription.has(topic) && has_expired(settings, value, since, now) {
            records.push(tombstone(group_id, topic, partition));
        }
    }
    let is_over = group.state == State::Empty && group.reserved.is_empty();
    if is_over && group.is_recorded && records.len() == offsets.len() {
        let group_id = group_id.clone();
        records.push(GroupRecord::GroupMetadata { group_id, value: None });
    }
    records
}

impl Group {
    /// A group that never had members needs each offset for its time. One that has lost them keeps
    /// all until it has been empty for so long; one that has them, what they consume (KIP-211).
    fn unneeded(&self, subscription: &Subscription) -> Unneeded {
        match (self.state, subscription) {
            _ if self.protocol_type.is_none() => Unneeded::SinceCommit,
            (State::Empty, _) => Unneeded::SinceState,
            (State::Stable, Subscription::Topics(_)) => Unneeded::SinceCommit,
            _ => Unneeded::Never,
        }
    }
}

fn has_expired(
    settings: &GroupSettings,
    value: &OffsetCommitValue,
    since_ms: i64,
    now: Now,
) -> bool {
    let retention_ms = i64::try_from(settings.offsets_retention.as_millis()).unwrap_or(i64::MAX);
    let until_ms = value.expire_timestamp_ms.unwrap_or(since_ms.saturating_add(retention_ms));
    now.wall_ms >= until_ms
}
