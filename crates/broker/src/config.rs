//! The broker's settings: one table, from which help, checks and `DescribeConfigs` come.
//!
//! Every key here is read somewhere. A setting that does nothing yet is not in the table.

use std::{collections::BTreeSet, path::PathBuf};

use tidelog_net::config::NetConfig;
use tidelog_raft::RaftSettings;
use tidelog_types::{
    property::{Kind, Property, PropertyError, nearest},
    settings,
};

/// Greatest value of a Kafka `int`.
const INT_MAX: i64 = i32::MAX as i64;

settings! {
    /// What a broker is started with. Kafka's key where Kafka has one.
    pub struct BrokerSettings {
        /// This broker's number, unique in its cluster.
        node_id: i32 = "node.id", Kind::Int { min: 0, max: INT_MAX }, "1";
        /// The directory that holds everything this broker keeps.
        log_dirs: String = "log.dirs", Kind::Text, "./tidelog-data";
        /// Where clients connect: PLAINTEXT://host:port, an empty host being every address.
        listeners: String = "listeners", Kind::Text, "PLAINTEXT://:9092";
        /// What clients are told to connect to; empty derives it from `listeners`.
        advertised_listeners: String = "advertised.listeners", Kind::Text, "";
        /// Where metrics and health are served over HTTP, as host:port; empty serves none.
        admin_listener: String = "admin.listener", Kind::Text, "127.0.0.1:9644";
        /// How log lines look: text for people, or one JSON object a line. What a start says on
        /// standard output is text always.
        logging_format: String = "logging.format", Kind::Choice(&["plain", "json"]), "plain";
        /// What is logged. The environment's `TIDELOG_LOG` wins at start, and names modules too.
        logging_level: String = "logging.level",
            Kind::Choice(&["off", "error", "warn", "info", "debug", "trace"]), "info", dynamic;
        /// The rack that this broker stands in, told to clients.
        broker_rack: String = "broker.rack", Kind::Text, "";
        /// Partitions of a topic whose creator names no number.
        num_partitions: i32 = "num.partitions", Kind::Int { min: 1, max: 10_000 }, "1";
        /// Replicas of a topic whose creator names no number.
        default_replication_factor: i32 = "default.replication.factor",
            Kind::Int { min: 1, max: 32767 }, "1";
        /// Whether asking for a topic that does not exist may create it.
        auto_create_topics_enable: bool = "auto.create.topics.enable",
            Kind::Boolean, "true", dynamic;
        /// Whether topics may be deleted.
        delete_topic_enable: bool = "delete.topic.enable", Kind::Boolean, "true";
        /// Bytes of the largest batch that a topic accepts, compressed as it came.
        message_max_bytes: i32 = "message.max.bytes",
            Kind::Int { min: 0, max: INT_MAX }, "1048588", dynamic;
        /// Replicas that must be in sync before acks=all is accepted; never more than a topic has.
        min_insync_replicas: i32 = "min.insync.replicas",
            Kind::Int { min: 1, max: INT_MAX }, "1", dynamic;
        /// Bytes of a segment file.
        log_segment_bytes: i32 = "log.segment.bytes",
            Kind::Int { min: 1024, max: INT_MAX }, "1073741824", dynamic;
        /// Bytes of a segment between two entries of its offset index.
        log_index_interval_bytes: i32 = "log.index.interval.bytes",
            Kind::Int { min: 0, max: INT_MAX }, "4096", dynamic;
        /// Reported only: every acknowledged record is on disk, whatever this says.
        log_flush_interval_messages: i64 = "log.flush.interval.messages",
            Kind::Long { min: 1, max: i64::MAX }, "9223372036854775807", dynamic;
        /// Reported only: every acknowledged record is on disk, whatever this says.
        log_flush_interval_ms: i64 = "log.flush.interval.ms",
            Kind::Long { min: 0, max: i64::MAX }, "9223372036854775807", dynamic;
        /// Milliseconds that records are kept; -1 means for ever. Wins over the minutes and hours.
        log_retention_ms: i64 = "log.retention.ms",
            Kind::Long { min: -1, max: i64::MAX }, "604800000", dynamic;
        /// Minutes that records are kept; -1 means for ever. Wins over the hours.
        log_retention_minutes: i32 = "log.retention.minutes",
            Kind::Int { min: -1, max: INT_MAX }, "10080", dynamic;
        /// Hours that records are kept; -1 means for ever.
        log_retention_hours: i32 = "log.retention.hours",
            Kind::Int { min: -1, max: INT_MAX }, "168", dynamic;
        /// Bytes of each partition that are kept; -1 means all.
        log_retention_bytes: i64 = "log.retention.bytes",
            Kind::Long { min: -1, max: i64::MAX }, "-1", dynamic;
        /// Milliseconds between two searches for records that need not be kept any more.
        log_retention_check_interval_ms: i64 = "log.retention.check.interval.ms",
            Kind::Long { min: 1, max: i64::MAX }, "300000";
        /// Milliseconds between a segment's removal from the log and the deletion of its files.
        log_segment_delete_delay_ms: i64 = "log.segment.delete.delay.ms",
            Kind::Long { min: 0, max: i64::MAX }, "60000", dynamic;
        /// Milliseconds of records after which the next segment is started. Wins over the hours.
        log_roll_ms: i64 = "log.roll.ms",
            Kind::Long { min: 1, max: i64::MAX }, "604800000", dynamic;
        /// Hours of records after which the next segment is started.
        log_roll_hours: i32 = "log.roll.hours", Kind::Int { min: 1, max: INT_MAX }, "168", dynamic;
        /// Milliseconds by which segments' starts are spread at random. Wins over the hours.
        log_roll_jitter_ms: i64 = "log.roll.jitter.ms",
            Kind::Long { min: 0, max: i64::MAX }, "0", dynamic;
        /// Hours by which segments' starts are spread at random.
        log_roll_jitter_hours: i32 = "log.roll.jitter.hours",
            Kind::Int { min: 0, max: INT_MAX }, "0", dynamic;
        /// The codec that batches are stored in; `producer` keeps what the producer chose.
        compression_type: String = "compression.type",
            Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
            "producer", dynamic;
        /// How gzip compresses, where the broker compresses.
        compression_gzip_level: i32 =
            "compression.gzip.level", Kind::Int { min: -1, max: 9 }, "-1", dynamic;
        /// Reported only: lz4 always compresses at its fastest level.
        compression_lz4_level: i32 =
            "compression.lz4.level", Kind::Int { min: 1, max: 17 }, "9", dynamic;
        /// How zstd compresses, where the broker compresses.
        compression_zstd_level: i32 =
            "compression.zstd.level", Kind::Int { min: -131_072, max: 22 }, "3", dynamic;
        /// Whether records keep their producer's timestamp or get the broker's.
        log_message_timestamp_type: String = "log.message.timestamp.type",
            Kind::Choice(&["CreateTime", "LogAppendTime"]), "CreateTime", dynamic;
        /// Milliseconds that a record's timestamp may lie in the past.
        log_message_timestamp_before_max_ms: i64 = "log.message.timestamp.before.max.ms",
            Kind::Long { min: 0, max: i64::MAX }, "9223372036854775807", dynamic;
        /// Milliseconds that a record's timestamp may lie in the future.
        log_message_timestamp_after_max_ms: i64 = "log.message.timestamp.after.max.ms",
            Kind::Long { min: 0, max: i64::MAX }, "3600000", dynamic;
        /// Bytes of records in one Fetch response, whatever the client asks for.
        fetch_max_bytes: i32 = "fetch.max.bytes", Kind::Int { min: 1024, max: INT_MAX }, "57671680";
        /// Fetch sessions that are kept; clients without one name all their partitions each time.
        max_incremental_fetch_session_cache_slots: i32 =
            "max.incremental.fetch.session.cache.slots", Kind::Int { min: 0, max: 100_000 }, "1000";
        /// Partitions that all fetch sessions hold together, at some 500 bytes each.
        max_incremental_fetch_session_cache_partitions: i32 =
            "max.incremental.fetch.session.cache.partitions",
            Kind::Int { min: 0, max: INT_MAX }, "100000";
        /// Milliseconds that a fetch session is kept after its last request, and after its first
        /// one if a larger session wants its place.
        min_incremental_fetch_session_eviction_ms: i64 =
            "min.incremental.fetch.session.eviction.ms", Kind::Long { min: 0, max: i64::MAX },
            "120000";
        /// Partitions of the topic that groups and their offsets live in, once it is created.
        offsets_topic_num_partitions: i32 = "offsets.topic.num.partitions",
            Kind::Int { min: 1, max: 10_000 }, "50";
        /// Replicas of the offsets topic, as far as there are brokers when it is created.
        offsets_topic_replication_factor: i32 = "offsets.topic.replication.factor",
            Kind::Int { min: 1, max: 32767 }, "3";
        /// Bytes of a segment file of the offsets topic, once it is created.
        offsets_topic_segment_bytes: i32 = "offsets.topic.segment.bytes",
            Kind::Int { min: 1024, max: INT_MAX }, "104857600";
        /// Minutes that offsets are kept once their group has no members, or does not subscribe to
        /// their topic any more.
        offsets_retention_minutes: i32 = "offsets.retention.minutes",
            Kind::Int { min: 1, max: INT_MAX }, "10080";
        /// Milliseconds between two searches for offsets that need not be kept any more.
        offsets_retention_check_interval_ms: i64 = "offsets.retention.check.interval.ms",
            Kind::Long { min: 1, max: i64::MAX }, "600000";
        /// Characters that a client may add to an offset that it commits.
        offset_metadata_max_bytes: i32 = "offset.metadata.max.bytes",
            Kind::Int { min: 0, max: INT_MAX }, "4096";
        /// Milliseconds that a group's first rebalance waits for more members.
        group_initial_rebalance_delay_ms: i32 = "group.initial.rebalance.delay.ms",
            Kind::Int { min: 0, max: INT_MAX }, "3000";
        /// Milliseconds of silence that a member may at least ask to be forgiven.
        group_min_session_timeout_ms: i32 = "group.min.session.timeout.ms",
            Kind::Int { min: 1, max: INT_MAX }, "6000";
        /// Milliseconds of silence that a member may at most ask to be forgiven.
        group_max_session_timeout_ms: i32 = "group.max.session.timeout.ms",
            Kind::Int { min: 1, max: INT_MAX }, "1800000";
        /// Members of a group.
        group_max_size: i32 = "group.max.size", Kind::Int { min: 1, max: INT_MAX }, "10000";
        /// Partitions of groups whose lag metrics show, those with the most records to come.
        group_lag_metrics_max: i32 = "group.lag.metrics.max",
            Kind::Int { min: 0, max: 100_000 }, "1000";
        /// Whether a record is acknowledged once synced, or once in the page cache.
        wal_durability: String = "wal.durability", Kind::Choice(&["synced", "page-cache"]),
            "synced";
        /// Bytes of recent batches kept in memory for consumers that keep up.
        wal_tail_max_bytes: i64 = "wal.tail.max.bytes",
            Kind::Long { min: 65536, max: i64::MAX }, "67108864";
        /// Bytes that may wait to be written before producers wait.
        wal_queue_max_bytes: i64 = "wal.queue.max.bytes",
            Kind::Long { min: 65536, max: i64::MAX }, "33554432";
        /// Bytes of WAL files before producers wait for the spill to segments.
        wal_max_bytes: i64 = "wal.max.bytes",
            Kind::Long { min: 1_048_576, max: i64::MAX }, "1073741824";
        /// Bytes of one WAL file.
        wal_file_bytes: i64 = "wal.file.bytes",
            Kind::Long { min: 1_048_576, max: 1_073_741_824 }, "67108864";
        /// Bytes of a new directory's first WAL file, which start-up waits for.
        wal_first_file_bytes: i64 = "wal.first.file.bytes",
            Kind::Long { min: 1_048_576, max: 1_073_741_824 }, "8388608";
        /// Bytes of batches that one sync covers.
        wal_commit_max_bytes: i64 = "wal.commit.max.bytes",
            Kind::Long { min: 4096, max: 1_073_741_824 }, "4194304";
        /// Segment files that are held open for reading.
        wal_open_files_max: i32 = "wal.open.files.max", Kind::Int { min: 8, max: INT_MAX }, "1024";
        /// Bytes that a partition writes between two snapshots of its producers.
        wal_snapshot_interval_bytes: i64 = "wal.snapshot.interval.bytes",
            Kind::Long { min: 1, max: i64::MAX }, "67108864";
    }
}

