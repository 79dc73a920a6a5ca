//! What a broker knows after it was gone: everything it has acknowledged, once and in order.

use crate::{
    context::BrokerTest,
    records::{Fetch, batch, batches, idempotent, produce},
    topics::delete,
};

#[test]
fn a_power_loss_takes_nothing_that_was_acknowledged() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    for offset in 0..20 {
        assert_eq!(produce(&test, "topic", batch(&["value"])), (0, offset));
        if offset % 5 == 4 {
            let after = test.after_power_loss(offset as u64);
            let found = batches(&Fetch::default().call(&after));
            let expected: Vec<_> = (0..=offset).map(|base_offset| (base_offset, 1)).collect();
            assert_eq!(found, expected);
            assert_eq!(produce(&after, "topic", batch(&["next"])), (0, offset + 1));
        }
    }
}

#[test]
fn a_duplicate_is_known_after_a_power_loss_and_after_a_clean_stop() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    for sequence in 0..8 {
        let sent = idempotent(1000, 0, sequence, &["value"]);
        assert_eq!(produce(&test, "topic", sent), (0, i64::from(sequence)));
    }
    let after = test.after_power_loss(1);
    assert_eq!(produce(&after, "topic", idempotent(1000, 0, 7, &["value"])), (0, 7));
    assert_eq!(produce(&after, "topic", idempotent(1000, 0, 9, &["value"])), (45, -1));
    assert_eq!(produce(&after, "topic", idempotent(1000, 0, 8, &["value"])), (0, 8));
    let test = test.restart();
    assert_eq!(produce(&test, "topic", idempotent(1000, 0, 4, &["value"])), (0, 4));
    assert_eq!(produce(&test, "topic", idempotent(1000, 0, 8, &["value"])), (0, 8));
}

#[test]
fn every_start_leads_in_a_new_epoch() {
    let mut test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let mut epochs = vec![test.leader_epoch("topic")];
    for _ in 0..3 {
        test = test.restart();
        epochs.push(test.leader_epoch("topic"));
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
}

#[test]
fn a_deleted_topic_stays_deleted_and_leaves_nothing_behind() {
    let test = BrokerTest::new();
    test.create_topic("kept", 1, &[]);
    test.create_topic("gone", 1, &[]);
    produce(&test, "kept", batch(&["a"]));
    produce(&test, "gone", batch(&["b"]));
    assert_eq!(delete(&test, "gone"), 0);
    let test = test.after_power_loss(3);
    let names: Vec<_> = test.metadata(12).topics.into_iter().filter_map(|t| t.name).collect();
    assert_eq!(names.iter().map(|name| name.to_string()).collect::<Vec<_>>(), ["kept"]);
    let test = test.restart();
    assert_eq!(batches(&Fetch { topic: "kept", ..Fetch::default() }.call(&test)), [(0, 1)]);
}

#[test]
fn producer_ids_are_never_given_twice() {
    use tidelog_protocol::kafka_protocol::messages::InitProducerIdRequest;
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let mut test = BrokerTest::new();
    let mut given = Vec::new();
    for seed in 0..3 {
        given.push(test.call(4, &request).producer_id.0);
        given.push(test.call(4, &request).producer_id.0);
        test = test.after_power_loss(seed);
    }
    assert!(given.is_sorted_by(|a, b| a < b), "{given:?}");
}
