//! How far producer ids were given out.

use tidelog_types::{BrokerEpoch, BrokerId, ProducerId};

use crate::record::MetadataRecord;

/// Producer ids given out so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProducerIdsImage {
    next: ProducerId,
}

impl ProducerIdsImage {
    /// The least producer id never given out.
    #[must_use]
    pub fn next(&self) -> ProducerId {
        self.next
    }

    pub(super) fn replay(&mut self, next: ProducerId) {
        assert!(next >= self.next, "producer ids would be given out twice");
        self.next = next;
    }

    /// Who got the last block is not kept: nobody asks.
    pub(super) fn to_records(self, records: &mut Vec<MetadataRecord>) {
        if self.next > ProducerId::default() {
            records.push(MetadataRecord::ProducerIds {
                broker_id: BrokerId(-1),
                broker_epoch: BrokerEpoch(-1),
                next_producer_id: self.next,
            });
        }
    }
}
