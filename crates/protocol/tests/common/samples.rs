//! Random requests of every API that the codec decodes.

use std::{collections::BTreeMap, fmt::Debug};

use bytes::Bytes;
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, DescribeProducersRequest, DescribeQuorumRequest,
    DescribeTopicPartitionsRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, ListConfigResourcesRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, TopicName, UpdateFeaturesRequest, alter_configs_request,
    create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    delete_topics_request::DeleteTopicState,
    describe_configs_request::DescribeConfigsResource,
    describe_log_dirs_request::DescribableLogDirTopic,
    describe_producers_request, describe_quorum_request, describe_topic_partitions_request,
    incremental_alter_configs_request,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    metadata_request::MetadataRequestTopic,
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    update_features_request::FeatureUpdateKey,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use tidelog_protocol::{ApiKey, request::CodecRequest};

use super::Random;

/// A request that can be made up.
pub trait Sample: CodecRequest + Encodable + Debug + PartialEq {
    fn sample(version: i16, random: &mut Random) -> Self;

    /// The request's body in one of our versions, which the codec may know under a lower number.
    fn encode_in(&self, version: i16) -> Vec<u8> {
        let mut body = Vec::new();
        let version = if Self::API == ApiKey::ListOffsets { version.min(10) } else { version };
        self.encode(&mut body, version).expect("a sample fits its version");
        body
    }
}

/// Calls a function with every request type that the codec decodes.
#[macro_export]
macro_rules! for_every_codec_request {
    ($function:ident, $($argument:expr),*) => {{
        use kafka_protocol::messages as m;
        $function::<m::AlterConfigsRequest>($($argument),*);
        $function::<m::ApiVersionsRequest>($($argument),*);
        $function::<m::CreatePartitionsRequest>($($argument),*);
        $function::<m::CreateTopicsRequest>($($argument),*);
        $function::<m::DeleteGroupsRequest>($($argument),*);
        $function::<m::DeleteRecordsRequest>($($argument),*);
        $function::<m::DeleteTopicsRequest>($($argument),*);
        $function::<m::DescribeClusterRequest>($($argument),*);
        $function::<m::DescribeConfigsRequest>($($argument),*);
        $function::<m::DescribeGroupsRequest>($($argument),*);
        $function::<m::DescribeLogDirsRequest>($($argument),*);
        $function::<m::DescribeProducersRequest>($($argument),*);
        $function::<m::DescribeQuorumRequest>($($argument),*);
        $function::<m::DescribeTopicPartitionsRequest>($($argument),*);
        $function::<m::FindCoordinatorRequest>($($argument),*);
        $function::<m::HeartbeatRequest>($($argument),*);
        $function::<m::IncrementalAlterConfigsRequest>($($argument),*);
        $function::<m::InitProducerIdRequest>($($argument),*);
        $function::<m::JoinGroupRequest>($($argument),*);
        $function::<m::LeaveGroupRequest>($($argument),*);
        $function::<m::ListConfigResourcesRequest>($($argument),*);
        $function::<m::ListGroupsRequest>($($argument),*);
        $function::<m::ListOffsetsRequest>($($argument),*);
        $function::<m::MetadataRequest>($($argument),*);
        $function::<m::OffsetCommitRequest>($($argument),*);
        $function::<m::OffsetDeleteRequest>($($argument),*);
        $function::<m::OffsetFetchRequest>($($argument),*);
        $function::<m::OffsetForLeaderEpochRequest>($($argument),*);
        $function::<m::SyncGroupRequest>($($argument),*);
        $function::<m::UpdateFeaturesRequest>($($argument),*);
    }};
}

/// Every version of an API that is served.
pub fn versions(api: ApiKey) -> impl Iterator<Item = i16> {
    api.api().served_min..=api.api().max
}

/// The request's body in one of our versions.
pub fn encode<R: Sample>(request: &R, version: i16) -> Vec<u8> {
    request.encode_in(version)
}

pub fn text(random: &mut Random) -> StrBytes {
    StrBytes::from_string(random.text())
}

pub fn topic_name(random: &mut Random) -> TopicName {
    TopicName(text(random))
}

pub fn uuid(random: &mut Random) -> uuid::Uuid {
    uuid::Uuid::from_u64_pair(random.bits(), random.bits())
}

