//! Produce: what is taken, what is refused and in which words, and what is a duplicate.

use bytes::Bytes;
use tidelog_net::service::CloseReason;
use tidelog_protocol::kafka_protocol::messages::{InitProducerIdRequest, TransactionalId};

use crate::{
    context::{BrokerTest, NOW_MS, resolve, text},
    records::{Fetch, batch, batches, first, idempotent, produce, produce_request},
};

#[test]
fn batches_follow_one_another_whatever_the_acks() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    for (acks, values, base_offset) in [(-1, &["a"][..], 0), (1, &["b", "c"], 1), (-1, &["d"], 3)] {
        let response = test.call(9, &produce_request("topic", acks, &[(0, batch(values))]));
        let answer = first(&response);
        assert_eq!((answer.error_code, answer.base_offset), (0, base_offset), "acks={acks}");
        assert_eq!((answer.log_append_time_ms, answer.log_start_offset), (-1, 0));
    }
    assert_eq!(batches(&Fetch::default().call(&test)), [(0, 1), (1, 2), (3, 1)]);
}

#[test]
fn acks_0_is_silent_and_an_error_closes_the_connection() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let taken = test.send(9, &produce_request("topic", 0, &[(0, batch(&["a"]))]));
    assert_eq!(resolve(taken), Ok(None));
    let refused = test.send(9, &produce_request("topic", 0, &[(7, batch(&["a"]))]));
    assert_eq!(resolve(refused), Err(CloseReason::ProduceFailed));
    assert_eq!(produce(&test, "topic", batch(&["b"])), (0, 1));
}

#[test]
fn a_partition_that_fails_leaves_its_siblings_alone() {
    let test = BrokerTest::new();
    test.create_topic("topic", 2, &[]);
    let parts = [(0, batch(&["a"])), (5, batch(&["b"])), (1, batch(&["c"]))];
    let response = test.call(9, &produce_request("topic", -1, &parts));
    let answers = &response.responses[0].partition_responses;
    let answers: Vec<_> = answers.iter().map(|a| (a.index, a.error_code, a.base_offset)).collect();
    assert_eq!(answers, [(0, 0, 0), (5, 3, -1), (1, 0, 0)]);
}

#[test]
fn a_batch_that_breaks_a_rule_is_refused_by_name() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[("max.message.bytes", "200")]);
    let mut flipped = batch(&["flipped"]).to_vec();
    flipped[70] ^= 1;
    let two = [batch(&["one"]), batch(&["two"])].concat();
    for (what, records, code) in [
        ("too large", batch(&["x".repeat(200).as_str()]), 10),
        ("flipped bit", Bytes::from(flipped), 2),
        ("two batches", Bytes::from(two), 87),
        ("no batch", Bytes::new(), 87),
    ] {
        let response = test.call(9, &produce_request("topic", -1, &[(0, records)]));
        let answer = first(&response);
        assert_eq!((answer.error_code, answer.base_offset), (code, -1), "{what}");
        assert!(answer.error_message.is_some(), "{what}");
    }
    assert_eq!(produce(&test, "missing", batch(&["a"])), (3, -1));
    let response = test.call(9, &produce_request("topic", 2, &[(0, batch(&["a"]))]));
    assert_eq!(first(&response).error_code, 21);
    assert_eq!(produce(&test, "topic", batch(&["first"])), (0, 0));
}

#[test]
fn a_topic_may_have_the_brokers_time() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[("message.timestamp.type", "LogAppendTime")]);
    test.advance_ms(5);
    let response = test.call(9, &produce_request("topic", -1, &[(0, batch(&["a"]))]));
    assert_eq!(first(&response).log_append_time_ms, NOW_MS + 5);
    assert_eq!(batches(&Fetch::default().call(&test)), [(0, 1)]);
}

#[test]
fn a_batch_sent_twice_is_stored_once_and_answered_alike() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let id = test.call(4, &request).producer_id.0;
    assert_ne!(test.call(4, &request).producer_id.0, id);
    let send = |epoch, sequence, values: &[&str]| {
        produce(&test, "topic", idempotent(id, epoch, sequence, values))
    };
    assert_eq!(send(0, 0, &["a", "b"]), (0, 0));
    assert_eq!(send(0, 2, &["c"]), (0, 2));
    assert_eq!(send(0, 0, &["a", "b"]), (0, 0), "a duplicate has its original's offset");
    assert_eq!(send(0, 2, &["c"]), (0, 2));
    assert_eq!(send(0, 4, &["e"]), (45, -1), "a batch is missing in between");
    assert_eq!(send(1, 0, &["d"]), (0, 3), "a newer epoch starts at 0");
    assert_eq!(send(0, 3, &["d"]), (47, -1), "the older epoch is fenced");
    assert_eq!(batches(&Fetch::default().call(&test)), [(0, 2), (2, 1), (3, 1)]);
}

#[test]
fn transactions_are_refused_wherever_one_could_begin() {
    let test = BrokerTest::new();
    let id = Some(TransactionalId(text("transaction")));
    let request = InitProducerIdRequest::default().with_transactional_id(id);
    assert_eq!(test.call(4, &request).error_code, 42);
    let half = InitProducerIdRequest::default().with_transactional_id(None);
    assert_eq!(test.call(4, &half.with_producer_id(5.into())).error_code, 42);
}

#[test]
fn many_partitions_are_appended_by_one_request() {
    let test = BrokerTest::new();
    test.create_topic("topic", 50, &[]);
    let parts: Vec<_> = (0..50).map(|index| (index, batch(&["value"]))).collect();
    for base_offset in 0..3 {
        let response = test.call(9, &produce_request("topic", -1, &parts));
        for answer in &response.responses[0].partition_responses {
            assert_eq!((answer.error_code, answer.base_offset), (0, base_offset));
        }
    }
}

#[test]
fn producers_of_one_partition_do_not_mix_their_batches() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let acked: Vec<i64> = std::thread::scope(|scope| {
        let producer = || {
            (0..100).map(|_| produce(&test, "topic", batch(&["a", "b", "c"])).1).collect::<Vec<_>>()
        };
        let producers: Vec<_> = (0..4).map(|_| scope.spawn(producer)).collect();
        producers.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let mut sorted = acked.clone();
    sorted.sort_unstable();
    let expected: Vec<i64> = (0..400).map(|batch| batch * 3).collect();
    assert_eq!(sorted, expected);
}