/// Everything a node is started with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeSettings {
    /// Keys that the operator set, to the default or not.
    explicit: BTreeSet<String>,
    /// The broker's.
    pub broker: BrokerSettings,
    /// The listeners'.
    pub net: NetConfig,
    /// The metadata log's.
    pub raft: RaftSettings,
}

impl NodeSettings {
    /// Every setting of a node.
    pub fn properties() -> impl Iterator<Item = &'static Property> {
        let tables = [BrokerSettings::PROPERTIES, NetConfig::PROPERTIES, RaftSettings::PROPERTIES];
        tables.into_iter().flatten()
    }

    /// The setting of this key.
    #[must_use]
    pub fn property(key: &str) -> Option<&'static Property> {
        NodeSettings::properties().find(|property| property.key == key)
    }

    /// Sets one value from text.
    ///
    /// # Errors
    /// For an unknown key, or a value outside its type or bounds.
    pub fn set(&mut self, key: &str, text: &str) -> Result<(), PropertyError> {
        let has = |table: &[Property]| table.iter().any(|property| property.key == key);
        if has(BrokerSettings::PROPERTIES) {
            self.broker.set(key, text)?;
        } else if has(NetConfig::PROPERTIES) {
            self.net.set(key, text)?;
        } else if has(RaftSettings::PROPERTIES) {
            self.raft.set(key, text)?;
        } else {
            let every: Vec<Property> = NodeSettings::properties().copied().collect();
            let nearest = nearest(key, &every);
            return Err(PropertyError::Unknown { key: key.to_owned(), nearest });
        }
        self.explicit.insert(key.to_owned());
        Ok(())
    }

    /// Whether the operator set this key.
    #[must_use]
    pub fn is_explicit(&self, key: &str) -> bool {
        self.explicit.contains(key)
    }

    /// One value as text, `None` for an unknown key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        self.broker.get(key).or_else(|| self.net.get(key)).or_else(|| self.raft.get(key))
    }
}

