//! The cluster's id and the brokers that registered.

use std::sync::Arc;

use imbl::OrdMap;
use tidelog_types::{BrokerEpoch, BrokerId, Uuid};

use crate::record::{MetadataRecord, RegisterBroker};

/// A registered broker: what it said of itself, and how it stands since.
pub type BrokerRegistration = RegisterBroker;

/// The cluster's id and its brokers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterImage {
    cluster_id: Option<Uuid>,
    brokers: OrdMap<BrokerId, Arc<BrokerRegistration>>,
    /// Greater than every broker epoch given out, to brokers since unregistered too.
    next_broker_epoch: i64,
}

impl ClusterImage {
    /// The cluster's id; `None` before its first node has written the first records.
    #[must_use]
    pub fn cluster_id(&self) -> Option<Uuid> {
        self.cluster_id
    }

    /// One broker.
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<BrokerRegistration>> {
        self.brokers.get(&id)
    }

    /// All brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<BrokerRegistration>> {
        self.brokers.values()
    }

    /// The brokers that clients can be sent to, by id.
    pub fn alive(&self) -> impl Iterator<Item = &Arc<BrokerRegistration>> {
        self.brokers().filter(|broker| !broker.fenced)
    }

    /// Whether a broker may lead and be in sync.
    #[must_use]
    pub fn is_active(&self, id: BrokerId) -> bool {
        self.broker(id).is_some_and(|broker| broker.is_active())
    }

    /// The broker epoch of the next registration.
    #[must_use]
    pub fn next_broker_epoch(&self) -> BrokerEpoch {
        BrokerEpoch(self.next_broker_epoch)
    }

    pub(super) fn replay_cluster_id(&mut self, cluster_id: Uuid) {
        assert!(
            self.cluster_id.is_none_or(|known| known == cluster_id),
            "a cluster keeps its id for ever"
        );
        self.cluster_id = Some(cluster_id);
    }

    pub(super) fn replay_register(&mut self, broker: &RegisterBroker) {
        let known = self.broker(broker.broker_id);
        assert!(
            known.is_none_or(|known| broker.broker_epoch >= known.broker_epoch),
            "broker {} registered with an older broker epoch",
            broker.broker_id
        );
        self.next_broker_epoch = self.next_broker_epoch.max(broker.broker_epoch.0 + 1);
        self.brokers.insert(broker.broker_id, Arc::new(broker.clone()));
    }

    pub(super) fn replay_unregister(&mut self, id: BrokerId, epoch: BrokerEpoch) {
        let removed = self.brokers.remove(&id);
        assert!(
            removed.is_some_and(|broker| broker.broker_epoch == epoch),
            "broker {id} was unregistered without being registered"
        );
    }

    pub(super) fn replay_change(
        &mut self,
        id: BrokerId,
        fenced: Option<bool>,
        in_controlled_shutdown: Option<bool>,
    ) {
        let broker = self.brokers.get_mut(&id).expect("only a registered broker changes");
        let broker = Arc::make_mut(broker);
        broker.fenced = fenced.unwrap_or(broker.fenced);
        broker.in_controlled_shutdown =
            in_controlled_shutdown.unwrap_or(broker.in_controlled_shutdown);
    }

    pub(super) fn restore_next_broker_epoch(&mut self, next: i64) {
        assert!(next >= self.next_broker_epoch, "a registered broker's epoch was never given out");
        self.next_broker_epoch = next;
    }

    pub(super) fn to_records(&self, records: &mut Vec<MetadataRecord>) {
        records.extend(self.cluster_id.map(|cluster_id| MetadataRecord::Cluster { cluster_id }));
        let brokers = self.brokers.values();
        records.extend(brokers.map(|b| MetadataRecord::RegisterBroker(b.as_ref().clone())));
    }
}

impl RegisterBroker {
    /// Whether the broker may lead and be in sync.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }
}
