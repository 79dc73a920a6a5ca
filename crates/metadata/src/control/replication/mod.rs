//! Topics and partitions: creating, deleting, and who holds what.

mod create;
mod delete;
mod grow;
mod name;
#[cfg(test)]
mod tests;

pub use create::PARTITIONS_PER_REQUEST_MAX;
pub use create::{CreateTopic, CreateTopicResult, CreatedTopic, ReplicaAssignment};
pub use delete::{DeleteTopicResult, DeletedTopic, TopicReference};
pub use grow::{CreatePartitions, CreatePartitionsResult};
pub use name::{TOPIC_NAME_BYTES_MAX, check_topic_name, is_internal_topic};