/// Tagged fields that nobody knows, in versions that may have them.
pub fn tags(flexible: bool, random: &mut Random) -> BTreeMap<i32, Bytes> {
    let count = if flexible && random.chance(4) { random.below(4) } else { 0 };
    (0..count).map(|_| (random.below(1000) as i32 + 10, random.bytes(20).into())).collect()
}

impl Sample for ApiVersionsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let request = ApiVersionsRequest::default();
        if version < 3 {
            return request;
        }
        request
            .with_client_software_name(text(random))
            .with_client_software_version(text(random))
            .with_unknown_tagged_fields(tags(true, random))
    }
}

impl Sample for CreateTopicsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 5;
        CreateTopicsRequest::default()
            .with_topics(random.list(|random| {
                CreatableTopic::default()
                    .with_name(topic_name(random))
                    .with_num_partitions(random.int32())
                    .with_replication_factor(random.int16())
                    .with_assignments(random.list(|random| {
                        CreatableReplicaAssignment::default()
                            .with_partition_index(random.int32())
                            .with_broker_ids(random.list(|random| random.int32().into()))
                            .with_unknown_tagged_fields(tags(flexible, random))
                    }))
                    .with_configs(random.list(|random| {
                        CreatableTopicConfig::default()
                            .with_name(text(random))
                            .with_value(random.maybe(text))
                            .with_unknown_tagged_fields(tags(flexible, random))
                    }))
                    .with_unknown_tagged_fields(tags(flexible, random))
            }))
            .with_timeout_ms(random.int32())
            .with_validate_only(random.bool())
            .with_unknown_tagged_fields(tags(flexible, random))
    }
}

impl Sample for DeleteTopicsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 4;
        let request = DeleteTopicsRequest::default()
            .with_timeout_ms(random.int32())
            .with_unknown_tagged_fields(tags(flexible, random));
        if version < 6 {
            return request.with_topic_names(random.list(topic_name));
        }
        request.with_topics(random.list(|random| {
            DeleteTopicState::default()
                .with_name(random.maybe(topic_name))
                .with_topic_id(uuid(random))
                .with_unknown_tagged_fields(tags(flexible, random))
        }))
    }
}

impl Sample for DescribeClusterRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let mut request = DescribeClusterRequest::default()
            .with_include_cluster_authorized_operations(random.bool())
            .with_unknown_tagged_fields(tags(true, random));
        if version >= 1 {
            request = request.with_endpoint_type(random.int8());
        }
        if version >= 2 {
            request = request.with_include_fenced_brokers(random.bool());
        }
        request
    }
}

impl Sample for DescribeConfigsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 4;
        DescribeConfigsRequest::default()
            .with_resources(random.list(|random| {
                DescribeConfigsResource::default()
                    .with_resource_type(random.int8())
                    .with_resource_name(text(random))
                    .with_configuration_keys(random.maybe(|random| random.list(text)))
                    .with_unknown_tagged_fields(tags(flexible, random))
            }))
            .with_include_synonyms(random.bool())
            .with_include_documentation(version >= 3 && random.bool())
            .with_unknown_tagged_fields(tags(flexible, random))
    }
}

impl Sample for FindCoordinatorRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let mut request = FindCoordinatorRequest::default()
            .with_unknown_tagged_fields(tags(version >= 3, random));
        if version >= 1 {
            request = request.with_key_type(random.int8());
        }
        match version >= 4 {
            true => request.with_coordinator_keys(random.list(text)),
            false => request.with_key(text(random)),
        }
    }
}

impl Sample for InitProducerIdRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(random.maybe(|random| text(random).into()))
            .with_transaction_timeout_ms(random.int32())
            .with_unknown_tagged_fields(tags(version >= 2, random));
        match version >= 3 {
            true => {
                request.with_producer_id(random.int64().into()).with_producer_epoch(random.int16())
            }
            false => request,
        }
    }
}

