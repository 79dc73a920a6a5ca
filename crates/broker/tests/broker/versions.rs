//! Every version of every API that is advertised is answered in its own shape.

use bytes::Bytes;
use tidelog_net::service::CloseReason;
use tidelog_protocol::{
    ApiKey,
    api_versions::TABLE,
    kafka_protocol::messages::{
        AlterConfigsRequest, ApiVersionsRequest, BrokerId, CreatePartitionsRequest,
        CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
        DescribeConfigsRequest, DescribeLogDirsRequest, DescribeProducersRequest,
        DescribeQuorumRequest, DescribeTopicPartitionsRequest, FindCoordinatorRequest,
        IncrementalAlterConfigsRequest, InitProducerIdRequest, ListConfigResourcesRequest,
        ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, TopicName,
        UpdateFeaturesRequest, alter_configs_request,
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::CreatableTopic,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
        describe_configs_request::DescribeConfigsResource,
        describe_producers_request, describe_quorum_request,
        fetch_request::FetchTopic,
        incremental_alter_configs_request,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
};

use crate::{
    context::{BrokerTest, resolve, text},
    groups,
    records::{Fetch, batch, batches, first, partition_of, produce_request},
};

#[test]
fn every_version_that_is_served_is_answered() {
    let test = groups::with_groups();
    let id = test.create_topic("topic", 1, &[]);
    for api in TABLE {
        for version in api.served_min..=api.max {
            ask(&test, api.key, version, uuid::Uuid::from_bytes(id.0));
        }
    }
}

/// Asks one API in one version, in the way its clients do. Decoding the answer is the test.
fn ask(test: &BrokerTest, key: ApiKey, version: i16, id: uuid::Uuid) {
    match key {
        ApiKey::Produce => produce(test, version, id),
        ApiKey::Fetch => fetch(test, version, id),
        ApiKey::ListOffsets => list_offsets(test, version),
        ApiKey::Metadata => metadata(test, version),
        ApiKey::FindCoordinator => find_coordinator(test, version),
        ApiKey::OffsetCommit
        | ApiKey::OffsetFetch
        | ApiKey::JoinGroup
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::SyncGroup
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups
        | ApiKey::DeleteGroups
        | ApiKey::OffsetDelete => groups::ask(test, key, version),
        ApiKey::ApiVersions => api_versions(test, version),
        ApiKey::CreateTopics => create_topics(test, version),
        ApiKey::DeleteTopics => delete_topics(test, version),
        ApiKey::InitProducerId => init_producer_id(test, version),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch(test, version),
        ApiKey::DescribeConfigs => describe_configs(test, version),
        ApiKey::DescribeCluster => {
            let response = test.call(version, &DescribeClusterRequest::default());
            assert_eq!((response.error_code, response.brokers.len()), (0, 1), "v{version}");
        }
        ApiKey::DeleteRecords => delete_records(test, version),
        ApiKey::AlterConfigs => alter_configs(test, version),
        ApiKey::DescribeLogDirs => {
            let response = test.call(version, &DescribeLogDirsRequest::default().with_topics(None));
            assert_eq!((response.error_code, response.results.len()), (0, 1), "v{version}");
        }
        ApiKey::CreatePartitions => create_partitions(test, version),
        ApiKey::IncrementalAlterConfigs => incremental_alter_configs(test, version),
        ApiKey::DescribeQuorum => describe_quorum(test, version),
        ApiKey::UpdateFeatures => update_features(test, version),
        ApiKey::DescribeProducers => describe_producers(test, version),
        ApiKey::ListConfigResources => {
            let response = test.call(version, &ListConfigResourcesRequest::default());
            let listed = !response.config_resources.is_empty();
            assert_eq!((response.error_code, listed), (0, version >= 1), "v{version}");
        }
        ApiKey::DescribeTopicPartitions => {
            let response = test.call(version, &DescribeTopicPartitionsRequest::default());
            assert_eq!(response.topics[0].error_code, 0, "v{version}");
        }
    }
}

fn produce(test: &BrokerTest, version: i16, id: uuid::Uuid) {
    let mut request = produce_request("topic", -1, &[(0, batch(&["value"]))]);
    if version >= 13 {
        request.topic_data[0].name = TopicName::default();
        request.topic_data[0].topic_id = id;
    }
    let response = test.call(version, &request);
    assert_eq!(first(&response).error_code, 0, "v{version}");
}

fn fetch(test: &BrokerTest, version: i16, id: uuid::Uuid) {
    let mut request = Fetch::default().request();
    if version >= 13 {
        let topic = FetchTopic::default().with_topic_id(id);
        let partitions = std::mem::take(&mut request.topics[0].partitions);
        request.topics = vec![topic.with_partitions(partitions)];
    }
    if version >= 15 {
        request.replica_id = BrokerId(-1);
    }
    let response = test.call(version, &request);
    assert_eq!((response.error_code, response.session_id), (0, 0), "v{version}");
    let data = partition_of(response);
    assert_eq!(data.error_code, 0, "v{version}");
    assert!(!batches(&data).is_empty(), "v{version}");
}

fn list_offsets(test: &BrokerTest, version: i16) {
    let partition = ListOffsetsPartition::default().with_timestamp(-2);
    let topic = ListOffsetsTopic::default().with_name(TopicName(text("topic")));
    let topic = topic.with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1));
    let response = test.call(
        version,
        &request.with_topics(vec![topic]).with_timeout_ms(if version >= 10 { 1000 } else { 0 }),
    );
    let answer = &response.topics[0].partitions[0];
    assert_eq!((answer.error_code, answer.offset), (0, 0), "v{version}");
}

