//! What an operator decides about groups.

use std::time::Duration;

/// The limits and periods of a shard, each under Kafka's key where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    /// Shortest session that a member may ask for. `group.min.session.timeout.ms`
    pub session_timeout_min: Duration,
    /// Longest session that a member may ask for. `group.max.session.timeout.ms`
    pub session_timeout_max: Duration,
    /// How long a group that was empty waits for more members. `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay: Duration,
    /// Members of a group. `group.max.size`
    pub group_size_max: usize,
    /// Characters that a client may add to an offset. `offset.metadata.max.bytes`
    pub offset_metadata_chars_max: usize,
    /// How long offsets are kept that nobody needs. `offsets.retention.minutes`
    pub offsets_retention: Duration,
    /// How often they are looked for. `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval: Duration,
    /// Bytes of a group's record: all members' metadata and assignments have to fit into it.
    pub group_record_bytes_max: usize,
}

impl Default for GroupSettings {
    /// Kafka's, but for `group.max.size`, which is without bound there.
    fn default() -> GroupSettings {
        const MINUTE: Duration = Duration::from_secs(60);
        GroupSettings {
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: 30 * MINUTE,
            initial_rebalance_delay: Duration::from_secs(3),
            group_size_max: 10_000,
            offset_metadata_chars_max: 4096,
            offsets_retention: 7 * 24 * 60 * MINUTE,
            offsets_retention_check_interval: 10 * MINUTE,
            group_record_bytes_max: 1_000_000,
        }
    }
}