impl Sample for ListOffsetsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 6;
        let request = ListOffsetsRequest::default()
            .with_replica_id(random.int32().into())
            .with_isolation_level(if version >= 2 { random.int8() } else { 0 })
            .with_timeout_ms(if version >= 10 { random.int32() } else { 0 })
            .with_unknown_tagged_fields(tags(flexible, random));
        request.with_topics(random.list(|random| {
            ListOffsetsTopic::default()
                .with_name(topic_name(random))
                .with_partitions(random.list(|random| {
                    ListOffsetsPartition::default()
                        .with_partition_index(random.int32())
                        .with_current_leader_epoch(if version >= 4 { random.int32() } else { -1 })
                        .with_timestamp(random.int64())
                        .with_unknown_tagged_fields(tags(flexible, random))
                }))
                .with_unknown_tagged_fields(tags(flexible, random))
        }))
    }
}

impl Sample for MetadataRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 9;
        let topic = |random: &mut Random| {
            let name = match version >= 10 {
                true => random.maybe(topic_name),
                false => Some(topic_name(random)),
            };
            let topic = MetadataRequestTopic::default()
                .with_name(name)
                .with_unknown_tagged_fields(tags(flexible, random));
            if version >= 10 { topic.with_topic_id(uuid(random)) } else { topic }
        };
        let topics = random.list(topic);
        let all = version >= 1 && random.chance(4);
        MetadataRequest::default()
            .with_topics((!all).then_some(topics))
            .with_allow_auto_topic_creation(version < 4 || random.bool())
            .with_include_cluster_authorized_operations(
                (8..=10).contains(&version) && random.bool(),
            )
            .with_include_topic_authorized_operations(version >= 8 && random.bool())
            .with_unknown_tagged_fields(tags(flexible, random))
    }
}

impl Sample for OffsetForLeaderEpochRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 4;
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id(if version >= 3 { random.int32().into() } else { (-2).into() })
            .with_unknown_tagged_fields(tags(flexible, random));
        request.with_topics(random.list(|random| {
            OffsetForLeaderTopic::default()
                .with_topic(topic_name(random))
                .with_partitions(random.list(|random| {
                    OffsetForLeaderPartition::default()
                        .with_partition(random.int32())
                        .with_current_leader_epoch(random.int32())
                        .with_leader_epoch(random.int32())
                        .with_unknown_tagged_fields(tags(flexible, random))
                }))
                .with_unknown_tagged_fields(tags(flexible, random))
        }))
    }
}

impl Sample for AlterConfigsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 2;
        AlterConfigsRequest::default()
            .with_resources(random.list(|random| {
                alter_configs_request::AlterConfigsResource::default()
                    .with_resource_type(random.int8())
                    .with_resource_name(text(random))
                    .with_configs(random.list(|random| {
                        alter_configs_request::AlterableConfig::default()
                            .with_name(text(random))
                            .with_value(random.maybe(text))
                            .with_unknown_tagged_fields(tags(flexible, random))
                    }))
                    .with_unknown_tagged_fields(tags(flexible, random))
            }))
            .with_validate_only(random.bool())
            .with_unknown_tagged_fields(tags(flexible, random))
    }
}

impl Sample for CreatePartitionsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 2;
        let assignment = |random: &mut Random| {
            CreatePartitionsAssignment::default()
                .with_broker_ids(random.list(|random| random.int32().into()))
                .with_unknown_tagged_fields(tags(flexible, random))
        };
        CreatePartitionsRequest::default()
            .with_topics(random.list(|random| {
                CreatePartitionsTopic::default()
                    .with_name(topic_name(random))
                    .with_count(random.int32())
                    .with_assignments(random.maybe(|random| random.list(assignment)))
                    .with_unknown_tagged_fields(tags(flexible, random))
            }))
            .with_timeout_ms(random.int32())
            .with_validate_only(random.bool())
            .with_unknown_tagged_fields(tags(flexible, random))
    }
}

impl Sample for DeleteRecordsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 2;
        DeleteRecordsRequest::default()
            .with_topics(random.list(|random| {
                DeleteRecordsTopic::default()
                    .with_name(topic_name(random))
                    .with_partitions(random.list(|random| {
                        DeleteRecordsPartition::default()
                            .with_partition_index(random.int32())
                            .with_offset(random.int64())
                            .with_unknown_tagged_fields(tags(flexible, random))
                    }))
                    .with_unknown_tagged_fields(tags(flexible, random))
            }))
            .with_timeout_ms(random.int32())
            .with_unknown_tagged_fields(tags(flexible, random))
    }
}

