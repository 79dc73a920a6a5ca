//! What administrators ask of one node: partitions, records, producers, directories, the quorum.

use tidelog_net::service::CloseReason;
use tidelog_protocol::{
    batch_builder::BatchBuilder,
    kafka_protocol::messages::{
        CreatePartitionsRequest, DeleteRecordsRequest, DescribeLogDirsRequest,
        DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
        DescribeTopicPartitionsResponse, FetchRequest, ListOffsetsRequest, TopicName,
        UpdateFeaturesRequest,
        create_partitions_request::CreatePartitionsTopic,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        describe_log_dirs_request::DescribableLogDirTopic,
        describe_producers_request::TopicRequest as ProducersOf,
        describe_quorum_request::{PartitionData, TopicData},
        describe_topic_partitions_request::{Cursor, TopicRequest},
        fetch_request::FetchTopic,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        update_features_request::FeatureUpdateKey,
    },
};
use tidelog_types::Uuid;

use crate::{
    context::{BrokerTest, NOW_MS, resolve, text},
    records::{Fetch, batch, batches, first, idempotent, partition_of, produce, produce_request},
    topics::delete,
};

fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// Asks for partitions; the error code.
fn grow(test: &BrokerTest, topic: &str, count: i32, validate_only: bool) -> i16 {
    let topic = CreatePartitionsTopic::default().with_name(name(topic)).with_count(count);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![topic.with_assignments(None)])
        .with_validate_only(validate_only)
        .with_timeout_ms(10_000);
    test.call(3, &request).results[0].error_code
}

/// Error code and low watermark of a request to delete what lies below `offset`.
pub fn delete_records(test: &BrokerTest, topic: &str, offset: i64) -> (i16, i64) {
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
    let topic =
        DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    let answer = &test.call(2, &request).topics[0].partitions[0];
    (answer.error_code, answer.low_watermark)
}

/// Error code and offset of a time, or of a named place.
fn list_offset(test: &BrokerTest, timestamp: i64) -> (i16, i64) {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(name("topic"));
    let topic = topic.with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into());
    let response = test.call(7, &request.with_topics(vec![topic]));
    let answer = &response.topics[0].partitions[0];
    (answer.error_code, answer.offset)
}

fn fetch(test: &BrokerTest, offset: i64) -> (i16, i64, Vec<(i64, i32)>) {
    let data = Fetch { offset, ..Fetch::default() }.call(test);
    (data.error_code, data.log_start_offset, batches(&data))
}

#[test]
fn new_partitions_serve_at_once_and_after_a_restart() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    assert_eq!(produce(&test, "topic", batch(&["old"])), (0, 0));
    assert_eq!(grow(&test, "topic", 3, true), 0);
    assert_eq!(test.metadata(12).topics[0].partitions.len(), 1, "only asked whether it could be");
    for (topic, count, code) in
        [("topic", 3, 0), ("topic", 3, 37), ("topic", 1, 37), ("topic", -1, 37), ("none", 3, 3)]
    {
        assert_eq!(grow(&test, topic, count, false), code, "{topic} {count}");
    }
    let test = {
        let written = test.call(9, &produce_request("topic", -1, &[(2, batch(&["new"]))]));
        assert_eq!((first(&written).error_code, first(&written).base_offset), (0, 0));
        test.after_power_loss(5)
    };
    assert_eq!(test.metadata(12).topics[0].partitions.len(), 3);
    assert_eq!(fetch(&test, 0), (0, 0, vec![(0, 1)]));
    let again = test.call(9, &produce_request("topic", -1, &[(2, batch(&["next"]))]));
    assert_eq!(first(&again).base_offset, 1);
}

