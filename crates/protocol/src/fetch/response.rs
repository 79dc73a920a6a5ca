//! Encodes Fetch responses, versions 4 to 18, around records that are not copied.

use tidelog_types::{BrokerId, ErrorCode, LeaderEpoch, Offset, ProducerId};

use crate::{
    ApiKey,
    leader_hint::{CurrentLeader, NodeEndpoint, leader_bytes, put_endpoints, put_tagged_fields},
    outgoing::{Insert, Outgoing, RecordChunks, begin_frame},
    topics::TopicRef,
    wire::Writer,
};

/// First versions with each field.
const LOG_START_OFFSET_VERSION: i16 = 5;
const SESSION_VERSION: i16 = 7; // KIP-227
const PREFERRED_REPLICA_VERSION: i16 = 11; // KIP-392
const LEADER_HINT_VERSION: i16 = 12; // KIP-595
const ENDPOINTS_VERSION: i16 = 16; // KIP-951

/// Tags of a partition's tagged fields.
const DIVERGING_EPOCH_TAG: u32 = 0;
const CURRENT_LEADER_TAG: u32 = 1;

/// Bytes that one partition without records takes, at most.
const PARTITION_BYTES: usize = 72;
const TOPIC_BYTES: usize = 24;

/// Records, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResponse {
    /// How long the client is to wait before it sends again, in milliseconds.
    pub throttle_time_ms: i32,
    /// What is wrong with the request as a whole; told from version 7 on.
    pub error_code: ErrorCode,
    /// The fetch session, 0 for none; told from version 7 on.
    pub session_id: i32,
    /// In the request's order.
    pub topics: Vec<FetchTopicResponse>,
    /// How to reach the leaders that partitions point to; told from version 16 on.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// One topic's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopicResponse {
    /// As the request named it.
    pub topic: TopicRef,
    /// In the request's order.
    pub partitions: Vec<FetchPartitionResponse>,
}

/// One partition's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPartitionResponse {
    /// The partition.
    pub partition: i32,
    /// What went wrong.
    pub error_code: ErrorCode,
    /// First offset that is not yet on all in-sync replicas, -1 after an error.
    pub high_watermark: Offset,
    /// First offset that a read_committed consumer must not see, -1 after an error.
    pub last_stable_offset: Offset,
    /// First offset of the log, -1 after an error; told from version 5 on.
    pub log_start_offset: Offset,
    /// Where the client's log and this one part; told from version 12 on.
    pub diverging_epoch: Option<EpochEndOffset>,
    /// Who leads, where this broker does not; told from version 12 on.
    pub current_leader: Option<CurrentLeader>,
    /// `None` for a read_uncommitted consumer, who would drop records for it.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// The replica to ask next time; told from version 11 on.
    pub preferred_read_replica: Option<BrokerId>,
    /// Whole batches.
    pub records: RecordChunks,
}

/// The end of an epoch in this log (KIP-595).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEndOffset {
    /// The greatest epoch not above the client's.
    pub epoch: LeaderEpoch,
    /// The first offset behind it.
    pub end_offset: Offset,
}

/// Records of this producer from this offset on are to be skipped, up to its marker (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// The producer.
    pub producer_id: ProducerId,
    /// First offset of the transaction.
    pub first_offset: Offset,
}

impl FetchPartitionResponse {
    /// A partition that answers with an error.
    #[must_use]
    pub fn failed(partition: i32, error_code: ErrorCode) -> FetchPartitionResponse {
        FetchPartitionResponse {
            partition,
            error_code,
            high_watermark: Offset(-1),
            last_stable_offset: Offset(-1),
            log_start_offset: Offset(-1),
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: None,
            records: RecordChunks::None,
        }
    }
}

impl FetchResponse {
    /// A response without topics that says what is wrong with the request.
    #[must_use]
    pub fn failed(error_code: ErrorCode) -> FetchResponse {
        FetchResponse {
            throttle_time_ms: 0,
            error_code,
            session_id: 0,
            topics: Vec::new(),
            node_endpoints: Vec::new(),
        }
    }