impl Sample for DescribeLogDirsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 2;
        let topic = |random: &mut Random| {
            DescribableLogDirTopic::default()
                .with_topic(topic_name(random))
                .with_partitions(random.list(Random::int32))
                .with_unknown_tagged_fields(tags(flexible, random))
        };
        DescribeLogDirsRequest::default()
            .with_topics(random.maybe(|random| random.list(topic)))
            .with_unknown_tagged_fields(tags(flexible, random))
    }
}

impl Sample for DescribeProducersRequest {
    fn sample(_version: i16, random: &mut Random) -> Self {
        DescribeProducersRequest::default()
            .with_topics(random.list(|random| {
                describe_producers_request::TopicRequest::default()
                    .with_name(topic_name(random))
                    .with_partition_indexes(random.list(Random::int32))
                    .with_unknown_tagged_fields(tags(true, random))
            }))
            .with_unknown_tagged_fields(tags(true, random))
    }
}

impl Sample for DescribeQuorumRequest {
    fn sample(_version: i16, random: &mut Random) -> Self {
        DescribeQuorumRequest::default()
            .with_topics(random.list(|random| {
                describe_quorum_request::TopicData::default()
                    .with_topic_name(topic_name(random))
                    .with_partitions(random.list(|random| {
                        describe_quorum_request::PartitionData::default()
                            .with_partition_index(random.int32())
                            .with_unknown_tagged_fields(tags(true, random))
                    }))
                    .with_unknown_tagged_fields(tags(true, random))
            }))
            .with_unknown_tagged_fields(tags(true, random))
    }
}

impl Sample for DescribeTopicPartitionsRequest {
    fn sample(_version: i16, random: &mut Random) -> Self {
        DescribeTopicPartitionsRequest::default()
            .with_topics(random.list(|random| {
                describe_topic_partitions_request::TopicRequest::default()
                    .with_name(topic_name(random))
                    .with_unknown_tagged_fields(tags(true, random))
            }))
            .with_response_partition_limit(random.int32())
            .with_cursor(random.maybe(|random| {
                describe_topic_partitions_request::Cursor::default()
                    .with_topic_name(topic_name(random))
                    .with_partition_index(random.int32())
                    .with_unknown_tagged_fields(tags(true, random))
            }))
            .with_unknown_tagged_fields(tags(true, random))
    }
}

impl Sample for IncrementalAlterConfigsRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let flexible = version >= 1;
        IncrementalAlterConfigsRequest::default()
            .with_resources(random.list(|random| {
                incremental_alter_configs_request::AlterConfigsResource::default()
                    .with_resource_type(random.int8())
                    .with_resource_name(text(random))
                    .with_configs(random.list(|random| {
                        incremental_alter_configs_request::AlterableConfig::default()
                            .with_name(text(random))
                            .with_config_operation(random.int8())
                            .with_value(random.maybe(text))
                            .with_unknown_tagged_fields(tags(flexible, random))
                    }))
                    .with_unknown_tagged_fields(tags(flexible, random))
            }))
            .with_validate_only(random.bool())
            .with_unknown_tagged_fields(tags(flexible, random))
    }
}

impl Sample for ListConfigResourcesRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        let types = if version >= 1 { random.list(Random::int8) } else { Vec::new() };
        ListConfigResourcesRequest::default()
            .with_resource_types(types)
            .with_unknown_tagged_fields(tags(true, random))
    }
}

impl Sample for UpdateFeaturesRequest {
    fn sample(version: i16, random: &mut Random) -> Self {
        UpdateFeaturesRequest::default()
            .with_timeout_ms(random.int32())
            .with_feature_updates(random.list(|random| {
                let update = FeatureUpdateKey::default()
                    .with_feature(text(random))
                    .with_max_version_level(random.int16())
                    .with_unknown_tagged_fields(tags(true, random));
                match version {
                    0 => update.with_allow_downgrade(random.bool()),
                    _ => update.with_upgrade_type(random.int8()),
                }
            }))
            .with_validate_only(version >= 1 && random.bool())
            .with_unknown_tagged_fields(tags(true, random))
    }
}
