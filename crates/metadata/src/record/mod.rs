//! The facts that a cluster's metadata consists of. Once replayed, a record is true for ever.

mod codec;
mod decode;
mod encode;
mod proto;
#[cfg(test)]
mod tests;

use std::fmt;

use tidelog_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, ProducerId, TopicId, Uuid,
};

pub use codec::{RECORD_VERSION, decode_records, encode_records};
pub(crate) use codec::{SnapshotBody, decode_snapshot_body, encode_snapshot_body};

/// One change of the cluster's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataRecord {
    /// A feature has this level from now on; 0 takes it away.
    FeatureLevel {
        /// Which feature.
        name: String,
        /// Its finalized level.
        level: i16,
    },
    /// The cluster has this id for ever.
    Cluster {
        /// Random, made by the first node.
        cluster_id: Uuid,
    },
    /// A broker process presented itself.
    RegisterBroker(RegisterBroker),
    /// A broker is gone for good.
    UnregisterBroker {
        /// Which broker.
        broker_id: BrokerId,
        /// The registration that ends.
        broker_epoch: BrokerEpoch,
    },
    /// A broker's standing changed within its registration.
    BrokerChange {
        /// Which broker.
        broker_id: BrokerId,
        /// Its registration.
        broker_epoch: BrokerEpoch,
        /// Whether it may lead and be in sync.
        fenced: Option<bool>,
        /// Whether it is about to stop.
        in_controlled_shutdown: Option<bool>,
    },
    /// A topic exists.
    Topic {
        /// Its name, which a later topic may have again.
        name: String,
        /// Its identity, which no other topic ever has.
        topic_id: TopicId,
    },
    /// A partition exists. Those of a topic come in order, from 0.
    Partition {
        /// The topic.
        topic_id: TopicId,
        /// The partition's number.
        partition: i32,
        /// Its first state.
        registration: PartitionRegistration,
    },
    /// A partition's state changed.
    PartitionChange(PartitionChange),
    /// A topic, its partitions and its settings are gone.
    RemoveTopic {
        /// The topic.
        topic_id: TopicId,
    },
    /// A resource's setting was set, or removed.
    Config {
        /// Whose setting.
        resource: ConfigResource,
        /// Which setting.
        key: String,
        /// Its value from now on.
        value: Option<String>,
    },
    /// Producer ids below this one are given out.
    ProducerIds {
        /// Who got the last block.
        broker_id: BrokerId,
        /// In which registration.
        broker_epoch: BrokerEpoch,
        /// The least id never given out.
        next_producer_id: ProducerId,
    },
}

/// What a broker said of itself when it registered (KIP-631).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterBroker {
    /// Which broker.
    pub broker_id: BrokerId,
    /// Identifies this registration.
    pub broker_epoch: BrokerEpoch,
    /// Random, made by the process when it started.
    pub incarnation_id: Uuid,
    /// Where clients and brokers reach it.
    pub endpoints: Vec<Endpoint>,
    /// Where it stands, for placement.
    pub rack: Option<String>,
    /// Whether it may not lead or be in sync yet.
    pub fenced: bool,
    /// Whether it is about to stop.
    pub in_controlled_shutdown: bool,
    /// Its data directories.
    pub directories: Vec<Uuid>,
    /// The feature levels that it can work with.
    pub features: Vec<SupportedFeature>,
}

impl RegisterBroker {
    /// Where those reach it that came by this listener.
    #[must_use]
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener)
    }
}

/// One address of a broker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The listener's name, for example `PLAINTEXT`.
    pub listener: String,
    /// Host name or address as others should use it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How to talk there.
    pub security_protocol: SecurityProtocol,
}

/// How a listener is secured, with Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i16)]
#[allow(missing_docs, reason = "the names are Kafka's own")]
pub enum SecurityProtocol {
    Plaintext = 0,
    Ssl = 1,
    SaslPlaintext = 2,
    SaslSsl = 3,
}