/// Why a set of settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// One setting is wrong by itself.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// A listener is not of the form that can be served, or a directory is none.
    #[error("{key} = {value:?}: expected {expected}")]
    Place {
        /// The setting.
        key: &'static str,
        /// As written.
        value: String,
        /// What would have been right.
        expected: &'static str,
    },
}

impl ConfigError {
    /// The setting that is wrong, as far as it exists.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            ConfigError::Property(PropertyError::Unknown { key, .. }) => key,
            ConfigError::Property(PropertyError::Invalid { key, .. })
            | ConfigError::Place { key, .. } => key,
        }
    }
}

/// A host and a port. An empty host, where one listens, is every address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// TCP port; 0 lets the system choose where one listens.
    pub port: u16,
}

impl BrokerSettings {
    /// The directory that holds everything.
    ///
    /// # Errors
    /// For none, and for Kafka's list of several.
    pub fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        let expected = match self.log_dirs.as_str() {
            dir if dir.trim().is_empty() => "a directory",
            dir if dir.contains(',') => "one directory: several are not supported",
            dir => return Ok(PathBuf::from(dir)),
        };
        Err(ConfigError::Place { key: "log.dirs", value: self.log_dirs.clone(), expected })
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// For anything but one `PLAINTEXT://host:port`.
    pub fn listener(&self) -> Result<Endpoint, ConfigError> {
        kafka_endpoint("listeners", &self.listeners)
    }

