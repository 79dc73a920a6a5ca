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