fn metadata(test: &BrokerTest, version: i16) {
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text("topic"))));
    let response = test.call(version, &MetadataRequest::default().with_topics(Some(vec![topic])));
    assert_eq!((response.brokers.len(), response.topics.len()), (1, 1), "v{version}");
    assert_eq!(response.topics[0].error_code, 0, "v{version}");
    let all = if version == 0 { Some(Vec::new()) } else { None };
    let response = test.call(version, &MetadataRequest::default().with_topics(all));
    assert!(!response.topics.is_empty(), "v{version}");
    let none = test.call(version.max(1), &MetadataRequest::default().with_topics(Some(vec![])));
    assert!(none.topics.is_empty(), "v{version}");
}

fn find_coordinator(test: &BrokerTest, version: i16) {
    let mut request = FindCoordinatorRequest::default();
    match version {
        ..=3 => request.key = text("group"),
        _ => request.coordinator_keys = vec![text("group")],
    }
    let response = test.call(version, &request);
    let (code, node_id) = match response.coordinators.first() {
        Some(found) => (found.error_code, found.node_id.0),
        None => (response.error_code, response.node_id.0),
    };
    assert_eq!((code, node_id), (0, 1), "v{version}");
}

fn api_versions(test: &BrokerTest, version: i16) {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(text("test"))
        .with_client_software_version(text("1.0"));
    let response = test.call(version, &request);
    assert_eq!((response.error_code, response.api_keys.len()), (0, TABLE.len()), "v{version}");
}

fn create_topics(test: &BrokerTest, version: i16) {
    let name = TopicName(text(&format!("created-by-{version}")));
    let topic = CreatableTopic::default().with_name(name).with_num_partitions(1);
    let topic = topic.with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    let response = test.call(version, &request);
    assert_eq!(response.topics[0].error_code, 0, "v{version}");
}

fn delete_topics(test: &BrokerTest, version: i16) {
    let name = TopicName(text(&format!("deleted-by-{version}")));
    test.create_topic(&name, 1, &[]);
    let mut request = DeleteTopicsRequest::default().with_timeout_ms(10_000);
    match version {
        ..=5 => request.topic_names = vec![name],
        _ => request.topics = vec![DeleteTopicState::default().with_name(Some(name))],
    }
    let response = test.call(version, &request);
    assert_eq!(response.responses[0].error_code, 0, "v{version}");
}

fn init_producer_id(test: &BrokerTest, version: i16) {
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let response = test.call(version, &request);
    assert_eq!((response.error_code, response.producer_epoch), (0, 0), "v{version}");
}

fn offset_for_leader_epoch(test: &BrokerTest, version: i16) {
    let partition =
        OffsetForLeaderPartition::default().with_leader_epoch(0).with_current_leader_epoch(-1);
    let topic = OffsetForLeaderTopic::default().with_topic(TopicName(text("topic")));
    let topic = topic.with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let request = if version >= 3 { request.with_replica_id(BrokerId(-2)) } else { request };
    let response = test.call(version, &request);
    assert_eq!(response.topics[0].partitions[0].error_code, 0, "v{version}");
}

