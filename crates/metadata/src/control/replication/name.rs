//! Which names a topic may have.

use crate::error::ControllerError;

/// Characters of the longest topic name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Topics that brokers create and write themselves, by Kafka's names.
const INTERNAL_TOPICS: [&str; 3] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Whether brokers alone create this topic and write to it.
#[must_use]
pub fn is_internal_topic(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

/// Whether a topic may have this name, whoever else has it.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_topic_name(name: &str) -> Result<(), ControllerError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let wrong = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        "'.' or '..' is not allowed".to_owned()
    } else if name.len() > TOPIC_NAME_BYTES_MAX {
        // Not quoted: the name could be as long as any string of the protocol.
        let bytes = name.len();
        format!("its length {bytes} is longer than the max allowed length {TOPIC_NAME_BYTES_MAX}")
    } else if !name.chars().all(legal) {
        format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        )
    } else {
        return Ok(());
    };
    Err(ControllerError::InvalidTopicName(format!("Topic name is invalid: {wrong}")))
}
