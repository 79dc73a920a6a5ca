//! What an administrator changed holds after the broker was killed, as it was answered.

use kafka_protocol::messages::{
    CreatePartitionsRequest, DeleteRecordsRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
    IncrementalAlterConfigsRequest,
    create_partitions_request::CreatePartitionsTopic,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    describe_configs_request::DescribeConfigsResource,
    describe_producers_request::TopicRequest,
    describe_quorum_request::{PartitionData, TopicData},
    fetch_request::FetchTopic,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};
use kafka_protocol::protocol::StrBytes;
use tidelog_tests::{
    batch::Batch,
    node::{Node, Options},
    wire::{Wire, fetch_request, topic_name},
};
use uuid::Uuid;

const OFFSET_OUT_OF_RANGE: i16 = 1;
const UNKNOWN_TOPIC_ID: i16 = 100;

fn value(value: &str) -> Batch {
    Batch::new(vec![value.as_bytes().to_vec()])
}

fn batch(text: &str) -> bytes::Bytes {
    value(text).encode().freeze()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Error code and low watermark.
fn delete_records(wire: &mut Wire, topic: &str, offset: i64) -> (i16, i64) {
    let partition = DeleteRecordsPartition::default().with_offset(offset);
    let topic =
        DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let response = wire.call(&request, 2).expect("an answer");
    let answer = &response.topics[0].partitions[0];
    (answer.error_code, answer.low_watermark)
}

/// Error code of a setting's new value, or of its removal.
fn alter(wire: &mut Wire, kind: i8, name: &str, key: &str, value: Option<&str>) -> i16 {
    let config = AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(i8::from(value.is_none()))
        .with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    wire.call(&request, 1).expect("an answer").responses[0].error_code
}

/// A setting's value and where it comes from.
fn describe(wire: &mut Wire, kind: i8, name: &str, key: &str) -> (String, i8) {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(Some(vec![text(key)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let response = wire.call(&request, 4).expect("an answer");
    let config = &response.results[0].configs[0];
    (config.value.as_ref().expect("a value").to_string(), config.config_source)
}

#[test]
fn records_that_were_deleted_stay_deleted_through_kills() {
    for options in [Options::default(), Options::default().held().small_bounds()] {
        let mut node = Node::start(options.expect_torn_tails());
        let mut wire = node.wire();
        assert_eq!(wire.create_topic("cut", &[]).expect("an answer"), 0);
        let mut end = 0;
        for round in 0..5_i64 {
            for _ in 0..10 {
                assert_eq!(wire.produce("cut", batch("value")).expect("an answer"), (0, end));
                end += 1;
            }
            let start = end - 5 + round;
            assert_eq!(delete_records(&mut wire, "cut", start), (0, start));
            // The answer was heard: no later moment is owed anything.
            node.kill();
            node.restart();
            wire = node.wire();
            assert_eq!(wire.list_offset("cut", -2).expect("an answer"), (0, start));
            assert_eq!(wire.list_offset("cut", -1).expect("an answer"), (0, end));
            let fetched = wire.fetch("cut", start - 1, 1000).expect("an answer");
            assert_eq!(fetched.error_code, OFFSET_OUT_OF_RANGE);
            let fetched = wire.fetch("cut", start, 1000).expect("an answer");
            assert_eq!((fetched.error_code, fetched.log_start_offset), (0, start));
        }
        assert_eq!(delete_records(&mut wire, "cut", -1), (0, end));
        node.kill();
        node.restart();
        let mut wire = node.wire();
        assert_eq!(wire.list_offset("cut", -2).expect("an answer"), (0, end));
        assert_eq!(wire.produce("cut", batch("next")).expect("an answer"), (0, end));
    }
}

#[test]
fn settings_and_partitions_that_were_changed_stay_so_through_a_kill() {
    const MESSAGE_TOO_LARGE: i16 = 10;
    let mut node = Node::start(Options::default().expect_torn_tails());
    let mut wire = node.wire();
    assert_eq!(wire.create_topic("changed", &[]).expect("an answer"), 0);
    assert_eq!(alter(&mut wire, 2, "changed", "max.message.bytes", Some("20")), 0);
    assert_eq!(alter(&mut wire, 4, "", "auto.create.topics.enable", Some("false")), 0);
    assert_eq!(alter(&mut wire, 4, "1", "message.max.bytes", Some("5000")), 0);
    let topic = CreatePartitionsTopic::default().with_name(topic_name("changed")).with_count(4);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![topic.with_assignments(None)])
        .with_timeout_ms(30_000);
    assert_eq!(wire.call(&request, 3).expect("an answer").results[0].error_code, 0);
    node.kill();
    node.restart();
    let mut wire = node.wire();
    assert_eq!(describe(&mut wire, 2, "changed", "max.message.bytes"), ("20".to_owned(), 1));
    assert_eq!(describe(&mut wire, 4, "1", "message.max.bytes"), ("5000".to_owned(), 2));
    let (value, source) = describe(&mut wire, 4, "1", "auto.create.topics.enable");
    assert_eq!((value.as_str(), source), ("false", 3));
    assert_eq!(wire.produce("changed", batch("value")).expect("an answer").0, MESSAGE_TOO_LARGE);
    assert_eq!(alter(&mut wire, 2, "changed", "max.message.bytes", None), 0);
    assert_eq!(wire.produce("changed", batch("value")).expect("an answer"), (0, 0));
    let request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(3);
    let page = wire.call(&request, 0).expect("an answer");
    assert_eq!(page.topics[0].partitions.len(), 3);
    assert_eq!(page.next_cursor.expect("one more").partition_index, 3);
}

/// Error code of a fetch by topic id, and whether it returned records.
fn fetch_by_id(wire: &mut Wire, id: Uuid) -> (i16, bool) {
    let mut request = fetch_request("", 0, 1000);
    let partitions = std::mem::take(&mut request.topics[0].partitions);
    request.topics = vec![FetchTopic::default().with_topic_id(id).with_partitions(partitions)];
    let response = wire.call(&request, 13).expect("an answer");
    let data = &response.responses[0].partitions[0];
    (data.error_code, data.records.as_ref().is_some_and(|records| !records.is_empty()))
}

fn producer_count(wire: &mut Wire, topic: &str) -> usize {
    let topic =
        TopicRequest::default().with_name(topic_name(topic)).with_partition_indexes(vec![0]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let response = wire.call(&request, 0).expect("an answer");
    response.topics[0].partitions[0].active_producers.len()
}

#[test]
fn a_topic_created_again_is_another_one_before_and_after_a_kill() {
    let mut node = Node::start(Options::default().small_bounds().expect_torn_tails());
    let mut wire = node.wire();
    assert_eq!(wire.create_topic("again", &[]).expect("an answer"), 0);
    let old = wire.topic_id("again").expect("an answer");
    let producer_id = wire.init_producer_id().expect("an answer");
    let old_batch = Batch { producer_id, producer_epoch: 0, base_sequence: 0, ..value("old") };
    assert_eq!(wire.produce("again", old_batch.encode().freeze()).expect("an answer"), (0, 0));
    assert_eq!(producer_count(&mut wire, "again"), 1);
    assert_eq!(wire.delete_topic("again").expect("an answer"), 0);
    assert_eq!(wire.create_topic("again", &[]).expect("an answer"), 0);
    let new = wire.topic_id("again").expect("an answer");
    for round in 0..2 {
        assert_eq!(fetch_by_id(&mut wire, old), (UNKNOWN_TOPIC_ID, false), "round {round}");
        assert_eq!(fetch_by_id(&mut wire, new), (0, false), "round {round}");
        assert_eq!(wire.list_offset("again", -1).expect("an answer"), (0, 0), "round {round}");
        assert_eq!(producer_count(&mut wire, "again"), 0, "round {round}");
        node.kill();
        node.restart();
        wire = node.wire();
    }
    assert_eq!(wire.produce("again", batch("new")).expect("an answer"), (0, 0));
}

#[test]
fn the_disk_and_the_quorum_are_described_as_they_are() {
    let mut node = Node::start(Options::default());
    let mut wire = node.wire();
    assert_eq!(wire.create_topic("sized", &[]).expect("an answer"), 0);
    let sent = batch("value");
    let bytes = sent.len() as i64;
    assert_eq!(wire.produce("sized", sent).expect("an answer"), (0, 0));
    let request = DescribeLogDirsRequest::default().with_topics(None);
    let dir = wire.call(&request, 4).expect("an answer").results.remove(0);
    let expected = std::path::absolute(node.dir()).expect("a directory").display().to_string();
    assert_eq!(*dir.log_dir, *expected);
    assert_eq!(dir.topics[0].partitions[0].partition_size, bytes);
    assert!(dir.usable_bytes > 0 && dir.usable_bytes < dir.total_bytes, "{dir:?}");

    let topic = TopicData::default()
        .with_topic_name(topic_name("__cluster_metadata"))
        .with_partitions(vec![PartitionData::default()]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    let ask = |wire: &mut Wire| {
        let response = wire.call(&request, 2).expect("an answer");
        assert_eq!(response.nodes[0].listeners[0].port, node.port());
        let quorum = &response.topics[0].partitions[0];
        assert_eq!((response.error_code, quorum.error_code, quorum.leader_id.0), (0, 0, 1));
        (quorum.leader_epoch, quorum.high_watermark)
    };
    let before = ask(&mut wire);
    assert_eq!(wire.delete_topic("sized").expect("an answer"), 0);
    let after = ask(&mut wire);
    assert_eq!((after.0, after.1 > before.1), (before.0, true), "{before:?} {after:?}");
    assert!(node.terminate().success(), "{}", node.log_text());
}