fn describe_configs(test: &BrokerTest, version: i16) {
    let resource = |kind, name| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(None)
    };
    let resources = vec![resource(2, "topic"), resource(4, "1")];
    let request = DescribeConfigsRequest::default().with_resources(resources);
    let response = test.call(version, &request.with_include_synonyms(true));
    let errors: Vec<i16> = response.results.iter().map(|result| result.error_code).collect();
    assert_eq!(errors, [0, 0], "v{version}");
}

fn delete_records(test: &BrokerTest, version: i16) {
    let topic = DeleteRecordsTopic::default()
        .with_name(TopicName(text("topic")))
        .with_partitions(vec![DeleteRecordsPartition::default().with_offset(0)]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    let response = test.call(version, &request);
    let answer = &response.topics[0].partitions[0];
    assert_eq!((answer.error_code, answer.low_watermark), (0, 0), "v{version}");
}

fn alter_configs(test: &BrokerTest, version: i16) {
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(text("flush.ms"))
        .with_value(Some(text("1000")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("topic"))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let response = test.call(version, &request);
    assert_eq!(response.responses[0].error_code, 0, "v{version}");
}

fn create_partitions(test: &BrokerTest, version: i16) {
    let name = TopicName(text(&format!("grown-by-{version}")));
    test.create_topic(&name, 1, &[]);
    let topic = CreatePartitionsTopic::default().with_name(name).with_count(2);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![topic.with_assignments(None)])
        .with_timeout_ms(10_000);
    let response = test.call(version, &request);
    assert_eq!(response.results[0].error_code, 0, "v{version}");
}

fn incremental_alter_configs(test: &BrokerTest, version: i16) {
    let config = incremental_alter_configs_request::AlterableConfig::default()
        .with_name(text("flush.ms"))
        .with_value(Some(text("2000")));
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("topic"))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = test.call(version, &request);
    assert_eq!(response.responses[0].error_code, 0, "v{version}");
}

fn describe_quorum(test: &BrokerTest, version: i16) {
    let topic = describe_quorum_request::TopicData::default()
        .with_topic_name(TopicName(text("__cluster_metadata")))
        .with_partitions(vec![describe_quorum_request::PartitionData::default()]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    let response = test.call(version, &request);
    let quorum = &response.topics[0].partitions[0];
    assert_eq!((quorum.error_code, quorum.leader_id), (0, BrokerId(1)), "v{version}");
    assert_eq!(quorum.current_voters.len(), 1, "v{version}");
}

fn update_features(test: &BrokerTest, version: i16) {
    let request = UpdateFeaturesRequest::default().with_timeout_ms(10_000);
    assert_eq!(test.call(version, &request).error_code, 0, "v{version}");
}

fn describe_producers(test: &BrokerTest, version: i16) {
    let topic = describe_producers_request::TopicRequest::default()
        .with_name(TopicName(text("topic")))
        .with_partition_indexes(vec![0]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let response = test.call(version, &request);
    assert_eq!(response.topics[0].partitions[0].error_code, 0, "v{version}");
}

#[test]
fn a_version_from_the_future_is_told_what_is_served_in_a_form_of_any_age() {
    let test = BrokerTest::new();
    let frame = Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 42, 1, 2, 3]);
    let answer = resolve(test.send_frame(frame)).expect("the connection stays").expect("an answer");
    let response = crate::context::decode::<ApiVersionsRequest>(0, answer);
    assert_eq!(response.error_code, 35);
    let served: Vec<_> = response.api_keys.iter().map(|k| (k.api_key, k.max_version)).collect();
    assert_eq!(served, [(18, 4)]);
}

#[test]
fn what_is_not_served_ends_the_connection() {
    let test = BrokerTest::new();
    let end_txn = vec![0, 26, 0, 0, 0, 0, 0, 42, 255, 255];
    for (frame, reason) in [
        (&end_txn[..], CloseReason::Unsupported),
        (&[0, 3, 0, 99, 0, 0, 0, 42, 255, 255], CloseReason::Unsupported),
        (&[0, 3], CloseReason::Malformed),
        (&[0, 3, 0, 1, 0, 0, 0, 42, 255, 255, 127, 255, 255, 255], CloseReason::Malformed),
    ] {
        assert_eq!(resolve(test.send_frame(Bytes::copy_from_slice(frame))), Err(reason));
    }
}
