//! Fetch, decoded and encoded without the codec: records leave as storage holds them.

mod request;
mod response;

pub use request::{FetchPartition, FetchRequest};
pub use response::{
    AbortedTransaction, EpochEndOffset, FetchPartitionResponse, FetchResponse, FetchTopicResponse,
};
