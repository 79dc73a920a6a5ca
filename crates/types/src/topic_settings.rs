//! A topic's settings: Kafka's keys and defaults, and which of them this release honours.

use crate::{
    Compression,
    property::{Kind, Property, PropertyError, nearest},
    settings,
};

const COUNT_INT: Kind = Kind::Int { min: 0, max: i32::MAX as i64 };
const COUNT_LONG: Kind = Kind::Long { min: 0, max: i64::MAX };
const COUNT_OR_UNLIMITED: Kind = Kind::Long { min: -1, max: i64::MAX };

settings! {
    /// One topic's settings, each with the value that holds for it.
    pub struct TopicSettings {
        /// Whether old segments are deleted, or compacted to each key's last record.
        cleanup_policy: String = "cleanup.policy", Kind::List(&["delete", "compact"]), "delete";
        /// How gzip compresses, where the broker compresses.
        compression_gzip_level: i32 =
            "compression.gzip.level", Kind::Int { min: -1, max: 9 }, "-1";
        /// How lz4 compresses, where the broker compresses.
        compression_lz4_level: i32 = "compression.lz4.level", Kind::Int { min: 1, max: 17 }, "9";
        /// The codec that batches are stored in; `producer` keeps what the producer chose.
        compression_type: String = "compression.type",
            Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
            "producer";
        /// How zstd compresses, where the broker compresses.
        compression_zstd_level: i32 =
            "compression.zstd.level", Kind::Int { min: -131_072, max: 22 }, "3";
        /// Milliseconds that a delete marker outlives the records that it deletes.
        delete_retention_ms: i64 = "delete.retention.ms", COUNT_LONG, "86400000";
        /// Whether share groups may write undeliverable records to this topic (KIP-1191).
        errors_deadletterqueue_group_enable: bool =
            "errors.deadletterqueue.group.enable", Kind::Boolean, "false";
        /// Milliseconds between a file's removal from the log and its deletion.
        file_delete_delay_ms: i64 = "file.delete.delay.ms", COUNT_LONG, "60000";
        /// Records after which Kafka flushes. Here every acknowledged record was flushed.
        flush_messages: i64 =
            "flush.messages", Kind::Long { min: 1, max: i64::MAX }, "9223372036854775807";
        /// Milliseconds after which Kafka flushes. Here every acknowledged record was flushed.
        flush_ms: i64 = "flush.ms", COUNT_LONG, "9223372036854775807";
        /// Replicas whose followers are throttled, as `partition:broker`, or `*`.
        follower_replication_throttled_replicas: String =
            "follower.replication.throttled.replicas", Kind::List(&[]), "";
        /// Bytes of log between two entries of the offset index.
        index_interval_bytes: i32 = "index.interval.bytes", COUNT_INT, "4096";
        /// Replicas whose leaders are throttled, as `partition:broker`, or `*`.
        leader_replication_throttled_replicas: String =
            "leader.replication.throttled.replicas", Kind::List(&[]), "";
        /// Bytes kept on local disk where older segments are tiered; -2 means `retention.bytes`.
        local_retention_bytes: i64 =
            "local.retention.bytes", Kind::Long { min: -2, max: i64::MAX }, "-2";
        /// Milliseconds kept on local disk where older segments are tiered; -2 means
        /// `retention.ms`.
        local_retention_ms: i64 =
            "local.retention.ms", Kind::Long { min: -2, max: i64::MAX }, "-2";
        /// Milliseconds after which a record must have been compacted.
        max_compaction_lag_ms: i64 = "max.compaction.lag.ms",
            Kind::Long { min: 1, max: i64::MAX }, "9223372036854775807";
        /// Bytes of the largest batch accepted, as it is sent.
        max_message_bytes: u32 = "max.message.bytes", COUNT_INT, "1048588";
        /// Milliseconds that a record's timestamp may lie in the future.
        message_timestamp_after_max_ms: i64 =
            "message.timestamp.after.max.ms", COUNT_LONG, "3600000";
        /// Milliseconds that a record's timestamp may lie in the past.
        message_timestamp_before_max_ms: i64 =
            "message.timestamp.before.max.ms", COUNT_LONG, "9223372036854775807";
        /// Whose clock stamps records: the producer's or the broker's.
        message_timestamp_type: String = "message.timestamp.type",
            Kind::Choice(&["CreateTime", "LogAppendTime"]), "CreateTime";
        /// Part of the log that must be uncompacted before it is compacted again.
        min_cleanable_dirty_ratio: f64 =
            "min.cleanable.dirty.ratio", Kind::Double { min: 0.0, max: 1.0 }, "0.5";
        /// Milliseconds before a record may be compacted.
        min_compaction_lag_ms: i64 = "min.compaction.lag.ms", COUNT_LONG, "0";
        /// Replicas that must be in sync for a produce with `acks=all`; never more than there are.
        min_insync_replicas: u32 =
            "min.insync.replicas", Kind::Int { min: 1, max: i32::MAX as i64 }, "1";
        /// Whether Kafka preallocates segment files.
        preallocate: bool = "preallocate", Kind::Boolean, "false";
        /// Bytes that a segment may lag before it is copied to the tier; -1 means no lag.
        remote_copy_lag_bytes: i64 = "remote.copy.lag.bytes", COUNT_OR_UNLIMITED, "-1";
        /// Milliseconds that a segment may wait before it is copied to the tier.
        remote_copy_lag_ms: i64 = "remote.copy.lag.ms", COUNT_OR_UNLIMITED, "0";
        /// Whether copying to the tier stops.
        remote_log_copy_disable: bool = "remote.log.copy.disable", Kind::Boolean, "false";
        /// Whether tiered segments are deleted when tiering is switched off.
        remote_log_delete_on_disable: bool =
            "remote.log.delete.on.disable", Kind::Boolean, "false";
        /// Whether old segments are moved to a tier.
        remote_storage_enable: bool = "remote.storage.enable", Kind::Boolean, "false";
        /// Bytes of each partition that are kept; -1 means all.
        retention_bytes: i64 = "retention.bytes", COUNT_OR_UNLIMITED, "-1";
        /// Milliseconds that records are kept; -1 means for ever.
        retention_ms: i64 = "retention.ms", COUNT_OR_UNLIMITED, "604800000";
        /// Bytes of a segment file before the next one is started.
        segment_bytes: u32 =
            "segment.bytes", Kind::Int { min: 1024, max: i32::MAX as i64 }, "1073741824";
        /// Bytes of a segment's offset index.
        segment_index_bytes: i32 =
            "segment.index.bytes", Kind::Int { min: 4, max: i32::MAX as i64 }, "10485760";
        /// Milliseconds by which segments' starts are spread at random.
        segment_jitter_ms: i64 = "segment.jitter.ms", COUNT_LONG, "0";
        /// Milliseconds after which the next segment is started.
        segment_ms: i64 = "segment.ms", Kind::Long { min: 1, max: i64::MAX }, "604800000";
        /// Whether a replica that is not in sync may lead, at the cost of records.
        unclean_leader_election_enable: bool =
            "unclean.leader.election.enable", Kind::Boolean, "false";
    }
}

