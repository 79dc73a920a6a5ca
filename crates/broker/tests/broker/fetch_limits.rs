//! What a response holds under each of its limits: something, whatever they say, and not more than
//! they say behind that (KIP-74).

use std::time::{Duration, Instant};

use tidelog_net::ReplyRoom;
use tidelog_protocol::kafka_protocol::messages::{
    FetchRequest, TopicName,
    fetch_request::{FetchPartition, FetchTopic},
};

use crate::{
    context::{BrokerTest, REPLY_BYTES_MAX, text},
    records::{batch, batches, produce},
};

/// Topics whose batches lie on disk, in memory, and nowhere.
const TOPICS: [&str; 3] = ["cold", "hot", "empty"];
/// Batches in each topic that has any.
const BATCHES: i64 = 4;

fn value() -> String {
    "x".repeat(10_000)
}

/// Bytes of each batch.
fn batch_bytes() -> i32 {
    batch(&[&value()]).len() as i32
}

fn setup() -> BrokerTest {
    let test = BrokerTest::new();
    for topic in TOPICS {
        test.create_topic(topic, 1, &[]);
    }
    let fill = |test: &BrokerTest, topic| {
        (0..BATCHES).for_each(|at| assert_eq!(produce(test, topic, batch(&[&value()])), (0, at)));
    };
    fill(&test, "cold");
    let test = test.restart(); // a clean stop leaves everything in segments
    fill(&test, "hot");
    test
}

/// Asks for partitions of (topic, offset, bytes of the partition); how many batches each gave.
fn fetch(test: &BrokerTest, max_bytes: i32, wanted: &[(&str, i64, i32)]) -> Vec<usize> {
    let topics = wanted.iter().map(|(topic, offset, partition_max_bytes)| {
        let partition = FetchPartition::default()
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(*partition_max_bytes);
        FetchTopic::default().with_topic(TopicName(text(topic))).with_partitions(vec![partition])
    });
    let request = FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(max_bytes)
        .with_topics(topics.collect());
    let response = test.call(12, &request);
    let found = response.responses.iter().zip(wanted).map(|(topic, (_, offset, _))| {
        let data = &topic.partitions[0];
        assert_eq!(data.error_code, 0);
        let offsets: Vec<i64> = batches(data).into_iter().map(|(at, _)| at).collect();
        let expected: Vec<i64> = (*offset..).take(offsets.len()).collect();
        assert_eq!(offsets, expected, "whole batches from the offset on");
        offsets.len()
    });
    found.collect()
}

#[test]
fn the_first_partition_with_records_gives_a_batch_and_the_others_what_fits() {
    let test = setup();
    let one = batch_bytes();
    let much = 1 << 20;
    let end = BATCHES;
    for (max_bytes, wanted, expected) in [
        // Whatever is first, on disk or not, comes whole under every limit of the response ...
        (0, &[("cold", 0, much), ("hot", 0, much)][..], &[1, 0][..]),
        (1, &[("hot", 0, much), ("cold", 0, much)], &[1, 0]),
        (-1, &[("hot", 0, much), ("cold", 0, much)], &[1, 0]),
        (one - 1, &[("cold", 0, much), ("hot", 0, much)], &[1, 0]),
        (one, &[("cold", 0, much), ("hot", 0, much)], &[1, 0]),
        // ... and of the partition.
        (much, &[("cold", 0, 0), ("hot", 0, much)], &[1, 4]),
        (much, &[("hot", 0, -1), ("cold", 0, much)], &[1, 4]),
        (much, &[("cold", 0, one - 1), ("hot", 0, one - 1)], &[1, 0]),
        // Who has nothing is not the first.
        (1, &[("empty", 0, much), ("cold", end, much), ("hot", 0, much)], &[0, 0, 1]),
        (1, &[("hot", end, much), ("empty", 0, much), ("cold", 3, much)], &[0, 0, 1]),
        // The others: whole batches, as many as fit into both limits.
        (2 * one - 1, &[("hot", 0, much), ("cold", 0, much)], &[1, 0]),
        (2 * one, &[("hot", 0, one), ("cold", 0, much)], &[1, 1]),
        (2 * one, &[("cold", 0, 1), ("hot", 0, one)], &[1, 1]),
        (3 * one, &[("cold", 0, 2 * one), ("hot", 0, much)], &[2, 1]),
        (much, &[("cold", 1, 2 * one + 1), ("hot", 2, 2 * one)], &[2, 2]),
        (much, &[("hot", 0, 2 * one - 1), ("cold", 0, 2 * one - 1)], &[1, 1]),
        // A first batch that is larger than the limit leaves nothing for the others.
        (one / 2, &[("hot", 0, 1), ("cold", 0, 1), ("empty", 0, 1)], &[1, 0, 0]),
        // A smaller one behind a batch that does not fit may fit; here none does.
        (one + 1, &[("cold", 3, much), ("hot", 3, much)], &[1, 0]),
    ] {
        assert_eq!(fetch(&test, max_bytes, wanted), expected, "{max_bytes} {wanted:?}");
    }
}

#[test]
fn the_brokers_own_bound_is_one_of_the_limits() {
    let test = BrokerTest::with(&[("fetch.max.bytes", "25000")]);
    test.create_topic("hot", 1, &[]);
    (0..3).for_each(|at| assert_eq!(produce(&test, "hot", batch(&[&value()])), (0, at)));
    assert_eq!(fetch(&test, i32::MAX, &[("hot", 0, i32::MAX)]), [2]);
    let test = BrokerTest::with(&[("fetch.max.bytes", "1024")]);
    test.create_topic("hot", 1, &[]);
    (0..3).for_each(|at| assert_eq!(produce(&test, "hot", batch(&[&value()])), (0, at)));
    assert_eq!(fetch(&test, i32::MAX, &[("hot", 0, i32::MAX)]), [1]);
}

#[test]
fn what_is_left_for_replies_is_one_of_the_limits() {
    let test = BrokerTest::with(&[("wal.file.bytes", "16777216")]);
    test.create_topic("large", 1, &[("max.message.bytes", "6000000")]);
    let large = "x".repeat(900_000);
    (0..8).for_each(|at| assert_eq!(produce(&test, "large", batch(&[&large])), (0, at)));
    let larger = "x".repeat(5_000_000);
    (8..10).for_each(|at| assert_eq!(produce(&test, "large", batch(&[&larger])), (0, at)));
    let wanted = |offset| [("large", offset, 1 << 25)];
    assert_eq!(fetch(&test, 1 << 25, &wanted(0)), [9], "a quarter of 64 MiB");
    let mut others = ReplyRoom::new(&test.replies, 2);
    others.settle(REPLY_BYTES_MAX - (12 << 20));
    assert_eq!(fetch(&test, 1 << 25, &wanted(0)), [3], "a quarter of what is left");
    assert_eq!(fetch(&test, 1 << 25, &wanted(8)), [1], "the first one however large");
    others.settle(REPLY_BYTES_MAX - (1 << 20));
    assert_eq!(fetch(&test, 1 << 25, &wanted(8)), [1]);
    assert_eq!(test.replies.used(), REPLY_BYTES_MAX - (1 << 20), "all of it was given back");
    others.settle(REPLY_BYTES_MAX);
    let start = Instant::now();
    assert_eq!(fetch(&test, 1 << 25, &wanted(0)), [0], "there is no room, and none comes");
    assert!(start.elapsed() >= Duration::from_millis(100), "or the client would ask at once again");
    drop(others);
    assert_eq!(fetch(&test, 1 << 25, &wanted(8)), [2]);
}