#[test]
fn records_below_an_offset_are_deleted_for_good() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    for number in 0..4 {
        let mut builder = BatchBuilder::new(NOW_MS + number * 100);
        for record in 0..5 {
            builder.push(NOW_MS + number * 100 + record, None, Some(b"value"));
        }
        assert_eq!(produce(&test, "topic", builder.build()), (0, number * 5));
    }
    // In the middle of the second batch, which is still read whole.
    assert_eq!(delete_records(&test, "topic", 7), (0, 7));
    for test in [&test, &test.after_power_loss(1)] {
        assert_eq!(list_offset(test, -2), (0, 7));
        assert_eq!(list_offset(test, -1), (0, 20));
        assert_eq!(fetch(test, 6), (1, -1, vec![]));
        assert_eq!(fetch(test, 7), (0, 7, vec![(5, 5), (10, 5), (15, 5)]));
        for (after_ms, offset) in [(0, 7), (100, 7), (103, 8), (104, 9), (105, 10), (304, 19)] {
            assert_eq!(list_offset(test, NOW_MS + after_ms), (0, offset), "{after_ms}");
        }
        assert_eq!(list_offset(test, -3), (0, 19));
        assert_eq!(delete_records(test, "topic", 3), (0, 7), "it is deleted already");
    }
    assert_eq!(delete_records(&test, "topic", -1), (0, 20));
    let test = test.restart();
    assert_eq!(fetch(&test, 20), (0, 20, vec![]));
    assert_eq!(fetch(&test, 19).0, 1);
    assert_eq!((list_offset(&test, -2), list_offset(&test, NOW_MS)), ((0, 20), (0, -1)));
    assert_eq!(produce(&test, "topic", batch(&["next"])), (0, 20));
}

#[test]
fn a_time_is_not_found_below_the_log_start_where_records_have_no_time_of_their_own() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[("message.timestamp.type", "LogAppendTime")]);
    assert_eq!(produce(&test, "topic", batch(&["a", "b", "c"])), (0, 0));
    assert_eq!(list_offset(&test, NOW_MS), (0, 0));
    assert_eq!(delete_records(&test, "topic", 2), (0, 2));
    assert_eq!((list_offset(&test, NOW_MS), list_offset(&test, -3)), ((0, 2), (0, 2)));
}

#[test]
fn records_that_cannot_be_deleted_are_refused() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    produce(&test, "topic", batch(&["a", "b"]));
    for (topic, offset, expected) in [
        ("topic", 3, (1, -1)),
        ("topic", -2, (1, -1)),
        ("topic", i64::MIN, (1, -1)),
        ("topic", i64::MAX, (1, -1)),
        ("none", 0, (3, -1)),
        ("topic", 0, (0, 0)),
    ] {
        assert_eq!(delete_records(&test, topic, offset), expected, "{topic} {offset}");
    }
    assert_eq!(fetch(&test, 0), (0, 0, vec![(0, 2)]));
}

#[test]
fn a_producer_goes_on_where_its_batches_were_deleted() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    for sequence in 0..3 {
        produce(&test, "topic", idempotent(1000, 0, sequence, &["value"]));
    }
    assert_eq!(delete_records(&test, "topic", -1), (0, 3));
    let test = test.after_power_loss(2);
    assert_eq!(produce(&test, "topic", idempotent(1000, 0, 2, &["value"])), (0, 2), "a duplicate");
    assert_eq!(produce(&test, "topic", idempotent(1000, 0, 4, &["value"])), (45, -1));
    assert_eq!(produce(&test, "topic", idempotent(1000, 0, 3, &["value"])), (0, 3));
}

/// Error code of a fetch by topic id, and the batches.
fn fetch_by_id(test: &BrokerTest, id: Uuid) -> (i16, Vec<(i64, i32)>) {
    let mut request = Fetch::default().request();
    let partitions = std::mem::take(&mut request.topics[0].partitions);
    let topic = FetchTopic::default().with_topic_id(uuid::Uuid::from_bytes(id.0));
    request.topics = vec![topic.with_partitions(partitions)];
    let request: FetchRequest = request.with_replica_id((-1).into());
    let data = partition_of(test.call(17, &request));
    (data.error_code, batches(&data))
}

