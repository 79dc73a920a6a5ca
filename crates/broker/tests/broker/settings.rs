//! A topic's settings, as its producers and consumers feel them.

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidelog_protocol::{
    batch_builder::BatchBuilder,
    kafka_protocol::messages::{
        BrokerId, ListOffsetsRequest, TopicName,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
};
use tidelog_types::{BatchHeader, Compression, ProducerEpoch, ProducerId};

use crate::{
    context::{BrokerTest, NOW_MS, resolve, text},
    records::{Fetch, batch, batches, first, produce, produce_request},
};

const CODECS: [(&str, Compression); 5] = [
    ("uncompressed", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

fn compressed(codec: Compression, base_sequence: i32) -> Bytes {
    let value = b"much the same again and again ".repeat(10);
    let producer = (ProducerId(5), ProducerEpoch(0), base_sequence);
    let builder = BatchBuilder::new(NOW_MS).producer(producer.0, producer.1, producer.2);
    builder.record(NOW_MS, None, Some(&value)).record(NOW_MS, None, None).compressed(codec).build()
}

/// What stays of a batch when its place in the log is left out.
fn without_place(batch: &[u8]) -> Vec<u8> {
    [&batch[8..12], &batch[16..]].concat()
}

#[test]
fn a_topic_stores_its_own_codec_whatever_was_sent() {
    let test = BrokerTest::new();
    for (name, stored) in CODECS {
        test.create_topic(name, 1, &[("compression.type", name)]);
        for (number, (_, sent)) in (0..).zip(CODECS) {
            let produced = produce(&test, name, compressed(sent, 2 * number));
            assert_eq!(produced, (0, 2 * i64::from(number)), "{sent:?} to {name}");
            let fetch = Fetch { topic: name, offset: 2 * i64::from(number), ..Fetch::default() };
            let fetched = fetch.call(&test).records.unwrap_or_default();
            let expected = compressed(stored, 2 * number);
            assert_eq!(without_place(&fetched), without_place(&expected), "{sent:?} to {name}");
        }
    }
}

#[test]
fn recompressed_batches_keep_their_order_and_sequences() {
    let test = BrokerTest::new();
    test.create_topic("topic", 2, &[("compression.type", "zstd")]);
    let sent = |sequence| produce(&test, "topic", compressed(Compression::Gzip, sequence));
    assert_eq!([sent(0), sent(2), sent(4)], [(0, 0), (0, 2), (0, 4)]);
    assert_eq!(sent(2), (0, 2), "a duplicate is known by its sequence");
    assert_eq!(sent(8).0, 45);
    let parts = [(0, compressed(Compression::Lz4, 6)), (9, batch(&["x"])), (1, batch(&["y"]))];
    let response = test.call(9, &produce_request("topic", -1, &parts));
    let answers = &response.responses[0].partition_responses;
    let answers: Vec<_> = answers.iter().map(|a| (a.index, a.error_code, a.base_offset)).collect();
    assert_eq!(answers, [(0, 0, 6), (9, 3, -1), (1, 0, 0)]);
    let silent = test.send(9, &produce_request("topic", 0, &[(1, batch(&["z"]))]));
    assert_eq!(resolve(silent), Ok(None));
    let fetch = Fetch::default().call(&test);
    assert_eq!(batches(&fetch), [(0, 2), (2, 2), (4, 2), (6, 2)]);
}

#[test]
fn a_bomb_is_refused_where_it_would_be_opened() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[("compression.type", "lz4"), ("max.message.bytes", "100000")]);
    assert!(bomb(1 << 24).len() < 5000);
    let response = test.call(9, &produce_request("topic", -1, &[(0, bomb(1 << 24))]));
    let answer = first(&response);
    assert_eq!(answer.error_code, 10);
    let told = answer.error_message.as_deref();
    assert_eq!(told, Some("the batch's records take more than 1600000 bytes uncompressed"));
    assert_eq!(produce(&test, "topic", bomb(1 << 20)), (0, 0), "an honest one may grow as well");
}

#[test]
fn what_the_batches_of_a_request_open_to_is_bounded_in_all() {
    const EACH: usize = 40 << 20;
    let test = BrokerTest::new();
    let configs = [("compression.type", "lz4"), ("max.message.bytes", "8000000")];
    test.create_topic("topic", 3, &configs);
    let request = produce_request("topic", -1, &[(0, bomb(EACH)), (1, bomb(EACH)), (2, bomb(9))]);
    let answers = &test.call(9, &request).responses[0].partition_responses;
    let codes: Vec<_> = answers.iter().map(|answer| answer.error_code).collect();
    assert_eq!(codes, [0, 10, 0]);
}

/// A batch of so many bytes once it is open, and a few until then.
fn bomb(bytes: usize) -> Bytes {
    let builder = BatchBuilder::new(NOW_MS).compressed(Compression::Zstd);
    builder.record(NOW_MS, None, Some(&vec![0; bytes])).build()
}

#[test]
fn what_is_stored_uncompressed_counts_uncompressed() {
    let test = BrokerTest::new();
    let configs = [("compression.type", "uncompressed"), ("max.message.bytes", "400")];
    test.create_topic("topic", 1, &configs);
    let batch = compressed(Compression::Gzip, 0);
    assert!(batch.len() < 200 && compressed(Compression::None, 0).len() <= 400);
    assert_eq!(produce(&test, "topic", batch), (0, 0));
    let value = [b'a'; 350];
    let builder = BatchBuilder::new(NOW_MS).compressed(Compression::Gzip);
    let batch = builder.record(NOW_MS, None, Some(&value)).build();
    assert_eq!(produce(&test, "topic", batch).0, 10);
}

#[test]
fn the_brokers_stamp_survives_recompression() {
    let test = BrokerTest::new();
    let configs = [("compression.type", "zstd"), ("message.timestamp.type", "LogAppendTime")];
    test.create_topic("topic", 1, &configs);
    let response =
        test.call(9, &produce_request("topic", -1, &[(0, compressed(Compression::Snappy, 0))]));
    assert_eq!(first(&response).log_append_time_ms, NOW_MS);
    let fetched = Fetch::default().call(&test).records.unwrap_or_default();
    let facts = BatchHeader::decode(fetched.first_chunk().expect("a batch"));
    assert_eq!((facts.is_log_append_time(), facts.max_timestamp), (true, NOW_MS));
}

/// The first offset that can be read.
fn earliest(test: &BrokerTest) -> i64 {
    let wanted = ListOffsetsPartition::default().with_timestamp(-2);
    let topic = ListOffsetsTopic::default().with_name(TopicName(text("topic")));
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic.with_partitions(vec![wanted])]);
    test.call(7, &request).topics[0].partitions[0].offset
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn records_older_than_the_topic_keeps_them_are_gone_for_good() {
    let test = BrokerTest::with(&[("log.retention.check.interval.ms", "10")]);
    test.create_topic("topic", 1, &[("retention.ms", "60000")]);
    assert_eq!(produce(&test, "topic", batch(&["a", "b", "c"])), (0, 0));
    test.advance_ms(60_000);
    let searched = || test.metric("tidelog_log_retention_last_run_timestamp_seconds");
    until("a search", || searched() >= (NOW_MS + 60_000) as f64 / 1000.0);
    assert_eq!(earliest(&test), 0, "a minute is kept");
    test.advance_ms(1);
    until("old records go", || earliest(&test) == 3);
    assert_eq!(Fetch::default().call(&test).error_code, 1);
    assert_eq!(produce(&test, "topic", batch(&["d"])), (0, 3));
    let test = test.restart();
    assert_eq!(earliest(&test), 3);
    assert_eq!(batches(&Fetch { offset: 3, ..Fetch::default() }.call(&test)), [(3, 1)]);
}

#[test]
fn the_nodes_own_retention_holds_where_a_topic_has_none() {
    let settings = [("log.retention.check.interval.ms", "10"), ("log.retention.minutes", "2")];
    let test = BrokerTest::with(&settings);
    test.create_topic("topic", 1, &[]);
    produce(&test, "topic", batch(&["a"]));
    test.advance_ms(120_001);
    until("old records go", || earliest(&test) == 1);
}
