//! Requests that the kafka-protocol codec decodes, once their shape is checked.

use bytes::Bytes;
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
    FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest,
    ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, SyncGroupRequest,
    UpdateFeaturesRequest,
};
use kafka_protocol::protocol::Decodable;

use crate::{
    api_versions::ApiKey,
    error::{Malformed, RequestError},
    fetch::FetchRequest,
    header::decode_request_header,
    produce::ProduceRequest,
    shape, topic_ids,
};

/// A request type of the codec and the API it belongs to.
pub trait CodecRequest: Decodable {
    /// Its row of the table.
    const API: ApiKey;

    /// Decodes a body whose shape was checked.
    ///
    /// # Errors
    /// When the body is not what its shape allows: a mistake of ours.
    fn decode_checked(version: i16, mut body: Bytes) -> Result<Self, Malformed> {
        let reason = "the codec refuses what its shape allows";
        Self::decode(&mut body, codec_version(Self::API, version))
            .map_err(|_| Malformed { reason, position: 0 })
    }
}

macro_rules! codec_requests {
    ($($request:ident: $api:ident $({ $behind:item })?,)*) => {
        $(impl CodecRequest for $request {
            const API: ApiKey = ApiKey::$api;
            $($behind)?
        })*

        /// Decodes a request of any API, for whoever only wants to know whether it does.
        ///
        /// # Errors
        /// The connection is to be closed.
        pub fn decode_any(api: ApiKey, version: i16, body: Bytes) -> Result<(), RequestError> {
            match api {
                ApiKey::Produce => ProduceRequest::decode(version, body).map(drop),
                ApiKey::Fetch => FetchRequest::decode(version, body).map(drop),
                $(ApiKey::$api => decode::<$request>(version, body).map(drop),)*
            }
        }
    };
}

codec_requests! {
    AlterConfigsRequest: AlterConfigs,
    ApiVersionsRequest: ApiVersions,
    CreatePartitionsRequest: CreatePartitions,
    CreateTopicsRequest: CreateTopics,
    DeleteGroupsRequest: DeleteGroups,
    DeleteRecordsRequest: DeleteRecords,
    DeleteTopicsRequest: DeleteTopics,
    DescribeClusterRequest: DescribeCluster,
    DescribeConfigsRequest: DescribeConfigs,
    DescribeGroupsRequest: DescribeGroups,
    DescribeLogDirsRequest: DescribeLogDirs,
    DescribeProducersRequest: DescribeProducers,
    DescribeQuorumRequest: DescribeQuorum,
    DescribeTopicPartitionsRequest: DescribeTopicPartitions,
    FindCoordinatorRequest: FindCoordinator,
    HeartbeatRequest: Heartbeat,
    IncrementalAlterConfigsRequest: IncrementalAlterConfigs,
    InitProducerIdRequest: InitProducerId,
    JoinGroupRequest: JoinGroup,
    LeaveGroupRequest: LeaveGroup,
    ListConfigResourcesRequest: ListConfigResources,
    ListGroupsRequest: ListGroups,
    ListOffsetsRequest: ListOffsets,
    MetadataRequest: Metadata,
    OffsetCommitRequest: OffsetCommit {
        fn decode_checked(version: i16, body: Bytes) -> Result<Self, Malformed> {
            topic_ids::decode_offset_commit(version, body)
        }
    },
    OffsetDeleteRequest: OffsetDelete,
    OffsetFetchRequest: OffsetFetch {
        fn decode_checked(version: i16, body: Bytes) -> Result<Self, Malformed> {
            topic_ids::decode_offset_fetch(version, body)
        }
    },
    OffsetForLeaderEpochRequest: OffsetForLeaderEpoch,
    SyncGroupRequest: SyncGroup,
    UpdateFeaturesRequest: UpdateFeatures,
}

/// What a Fetch request takes for each of its bytes while it waits for records: some 250 bytes a
/// partition.
const FETCH_COST_FACTOR: u64 = 8;

/// Bytes that answering a request takes besides its frame: decoded, and as long as it waits.
///
/// Nothing for Produce, whose records stay in the frame, nor for what is going to be refused.
#[must_use]
pub fn cost(frame: &Bytes) -> u64 {
    let Some(key) = frame.first_chunk().map(|key| i16::from_be_bytes(*key)) else { return 0 };
    match ApiKey::from_wire(key) {
        None | Some(ApiKey::Produce) => 0,
        Some(ApiKey::Fetch) => FETCH_COST_FACTOR * frame.len() as u64,
        Some(_) => codec_cost(frame.clone()).unwrap_or(0) as u64,
    }
}

fn codec_cost(frame: Bytes) -> Result<usize, RequestError> {
    let (header, body) = decode_request_header(frame)?;
    Ok(shape::check(header.api_key, header.api_version, &body)?.bytes_in_memory)
}

/// Walks a request's shape, then decodes it. Bytes behind the request are ignored, as Kafka does.
///
/// # Errors
/// The connection is to be closed.
pub fn decode<R: CodecRequest>(version: i16, body: Bytes) -> Result<R, RequestError> {
    shape::check(R::API, version, &body)?;
    Ok(R::decode_checked(version, body)?)
}

/// The codec's version with the same fields: it is a release behind on ListOffsets, whose version
/// 11 only gives one more timestamp a meaning (KIP-1023).
pub(crate) fn codec_version(api: ApiKey, version: i16) -> i16 {
    match api {
        ApiKey::ListOffsets => version.min(10),
        _ => version,
    }
}
