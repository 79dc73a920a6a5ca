//! What clients are told of a partition's leader and replicas.

use kafka_protocol::messages::BrokerId as WireBrokerId;
use tidelog_metadata::{MetadataImage, record::PartitionRegistration};
use tidelog_types::{BrokerId, ErrorCode};

/// A partition as a client on one listener can use it.
pub(crate) struct PartitionState {
    /// Whether the leader can be reached.
    pub code: ErrorCode,
    /// Who leads; -1 for nobody.
    pub leader: WireBrokerId,
    /// Replicas that are not alive.
    pub offline: Vec<WireBrokerId>,
}

impl PartitionState {
    pub fn of(
        image: &MetadataImage,
        registration: &PartitionRegistration,
        listener: &str,
    ) -> PartitionState {
        let is_offline = |id: &&BrokerId| !image.cluster().is_active(**id);
        let offline: Vec<_> = registration.replicas.iter().filter(is_offline).copied().collect();
        let leader = registration.leader.filter(|id| image.cluster().is_active(*id));
        let registered = leader.and_then(|id| image.cluster().broker(id));
        let code = match registered {
            None => ErrorCode::LeaderNotAvailable,
            Some(leader) if leader.endpoint(listener).is_none() => ErrorCode::ListenerNotFound,
            Some(_) => ErrorCode::None,
        };
        let leader = WireBrokerId(leader.map_or(-1, |id| id.0));
        PartitionState { code, leader, offline: wire_ids(&offline) }
    }
}

/// Brokers as the codec names them.
pub(crate) fn wire_ids(ids: &[BrokerId]) -> Vec<WireBrokerId> {
    ids.iter().map(|id| WireBrokerId(id.0)).collect()
}
