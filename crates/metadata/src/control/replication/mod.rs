//! Topics and partitions: creating, deleting, and who holds what.

mod create;
mod delete;
mod name;
#[cfg(test)]
mod tests;

pub use create::PARTITIONS_PER_REQUEST_MAX;
pub use create::{CreateTopic, CreateTopicResult, CreatedTopic, ReplicaAssignment};
pub use delete::{DeleteTopicResult, DeletedTopic, TopicReference};
pub use name::{TOPIC_NAME_BYTES_MAX, check_topic_name};