    /// Encodes the whole frame around the records. Fields that the version does not have are left
    /// out.
    #[must_use]
    pub fn encode(self, version: i16, correlation_id: i32) -> Outgoing {
        assert!(ApiKey::Fetch.serves(version), "a version that was served is answered");
        let flexible = ApiKey::Fetch.is_flexible(version);
        let mut out = begin_frame(ApiKey::Fetch, version, correlation_id, self.size_hint());
        let mut inserts = Vec::new();
        out.put_int32(self.throttle_time_ms);
        if version >= SESSION_VERSION {
            out.put_int16(self.error_code.code());
            out.put_int32(self.session_id);
        }
        out.put_count(flexible, Some(self.topics.len()));
        for topic in self.topics {
            topic.topic.put(flexible, &mut out);
            out.put_count(flexible, Some(topic.partitions.len()));
            for partition in topic.partitions {
                partition.put(version, &mut out, &mut inserts);
            }
            out.put_no_tagged_fields(flexible);
        }
        let has_endpoints = version >= ENDPOINTS_VERSION;
        put_endpoints(&mut out, flexible, has_endpoints, &self.node_endpoints);
        Outgoing::from_parts(out, inserts)
    }

    fn size_hint(&self) -> usize {
        let topic_bytes = |topic: &FetchTopicResponse| {
            TOPIC_BYTES + topic.topic.wire_bytes() + topic.partitions.len() * PARTITION_BYTES
        };
        TOPIC_BYTES + self.topics.iter().map(topic_bytes).sum::<usize>()
    }
}

impl FetchPartitionResponse {
    fn put(self, version: i16, out: &mut Vec<u8>, inserts: &mut Vec<Insert>) {
        let flexible = ApiKey::Fetch.is_flexible(version);
        out.put_int32(self.partition);
        out.put_int16(self.error_code.code());
        out.put_int64(self.high_watermark.0);
        out.put_int64(self.last_stable_offset.0);
        if version >= LOG_START_OFFSET_VERSION {
            out.put_int64(self.log_start_offset.0);
        }
        let aborted = self.aborted_transactions.as_deref();
        out.put_count(flexible, aborted.map(<[AbortedTransaction]>::len));
        for transaction in aborted.unwrap_or_default() {
            out.put_int64(transaction.producer_id.0);
            out.put_int64(transaction.first_offset.0);
            out.put_no_tagged_fields(flexible);
        }
        if version >= PREFERRED_REPLICA_VERSION {
            out.put_int32(self.preferred_read_replica.map_or(-1, |replica| replica.0));
        }
        out.put_count(flexible, Some(self.records.len()));
        if !self.records.is_empty() {
            inserts.push(Insert { position: out.len(), records: self.records });
        }
        if version >= LEADER_HINT_VERSION {
            put_hints(self.diverging_epoch, self.current_leader, out);
        }
    }
}

/// Every version with tagged fields has these two.
fn put_hints(
    diverging_epoch: Option<EpochEndOffset>,
    current_leader: Option<CurrentLeader>,
    out: &mut Vec<u8>,
) {
    let diverging = diverging_epoch.map(EpochEndOffset::tagged_bytes);
    let leader = current_leader.map(leader_bytes);
    match (&diverging, &leader) {
        (None, None) => put_tagged_fields(out, &[]),
        (Some(diverging), None) => put_tagged_fields(out, &[(DIVERGING_EPOCH_TAG, diverging)]),
        (None, Some(leader)) => put_tagged_fields(out, &[(CURRENT_LEADER_TAG, leader)]),
        (Some(diverging), Some(leader)) => put_tagged_fields(
            out,
            &[(DIVERGING_EPOCH_TAG, diverging), (CURRENT_LEADER_TAG, leader)],
        ),
    }
}

impl EpochEndOffset {
    /// As a tagged field: epoch, offset, no tagged field.
    fn tagged_bytes(self) -> [u8; 13] {
        let mut bytes = [0; 13];
        bytes[..4].copy_from_slice(&self.epoch.0.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.end_offset.0.to_be_bytes());
        bytes
    }
}
