//! A topic's settings: its own where it was given some, else the broker's, else the defaults.

use tidelog_types::topic_settings::TopicSettings;

use crate::config::NodeSettings;

/// A broker's setting that a topic's default comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synonym {
    /// The broker's key.
    pub key: &'static str,
    /// How many of the topic setting's units one of the broker's is; 1 where they are the same,
    /// and where the setting is no number.
    factor: i64,
}

const fn same(key: &'static str) -> Synonym {
    Synonym { key, factor: 1 }
}

const fn minutes(key: &'static str) -> Synonym {
    Synonym { key, factor: 60_000 }
}

const fn hours(key: &'static str) -> Synonym {
    Synonym { key, factor: 3_600_000 }
}

/// Topic settings whose defaults are settings of the broker. The first that the operator set holds.
const SYNONYMS: &[(&str, &[Synonym])] = &[
    ("cleanup.policy", &[same("log.cleanup.policy")]),
    ("compression.gzip.level", &[same("compression.gzip.level")]),
    ("compression.lz4.level", &[same("compression.lz4.level")]),
    ("compression.type", &[same("compression.type")]),
    ("compression.zstd.level", &[same("compression.zstd.level")]),
    ("delete.retention.ms", &[same("log.cleaner.delete.retention.ms")]),
    ("file.delete.delay.ms", &[same("log.segment.delete.delay.ms")]),
    ("flush.messages", &[same("log.flush.interval.messages")]),
    ("flush.ms", &[same("log.flush.interval.ms")]),
    ("index.interval.bytes", &[same("log.index.interval.bytes")]),
    ("max.compaction.lag.ms", &[same("log.cleaner.max.compaction.lag.ms")]),
    ("max.message.bytes", &[same("message.max.bytes")]),
    ("message.timestamp.after.max.ms", &[same("log.message.timestamp.after.max.ms")]),
    ("message.timestamp.before.max.ms", &[same("log.message.timestamp.before.max.ms")]),
    ("message.timestamp.type", &[same("log.message.timestamp.type")]),
    ("min.cleanable.dirty.ratio", &[same("log.cleaner.min.cleanable.ratio")]),
    ("min.compaction.lag.ms", &[same("log.cleaner.min.compaction.lag.ms")]),
    ("min.insync.replicas", &[same("min.insync.replicas")]),
    ("retention.bytes", &[same("log.retention.bytes")]),
    (
        "retention.ms",
        &[same("log.retention.ms"), minutes("log.retention.minutes"), hours("log.retention.hours")],
    ),
    ("segment.bytes", &[same("log.segment.bytes")]),
    ("segment.jitter.ms", &[same("log.roll.jitter.ms"), hours("log.roll.jitter.hours")]),
    ("segment.ms", &[same("log.roll.ms"), hours("log.roll.hours")]),
];

/// The broker's settings that a topic's default comes from, the one that wins first; none where it
/// is a constant.
#[must_use]
pub fn broker_synonyms(topic_key: &str) -> &'static [Synonym] {
    let found = SYNONYMS.iter().find(|(key, _)| *key == topic_key);
    found.map_or(&[], |(_, synonyms)| synonyms)
}

/// What holds for a topic that was given no settings.
#[must_use]
pub fn topic_defaults(settings: &NodeSettings) -> TopicSettings {
    let mut defaults = TopicSettings::default();
    for (key, synonyms) in SYNONYMS {
        let explicit = synonyms.iter().find(|synonym| settings.is_explicit(synonym.key));
        let Some(synonym) = explicit else { continue };
        let value = settings.get(synonym.key).expect("a synonym is a setting of the broker");
        let taken = defaults.set(key, &synonym.in_topic_units(&value));
        assert!(taken.is_ok(), "a broker's setting allows no more than the topic's");
    }
    defaults
}

impl Synonym {
    /// The broker's value as the topic's setting has it. What is negative means the same in every
    /// unit.
    fn in_topic_units(self, value: &str) -> String {
        match value.parse::<i64>() {
            Ok(number) if number > 0 => number.saturating_mul(self.factor).to_string(),
            Ok(_) | Err(_) => value.to_owned(),
        }
    }
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
    fn the_first_that_is_set_wins_in_its_own_unit() {
        for (set, retention_ms) in [
            (&[][..], 604_800_000),
            (&[("log.retention.hours", "2")], 7_200_000),
            (&[("log.retention.hours", "2"), ("log.retention.minutes", "3")], 180_000),
            (&[("log.retention.ms", "7"), ("log.retention.minutes", "3")], 7),
            (&[("log.retention.hours", "-1")], -1),
        ] {
            let mut settings = NodeSettings::default();
            set.iter().for_each(|(key, value)| settings.set(key, value).expect("lawful"));
            assert_eq!(topic_defaults(&settings).retention_ms, retention_ms, "{set:?}");
        }
    }

    #[test]
    fn a_synonym_has_the_bounds_and_the_default_of_its_setting() {
        for (key, synonyms) in SYNONYMS {
            let topic = TopicSettings::property(key).expect("a topic's setting");
            for synonym in *synonyms {
                let broker = BrokerSettings::PROPERTIES.iter().find(|p| p.key == synonym.key);
                let broker = broker.expect("a broker's setting");
                assert_eq!(synonym.in_topic_units(broker.default), topic.default, "{synonym:?}");
                assert!(broker.dynamic, "{synonym:?} changes with its topics at run time");
                if synonym.factor == 1 {
                    assert_eq!(broker.kind, topic.kind, "{synonym:?}");
                }
            }
        }
    }
}
