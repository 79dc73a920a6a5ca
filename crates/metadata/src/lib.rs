//! The controller: requests to records to an immutable image.
//!
//! Architecture invariant: pure. No clock, disk, socket, thread or task; nothing is random: ids
//! are handed in. No log of the records either: whoever owns the Raft group keeps them.
//! - A plan changes nothing. Only replaying a record does, the same way on every node, after
//!   every restart and from every snapshot.
//! - Leader epochs never go back for one topic id. Broker epochs and producer ids are never given
//!   out twice.
//! - What a plan returns is one Raft entry: all of its records or none.
//! - Images share what did not change, so an old one is cheap to keep and reading takes no lock.

pub mod control;
pub mod controller;
pub mod delta;
pub mod error;
pub mod image;
pub mod placement;
pub mod record;
pub mod snapshot;

#[cfg(test)]
mod controller_test;

pub use control::{
    cluster::RegisterBrokerRequest,
    configs::{AlterConfigs, Alteration, BrokerSetting, ConfigOperation},
    features::{FeatureUpdate, UpgradeType},
    producer_ids::ProducerIdBlock,
    replication::{
        CreatePartitions, CreatePartitionsResult, CreateTopic, CreateTopicResult, CreatedTopic,
        DeleteTopicResult, DeletedTopic, ReplicaAssignment, TopicReference, is_internal_topic,
    },
};
pub use controller::{Controller, ControllerConfig, ControllerResult};
pub use delta::{MetadataDelta, TopicDelta};
pub use error::{ControllerError, DecodeError};
pub use image::MetadataImage;
pub use record::{MetadataRecord, decode_records, encode_records};
