//! Kafka's wire protocol: bytes to requests and back, without trusting a byte.
//!
//! Architecture invariants. Pure: no clock, disk, socket, thread or task; no log line. No byte from
//! the wire makes anything here panic, and none makes it allocate beyond a bound that is known
//! before it is decoded: twice the frame and 64 KiB for Produce and Fetch, whose decoders are our
//! own; [`shape::MEMORY_FACTOR`] times the frame for requests of the kafka-protocol codec, which
//! never sees a body that [`shape::check`] has not walked. Record bytes are never copied on their
//! way out. What is served and what is advertised come from one table, [`api_versions::TABLE`].

pub mod api_versions;
pub mod batch_builder;
pub mod compatibility;
pub mod compression;
pub mod error;
pub mod fetch;
pub mod frame;
pub mod header;
pub mod leader_hint;
pub mod outgoing;
pub mod produce;
pub mod recompression;
pub mod record_batch;
pub mod records;
pub mod request;
pub mod response;
pub mod shape;
mod topic_ids;
mod topics;
mod wire;

pub use api_versions::ApiKey;
pub use error::{Malformed, RequestError};
pub use header::RequestHeader;
pub use kafka_protocol;
pub use outgoing::{Chunk, Outgoing, RecordChunks};
pub use topics::TopicRef;