    /// What clients are told, given the port that is really listened on. A listener on every
    /// address tells `localhost`: right for the machine itself, and others must be told by name.
    ///
    /// # Errors
    /// For anything but nothing or one `PLAINTEXT://host:port` with a host.
    pub fn advertised(&self, listening_port: u16) -> Result<Endpoint, ConfigError> {
        const KEY: &str = "advertised.listeners";
        if self.advertised_listeners.is_empty() {
            let listener = self.listener()?;
            let everywhere = ["", "0.0.0.0", "::"].contains(&listener.host.as_str());
            let host = if everywhere { "localhost".to_owned() } else { listener.host };
            return Ok(Endpoint { host, port: listening_port });
        }
        let endpoint = kafka_endpoint(KEY, &self.advertised_listeners)?;
        if endpoint.host.is_empty() || endpoint.host == "0.0.0.0" {
            let value = self.advertised_listeners.clone();
            let expected = "a host that clients can reach";
            return Err(ConfigError::Place { key: KEY, value, expected });
        }
        Ok(endpoint)
    }

    /// Where metrics and health are served, if anywhere.
    ///
    /// # Errors
    /// For anything but nothing or `host:port`.
    pub fn admin(&self) -> Result<Option<Endpoint>, ConfigError> {
        if self.admin_listener.is_empty() {
            return Ok(None);
        }
        let value = self.admin_listener.clone();
        let expected = "host:port, such as 127.0.0.1:9644";
        let error = ConfigError::Place { key: "admin.listener", value, expected };
        host_and_port(&self.admin_listener).map(Some).ok_or(error)
    }
}