/// What this release does with a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It does what Kafka does.
    Honoured,
    /// It is stored and reported and changes nothing, which costs nobody anything: this is why.
    Accepted(&'static str),
    /// Only its default may be set: anything else would need this.
    NotYet(&'static str),
}

const FLUSHED: Support = Support::Accepted("every acknowledged record is on disk anyway");
const TIERING: Support = Support::NotYet("segments are not moved to a tier yet");
const THROTTLING: Support = Support::NotYet("replication is not throttled yet");

/// What this release does with each key.
const SUPPORT: &[(&str, Support)] = &[
    ("cleanup.policy", Support::Honoured),
    ("compression.gzip.level", Support::Honoured),
    ("compression.lz4.level", Support::Accepted("lz4 always compresses at its fastest level")),
    ("compression.type", Support::Honoured),
    ("compression.zstd.level", Support::Honoured),
    ("delete.retention.ms", Support::Honoured),
    ("errors.deadletterqueue.group.enable", Support::NotYet("there are no share groups yet")),
    ("file.delete.delay.ms", Support::Honoured),
    ("flush.messages", FLUSHED),
    ("flush.ms", FLUSHED),
    ("follower.replication.throttled.replicas", THROTTLING),
    ("index.interval.bytes", Support::Honoured),
    ("leader.replication.throttled.replicas", THROTTLING),
    ("local.retention.bytes", TIERING),
    ("local.retention.ms", TIERING),
    ("max.compaction.lag.ms", Support::Honoured),
    ("max.message.bytes", Support::Honoured),
    ("message.timestamp.after.max.ms", Support::Honoured),
    ("message.timestamp.before.max.ms", Support::Honoured),
    ("message.timestamp.type", Support::Honoured),
    ("min.cleanable.dirty.ratio", Support::Honoured),
    ("min.compaction.lag.ms", Support::Honoured),
    ("min.insync.replicas", Support::Honoured),
    ("preallocate", Support::Accepted("segments are written in large pieces, past the page cache")),
    ("remote.copy.lag.bytes", TIERING),
    ("remote.copy.lag.ms", TIERING),
    ("remote.log.copy.disable", TIERING),
    ("remote.log.delete.on.disable", TIERING),
    ("remote.storage.enable", TIERING),
    ("retention.bytes", Support::Honoured),
    ("retention.ms", Support::Honoured),
    ("segment.bytes", Support::Honoured),
    ("segment.index.bytes", Support::Accepted("an index grows with its segment and has no bound")),
    ("segment.jitter.ms", Support::Honoured),
    ("segment.ms", Support::Honoured),
    ("unclean.leader.election.enable", Support::NotYet("only replicas in sync are elected yet")),
];

/// Why a topic's setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicSettingError {
    /// The key does not exist or the value does not fit it.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// Kafka has the setting; this release cannot honour it, so it must not seem to.
    #[error("{key} = {value:?} is not honoured: {reason}; only {default:?}, the default, is")]
    NotHonouredYet {
        /// The setting.
        key: &'static str,
        /// As written.
        value: String,
        /// The value that may be set.
        default: &'static str,
        /// What is missing.
        reason: &'static str,
    },
}

