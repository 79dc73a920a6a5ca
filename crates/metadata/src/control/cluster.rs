//! Brokers that come, and what their coming means for the partitions they lead (KIP-631).

use tidelog_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicId, Uuid};

use crate::{
    controller::{Controller, ControllerResult},
    error::ControllerError,
    image::BrokerRegistration,
    record::{
        Endpoint, MetadataRecord, PartitionChange, PartitionRegistration, RegisterBroker,
        SupportedFeature,
    },
};

/// What a broker says of itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterBrokerRequest {
    /// Its `node.id`.
    pub broker_id: BrokerId,
    /// The cluster that it belongs to.
    pub cluster_id: Uuid,
    /// Random, made when its process started.
    pub incarnation_id: Uuid,
    /// Where clients and brokers reach it.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`
    pub rack: Option<String>,
    /// Its data directories.
    pub directories: Vec<Uuid>,
    /// The feature levels that it can work with.
    pub features: Vec<SupportedFeature>,
}

impl Controller {
    /// Plans a broker's registration, in one batch with a new leader epoch for every partition
    /// that it leads, and the lead of those that wait for it.
    ///
    /// A new incarnation ends the one before: whoever sees that one alive must refuse first.
    /// The same incarnation asking again gets the broker epoch that it has.
    pub fn register_broker(
        &self,
        request: &RegisterBrokerRequest,
    ) -> ControllerResult<Result<BrokerEpoch, ControllerError>> {
        if let Err(error) = self.check_registration(request) {
            return ControllerResult::unchanged(Err(error));
        }
        let known = self.image.cluster().broker(request.broker_id);
        let same_process = known.filter(|known| known.incarnation_id == request.incarnation_id);
        let broker_epoch = match same_process {
            Some(known) => known.broker_epoch,
            None => self.image.cluster().next_broker_epoch(),
        };
        let registration = registration(request, broker_epoch);
        if same_process.is_some_and(|known| **known == registration) {
            return ControllerResult::unchanged(Ok(broker_epoch));
        }
        let mut records = vec![MetadataRecord::RegisterBroker(registration)];
        if same_process.is_none() {
            self.lead_anew(request.broker_id, &mut records);
        }
        ControllerResult { records, response: Ok(broker_epoch) }
    }

    /// Whether a broker's request comes from its present registration.
    pub(crate) fn check_broker_epoch(
        &self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Result<(), ControllerError> {
        match self.image.cluster().broker(broker_id) {
            None => Err(ControllerError::UnknownBroker { broker_id }),
            Some(known) if known.broker_epoch != broker_epoch => {
                Err(ControllerError::StaleBrokerEpoch { broker_id })
            }
            Some(_) => Ok(()),
        }
    }

    fn check_registration(&self, request: &RegisterBrokerRequest) -> Result<(), ControllerError> {
        let cluster_id = self.image.cluster().cluster_id();
        let cluster_id = cluster_id.ok_or(ControllerError::NotBootstrapped)?;
        if request.cluster_id != cluster_id {
            return Err(ControllerError::InconsistentClusterId(format!(
                "Expected cluster ID {cluster_id}, but got cluster ID {}",
                request.cluster_id
            )));
        }
        if request.broker_id.0 < 0 || request.incarnation_id.is_zero() {
            return Err(ControllerError::InvalidRequest(format!(
                "A broker has an id of at least 0 and an incarnation, not {} and {}.",
                request.broker_id, request.incarnation_id
            )));
        }
        self.check_features(&request.features)
    }

    fn check_features(&self, supported: &[SupportedFeature]) -> Result<(), ControllerError> {
        for (name, level) in self.image.features().iter() {
            let range = supported.iter().find(|feature| feature.name == name);
            if !range.is_some_and(|range| (range.min_level..=range.max_level).contains(&level)) {
                return Err(ControllerError::UnsupportedFeature(format!(
                    "The cluster has {name} at level {level}, which the broker does not support."
                )));
            }
        }
        Ok(())
    }

    /// What the last incarnation had appended but not synced may have been sent to followers and
    /// is gone here, so what this one appends must not look the same: it gets new leader epochs.
    fn lead_anew(&self, broker_id: BrokerId, records: &mut Vec<MetadataRecord>) {
        for topic in self.image.topics().iter() {
            for (number, partition) in topic.partitions() {
                if leads_after_registration(partition, broker_id) {
                    let change = new_lead(topic.topic_id(), number, partition, broker_id);
                    records.push(MetadataRecord::PartitionChange(change));
                }
            }
        }
    }
}

fn registration(request: &RegisterBrokerRequest, broker_epoch: BrokerEpoch) -> BrokerRegistration {
    RegisterBroker {
        broker_id: request.broker_id,
        broker_epoch,
        incarnation_id: request.incarnation_id,
        endpoints: request.endpoints.clone(),
        rack: request.rack.clone(),
        fenced: false,
        in_controlled_shutdown: false,
        directories: request.directories.clone(),
        features: request.features.clone(),
    }
}

/// It led when it stopped, or nobody leads and it has every acknowledged record.
fn leads_after_registration(partition: &PartitionRegistration, broker_id: BrokerId) -> bool {
    match partition.leader {
        Some(leader) => leader == broker_id,
        None => partition.isr.contains(&broker_id),
    }
}

fn new_lead(
    topic_id: TopicId,
    number: i32,
    partition: &PartitionRegistration,
    leader: BrokerId,
) -> PartitionChange {
    let partition_epoch = PartitionEpoch(partition.partition_epoch.0 + 1);
    PartitionChange {
        leader_epoch: Some(LeaderEpoch(partition.leader_epoch.0 + 1)),
        leader: (partition.leader != Some(leader)).then_some(Some(leader)),
        ..PartitionChange::new(topic_id, number, partition_epoch)
    }
}

#[cfg(test)]
mod tests {
    use tidelog_types::ErrorCode;

