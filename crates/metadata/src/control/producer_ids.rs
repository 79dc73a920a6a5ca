//! Blocks of producer ids, never given out twice.

use tidelog_types::{BrokerEpoch, BrokerId, ProducerId};

use crate::{
    controller::{Controller, ControllerResult},
    error::ControllerError,
    record::MetadataRecord,
};

/// Producer ids that a broker gets at once; a restart wastes what is left of them.
pub const BLOCK_SIZE: i64 = 1000;

/// Producer ids that belong to one broker, to be given to its clients one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The least of them.
    pub first: ProducerId,
    /// How many they are.
    pub count: i64,
}

impl Controller {
    /// Plans the next block for a broker.
    pub fn allocate_producer_ids(
        &self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> ControllerResult<Result<ProducerIdBlock, ControllerError>> {
        if let Err(error) = self.check_broker_epoch(broker_id, broker_epoch) {
            return ControllerResult::unchanged(Err(error));
        }
        let first = self.image.producer_ids().next();
        let Some(next) = first.0.checked_add(BLOCK_SIZE) else {
            return ControllerResult::unchanged(Err(ControllerError::ProducerIdsExhausted));
        };
        let next_producer_id = ProducerId(next);
        let record = MetadataRecord::ProducerIds { broker_id, broker_epoch, next_producer_id };
        let block = ProducerIdBlock { first, count: BLOCK_SIZE };
        ControllerResult { records: vec![record], response: Ok(block) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller_test::ControllerTest;

    const BROKER: BrokerId = BrokerId(1);

    #[test]
    fn blocks_follow_one_another_across_restarts() {
        let mut test = ControllerTest::with_brokers(1);
        for first in [0, 1000, 2000] {
            let planned = test.controller.allocate_producer_ids(BROKER, BrokerEpoch(0));
            let block = ProducerIdBlock { first: ProducerId(first), count: 1000 };
            assert_eq!(test.play(planned), Ok(block));
            test.restart();
        }
    }

    #[test]
    fn only_a_present_registration_gets_a_block() {
        let mut test = ControllerTest::with_brokers(1);
        test.register(1, 2).expect("a restart");
        let (stale, unknown) = (BROKER, BrokerId(9));
        for (broker_id, broker_epoch, error) in [
            (stale, 0, ControllerError::StaleBrokerEpoch { broker_id: stale }),
            (unknown, 0, ControllerError::UnknownBroker { broker_id: unknown }),
        ] {
            let planned =
                test.controller.allocate_producer_ids(broker_id, BrokerEpoch(broker_epoch));
            assert_eq!((planned.records, planned.response), (vec![], Err(error)));
        }
    }

    #[test]
    fn the_last_id_ends_the_blocks() {
        let mut test = ControllerTest::with_brokers(1);
        let next_producer_id = ProducerId(i64::MAX - 5);
        let broker_epoch = BrokerEpoch(0);
        let last =
            MetadataRecord::ProducerIds { broker_id: BROKER, broker_epoch, next_producer_id };
        test.play(ControllerResult { records: vec![last], response: () });
        let planned = test.controller.allocate_producer_ids(BROKER, broker_epoch);
        assert_eq!(planned.response, Err(ControllerError::ProducerIdsExhausted));
    }
}