#[test]
fn a_topic_created_again_under_its_name_is_another_one_to_everybody_and_on_disk() {
    let test = BrokerTest::new();
    let old = test.create_topic("topic", 1, &[("flush.ms", "7")]);
    for sequence in 0..3 {
        produce(&test, "topic", idempotent(1000, 0, sequence, &["old"]));
    }
    assert_eq!(delete_records(&test, "topic", 1), (0, 1));
    assert_eq!(delete(&test, "topic"), 0);
    assert_eq!(fetch_by_id(&test, old), (100, vec![]));
    let new = test.create_topic("topic", 1, &[]);
    let test = {
        for test in [&test, &test.after_power_loss(1)] {
            assert_eq!(fetch_by_id(test, old), (100, vec![]));
            assert_eq!(fetch_by_id(test, new), (0, vec![]));
            assert_eq!((list_offset(test, -2), list_offset(test, -1)), ((0, 0), (0, 0)));
            assert_eq!(producers(test, "topic"), (0, vec![]), "nobody wrote to it");
        }
        test.restart()
    };
    assert_eq!(fetch_by_id(&test, old), (100, vec![]));
    assert_eq!(produce(&test, "topic", idempotent(1000, 0, 0, &["new"])), (0, 0));
    assert_eq!(fetch_by_id(&test, new), (0, vec![(0, 1)]));
}