impl TopicSettings {
    /// What this release does with a key; `None` for a key that Kafka does not have.
    #[must_use]
    pub fn support(key: &str) -> Option<Support> {
        SUPPORT.iter().find(|(known, _)| *known == key).map(|(_, support)| *support)
    }

    /// The setting of this key.
    #[must_use]
    pub fn property(key: &str) -> Option<&'static Property> {
        TopicSettings::PROPERTIES.iter().find(|property| property.key == key)
    }

    /// Whether a topic may be given this value. Every default may be set: it asks for nothing that
    /// is not there, and tools copy it.
    ///
    /// # Errors
    /// For an unknown key, a value that does not fit, and a setting that is not honoured yet.
    pub fn check(key: &str, value: &str) -> Result<(), TopicSettingError> {
        let Some(property) = TopicSettings::property(key) else {
            let nearest = nearest(key, TopicSettings::PROPERTIES);
            return Err(PropertyError::Unknown { key: key.to_owned(), nearest }.into());
        };
        property.check(value)?;
        match TopicSettings::support(key).expect("every key is in both tables") {
            Support::Honoured | Support::Accepted(_) => Ok(()),
            Support::NotYet(_) if value == property.default => Ok(()),
            Support::NotYet(reason) => {
                let Property { key, default, .. } = *property;
                let value = value.to_owned();
                Err(TopicSettingError::NotHonouredYet { key, value, default, reason })
            }
        }
    }

    /// These settings where a topic does not say otherwise, and the topic's own where it does.
    ///
    /// # Errors
    /// For an override that is no setting of this release: it was stored by another one.
    pub fn with_overrides<'a>(
        &self,
        overrides: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<TopicSettings, PropertyError> {
        let mut settings = self.clone();
        for (key, value) in overrides {
            settings.set(key, value)?;
        }
        Ok(settings)
    }

    /// The codec that every batch is stored in; `None` keeps what its producer chose.
    #[must_use]
    pub fn codec(&self) -> Option<Compression> {
        match self.compression_type.as_str() {
            "uncompressed" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "snappy" => Some(Compression::Snappy),
            "lz4" => Some(Compression::Lz4),
            "zstd" => Some(Compression::Zstd),
            kept => {
                assert_eq!(kept, "producer", "a setting has one of the values it is checked for");
                None
            }
        }
    }

    /// How hard that codec tries, as it counts itself; `None` is its own default.
    #[must_use]
    pub fn compression_level(&self) -> Option<i32> {
        match self.codec()? {
            Compression::Gzip => Some(self.compression_gzip_level).filter(|level| *level >= 0),
            Compression::Zstd => Some(self.compression_zstd_level),
            Compression::None | Compression::Snappy | Compression::Lz4 => None,
        }
    }

    /// Whether of each key only the newest record is kept.
    #[must_use]
    pub fn is_compacted(&self) -> bool {
        self.has_policy("compact")
    }

    /// Whether old segments are deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.has_policy("delete")
    }

    fn has_policy(&self, wanted: &str) -> bool {
        self.cleanup_policy.split(',').any(|policy| policy.trim() == wanted)
    }

    /// Whether the broker's clock stamps records.
    #[must_use]
    pub fn is_log_append_time(&self) -> bool {
        self.message_timestamp_type == "LogAppendTime"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_kafka_is_in_both_tables_once() {
        let properties: Vec<_> = TopicSettings::PROPERTIES.iter().map(|p| p.key).collect();
        let supported: Vec<_> = SUPPORT.iter().map(|(key, _)| *key).collect();
        assert_eq!(properties, supported);
        assert!(properties.is_sorted_by(|a, b| a < b), "sorted, and no key twice");
    }

    #[test]
    fn every_default_passes_its_own_check_and_reads_back() {
        let settings = TopicSettings::default();
        for property in TopicSettings::PROPERTIES {
            assert_eq!(property.check(property.default), Ok(()), "{}", property.key);
            assert_eq!(settings.get(property.key).as_deref(), Some(property.default));
        }
    }

    #[test]
    fn every_default_may_be_set_honoured_or_not() {
        for property in TopicSettings::PROPERTIES {
            assert_eq!(TopicSettings::check(property.key, property.default), Ok(()));
        }
    }

    #[test]
    fn every_compression_type_names_a_codec_or_none() {
        let codecs = ["uncompressed", "gzip", "snappy", "lz4", "zstd", "producer"].map(|name| {
            let mut settings = TopicSettings::default();
            settings.set("compression.type", name).unwrap();
            settings.codec()
        });
        let [gzip, snappy, lz4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4];
        let all = [Compression::None, gzip, snappy, lz4, Compression::Zstd];
        assert!(codecs.into_iter().eq(all.into_iter().map(Some).chain([None])));
    }

    #[test]
    fn a_topic_is_given_what_is_honoured_and_refused_what_is_not() {
        for (key, value, refused) in [
            ("segment.bytes", "1024", None),
            ("flush.messages", "1", None),
            ("flush.ms", "9223372036854775807", None),
            ("message.timestamp.type", "LogAppendTime", None),
            ("min.insync.replicas", "2", None),
            ("max.message.bytes", "0", None),
            ("retention.ms", "-1", None),
            ("compression.type", "zstd", None),
            ("preallocate", "true", None),
            (
                "segment.bytes",
                "1023",
                Some(
                    "segment.bytes = \"1023\": expected a whole number of bytes from 1024 to \
                     2147483647",
                ),
            ),
            (
                "min.insync.replicas",
                "0",
                Some("min.insync.replicas = \"0\": expected a whole number from 1 to 2147483647"),
            ),
            ("cleanup.policy", "compact", None),
            ("cleanup.policy", "compact,delete", None),
            (
                "unclean.leader.election.enable",
                "true",
                Some(
                    "unclean.leader.election.enable = \"true\" is not honoured: only replicas in \
                     sync are elected yet; only \"false\", the default, is",
                ),
            ),
            (
                "cleanup.policy",
                "compress",
                Some(
                    "cleanup.policy = \"compress\": expected a comma-separated list of delete, \
                     compact",
                ),
            ),
            (
                "segment.byte",
                "1024",
                Some("unknown setting \"segment.byte\"; did you mean \"segment.bytes\"?"),
            ),
        ] {
            let checked = TopicSettings::check(key, value).map_err(|error| error.to_string());
            assert_eq!(checked, refused.map_or(Ok(()), |text| Err(text.to_owned())), "{key}");
        }
    }

    #[test]
    fn a_policy_may_be_one_or_both() {
        for (policy, expected) in [
            ("delete", (false, true)),
            ("compact", (true, false)),
            ("compact,delete", (true, true)),
            ("delete, compact", (true, true)),
        ] {
            let mut settings = TopicSettings::default();
            settings.set("cleanup.policy", policy).unwrap();
            assert_eq!((settings.is_compacted(), settings.is_deleted()), expected, "{policy}");
        }
    }

    #[test]
    fn an_override_wins_over_the_brokers_own_value() {
        let mut broker = TopicSettings::default();
        broker.set("segment.bytes", "4096").unwrap();
        broker.set("max.message.bytes", "500").unwrap();
        let topic = broker.with_overrides([("segment.bytes", "8192")]).unwrap();
        assert_eq!((topic.segment_bytes, topic.max_message_bytes), (8192, 500));
    }
}
