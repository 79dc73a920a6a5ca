//! The topic that groups and their offsets live in: created when the first client needs it.

use tidelog_metadata::{CreateTopic, CreateTopicResult, MetadataImage};
use tracing::{info, warn};

use crate::{broker::Broker, controller_handle::Asked};

/// Kafka's name for it.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";
const REPLICATION_FACTOR: &str = "offsets.topic.replication.factor";

/// Whether the topic is there.
pub(crate) fn exists(image: &MetadataImage) -> bool {
    image.topics().get(OFFSETS_TOPIC).is_some()
}

/// Has the topic created. It may be there by the time that is done: others ask too.
pub(crate) fn create(broker: &Broker) -> Asked<Vec<CreateTopicResult>> {
    let settings = &broker.settings.broker;
    let alive = broker.image.load().cluster().alive().count();
    let wanted = settings.offsets_topic_replication_factor;
    let replication_factor = replication_factor(wanted, alive);
    if replication_factor < wanted {
        let is_explicit = broker.settings.is_explicit(REPLICATION_FACTOR);
        tell(is_explicit, wanted, replication_factor);
    }
    let config = |key: &str, value: String| (key.to_owned(), Some(value));
    let topic = CreateTopic {
        name: OFFSETS_TOPIC.to_owned(),
        num_partitions: settings.offsets_topic_num_partitions,
        replication_factor: i16::try_from(replication_factor).unwrap_or(i16::MAX),
        assignments: Vec::new(),
        configs: vec![
            config("cleanup.policy", "compact".to_owned()),
            config("compression.type", "producer".to_owned()),
            config("segment.bytes", settings.offsets_topic_segment_bytes.to_string()),
        ],
        is_internal: true,
    };
    info!(topic = OFFSETS_TOPIC, partitions = topic.num_partitions, "is needed: creating it");
    broker.controller.create_topics(vec![topic], false)
}

/// As many replicas as asked for, if there are so many brokers.
fn replication_factor(wanted: i32, alive: usize) -> i32 {
    wanted.min(i32::try_from(alive).unwrap_or(i32::MAX)).max(1)
}

/// One that the operator asked for is missed; the default is no more than a wish.
fn tell(is_explicit: bool, wanted: i32, replication_factor: i32) {
    let topic = OFFSETS_TOPIC;
    match is_explicit {
        true => warn!(topic, wanted, replication_factor, "{REPLICATION_FACTOR}: too few brokers"),
        false => info!(topic, wanted, replication_factor, "{REPLICATION_FACTOR}: too few brokers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_replicas_than_brokers() {
        for (wanted, alive, expected) in [(3, 1, 1), (3, 5, 3), (1, 3, 1), (3, 0, 1)] {
            assert_eq!(replication_factor(wanted, alive), expected, "{wanted} of {alive}");
        }
    }
}
