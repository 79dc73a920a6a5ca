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
