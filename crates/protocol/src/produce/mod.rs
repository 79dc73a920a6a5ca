//! Produce, decoded and encoded without the codec: the path that every record takes.

mod request;
mod response;

pub use request::{PartitionRecords, ProduceRequest};
pub use response::{ProducePartitionResponse, ProduceResponse, ProduceTopicResponse, RecordError};