    use super::*;
    use crate::controller_test::{CLUSTER, ControllerTest, registration, topic};

    #[test]
    fn a_new_incarnation_gets_a_new_broker_epoch_and_new_leader_epochs_in_one_entry() {
        let mut test = ControllerTest::with_brokers(2);
        test.create(&[topic("one", 2, 1), topic("two", 2, 2)]);
        let before = test.controller.image().clone();
        let planned = test.controller.register_broker(&registration(1, 2));
        assert!(matches!(planned.records[0], MetadataRecord::RegisterBroker(_)));
        assert_eq!(test.play(planned), Ok(BrokerEpoch(2)));
        for topic in before.topics().iter() {
            for (number, old) in topic.partitions() {
                let risen = i32::from(old.leader == Some(BrokerId(1)));
                let new = test.partition(topic.name(), number);
                assert_eq!(new.leader_epoch, LeaderEpoch(old.leader_epoch.0 + risen));
                assert_eq!(new.partition_epoch, PartitionEpoch(old.partition_epoch.0 + risen));
                assert_eq!((new.leader, &new.isr), (old.leader, &old.isr));
            }
        }
    }

    #[test]
    fn the_same_incarnation_asking_again_changes_nothing() {
        let mut test = ControllerTest::with_brokers(1);
        test.create(&[topic("one", 3, 1)]);
        let again = test.controller.register_broker(&registration(1, 1));
        assert_eq!((again.records.len(), again.response), (0, Ok(BrokerEpoch(0))));
        let mut moved = registration(1, 1);
        moved.endpoints[0].port = 9093;
        let planned = test.controller.register_broker(&moved);
        assert_eq!((planned.records.len(), &planned.response), (1, &Ok(BrokerEpoch(0))));
        test.play(planned).expect("its own epoch");
        assert_eq!(test.partition("one", 0).leader_epoch, LeaderEpoch(0));
    }

    #[test]
    fn a_broker_that_returns_leads_what_waits_for_it() {
        let mut test = ControllerTest::with_brokers(1);
        test.create(&[topic("one", 1, 1)]);
        let mut change = PartitionChange::new(test.topic_id("one"), 0, PartitionEpoch(1));
        (change.leader, change.leader_epoch) = (Some(None), Some(LeaderEpoch(1)));
        let records = vec![MetadataRecord::PartitionChange(change)];
        test.play(ControllerResult { records, response: () });
        assert_eq!(test.partition("one", 0).leader, None);
        test.register(1, 2).expect("a lawful registration");
        let partition = test.partition("one", 0);
        assert_eq!((partition.leader, partition.leader_epoch), (Some(BrokerId(1)), LeaderEpoch(2)));
    }

    #[test]
    fn a_broker_epoch_is_never_given_out_twice() {
        let mut test = ControllerTest::with_brokers(2);
        let (broker_id, broker_epoch) = (BrokerId(2), BrokerEpoch(1));
        let records = vec![MetadataRecord::UnregisterBroker { broker_id, broker_epoch }];
        test.play(ControllerResult { records, response: () });
        test.restart();
        assert_eq!(test.register(2, 1), Ok(BrokerEpoch(2)));
    }

    #[test]
    fn a_registration_that_does_not_fit_the_cluster_is_refused() {
        let mut unset = ControllerTest::empty();
        assert_eq!(unset.register(1, 1), Err(ControllerError::NotBootstrapped));

        let test = ControllerTest::with_brokers(1);
        let right = || registration(2, 1);
        let other_cluster = RegisterBrokerRequest { cluster_id: Uuid([1; 16]), ..right() };
        let negative = RegisterBrokerRequest { broker_id: BrokerId(-1), ..right() };
        let nobody = RegisterBrokerRequest { incarnation_id: Uuid::ZERO, ..right() };
        let old = RegisterBrokerRequest { features: vec![], ..right() };
        for (request, code) in [
            (other_cluster, ErrorCode::InconsistentClusterId),
            (negative, ErrorCode::InvalidRequest),
            (nobody, ErrorCode::InvalidRequest),
            (old, ErrorCode::UnsupportedVersion),
        ] {
            let planned = test.controller.register_broker(&request);
            assert_eq!(planned.records, vec![]);
            assert_eq!(planned.response.map_err(|error| error.error_code()), Err(code));
        }
        assert_eq!(test.image.cluster().cluster_id(), Some(CLUSTER));
    }
}
