//! Random requests of the APIs of groups.

use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, SyncGroupRequest,
    join_group_request::JoinGroupRequestProtocol,
    leave_group_request::MemberIdentity,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    },
    sync_group_request::SyncGroupRequestAssignment,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{
    Random,
    samples::{Sample, tags, text, topic_name, uuid},
};

/// First version that the codec does not write: topics have an id in place of their name.
const IDS_FROM: i16 = 10;

fn group_id(random: &mut Random) -> GroupId {
    GroupId(text(random))
}

/// Text that may be null, in versions that have it.
fn since(since: i16, version: i16, random: &mut Random) -> Option<StrBytes> {
    if version >= since { random.maybe(text) } else { None }
}

impl Sample for DeleteGroupsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        DeleteGroupsRequest::default()
            .with_groups_names(random.list(group_id))
            .with_unknown_tagged_fields(tags(version >= 2, random))
    }
}

impl Sample for DescribeGroupsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        DescribeGroupsRequest::default()
            .with_groups(random.list(group_id))
            .with_include_authorized_operations(version >= 3 && random.bool())
            .with_unknown_tagged_fields(tags(version >= 5, random))
    }
}

impl Sample for HeartbeatRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        HeartbeatRequest::default()
            .with_group_id(group_id(random))
            .with_generation_id(random.int32())
            .with_member_id(text(random))
            .with_group_instance_id(since(3, version, random))
            .with_unknown_tagged_fields(tags(version >= 4, random))
    }
}

impl Sample for JoinGroupRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 6;
        JoinGroupRequest::default()
            .with_group_id(group_id(random))
            .with_session_timeout_ms(random.int32())
            .with_rebalance_timeout_ms(if version >= 1 { random.int32() } else { -1 })
            .with_member_id(text(random))
            .with_group_instance_id(since(5, version, random))
            .with_protocol_type(text(random))
            .with_protocols(random.list(|random| {
                JoinGroupRequestProtocol::default()
                    .with_name(text(random))
                    .with_metadata(random.bytes(20).into())
                    .with_unknown_tagged_fields(tags(flexible, random))
            }))
            .with_reason(since(8, version, random))
            .with_unknown_tagged_fields(tags(flexible, random))
    }
}

impl Sample for LeaveGroupRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 4;
        let request = LeaveGroupRequest::default()
            .with_group_id(group_id(random))
            .with_unknown_tagged_fields(tags(flexible, random));
        if version < 3 {
            return request.with_member_id(text(random));
        }
        request.with_members(random.list(|random| {
            MemberIdentity::default()
                .with_member_id(text(random))
                .with_group_instance_id(random.maybe(text))
                .with_reason(since(5, version, random))
                .with_unknown_tagged_fields(tags(flexible, random))
        }))
    }
}

impl Sample for ListGroupsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        ListGroupsRequest::default()
            .with_states_filter(if version >= 4 { random.list(text) } else { Vec::new() })
            .with_types_filter(if version >= 5 { random.list(text) } else { Vec::new() })
            .with_unknown_tagged_fields(tags(version >= 3, random))
    }
}

impl Sample for SyncGroupRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 4;
        SyncGroupRequest::default()
            .with_group_id(group_id(random))
            .with_generation_id(random.int32())
            .with_member_id(text(random))
            .with_group_instance_id(since(3, version, random))
            .with_protocol_type(since(5, version, random))
            .with_protocol_name(since(5, version, random))
            .with_assignments(random.list(|random| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(text(random))
                    .with_assignment(random.bytes(20).into())
                    .with_unknown_tagged_fields(tags(flexible, random))
            }))
            .with_unknown_tagged_fields(tags(flexible, random))
    }
}

impl Sample for OffsetDeleteRequest {
    fn sample(_version: i16, random: &mut Random) -> Self {
        OffsetDeleteRequest::default().with_group_id(group_id(random)).with_topics(random.list(
            |random| {
                let partition = |random: &mut Random| {
                    OffsetDeleteRequestPartition::default().with_partition_index(random.int32())
                };
                OffsetDeleteRequestTopic::default()
                    .with_name(topic_name(random))
                    .with_partitions(random.list(partition))
            },
        ))
    }
}

