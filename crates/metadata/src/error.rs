//! What the controller refuses, and the bytes that no release of ours wrote.

use tidelog_types::{BrokerId, ErrorCode, TopicId};

/// Why a request plans nothing. Its text is what the client is shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// The request contradicts itself.
    #[error("{0}")]
    InvalidRequest(String),
    /// The topic's name is not one, or too like another's.
    #[error("{0}")]
    InvalidTopicName(String),
    /// The name is taken.
    #[error("Topic '{name}' already exists.")]
    TopicAlreadyExists {
        /// The name.
        name: String,
    },
    /// The number of partitions is not one that a topic can have.
    #[error("{0}")]
    InvalidPartitions(String),
    /// The replication factor cannot be met.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// The replicas that the request names cannot be.
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// A setting is unknown, does not fit, or is not honoured yet.
    #[error("{0}")]
    InvalidConfig(String),
    /// The request asks for more than one request may.
    #[error("{0}")]
    PolicyViolation(String),
    /// No topic has this name.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic {
        /// The name.
        name: String,
    },
    /// No topic has this id.
    #[error("This server does not host this topic ID.")]
    UnknownTopicId {
        /// The id.
        topic_id: TopicId,
    },
    /// The broker belongs to another cluster.
    #[error("{0}")]
    InconsistentClusterId(String),
    /// The broker cannot work with a finalized feature level.
    #[error("{0}")]
    UnsupportedFeature(String),
    /// A feature cannot have this level.
    #[error("{0}")]
    InvalidUpdateVersion(String),
    /// The broker is not registered.
    #[error("Broker {broker_id} is not registered.")]
    UnknownBroker {
        /// The broker.
        broker_id: BrokerId,
    },
    /// The broker has registered again since.
    #[error("The registration of broker {broker_id} is an older one.")]
    StaleBrokerEpoch {
        /// The broker.
        broker_id: BrokerId,
    },
    /// The cluster has no id yet: its first node has not written the first records.
    #[error("The cluster is not set up yet.")]
    NotBootstrapped,
    /// All producer ids were given out.
    #[error("All producer ids were given out.")]
    ProducerIdsExhausted,
}

impl ControllerError {
    /// What the client is told in a number.
    #[must_use]
    pub fn error_code(&self) -> ErrorCode {
        match self {
            ControllerError::InvalidRequest(_) => ErrorCode::InvalidRequest,
            ControllerError::InvalidTopicName(_) => ErrorCode::InvalidTopicException,
            ControllerError::TopicAlreadyExists { .. } => ErrorCode::TopicAlreadyExists,
            ControllerError::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
            ControllerError::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
            ControllerError::InvalidReplicaAssignment(_) => ErrorCode::InvalidReplicaAssignment,
            ControllerError::InvalidConfig(_) => ErrorCode::InvalidConfig,
            ControllerError::PolicyViolation(_) => ErrorCode::PolicyViolation,
            ControllerError::UnknownTopic { .. } => ErrorCode::UnknownTopicOrPartition,
            ControllerError::UnknownTopicId { .. } => ErrorCode::UnknownTopicId,
            ControllerError::InconsistentClusterId(_) => ErrorCode::InconsistentClusterId,
            ControllerError::UnsupportedFeature(_) => ErrorCode::UnsupportedVersion,
            ControllerError::InvalidUpdateVersion(_) => ErrorCode::InvalidUpdateVersion,
            ControllerError::UnknownBroker { .. } => ErrorCode::BrokerIdNotRegistered,
            ControllerError::StaleBrokerEpoch { .. } => ErrorCode::StaleBrokerEpoch,
            ControllerError::NotBootstrapped => ErrorCode::NotController,
            ControllerError::ProducerIdsExhausted => ErrorCode::UnknownServerError,
        }
    }
}

/// Why bytes cannot be read as metadata. Nothing may be skipped, so the node must not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A later release wrote them.
    #[error("metadata records have version {found}; this release reads version {newest}")]
    UnknownVersion {
        /// As written.
        found: u32,
        /// What this release reads.
        newest: u32,
    },
    /// A later release wrote a field, or a kind of record, that this one does not know.
    #[error("{message} has field {field}, which this release does not know")]
    UnknownField {
        /// The protobuf message.
        message: &'static str,
        /// The field's number.
        field: u32,
    },
    /// A field holds what it cannot.
    #[error("{message}.{field} is {found}")]
    InvalidField {
        /// The protobuf message.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// What it holds.
        found: String,
    },
    /// The bytes are no protobuf message of this kind.
    #[error("malformed metadata: {0}")]
    Malformed(String),
    /// The bytes are no snapshot.
    #[error("not a metadata snapshot: {0}")]
    NotASnapshot(&'static str),
    /// The snapshot was damaged.
    #[error("the snapshot's CRC is {found:#010x}, its bytes have {computed:#010x}")]
    WrongChecksum {
        /// As written.
        found: u32,
        /// Of the bytes read.
        computed: u32,
    },
}
