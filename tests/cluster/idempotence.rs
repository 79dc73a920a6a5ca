//! An idempotent producer's promise, as the wire shows it, across kills.

use bytes::Bytes;
use tidelog_tests::{
    batch::Batch,
    node::{Node, Options},
};

const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;

#[test]
fn a_retried_batch_keeps_its_offset_and_a_gap_is_refused_even_after_a_kill() {
    for options in [Options::default(), Options::default().held()] {
        let mut node = Node::start(options.expect_torn_tails());
        let mut wire = node.wire();
        assert_eq!(wire.create_topic("once", &[]).expect("an answer"), 0);
        let producer_id = wire.init_producer_id().expect("an id");
        let batch = |epoch, sequence| idempotent(producer_id, epoch, sequence);
        for number in 0..7 {
            let answer = wire.produce("once", batch(0, 3 * number)).expect("an answer");
            assert_eq!(answer, (0, i64::from(3 * number)));
        }
        for life in 0..3 {
            // Five batches are remembered: each is answered as it was the first time.
            for number in 2..7 {
                let answer = wire.produce("once", batch(0, 3 * number)).expect("an answer");
                assert_eq!(answer, (0, i64::from(3 * number)), "life {life}, batch {number}");
            }
            let (gap, _) = wire.produce("once", batch(0, 24)).expect("an answer");
            assert_eq!(gap, OUT_OF_ORDER_SEQUENCE_NUMBER, "life {life}");
            node.kill();
            node.restart();
            wire = node.wire();
        }
        assert_eq!(wire.produce("once", batch(0, 21)).expect("an answer"), (0, 21));
        assert_eq!(wire.produce("once", batch(1, 0)).expect("an answer"), (0, 24), "a new epoch");
        let (fenced, _) = wire.produce("once", batch(0, 24)).expect("an answer");
        assert_eq!(fenced, INVALID_PRODUCER_EPOCH);
        assert_eq!(wire.list_offset("once", -1).expect("an answer"), (0, 27), "nothing twice");
    }
}

/// Three records of one producer.
fn idempotent(producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Bytes {
    let values = ["a", "b", "c"].map(|value| value.as_bytes().to_vec()).to_vec();
    let batch = Batch::new(values);
    Batch { producer_id, producer_epoch, base_sequence, ..batch }.encode().freeze()
}
