//! How far groups have come: OffsetCommit, OffsetFetch, OffsetDelete.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_types::{ErrorCode, LeaderEpoch, TopicId};

use super::{Group, State};
use crate::record::{GroupRecord, OffsetCommitValue, STRING_BYTES_MAX};
use crate::request::{
    CommitOffsets, DeleteOffsets, FetchOffsets, FetchedOffset, Now, OffsetToCommit,
};
use crate::settings::GroupSettings;

/// A group's offsets, by topic and partition.
///
/// Those of open transactions will stand beside the committed ones, by producer id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    committed: BTreeMap<Arc<str>, BTreeMap<i32, OffsetCommitValue>>,
}

impl Offsets {
    /// Applies a record.
    pub(crate) fn replay(
        &mut self,
        topic: &Arc<str>,
        partition: i32,
        value: Option<&OffsetCommitValue>,
    ) {
        if let Some(value) = value {
            let partitions = match self.committed.get_mut(topic) {
                Some(partitions) => partitions,
                None => self.committed.entry(topic.clone()).or_default(),
            };
            partitions.insert(partition, value.clone());
        } else if let Some(partitions) = self.committed.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.committed.remove(topic);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.committed.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.committed.values().map(BTreeMap::len).sum()
    }

    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&OffsetCommitValue> {
        self.committed.get(topic)?.get(&partition)
    }

    /// All of them, by topic and partition.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, i32, &OffsetCommitValue)> {
        self.committed.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, value)| (topic, *partition, value))
        })
    }

    /// Those of one topic.
    pub(crate) fn of_topic<'a>(
        &'a self,
        topic: &str,
    ) -> impl Iterator<Item = (&'a Arc<str>, i32)> + use<'a> {
        let found = self.committed.get_key_value(topic);
        found.into_iter().flat_map(|(topic, partitions)| {
            partitions.keys().map(move |partition| (topic, *partition))
        })
    }
}

/// Says that a group has no offset in a partition any more.
pub(crate) fn tombstone(group_id: &Arc<str>, topic: &Arc<str>, partition: i32) -> GroupRecord {
    let (group_id, topic) = (group_id.clone(), topic.clone());
    GroupRecord::OffsetCommit { group_id, topic, partition, value: None }
}

/// Whether a client may commit to a group. Whoever is no member may where there are no members:
/// such a group is made by its first commit.
pub(crate) fn check_commit(
    group: Option<&Group>,
    request: &CommitOffsets,
) -> Result<(), ErrorCode> {
    if request.group_id.len() > STRING_BYTES_MAX {
        return Err(ErrorCode::InvalidGroupId);
    }
    let is_outsider = request.generation_id < 0;
    let Some(group) = group else {
        return if is_outsider { Ok(()) } else { Err(request.unknown_group) };
    };
    if is_outsider && group.state == State::Empty {
        return Ok(());
    }
    if is_outsider && request.member_id.is_empty() && request.group_instance_id.is_none() {
        return Err(ErrorCode::UnknownMemberId);
    }
    group.check_member(&request.member_id, request.group_instance_id.as_deref())?;
    if request.generation_id != group.generation_id {
        return Err(ErrorCode::IllegalGeneration);
    }
    if group.state == State::CompletingRebalance {
        return Err(ErrorCode::RebalanceInProgress);
    }
    Ok(())
}

/// The records of a commit that is allowed, and what is told of each of its offsets.
pub(crate) fn commit(
    settings: &GroupSettings,
    group_id: &Arc<str>,
    request: &CommitOffsets,
    now: Now,
) -> (Vec<GroupRecord>, Vec<ErrorCode>) {
    let mut records = Vec::with_capacity(request.offsets.len());
    let mut codes = Vec::with_capacity(request.offsets.len());
    let mut topic: Arc<str> = Arc::default();
    for offset in &request.offsets {
        if !fits(settings, offset) {
            codes.push(ErrorCode::OffsetMetadataTooLarge);
            continue;
        }
        if *topic != *offset.topic {
            topic = offset.topic.as_str().into();
        }
        records.push(GroupRecord::OffsetCommit {
            group_id: group_id.clone(),
            topic: topic.clone(),
            partition: offset.partition,
            value: Some(to_record(request, offset, now)),
        });
        codes.push(ErrorCode::None);
    }
    (records, codes)
}

/// As Kafka counts it: in Java's characters.
fn fits(settings: &GroupSettings, offset: &OffsetToCommit) -> bool {
    offset.metadata.len() <= STRING_BYTES_MAX
        && offset.metadata.encode_utf16().count() <= settings.offset_metadata_chars_max
}

fn to_record(request: &CommitOffsets, offset: &OffsetToCommit, now: Now) -> OffsetCommitValue {
    let expire = request.retention.map(|retention| {
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        now.wall_ms.saturating_add(retention_ms)
    });
    OffsetCommitValue {
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata.clone(),
        commit_timestamp_ms: now.wall_ms,
        expire_timestamp_ms: expire,
        topic_id: offset.topic_id,
    }
}

/// What a group has committed; nothing at all for a group that nobody has heard of.
pub(crate) fn fetch(offsets: Option<&Offsets>, request: &FetchOffsets) -> Vec<FetchedOffset> {
    let fetched = |topic: &str, partition| {
        let value = offsets.and_then(|offsets| offsets.get(topic, partition));
        fetched(topic, partition, value)
    };
    match &request.partitions {
        Some(named) => named.iter().map(|(topic, partition)| fetched(topic, *partition)).collect(),
        None => {
            let all = offsets.into_iter().flat_map(Offsets::iter);
            all.map(|(topic, partition, _)| fetched(topic, partition)).collect()
        }
    }
}

fn fetched(topic: &str, partition: i32, value: Option<&OffsetCommitValue>) -> FetchedOffset {
    FetchedOffset {
        topic: topic.to_owned(),
        topic_id: value.map_or(TopicId::ZERO, |value| value.topic_id),
        partition,
        offset: value.map(|value| value.offset),
        leader_epoch: value.map_or(LeaderEpoch::NONE, |value| value.leader_epoch),
        metadata: value.map(|value| value.metadata.clone()).unwrap_or_default(),
        error_code: ErrorCode::None,
    }
}

/// Whether offsets may be deleted at all: with members, only where we know what they consume.
pub(crate) fn check_delete(group: Option<&Group>) -> Result<&Group, ErrorCode> {
    let group = group.ok_or(ErrorCode::GroupIdNotFound)?;
    if group.state != State::Empty && !group.is_of_consumers() {
        return Err(ErrorCode::NonEmptyGroup);
    }
    Ok(group)
}

/// The tombstones of a deletion that is allowed, and what is told of each partition.
pub(crate) fn delete(
    group_id: &Arc<str>,
    group: &Group,
    offsets: &Offsets,
    request: &DeleteOffsets,
) -> (Vec<GroupRecord>, Vec<ErrorCode>) {
    let subscription = group.subscription();
    let mut records = Vec::new();
    let mut codes = Vec::with_capacity(request.partitions.len());
    for (topic, partition) in &request.partitions {
        if subscription.has(topic) {
            codes.push(ErrorCode::GroupSubscribedToTopic);
            continue;
        }
        if offsets.get(topic, *partition).is_some() {
            records.push(tombstone(group_id, &topic.as_str().into(), *partition));
        }
        codes.push(ErrorCode::None);
    }
    (records, codes)
}
