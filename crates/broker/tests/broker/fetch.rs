//! Fetch: what is readable, when it is answered, and what an epoch says.

use std::time::{Duration, Instant};

use tidelog_net::{Handled, Reply, ReplyRoom};
use tidelog_protocol::kafka_protocol::messages::FetchRequest;

use crate::{
    context::{BrokerTest, REPLY_BYTES_MAX, is_pending},
    records::{Fetch, batch, batches, fetched, produce},
};

#[test]
fn a_long_poll_is_answered_by_the_record_it_waits_for() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let mut waiting = Fetch { max_wait_ms: 10_000, ..Fetch::default() }.send(&test);
    assert!(is_pending(&mut waiting));
    assert_eq!(produce(&test, "topic", batch(&["a"])), (0, 0));
    assert_eq!(batches(&fetched(waiting)), [(0, 1)]);
}

#[test]
fn a_long_poll_waits_for_min_bytes_or_its_deadline() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let bytes = batch(&["a"]).len() as i32;
    let wanted = Fetch { max_wait_ms: 10_000, min_bytes: 2 * bytes, ..Fetch::default() };
    let mut waiting = wanted.send(&test);
    produce(&test, "topic", batch(&["a"]));
    assert!(is_pending(&mut waiting), "one batch is not enough");
    produce(&test, "topic", batch(&["b"]));
    assert_eq!(batches(&fetched(waiting)), [(0, 1), (1, 1)]);

    let started = Instant::now();
    let impatient = Fetch { max_wait_ms: 50, min_bytes: 3 * bytes, ..Fetch::default() };
    assert_eq!(batches(&impatient.call(&test)), [(0, 1), (1, 1)], "what is there is the answer");
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[test]
fn a_fetch_of_two_partitions_adds_up_what_both_have() {
    let test = BrokerTest::new();
    test.create_topic("one", 1, &[]);
    test.create_topic("two", 1, &[]);
    let bytes = batch(&["a"]).len() as i32;
    let wanted =
        |topic| Fetch { topic, max_wait_ms: 10_000, min_bytes: 2 * bytes, ..Fetch::default() };
    let mut request = wanted("one").request();
    request.topics.append(&mut wanted("two").request().topics);
    let mut waiting = test.send(12, &request);
    produce(&test, "one", batch(&["a"]));
    assert!(is_pending(&mut waiting));
    produce(&test, "two", batch(&["b"]));
    let frame = crate::context::resolve(waiting).expect("stays").expect("an answer");
    let response = crate::context::decode::<FetchRequest>(12, frame);
    let found: Vec<_> = response.responses.iter().map(|t| batches(&t.partitions[0])).collect();
    assert_eq!(found, [[(0, 1)], [(0, 1)]]);
}

#[test]
fn the_first_batch_comes_whole_and_the_next_ones_only_if_they_fit() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    for value in ["a", "b", "c"] {
        produce(&test, "topic", batch(&[value]));
    }
    let bytes = batch(&["a"]).len() as i32;
    for (max_bytes, expected) in
        [(1, &[(0, 1)][..]), (bytes, &[(0, 1)]), (2 * bytes, &[(0, 1), (1, 1)])]
    {
        let found = Fetch { max_bytes, ..Fetch::default() }.call(&test);
        assert_eq!(batches(&found), expected, "{max_bytes}");
        assert_eq!((found.high_watermark, found.last_stable_offset), (3, 3));
    }
}

#[test]
fn a_fetch_may_start_inside_a_batch() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    produce(&test, "topic", batch(&["a", "b", "c"]));
    produce(&test, "topic", batch(&["d"]));
    let found = Fetch { offset: 2, ..Fetch::default() }.call(&test);
    assert_eq!(batches(&found), [(0, 3), (3, 1)]);
}

#[test]
fn an_offset_outside_of_the_log_is_said_to_be() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    produce(&test, "topic", batch(&["a"]));
    for (offset, code) in [(0, 0), (1, 0), (2, 1), (-1, 1), (i64::MAX, 1)] {
        let found = Fetch { offset, ..Fetch::default() }.call(&test);
        assert_eq!(found.error_code, code, "{offset}");
    }
}

#[test]
fn a_client_of_another_epoch_is_told_who_is_behind() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let test = test.restart();
    let current = test.leader_epoch("topic");
    assert!(current > 0, "a start is a new leader epoch");
    for (leader_epoch, code) in [(current, 0), (-1, 0), (current - 1, 74), (current + 1, 75)] {
        let found = Fetch { leader_epoch, ..Fetch::default() }.call(&test);
        assert_eq!(found.error_code, code, "{leader_epoch}");
    }
}

