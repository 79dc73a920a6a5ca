//! Encodes Produce responses, versions 3 to 13.

use std::borrow::Cow;

use tidelog_types::{ErrorCode, Offset};

use crate::{
    ApiKey,
    leader_hint::{CurrentLeader, NodeEndpoint, leader_bytes, put_endpoints, put_tagged_fields},
    outgoing::{Outgoing, begin_frame},
    topics::TopicRef,
    wire::Writer,
};

/// First versions with each field.
const LOG_START_OFFSET_VERSION: i16 = 5;
const RECORD_ERRORS_VERSION: i16 = 8; // KIP-467
const LEADER_HINT_VERSION: i16 = 10; // KIP-951

/// Bytes that one partition without errors takes, at most.
const PARTITION_BYTES: usize = 40;
const TOPIC_BYTES: usize = 24;

/// What became of a Produce request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProduceResponse {
    /// In the request's order.
    pub topics: Vec<ProduceTopicResponse>,
    /// How long the client is to wait before it sends again, in milliseconds.
    pub throttle_time_ms: i32,
    /// How to reach the leaders that partitions point to; told from version 10 on.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// One topic's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopicResponse {
    /// As the request named it.
    pub topic: TopicRef,
    /// In the request's order.
    pub partitions: Vec<ProducePartitionResponse>,
}

/// One partition's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartitionResponse {
    /// The partition.
    pub index: i32,
    /// What went wrong.
    pub error_code: ErrorCode,
    /// Offset of the batch's first record, -1 after an error.
    pub base_offset: Offset,
    /// The broker's timestamp on a LogAppendTime topic, else -1; in milliseconds since 1970.
    pub log_append_time_ms: i64,
    /// First offset of the log, -1 after an error; told from version 5 on.
    pub log_start_offset: Offset,
    /// The records that made the broker refuse the batch; told from version 8 on.
    pub record_errors: Vec<RecordError>,
    /// What went wrong, in a sentence; told from version 8 on.
    pub error_message: Option<Cow<'static, str>>,
    /// Who leads, where this broker does not; told from version 10 on.
    pub current_leader: Option<CurrentLeader>,
}

/// A record that made the broker refuse its batch (KIP-467).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Its place in the batch, from 0.
    pub batch_index: i32,
    /// What is wrong with it.
    pub message: Option<Cow<'static, str>>,
}

impl ProducePartitionResponse {
    /// A partition whose batch was not appended.
    #[must_use]
    pub fn failed(index: i32, error_code: ErrorCode) -> ProducePartitionResponse {
        ProducePartitionResponse {
            index,
            error_code,
            base_offset: Offset(-1),
            log_append_time_ms: -1,
            log_start_offset: Offset(-1),
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        }
    }
}

impl ProduceResponse {
    /// Encodes the whole frame. Fields that the version does not have are left out.
    #[must_use]
    pub fn encode(&self, version: i16, correlation_id: i32) -> Outgoing {
        assert!(ApiKey::Produce.serves(version), "a version that was served is answered");
        let flexible = ApiKey::Produce.is_flexible(version);
        let mut out = begin_frame(ApiKey::Produce, version, correlation_id, self.size_hint());
        out.put_count(flexible, Some(self.topics.len()));
        for topic in &self.topics {
            topic.topic.put(flexible, &mut out);
            out.put_count(flexible, Some(topic.partitions.len()));
            topic.partitions.iter().for_each(|partition| partition.put(version, &mut out));
            out.put_no_tagged_fields(flexible);
        }
        out.put_int32(self.throttle_time_ms);
        let has_endpoints = version >= LEADER_HINT_VERSION;
        put_endpoints(&mut out, flexible, has_endpoints, &self.node_endpoints);
        Outgoing::from_frame(out)
    }

    fn size_hint(&self) -> usize {
        let topic_bytes = |topic: &ProduceTopicResponse| {
            TOPIC_BYTES + topic.topic.wire_bytes() + topic.partitions.len() * PARTITION_BYTES
        };
        TOPIC_BYTES + self.topics.iter().map(topic_bytes).sum::<usize>()
    }
}

impl ProducePartitionResponse {
    fn put(&self, version: i16, out: &mut Vec<u8>) {
        let flexible = ApiKey::Produce.is_flexible(version);
        out.put_int32(self.index);
        out.put_int16(self.error_code.code());
        out.put_int64(self.base_offset.0);
        out.put_int64(self.log_append_time_ms);
        if version >= LOG_START_OFFSET_VERSION {
            out.put_int64(self.log_start_offset.0);
        }
        if version >= RECORD_ERRORS_VERSION {
            out.put_count(flexible, Some(self.record_errors.len()));
            for error in &self.record_errors {
                out.put_int32(error.batch_index);
                out.put_string(flexible, error.message.as_deref());
                out.put_no_tagged_fields(flexible);
            }
            out.put_string(flexible, self.error_message.as_deref());
        }
        match self.current_leader.filter(|_| version >= LEADER_HINT_VERSION) {
            Some(leader) => put_tagged_fields(out, &[(0, &leader_bytes(leader))]),
            None => out.put_no_tagged_fields(flexible),
        }
    }
}
