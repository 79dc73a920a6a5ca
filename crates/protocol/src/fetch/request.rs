//! Decodes Fetch requests, versions 4 to 18.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use tidelog_types::{BrokerId, LeaderEpoch, Offset};

use crate::{
    ApiKey,
    error::{Malformed, RequestError},
    header::text,
    topics::{Form, SLACK_BYTES, TopicRef, Topics},
    wire::Reader,
};

/// First versions with each field.
const LOG_START_OFFSET_VERSION: i16 = 5;
const SESSION_VERSION: i16 = 7; // KIP-227
const LEADER_EPOCH_VERSION: i16 = 9; // KIP-320
const RACK_VERSION: i16 = 11; // KIP-392
const LAST_FETCHED_EPOCH_VERSION: i16 = 12; // KIP-595
const TOPIC_ID_VERSION: i16 = 13; // KIP-516
const REPLICA_STATE_VERSION: i16 = 15; // KIP-903

/// What the topics and partitions of one request may take, in bytes: some 100,000 partitions.
const MEMORY_BYTES_MAX: usize = 4 << 20;

/// Tag of the follower's identity in the request's tagged fields.
const REPLICA_STATE_TAG: u32 = 1;

/// A wish for records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// The follower that asks, [`FetchRequest::CONSUMER`] for a consumer.
    pub replica_id: BrokerId,
    /// The follower's incarnation, -1 where unknown (KIP-903).
    pub replica_epoch: i64,
    /// How long the answer may wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Bytes that are worth an answer.
    pub min_bytes: i32,
    /// Bytes that all partitions together should not exceed.
    pub max_bytes: i32,
    /// Whether records of open transactions stay hidden (KIP-98).
    pub read_committed: bool,
    /// The fetch session, 0 for none.
    pub session_id: i32,
    /// Its epoch: 0 begins a session, -1 wants none (KIP-227).
    pub session_epoch: i32,
    /// Where the consumer is, empty where it does not say.
    pub rack_id: StrBytes,
    topics: Topics<FetchPartition>,
    forgotten: Topics<i32>,
}

/// One partition's share of a Fetch request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPartition {
    /// First offset wanted.
    pub fetch_offset: Offset,
    /// A follower's log start offset, -1 from a consumer.
    pub log_start_offset: Offset,
    /// The partition.
    pub partition: i32,
    /// What the client takes for the leader epoch, [`LeaderEpoch::NONE`] where it does not say.
    pub current_leader_epoch: LeaderEpoch,
    /// Epoch of the last record that the client has, [`LeaderEpoch::NONE`] where it does not say.
    pub last_fetched_epoch: LeaderEpoch,
    /// Bytes that this partition should not exceed.
    pub partition_max_bytes: i32,
}

impl FetchRequest {
    /// The replica id of a consumer.
    pub const CONSUMER: BrokerId = BrokerId(-1);

    /// Decodes a request's body. Bytes behind the request are ignored, as Kafka does.
    ///
    /// Allocates at most twice the body and 64 KiB, and never more than 4 MiB.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn decode(version: i16, body: Bytes) -> Result<FetchRequest, RequestError> {
        assert!(ApiKey::Fetch.serves(version), "the header's version was checked");
        let mut reader = Reader::new(&body);
        let mut request = FetchRequest::decode_limits(version, &mut reader)?;
        let flexible = ApiKey::Fetch.is_flexible(version);
        let mut form = Form {
            api_key: ApiKey::Fetch,
            flexible,
            has_ids: version >= TOPIC_ID_VERSION,
            body_bytes: body.len(),
            memory_bytes_max: (2 * body.len() + SLACK_BYTES).min(MEMORY_BYTES_MAX),
        };
        let read = |reader: &mut Reader<'_>| read_partition(version, reader);
        request.topics = Topics::decode(form, &body, &mut reader, read, |kept| kept)?;
        form.memory_bytes_max = form.memory_bytes_max.saturating_sub(request.topics.memory_bytes());
        if version >= SESSION_VERSION {
            let read = |reader: &mut Reader<'_>| reader.int32();
            request.forgotten = Topics::decode(form, &body, &mut reader, read, |kept| kept)?;
        }
        if version >= RACK_VERSION {
            request.rack_id = text(body.slice(reader.required_string(flexible)?))?;
        }
        if flexible {
            request.decode_tagged_fields(version, &mut reader)?;
        }
        Ok(request)
    }

    /// The topics in the request's order, each with its partitions.
    pub fn topics(&self) -> impl Iterator<Item = (&TopicRef, &[FetchPartition])> {
        self.topics.iter()
    }

    /// What a session is to forget.
    pub fn forgotten_topics(&self) -> impl Iterator<Item = (&TopicRef, &[i32])> {
        self.forgotten.iter()
    }

    /// The fields in front of the topics.
    fn decode_limits(version: i16, reader: &mut Reader<'_>) -> Result<FetchRequest, Malformed> {
        let mut request = FetchRequest {
            replica_id: FetchRequest::CONSUMER,
            replica_epoch: -1,
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 0,
            read_committed: false,
            session_id: 0,
            session_epoch: -1,
            rack_id: StrBytes::default(),
            topics: Topics::default(),
            forgotten: Topics::default(),
        };
        if version < REPLICA_STATE_VERSION {
            request.replica_id = BrokerId(reader.int32()?);
        }
        request.max_wait_ms = reader.int32()?;
        request.min_bytes = reader.int32()?;
        request.max_bytes = reader.int32()?;
        request.read_committed = reader.int8()? == 1;
        if version >= SESSION_VERSION {
            request.session_id = reader.int32()?;
            request.session_epoch = reader.int32()?;
        }
        Ok(request)
    }

    /// The cluster's id (tag 0) is for controllers, which do not answer Fetch here.
    fn decode_tagged_fields(
        &mut self,
        version: i16,
        reader: &mut Reader<'_>,
    ) -> Result<(), Malformed> {
        reader.tagged_fields(|tag, field| {
            if tag == REPLICA_STATE_TAG && version >= REPLICA_STATE_VERSION {
                self.replica_id = BrokerId(field.int32()?);
                self.replica_epoch = field.int64()?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn read_partition(version: i16, reader: &mut Reader<'_>) -> Result<FetchPartition, Malformed> {
    let partition = reader.int32()?;
    let current_leader_epoch = match version >= LEADER_EPOCH_VERSION {
        true => LeaderEpoch(reader.int32()?),
        false => LeaderEpoch::NONE,
    };
    let fetch_offset = Offset(reader.int64()?);
    let last_fetched_epoch = match version >= LAST_FETCHED_EPOCH_VERSION {
        true => LeaderEpoch(reader.int32()?),
        false => LeaderEpoch::NONE,
    };
    let log_start_offset = match version >= LOG_START_OFFSET_VERSION {
        true => Offset(reader.int64()?),
        false => Offset(-1),
    };
    let partition_max_bytes = reader.int32()?;
    if ApiKey::Fetch.is_flexible(version) {
        // A follower's directory (tag 0) and high watermark (tag 1) change nothing here: there is
        // one data directory, and high watermarks are not waited for.
        reader.skip_tagged_fields()?;
    }
    Ok(FetchPartition {
        fetch_offset,
        log_start_offset,
        partition,
        current_leader_epoch,
        last_fetched_epoch,
        partition_max_bytes,
    })
}