fn kafka_endpoint(key: &'static str, text: &str) -> Result<Endpoint, ConfigError> {
    let error = |expected| ConfigError::Place { key, value: text.to_owned(), expected };
    if text.contains(',') {
        return Err(error("one listener: several are not supported yet"));
    }
    if ["SSL://", "SASL_SSL://", "SASL_PLAINTEXT://"].iter().any(|start| text.starts_with(start)) {
        return Err(error("PLAINTEXT://host:port: TLS and SASL are not supported yet"));
    }
    let form = "one listener, such as PLAINTEXT://localhost:9092";
    let rest = text.strip_prefix("PLAINTEXT://").ok_or_else(|| error(form))?;
    let port = rest.rsplit_once(':').map_or("", |(_, port)| port);
    if port.parse::<u64>().is_ok_and(|port| port > u64::from(u16::MAX)) {
        return Err(error("a port from 0 to 65535"));
    }
    host_and_port(rest).ok_or_else(|| error(form))
}

fn host_and_port(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain = host.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if bracketed.is_none() && !plain {
        return None;
    }
    let host = bracketed.unwrap_or(host).to_owned();
    Some(Endpoint { host, port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_passes_its_own_check() {
        for property in NodeSettings::properties() {
            assert_eq!(property.check(property.default), Ok(()), "{}", property.key);
        }
    }

    #[test]
    fn no_key_is_defined_twice() {
        let mut keys: Vec<&str> = NodeSettings::properties().map(|p| p.key).collect();
        keys.sort_unstable();
        let count = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn an_endpoint_is_read_or_refused_whole() {
        let endpoint = |host: &str, port| Some(Endpoint { host: host.to_owned(), port });
        let cases = [
            ("PLAINTEXT://:9092", endpoint("", 9092)),
            ("PLAINTEXT://localhost:0", endpoint("localhost", 0)),
            ("PLAINTEXT://[::1]:9092", endpoint("::1", 9092)),
            ("PLAINTEXT://::1:9092", None),
            ("PLAINTEXT://a:9092,PLAINTEXT://b:9093", None),
            ("SSL://a:9092", None),
            ("a:9092", None),
            ("PLAINTEXT://a:99999", None),
        ];
        for (text, expected) in cases {
            let settings = BrokerSettings { listeners: text.to_owned(), ..Default::default() };
            assert_eq!(settings.listener().ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_listener_that_is_refused_says_what_is_wrong_with_it() {
        for (text, expected) in [
            (
                "PLAINTEXT://a:9092,PLAINTEXT://b:9093",
                "one listener: several are not supported yet",
            ),
            ("SSL://:9093", "PLAINTEXT://host:port: TLS and SASL are not supported yet"),
            ("PLAINTEXT://a:99999", "a port from 0 to 65535"),
            ("a:9092", "one listener, such as PLAINTEXT://localhost:9092"),
        ] {
            let settings = BrokerSettings { listeners: text.to_owned(), ..Default::default() };
            let refused = settings.listener().expect_err(text).to_string();
            assert_eq!(refused, format!("listeners = {text:?}: expected {expected}"));
        }
    }

    #[test]
    fn there_is_one_directory() {
        for (log_dirs, expected) in [("/a", true), ("", false), (" ", false), ("/a,/b", false)] {
            let settings = BrokerSettings { log_dirs: log_dirs.to_owned(), ..Default::default() };
            assert_eq!(settings.data_dir().is_ok(), expected, "{log_dirs:?}");
        }
    }

    #[test]
    fn what_is_advertised_follows_the_listener_unless_told() {
        let cases = [
            ("PLAINTEXT://:9092", "", Some(("localhost", 9092))),
            ("PLAINTEXT://10.0.0.1:9092", "", Some(("10.0.0.1", 9092))),
            ("PLAINTEXT://:9092", "PLAINTEXT://kafka-1:19092", Some(("kafka-1", 19092))),
            ("PLAINTEXT://:9092", "PLAINTEXT://0.0.0.0:9092", None),
        ];
        for (listeners, advertised_listeners, expected) in cases {
            let (listeners, advertised_listeners) =
                (listeners.to_owned(), advertised_listeners.to_owned());
            let settings = BrokerSettings { listeners, advertised_listeners, ..Default::default() };
            let told = settings.advertised(9092).ok();
            let expected = expected.map(|(host, port)| Endpoint { host: host.to_owned(), port });
            assert_eq!(told, expected);
        }
    }
}