impl SecurityProtocol {
    /// The protocol with Kafka's number; `None` for a number that names none.
    #[must_use]
    pub fn from_number(number: i32) -> Option<SecurityProtocol> {
        match number {
            0 => Some(SecurityProtocol::Plaintext),
            1 => Some(SecurityProtocol::Ssl),
            2 => Some(SecurityProtocol::SaslPlaintext),
            3 => Some(SecurityProtocol::SaslSsl),
            _ => None,
        }
    }
}

/// The levels of a feature that a broker can work with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SupportedFeature {
    /// Which feature.
    pub name: String,
    /// The least level.
    pub min_level: i16,
    /// The greatest level.
    pub max_level: i16,
}

/// A partition's whole state, as the controller knows it. There are no offsets in metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRegistration {
    /// Assigned brokers, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// In-sync replicas.
    pub isr: Vec<BrokerId>,
    /// Who leads, if anybody.
    pub leader: Option<BrokerId>,
    /// Raised at each change of the leader and each registration of its broker.
    pub leader_epoch: LeaderEpoch,
    /// Raised at each change of this state.
    pub partition_epoch: PartitionEpoch,
    /// Eligible leader replicas: not in sync, but complete (KIP-966).
    pub elr: Vec<BrokerId>,
    /// The last eligible leaders known, for a recovery by hand (KIP-966).
    pub last_known_elr: Vec<BrokerId>,
    /// Replicas that a reassignment adds.
    pub adding_replicas: Vec<BrokerId>,
    /// Replicas that a reassignment removes.
    pub removing_replicas: Vec<BrokerId>,
    /// Whether the leader was elected uncleanly and is not settled yet (KIP-704).
    pub leader_recovery_state: LeaderRecoveryState,
    /// The data directory of each replica, or nothing while that is not told.
    pub directories: Vec<Uuid>,
}

/// Whether a leader's log may lack what an earlier one acknowledged (KIP-704).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i8)]
pub enum LeaderRecoveryState {
    /// Elected from the ISR, or settled since.
    #[default]
    Recovered = 0,
    /// Elected uncleanly.
    Recovering = 1,
}

/// What changed of a partition; `None` means that it stayed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are PartitionRegistration's")]
pub struct PartitionChange {
    pub topic_id: TopicId,
    pub partition: i32,
    pub partition_epoch: PartitionEpoch,
    pub leader_epoch: Option<LeaderEpoch>,
    pub leader: Option<Option<BrokerId>>,
    pub replicas: Option<Vec<BrokerId>>,
    pub isr: Option<Vec<BrokerId>>,
    pub elr: Option<Vec<BrokerId>>,
    pub last_known_elr: Option<Vec<BrokerId>>,
    pub adding_replicas: Option<Vec<BrokerId>>,
    pub removing_replicas: Option<Vec<BrokerId>>,
    pub leader_recovery_state: Option<LeaderRecoveryState>,
    pub directories: Option<Vec<Uuid>>,
}

impl PartitionChange {
    /// A change that changes nothing yet but the partition epoch.
    #[must_use]
    pub fn new(topic_id: TopicId, partition: i32, partition_epoch: PartitionEpoch) -> Self {
        PartitionChange {
            topic_id,
            partition,
            partition_epoch,
            leader_epoch: None,
            leader: None,
            replicas: None,
            isr: None,
            elr: None,
            last_known_elr: None,
            adding_replicas: None,
            removing_replicas: None,
            leader_recovery_state: None,
            directories: None,
        }
    }
}

/// Whose setting it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic, by name as in Kafka: its settings go when it goes.
    Topic(String),
    /// A broker, or all of them.
    Broker(Option<BrokerId>),
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigResource::Topic(name) => write!(f, "topic {name}"),
            ConfigResource::Broker(Some(id)) => write!(f, "broker {id}"),
            ConfigResource::Broker(None) => write!(f, "all brokers"),
        }
    }
}
