//! What the handlers of groups share: texts, and answers of the wrong kind.

use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use tidelog_coordinator::GroupResponse;
use tidelog_types::{ErrorCode, TopicId, Uuid};
use tracing::error;

pub(crate) fn string(text: &StrBytes) -> String {
    text.as_str().to_owned()
}

pub(crate) fn optional(text: Option<&StrBytes>) -> Option<String> {
    text.map(string)
}

pub(crate) fn text(text: String) -> StrBytes {
    StrBytes::from_string(text)
}

/// A number of milliseconds; a negative one is none at all.
pub(crate) fn duration(milliseconds: i32) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

/// A topic's id, as the wire has it.
pub(crate) fn topic_id(id: uuid::Uuid) -> TopicId {
    Uuid(id.into_bytes())
}

/// A shard answered another question than it was asked: a mistake of ours, which must not take a
/// client's connection with it.
pub(crate) fn unexpected(said: &GroupResponse) -> ErrorCode {
    error!(?said, "a group answered another question");
    ErrorCode::UnknownServerError
}
