//! Ten thousand partitions on one node: made, killed, found again, written, read and counted.
//!
//! Times have bounds of several times their goals, for machines that do other things as well;
//! memory has one that a partition twice as dear would break.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{CreateTopicsRequest, create_topics_request::CreatableTopic};
use tidelog_tests::{
    batch::Batch,
    http,
    node::{Node, Options, PATIENCE},
    programs::wait_until,
    wire::{Wire, fetch_request, produce_request, topic_name},
};

const PARTITIONS: i32 = 10_000;
const WRITTEN: usize = 100;
const MIB: u64 = 1024 * 1024;
/// What ten thousand partitions that nobody wrote to may cost: 3.4 KiB each.
const BYTES_MAX: u64 = 33 * MIB;
/// Descriptors of a node that has just started, and of some segments.
const OPEN_FILES_MAX: usize = 100;
/// Where in a batch that begins which the broker leaves as it was sent.
const SENT_START: usize = 17;

#[test]
fn ten_thousand_partitions_cost_little_time_and_memory() {
    let mut node = Node::start(Options::default());
    let empty = node.resident_bytes();
    let (_, took) = timed(|| create_topic(&mut node.wire()));
    eprintln!("created in {took:?}");
    assert!(took < Duration::from_secs(10), "created in {took:?}");
    check(&node, empty);

    node.kill();
    let (_, took) = timed(|| node.restart());
    eprintln!("restarted in {took:?}");
    assert!(took < Duration::from_secs(10), "restarted in {took:?}");
    check(&node, empty);

    let batches: Vec<Bytes> = (0..WRITTEN).map(batch).collect();
    assert_eq!(produce(&mut node.wire(), &batches), vec![(0, 0); WRITTEN]);
    node.kill();
    node.restart();
    let found = fetch(&mut node.wire());
    assert_eq!(found.len(), WRITTEN);
    for (found, sent) in found.iter().zip(&batches) {
        assert_eq!(found[SENT_START..], sent[SENT_START..]);
    }
    assert_eq!(produce(&mut node.wire(), &batches), vec![(0, 1); WRITTEN]);
    check(&node, empty);
}

/// Memory, descriptors, and that all partitions are counted soon.
fn check(node: &Node, empty: u64) {
    let count = format!("tidelog_partitions {PARTITIONS}\n");
    let metrics = || timed(|| http::get(node.admin_port(), "/metrics").expect("an answer").1);
    wait_until("all partitions are there", PATIENCE, || metrics().0.contains(&count));
    let (_, took) = metrics();
    let cost = node.resident_bytes().saturating_sub(empty);
    let open_files = node.open_files();
    eprintln!("{} KiB, {open_files} descriptors, /metrics in {took:?}", cost / 1024);
    assert!(took < Duration::from_secs(1), "/metrics took {took:?}");
    assert!(cost < BYTES_MAX, "they cost {} KiB", cost / 1024);
    assert!(open_files < OPEN_FILES_MAX, "{open_files} descriptors");
}

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let outcome = act();
    (outcome, started.elapsed())
}

fn create_topic(wire: &mut Wire) {
    let topic = CreatableTopic::default()
        .with_name(topic_name("many"))
        .with_num_partitions(PARTITIONS)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_timeout_ms(30_000).with_topics(vec![topic]);
    assert_eq!(wire.call(&request, 5).expect("an answer").topics[0].error_code, 0);
}

/// Every hundredth partition.
fn places() -> impl Iterator<Item = i32> {
    (0..PARTITIONS).step_by(PARTITIONS as usize / WRITTEN)
}

fn batch(place: usize) -> Bytes {
    Batch::new(vec![vec![place as u8; 1000]]).encode().freeze()
}

/// A batch to each of them, in one request; error codes and base offsets.
fn produce(wire: &mut Wire, batches: &[Bytes]) -> Vec<(i16, i64)> {
    let mut request = produce_request("many", Bytes::new(), -1);
    let one = request.topic_data[0].partition_data.remove(0);
    let both = places().zip(batches);
    let partition =
        |(at, batch): (i32, &Bytes)| one.clone().with_index(at).with_records(Some(batch.clone()));
    request.topic_data[0].partition_data = both.map(partition).collect();
    let response = wire.call(&request, 9).expect("an answer");
    let partitions = &response.responses[0].partition_responses;
    partitions.iter().map(|partition| (partition.error_code, partition.base_offset)).collect()
}

/// What each of them holds.
fn fetch(wire: &mut Wire) -> Vec<Bytes> {
    let mut request = fetch_request("many", 0, 1 << 20);
    let one = request.topics[0].partitions.remove(0);
    request.topics[0].partitions = places().map(|at| one.clone().with_partition(at)).collect();
    let response = wire.call(&request, 11).expect("an answer");
    let partitions = response.responses[0].partitions.iter();
    partitions.map(|partition| partition.records.clone().expect("records")).collect()
}
