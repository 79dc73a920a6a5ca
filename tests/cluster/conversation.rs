//! How one connection is served: in order, without waiting where nobody asked to, and as asked.

use std::time::{Duration, Instant};

use kafka_protocol::messages::{ApiVersionsRequest, ProduceRequest};
use tidelog_tests::{
    batch::Batch,
    node::{Node, Options},
    wire::{encode, fetch_request, produce_request},
};

#[test]
fn pipelined_requests_are_answered_in_order() {
    let node = Node::start(Options::default());
    let mut wire = node.wire();
    assert_eq!(wire.create_topic("queue", &[]).expect("an answer"), 0);
    const REQUESTS: i32 = 300;
    for number in 0..REQUESTS {
        // Slow and quick ones side by side: a disk is waited for, and nothing at all.
        let frame = match number % 3 {
            0 => encode(&produce("queue", b"x", -1), 9, number),
            1 => encode(&ApiVersionsRequest::default(), 0, number),
            _ => encode(&fetch_request("queue", 0, 1_000), 11, number),
        };
        wire.send_frame(&frame).expect("sent");
    }
    for number in 0..REQUESTS {
        let answer = wire.receive_frame().expect("an answer");
        assert_eq!(answer[..4], number.to_be_bytes(), "answers come in order");
    }
    let (_, end) = wire.list_offset("queue", -1).expect("an answer");
    assert_eq!(end, i64::from(REQUESTS / 3));
}

#[test]
fn a_waiting_fetch_is_woken_by_a_record_and_by_its_deadline() {
    let node = Node::start(Options::default());
    let mut reader = node.wire();
    let mut writer = node.wire();
    assert_eq!(writer.create_topic("woken", &[]).expect("an answer"), 0);
    let wait = |ms| fetch_request("woken", 0, 1_000).with_max_wait_ms(ms).with_min_bytes(1);

    let asked = Instant::now();
    reader.call(&wait(300), 11).expect("an empty answer");
    let waited = asked.elapsed();
    assert!(waited >= Duration::from_millis(290), "answered after {waited:?}");
    assert!(waited < Duration::from_secs(5), "answered after {waited:?}");

    reader.send_frame(&encode(&wait(60_000), 11, 9)).expect("sent");
    let asked = Instant::now();
    writer.call(&produce("woken", b"hello", -1), 9).expect("an answer");
    reader.receive_frame().expect("an answer");
    assert!(asked.elapsed() < Duration::from_secs(5), "woken after {:?}", asked.elapsed());
}

#[test]
fn acks_0_gets_no_answer_and_an_error_closes_the_connection() {
    let node = Node::start(Options::default());
    let mut wire = node.wire();
    assert_eq!(wire.create_topic("unasked", &[]).expect("an answer"), 0);
    for number in 0..10 {
        wire.send_frame(&encode(&produce("unasked", b"x", 0), 9, number)).expect("sent");
    }
    // The next answer on this connection is that of the next request that wants one.
    assert_eq!(wire.produce("unasked", batch(b"y")).expect("an answer"), (0, 10));

    let mut lost = node.wire();
    lost.send_frame(&encode(&produce("no-such-topic", b"x", 0), 9, 1)).expect("sent");
    assert!(lost.receive_frame().is_err(), "closed, because there is no other way to say it");
    wire.api_versions().expect("others are served");
}

#[test]
fn a_stop_does_not_wait_for_fetches_that_wait() {
    let mut node = Node::start(Options::default());
    let mut wire = node.wire();
    assert_eq!(wire.create_topic("quiet", &[]).expect("an answer"), 0);
    let wait = fetch_request("quiet", 0, 1_000).with_max_wait_ms(600_000).with_min_bytes(1);
    wire.send_frame(&encode(&wait, 11, 1)).expect("sent");
    node.wire().api_versions().expect("an answer");
    let asked = Instant::now();
    assert!(node.terminate().success(), "{}", node.log_text());
    assert!(asked.elapsed() < Duration::from_secs(15), "took {:?}", asked.elapsed());
}

fn produce(topic: &str, value: &[u8], acks: i16) -> ProduceRequest {
    produce_request(topic, batch(value), acks)
}

fn batch(value: &[u8]) -> bytes::Bytes {
    Batch::new(vec![value.to_vec()]).encode().freeze()
}