#[test]
fn an_answer_tells_of_no_more_producers_than_it_may() {
    const EACH: usize = 10_000;
    const ANSWERED: usize = 500_000 / EACH;
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let producers = 1000..1000 + EACH as i64;
    let sent: Vec<_> = producers
        .map(|id| produce_request("topic", -1, &[(0, idempotent(id, 0, 0, &["a"]))]))
        .map(|request| test.send(9, &request))
        .collect();
    sent.into_iter().for_each(|handled| assert!(resolve(handled).is_ok_and(|it| it.is_some())));
    let topic = ProducersOf::default().with_name(name("topic"));
    let topic = topic.with_partition_indexes(vec![0; ANSWERED + 1]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let answers = test.call(0, &request).topics.remove(0).partitions;
    let told: Vec<_> = answers.iter().map(|a| (a.error_code, a.active_producers.len())).collect();
    assert_eq!(told, [vec![(0, EACH); ANSWERED], vec![(44, 0)]].concat());
}

/// Error code, and (producer id, epoch, last sequence, last timestamp) of each.
fn producers(test: &BrokerTest, topic: &str) -> (i16, Vec<(i64, i32, i32, i64)>) {
    let topic = ProducersOf::default().with_name(name(topic)).with_partition_indexes(vec![0]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let answer = test.call(0, &request).topics.remove(0).partitions.remove(0);
    let producer = answer.active_producers.iter().map(|p| {
        assert_eq!((p.coordinator_epoch, p.current_txn_start_offset), (-1, -1));
        (p.producer_id.0, p.producer_epoch, p.last_sequence, p.last_timestamp)
    });
    (answer.error_code, producer.collect())
}

#[test]
fn a_partitions_producers_are_described_until_they_expire() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    produce(&test, "topic", idempotent(2000, 4, 0, &["a", "b", "c"]));
    produce(&test, "topic", idempotent(1000, 0, 0, &["a"]));
    produce(&test, "topic", batch(&["nobody's"]));
    let expected = vec![(1000, 0, 0, NOW_MS), (2000, 4, 2, NOW_MS)];
    assert_eq!(producers(&test, "topic"), (0, expected));
    assert_eq!(producers(&test, "none"), (3, vec![]));
    test.advance_ms(86_400_000);
    assert_eq!(producers(&test, "topic"), (0, vec![]));
}

#[test]
fn the_directory_is_described_with_what_each_partition_takes_of_it() {
    let test = BrokerTest::new();
    test.create_topic("full", 2, &[]);
    test.create_topic("empty", 1, &[]);
    let sent = batch(&["value"]);
    let bytes = sent.len() as i64;
    produce(&test, "full", sent);
    let ask = |topics| {
        let request = DescribeLogDirsRequest::default().with_topics(topics);
        let response = test.call(4, &request);
        assert_eq!((response.error_code, response.results.len()), (0, 1));
        let dir = &response.results[0];
        assert!(dir.log_dir.starts_with('/') && dir.error_code == 0, "{dir:?}");
        assert!(dir.usable_bytes > 0 && dir.total_bytes == -1, "nobody knows a disk in memory");
        let mut told = Vec::new();
        for topic in &dir.topics {
            let sizes = topic.partitions.iter().map(|p| {
                assert_eq!((p.offset_lag, p.is_future_key), (0, false));
                (topic.name.to_string(), p.partition_index, p.partition_size)
            });
            told.extend(sizes);
        }
        told.sort();
        told
    };
    let full = |index, bytes| ("full".to_owned(), index, bytes);
    assert_eq!(ask(None), [("empty".to_owned(), 0, 0), full(0, bytes), full(1, 0)]);
    let only = |topic: &str, partitions: &[i32]| {
        DescribableLogDirTopic::default().with_topic(name(topic)).with_partitions(partitions.into())
    };
    let some = vec![only("full", &[0, 7, 0]), only("none", &[0]), only("full", &[0])];
    assert_eq!(ask(Some(some)), [full(0, bytes)]);
    assert_eq!(ask(Some(vec![])), []);
}

#[test]
fn the_only_voter_describes_itself() {
    let test = BrokerTest::new();
    let ask = |topic: &str, partition| {
        let partition = PartitionData::default().with_partition_index(partition);
        let topic = TopicData::default().with_topic_name(name(topic));
        let request = DescribeQuorumRequest::default();
        test.call(2, &request.with_topics(vec![topic.with_partitions(vec![partition])]))
    };
    let before = ask("__cluster_metadata", 0);
    test.create_topic("topic", 1, &[]);
    let after = ask("__cluster_metadata", 0);
    let [before, after] = [&before, &after].map(|response| {
        assert_eq!(response.error_code, 0);
        let node = &response.nodes[0];
        assert_eq!((node.node_id.0, &*node.listeners[0].host), (1, "localhost"));
        let quorum = &response.topics[0].partitions[0];
        assert_eq!((quorum.error_code, quorum.leader_id.0), (0, 1));
        assert!(quorum.leader_epoch > 0 && quorum.observers.is_empty());
        let voter = &quorum.current_voters[..];
        assert_eq!((voter.len(), voter[0].replica_id.0), (1, 1));
        assert_eq!(voter[0].replica_directory_id.into_bytes(), [8; 16]);
        assert_eq!([voter[0].last_fetch_timestamp, voter[0].last_caught_up_timestamp], [NOW_MS; 2]);
        assert!(quorum.high_watermark <= voter[0].log_end_offset);
        quorum.high_watermark
    });
    assert!(after > before, "a topic is an entry: {before} {after}");
    for (topic, partition) in [("__cluster_metadata", 1), ("topic", 0)] {
        let response = ask(topic, partition);
        assert_eq!(response.topics[0].partitions[0].error_code, 3, "{topic}");
    }
}

#[test]
fn feature_levels_are_what_this_release_supports() {
    let test = BrokerTest::new();
    let update = |version, feature: &str, level, upgrade_type| {
        let update =
            FeatureUpdateKey::default().with_feature(text(feature)).with_max_version_level(level);
        let update = if version > 0 { update.with_upgrade_type(upgrade_type) } else { update };
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
        let response = test.call(version, &request.with_timeout_ms(10_000));
        (response.error_code, response.results.len())
    };
    let ours = "tidelog.metadata.version";
    for (version, feature, level, upgrade_type, expected) in [
        (0, ours, 1, 1, (0, 1)),
        (1, ours, 1, 1, (0, 1)),
        (2, ours, 1, 1, (0, 0)),
        (2, ours, 2, 1, (95, 0)),
        (1, ours, 0, 3, (95, 0)),
        (2, ours, 1, 0, (95, 0)),
        (2, ours, 1, 9, (95, 0)),
        (2, "metadata.version", 25, 1, (95, 0)),
    ] {
        let answer = update(version, feature, level, upgrade_type);
        assert_eq!(answer, expected, "v{version} {feature} {level} {upgrade_type}");
    }
}

/// One page of topics.
fn page(
    test: &BrokerTest,
    topics: &[&str],
    limit: i32,
    cursor: Option<(&str, i32)>,
) -> DescribeTopicPartitionsResponse {
    let topics = topics.iter().map(|topic| TopicRequest::default().with_name(name(topic)));
    let cursor = cursor.map(|(topic, partition)| {
        Cursor::default().with_topic_name(name(topic)).with_partition_index(partition)
    });
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(topics.collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor);
    test.call(0, &request)
}

/// Each topic with its error code and its partitions, and where the next page begins.
type Told = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

fn told(response: DescribeTopicPartitionsResponse) -> Told {
    let topics = response.topics.into_iter().map(|topic| {
        let name = topic.name.expect("a name").to_string();
        (name, topic.error_code, topic.partitions.iter().map(|p| p.partition_index).collect())
    });
    let cursor = response.next_cursor.map(|c| (c.topic_name.to_string(), c.partition_index));
    (topics.collect(), cursor)
}

#[test]
fn topics_are_described_page_by_page_in_the_order_of_their_names() {
    let test = BrokerTest::new();
    for (topic, partitions) in [("b", 3), ("a", 2), ("c", 1)] {
        test.create_topic(topic, partitions, &[]);
    }
    let row = |topic: &str, code, partitions: &[i32]| (topic.to_owned(), code, partitions.into());
    let at = |topic: &str, partition| Some((topic.to_owned(), partition));
    for (topics, limit, cursor, expected) in [
        (
            &[][..],
            2000,
            None,
            (vec![row("a", 0, &[0, 1]), row("b", 0, &[0, 1, 2]), row("c", 0, &[0])], None),
        ),
        (&[], 4, None, (vec![row("a", 0, &[0, 1]), row("b", 0, &[0, 1])], at("b", 2))),
        (&[], 4, Some(("b", 2)), (vec![row("b", 0, &[2]), row("c", 0, &[0])], None)),
        (&[], 2, None, (vec![row("a", 0, &[0, 1])], at("b", 0))),
        (&[], -1, None, (vec![row("a", 0, &[0])], at("a", 1))),
        (&[], 9, Some(("aa", 5)), (vec![row("b", 0, &[0, 1, 2]), row("c", 0, &[0])], None)),
        (&["c", "a"], 2, None, (vec![row("a", 0, &[0, 1])], at("c", 0))),
        (
            &["c", "a", "c"],
            9,
            Some(("b", 1)),
            (vec![row("b", 0, &[1, 2]), row("c", 0, &[0])], None),
        ),
        (
            &["no", "a", "n o"],
            9,
            None,
            (vec![row("a", 0, &[0, 1]), row("n o", 17, &[]), row("no", 3, &[])], None),
        ),
        (&["a"], 9, Some(("a", i32::MAX)), (vec![row("a", 0, &[])], None)),
    ] {
        let page = told(page(&test, topics, limit, cursor));
        assert_eq!(page, expected, "{topics:?} {limit} {cursor:?}");
    }
    let whole = page(&test, &["a"], 9, None);
    let first = &whole.topics[0].partitions[0];
    assert!(!whole.topics[0].topic_id.is_nil() && !whole.topics[0].is_internal);
    assert_eq!((first.leader_id.0, first.replica_nodes.len(), first.isr_nodes.len()), (1, 1, 1));
    assert_eq!(first.eligible_leader_replicas, Some(vec![]));
    let cursor = Cursor::default().with_topic_name(name("a")).with_partition_index(-1);
    let request = DescribeTopicPartitionsRequest::default().with_cursor(Some(cursor));
    assert_eq!(resolve(test.send(0, &request)), Err(CloseReason::Malformed));
}
