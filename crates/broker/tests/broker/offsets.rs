//! ListOffsets and OffsetForLeaderEpoch: places by time, by name and by epoch.

use tidelog_protocol::{
    batch_builder::BatchBuilder,
    kafka_protocol::messages::{
        BrokerId, ListOffsetsRequest, OffsetForLeaderEpochRequest, TopicName,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        list_offsets_response::ListOffsetsPartitionResponse,
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
};
use tidelog_types::Compression;

use crate::{
    admin::delete_records,
    context::{BrokerTest, NOW_MS, text},
    records::{batch, produce, produce_request},
};

fn list(test: &BrokerTest, version: i16, timestamps: &[i64]) -> Vec<ListOffsetsPartitionResponse> {
    let wanted = |timestamp: &i64| ListOffsetsPartition::default().with_timestamp(*timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(TopicName(text("topic")))
        .with_partitions(timestamps.iter().map(wanted).collect());
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1));
    let request =
        request.with_topics(vec![topic]).with_timeout_ms(if version >= 10 { 5000 } else { 0 });
    test.call(version, &request).topics.remove(0).partitions
}

fn offset_of(test: &BrokerTest, version: i16, timestamp: i64) -> (i16, i64, i64) {
    let answer = list(test, version, &[timestamp]).remove(0);
    (answer.error_code, answer.offset, answer.timestamp)
}

#[test]
fn a_time_is_found_inside_batches_of_every_codec() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for (number, codec) in (0..).zip(codecs) {
        let mut builder = BatchBuilder::new(NOW_MS + number * 100).compressed(codec);
        for record in 0..10 {
            builder.push(NOW_MS + number * 100 + record * 10, None, Some(b"value"));
        }
        assert_eq!(produce(&test, "topic", builder.build()), (0, number * 10));
    }
    for (after_ms, offset, timestamp) in [
        (-1, 0, NOW_MS),
        (0, 0, NOW_MS),
        (1, 1, NOW_MS + 10),
        (95, 10, NOW_MS + 100),
        (155, 16, NOW_MS + 160),
        (255, 26, NOW_MS + 260),
        (390, 39, NOW_MS + 390),
        (490, 49, NOW_MS + 490),
        (491, -1, -1),
    ] {
        assert_eq!(offset_of(&test, 7, NOW_MS + after_ms), (0, offset, timestamp), "{after_ms}");
    }
    assert_eq!(offset_of(&test, 7, -3), (0, 49, NOW_MS + 490), "the greatest of all");
}

/// Kafka's searches go on as well; a consumer that seeks by time shall not read what is too early.
#[test]
fn what_was_deleted_from_inside_a_batch_is_not_found_and_what_lies_behind_it_is() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    for after_ms in [&[90, 10, 20, 5][..], &[15, 30, 30]] {
        let mut builder = BatchBuilder::new(NOW_MS).compressed(Compression::Lz4);
        after_ms.iter().for_each(|after| builder.push(NOW_MS + after, None, None));
        assert_eq!(produce(&test, "topic", builder.build()).0, 0);
    }
    for (log_start_offset, timestamp, offset, found) in [
        (0, NOW_MS + 21, 0, NOW_MS + 90),
        (0, -3, 0, NOW_MS + 90),
        (1, NOW_MS + 15, 2, NOW_MS + 20),
        (1, NOW_MS + 21, 5, NOW_MS + 30),
        (1, NOW_MS + 31, -1, -1),
        (1, -3, 5, NOW_MS + 30),
        (3, NOW_MS, 3, NOW_MS + 5),
        (3, NOW_MS + 6, 4, NOW_MS + 15),
        (6, -3, 6, NOW_MS + 30),
    ] {
        assert_eq!(delete_records(&test, "topic", log_start_offset), (0, log_start_offset));
        let told = offset_of(&test, 7, timestamp);
        assert_eq!(told, (0, offset, found), "{log_start_offset} {timestamp}");
    }
}