#[test]
fn a_client_that_read_what_is_gone_is_told_where_the_logs_part() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    produce(&test, "topic", batch(&["a", "b"]));
    let test = test.restart();
    produce(&test, "topic", batch(&["c"]));
    let agrees = Fetch { offset: 2, last_fetched_epoch: 0, ..Fetch::default() }.call(&test);
    assert_eq!(batches(&agrees), [(2, 1)]);
    let parts = Fetch { offset: 3, last_fetched_epoch: 0, ..Fetch::default() }.call(&test);
    let end = (parts.diverging_epoch.epoch, parts.diverging_epoch.end_offset);
    assert_eq!((end, batches(&parts)), ((0, 2), vec![]));
    let past_the_end = Fetch { offset: 9, last_fetched_epoch: 0, ..Fetch::default() }.call(&test);
    assert_eq!((past_the_end.error_code, past_the_end.diverging_epoch.end_offset), (0, 2));
    let says_nothing = Fetch { offset: 2, last_fetched_epoch: -5, ..Fetch::default() }.call(&test);
    assert_eq!((says_nothing.error_code, batches(&says_nothing)), (0, vec![(2, 1)]));
}

#[test]
fn a_partition_named_twice_is_fetched_once() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let mut request = Fetch { max_wait_ms: 10_000, ..Fetch::default() }.request();
    request.topics.push(request.topics[0].clone());
    let response = test.call(12, &request);
    let codes: Vec<_> = response.responses.iter().map(|t| t.partitions[0].error_code).collect();
    assert_eq!(codes, [0, 42]);
}

#[test]
fn a_topic_that_goes_ends_the_polls_that_wait_for_it() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let mut waiting = Fetch { max_wait_ms: 10_000, ..Fetch::default() }.send(&test);
    assert!(is_pending(&mut waiting));
    crate::topics::delete(&test, "topic");
    assert_eq!(fetched(waiting).error_code, 6);
    assert_eq!(Fetch::default().call(&test).error_code, 3);
}

#[test]
fn what_left_the_memory_is_read_from_the_disk() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[("segment.bytes", "100000")]);
    let value = "x".repeat(10_000);
    for offset in 0..40 {
        assert_eq!(produce(&test, "topic", batch(&[&value])), (0, offset));
    }
    let test = test.restart(); // a clean stop leaves everything in segments
    let mut next = 0;
    while next < 40 {
        let found = Fetch { offset: next, max_bytes: 50_000, ..Fetch::default() }.call(&test);
        assert_eq!(found.error_code, 0);
        for (base_offset, count) in batches(&found) {
            assert_eq!((base_offset, count), (next, 1));
            next += 1;
        }
    }
}

#[test]
fn only_the_next_fetch_of_a_connection_asks_the_disk() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    produce(&test, "topic", batch(&["a"]));
    // Nothing is left in memory.
    let test = test.restart();
    let mut pipelined: Vec<_> = (0..150).map(|_| Fetch::default().send(&test)).collect();
    assert!(pipelined.iter().all(|handled| matches!(handled, Handled::Reply(Reply::Pending(_)))));
    assert_eq!(test.replies.used(), 0, "what is not its turn holds nothing");
    let mut next = pipelined.remove(0);
    assert!(!is_pending(&mut next) || test.replies.used() > 0, "room comes before the disk");
    drop(next);
    assert_eq!(test.replies.used(), 0);
    for handled in pipelined {
        assert_eq!(batches(&fetched(handled)), [(0, 1)]);
    }
    assert_eq!(test.replies.used(), 0);
}

#[test]
fn a_fetch_waits_for_room_and_is_answered_empty_where_none_comes() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    produce(&test, "topic", batch(&["a"]));
    let mut full = ReplyRoom::new(&test.replies, 2);
    full.settle(REPLY_BYTES_MAX);
    for max_wait_ms in [0, 50] {
        let found = Fetch { max_wait_ms, ..Fetch::default() }.call(&test);
        assert_eq!((found.error_code, found.high_watermark, batches(&found)), (0, 1, vec![]));
    }
    let mut waiting = Fetch { max_wait_ms: 10_000, ..Fetch::default() }.send(&test);
    assert!(is_pending(&mut waiting));
    drop(full);
    assert_eq!(batches(&fetched(waiting)), [(0, 1)]);
}

#[test]
fn a_long_poll_is_answered_at_once_when_the_broker_stops() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let mut waiting = Fetch { max_wait_ms: i32::MAX, ..Fetch::default() }.send(&test);
    let Handled::Reply(Reply::Pending(pending)) = &mut waiting else { panic!("nothing is there") };
    let deadline = pending.deadline().expect("nobody waits for ever");
    assert!(deadline <= Instant::now() + Duration::from_secs(60), "capped");
    pending.hurry();
    let started = Instant::now();
    assert_eq!(batches(&fetched(waiting)), []);
    assert!(started.elapsed() < Duration::from_secs(5));
}
