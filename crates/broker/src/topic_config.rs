//! A topic's settings: its own where it was given some, else the broker's, else the defaults.

use tidelog_types::topic_settings::TopicSettings;

use crate::config::NodeSettings;

/// Topic settings whose default is a broker's setting, and that setting's key.
const SYNONYMS: &[(&str, &str)] = &[
    ("flush.messages", "log.flush.interval.messages"),
    ("flush.ms", "log.flush.interval.ms"),
    ("index.interval.bytes", "log.index.interval.bytes"),
    ("max.message.bytes", "message.max.bytes"),
    ("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms"),
    ("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms"),
    ("message.timestamp.type", "log.message.timestamp.type"),
    ("min.insync.replicas", "min.insync.replicas"),
    ("segment.bytes", "log.segment.bytes"),
];

/// The broker's key for a topic's default, where there is one.
#[must_use]
pub fn broker_synonym(topic_key: &str) -> Option<&'static str> {
    SYNONYMS.iter().find(|(key, _)| *key == topic_key).map(|(_, synonym)| *synonym)
}

/// What holds for a topic that was given no settings.
#[must_use]
pub fn topic_defaults(settings: &NodeSettings) -> TopicSettings {
    let mut defaults = TopicSettings::default();
    for (key, synonym) in SYNONYMS {
        let value = settings.get(synonym).expect("a synonym is a setting of the broker");
        let taken = defaults.set(key, &value);
        assert!(taken.is_ok(), "a broker's setting allows no more than the topic's");
    }
    defaults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerSettings;

    #[test]
    fn a_brokers_setting_is_the_default_of_its_topics() {
        let mut settings = NodeSettings::default();
        assert_eq!(topic_defaults(&settings), TopicSettings::default());
        settings.set("message.max.bytes", "1000").expect("lawful");
        assert_eq!(topic_defaults(&settings).max_message_bytes, 1000);
    }

    #[test]
    fn a_synonym_has_the_bounds_of_its_setting() {
        for (key, synonym) in SYNONYMS {
            let topic = TopicSettings::property(key).expect("a topic's setting");
            let broker = BrokerSettings::PROPERTIES.iter().find(|p| p.key == *synonym);
            let broker = broker.expect("a broker's setting");
            assert_eq!((topic.kind, topic.default), (broker.kind, broker.default), "{key}");
            assert!(broker.dynamic, "{synonym} changes with its topics while the broker runs");
        }
    }
}