#[test]
fn the_greatest_time_may_lie_in_what_is_left_of_a_batch() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    for after_ms in [[90, 30], [10, 30]] {
        let mut builder = BatchBuilder::new(NOW_MS);
        after_ms.iter().for_each(|after| builder.push(NOW_MS + after, None, None));
        assert_eq!(produce(&test, "topic", builder.build()).0, 0);
    }
    assert_eq!(delete_records(&test, "topic", 1), (0, 1));
    assert_eq!(offset_of(&test, 7, -3), (0, 1, NOW_MS + 30), "the first of equals");
}

#[test]
fn every_named_place_has_its_version() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    assert_eq!(offset_of(&test, 7, -3), (0, -1, -1), "an empty log has no greatest time");
    produce(&test, "topic", batch(&["a", "b", "c"]));
    for (version, timestamp, code, offset) in [
        (1, -1, 0, 3),
        (1, -2, 0, 0),
        (6, -3, 35, -1),
        (7, -3, 0, 0),
        (7, -4, 35, -1),
        (8, -4, 0, 0),
        (8, -5, 35, -1),
        (9, -5, 0, -1),
        (10, -6, 35, -1),
        (11, -6, 0, -1),
        (11, -7, 35, -1),
    ] {
        let (found_code, found, _) = offset_of(&test, version, timestamp);
        assert_eq!((found_code, found), (code, offset), "v{version} {timestamp}");
    }
}

#[test]
fn a_partition_asked_for_twice_is_refused_each_time() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let codes: Vec<_> = list(&test, 7, &[-1, -2]).iter().map(|answer| answer.error_code).collect();
    assert_eq!(codes, [42, 42]);
}

#[test]
fn records_that_open_to_more_than_they_may_are_placed_at_their_batchs_start() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[("max.message.bytes", "2000")]);
    for (base_offset, value_bytes, expected) in [(0, 10_000, 1), (2, 40_000, 2)] {
        let value = vec![0; value_bytes];
        let mut builder = BatchBuilder::new(NOW_MS + base_offset).compressed(Compression::Gzip);
        builder.push(NOW_MS + base_offset, None, Some(&value));
        builder.push(NOW_MS + base_offset + 1, None, Some(b"later"));
        assert_eq!(produce(&test, "topic", builder.build()), (0, base_offset));
        let (_, offset, _) = offset_of(&test, 7, NOW_MS + base_offset + 1);
        assert_eq!(offset, expected, "{value_bytes}");
    }
}

#[test]
fn what_is_known_and_what_is_searched_for_is_answered_in_order() {
    let test = BrokerTest::new();
    test.create_topic("topic", 4, &[]);
    let records: Vec<_> = (0..4).map(|index| (index, batch(&["a", "b"]))).collect();
    test.call(9, &produce_request("topic", -1, &records));
    let timestamps = [NOW_MS, -1, NOW_MS + 1, -3];
    let wanted = (0..).zip(timestamps).map(|(index, timestamp)| {
        ListOffsetsPartition::default().with_partition_index(index).with_timestamp(timestamp)
    });
    let topic = ListOffsetsTopic::default().with_name(TopicName(text("topic")));
    let topic = topic.with_partitions(wanted.collect());
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1));
    let response = test.call(7, &request.with_topics(vec![topic]));
    let partitions = &response.topics[0].partitions;
    let told: Vec<_> = partitions.iter().map(|p| (p.partition_index, p.offset)).collect();
    assert_eq!(told, [(0, 0), (1, 2), (2, -1), (3, 0)]);
}

#[test]
fn an_epoch_ends_where_the_next_one_starts() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    produce(&test, "topic", batch(&["a", "b"]));
    let test = test.restart();
    produce(&test, "topic", batch(&["c"]));
    let current = test.leader_epoch("topic");
    for (leader_epoch, found) in
        [(0, (0, 0, 2)), (current, (0, current, 3)), (current + 1, (0, -1, -1))]
    {
        let partition = OffsetForLeaderPartition::default()
            .with_current_leader_epoch(current)
            .with_leader_epoch(leader_epoch);
        let topic = OffsetForLeaderTopic::default().with_topic(TopicName(text("topic")));
        let topic = topic.with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        let response = test.call(2, &request);
        let answer = &response.topics[0].partitions[0];
        let answer = (answer.error_code, answer.leader_epoch, answer.end_offset);
        assert_eq!(answer, found, "{leader_epoch}");
    }
}