impl Sample for OffsetCommitRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 8;
        let partition = |random: &mut Random| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(random.int32())
                .with_committed_offset(random.int64())
                .with_committed_leader_epoch(if version >= 6 { random.int32() } else { -1 })
                .with_committed_metadata(random.maybe(text))
                .with_unknown_tagged_fields(tags(flexible, random))
        };
        let topic = |random: &mut Random| {
            let topic = OffsetCommitRequestTopic::default()
                .with_partitions(random.list(partition))
                .with_unknown_tagged_fields(tags(flexible, random));
            match version >= IDS_FROM {
                true => topic.with_topic_id(uuid(random)),
                false => topic.with_name(topic_name(random)),
            }
        };
        OffsetCommitRequest::default()
            .with_group_id(group_id(random))
            .with_generation_id_or_member_epoch(random.int32())
            .with_member_id(text(random))
            .with_group_instance_id(since(7, version, random))
            .with_retention_time_ms(if version <= 4 { random.int64() } else { -1 })
            .with_topics(random.list(topic))
            .with_unknown_tagged_fields(tags(flexible, random))
    }

    fn encode_in(&self, version: i16) -> Vec<u8> {
        let ids = self.topics.iter().map(|topic| topic.topic_id);
        named_and_replaced(self.clone(), version, ids.collect(), |request, names| {
            request.topics.iter_mut().zip(names).for_each(|(topic, name)| topic.name = name);
        })
    }
}

impl Sample for OffsetFetchRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 6;
        let request = OffsetFetchRequest::default()
            .with_require_stable(version >= 7 && random.bool())
            .with_unknown_tagged_fields(tags(flexible, random));
        if version < 8 {
            let topic = |random: &mut Random| {
                OffsetFetchRequestTopic::default()
                    .with_name(topic_name(random))
                    .with_partition_indexes(random.list(Random::int32))
                    .with_unknown_tagged_fields(tags(flexible, random))
            };
            let topics = random.list(topic);
            let all = version >= 2 && random.chance(4);
            return request.with_group_id(group_id(random)).with_topics((!all).then_some(topics));
        }
        let topic = |random: &mut Random| {
            let topic = OffsetFetchRequestTopics::default()
                .with_partition_indexes(random.list(Random::int32))
                .with_unknown_tagged_fields(tags(flexible, random));
            match version >= IDS_FROM {
                true => topic.with_topic_id(uuid(random)),
                false => topic.with_name(topic_name(random)),
            }
        };
        request.with_groups(random.list(|random| {
            OffsetFetchRequestGroup::default()
                .with_group_id(group_id(random))
                .with_member_id(since(9, version, random))
                .with_member_epoch(if version >= 9 { random.int32() } else { -1 })
                .with_topics(random.maybe(|random| random.list(topic)))
                .with_unknown_tagged_fields(tags(flexible, random))
        }))
    }

    fn encode_in(&self, version: i16) -> Vec<u8> {
        let topics = self.groups.iter().filter_map(|group| group.topics.as_ref()).flatten();
        let ids = topics.map(|topic| topic.topic_id).collect();
        named_and_replaced(self.clone(), version, ids, |request, names| {
            let topics = request.groups.iter_mut().filter_map(|group| group.topics.as_mut());
            topics.flatten().zip(names).for_each(|(topic, name)| topic.name = name);
        })
    }
}

/// Encodes a request whose topics have ids: in the codec's last version under a name that occurs
/// nowhere else, which then gives way to the id.
fn named_and_replaced<R: Encodable>(
    mut request: R,
    version: i16,
    ids: Vec<uuid::Uuid>,
    name: impl FnOnce(&mut R, Vec<kafka_protocol::messages::TopicName>),
) -> Vec<u8> {
    let mut body = Vec::new();
    if version < IDS_FROM {
        request.encode(&mut body, version).expect("a sample fits its version");
        return body;
    }
    let names: Vec<String> = (0..ids.len()).map(|place| format!("<<topic {place}>>")).collect();
    let own = |name: &String| StrBytes::from_string(name.clone()).into();
    name(&mut request, names.iter().map(own).collect());
    request.encode(&mut body, IDS_FROM - 1).expect("a sample fits its version");
    for (name, id) in names.iter().zip(ids) {
        let found = body.windows(name.len()).position(|bytes| bytes == name.as_bytes());
        let start = found.expect("the name was written");
        // One byte of length is in front of so short a name.
        body.splice(start - 1..start + name.len(), *id.as_bytes());
    }
    body
}
