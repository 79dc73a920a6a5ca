//! Names and numbers that every part of Tidelog shares.
//!
//! Architecture invariant: pure. No clock, disk, socket, thread or task; no crate of ours below.
//! Nothing here decides anything: it says what a thing is called and how its bytes read.

pub mod acks;
pub mod batch_header;
pub mod clock;
pub mod entry;
pub mod error_code;
pub mod ids;
pub mod offset;
pub mod property;
pub mod topic_settings;

pub use acks::Acks;
pub use batch_header::{BATCH_HEADER_LEN, BatchHeader, Compression};
pub use clock::Clock;
pub use entry::Entry;
pub use error_code::ErrorCode;
pub use ids::{BrokerId, ProducerEpoch, ProducerId, TopicId, TopicIdPartition, Uuid};
pub use offset::{BrokerEpoch, LeaderEpoch, Offset, PartitionEpoch};
pub use topic_settings::TopicSettings;
