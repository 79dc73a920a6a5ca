//! Requests that the kafka-protocol codec decodes, once their shape is checked.

use bytes::Bytes;
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, DescribeProducersRequest, DescribeQuorumRequest,
    DescribeTopicPartitionsRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, ListConfigResourcesRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, UpdateFeaturesRequest,
};
use kafka_protocol::protocol::Decodable;

use crate::{
    api_versions::ApiKey,
    error::{Malformed, RequestError},
    fetch::FetchRequest,
    header::decode_request_header,
    produce::ProduceRequest,
    shape,
};

/// A request type of the codec and the API it belongs to.
pub trait CodecRequest: Decodable {
    /// Its row of the table.
    const API: ApiKey;
}

macro_rules! codec_requests {
    ($($request:ident: $api:ident,)*) => {
        $(impl CodecRequest for $request { const API: ApiKey = ApiKey::$api; })*

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
    DeleteRecordsRequest: DeleteRecords,
    DeleteTopicsRequest: DeleteTopics,
    DescribeClusterRequest: DescribeCluster,
    DescribeConfigsRequest: DescribeConfigs,
    DescribeLogDirsRequest: DescribeLogDirs,
    DescribeProducersRequest: DescribeProducers,
    DescribeQuorumRequest: DescribeQuorum,
    DescribeTopicPartitionsRequest: DescribeTopicPartitions,
    FindCoordinatorRequest: FindCoordinator,
    IncrementalAlterConfigsRequest: IncrementalAlterConfigs,
    InitProducerIdRequest: InitProducerId,
    ListConfigResourcesRequest: ListConfigResources,
    ListOffsetsRequest: ListOffsets,
    MetadataRequest: Metadata,
    OffsetForLeaderEpochRequest: OffsetForLeaderEpoch,
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
    let mut body = body;
    R::decode(&mut body, codec_version(R::API, version)).map_err(|_| {
        let reason = "the codec refuses what its shape allows";
        RequestError::Malformed(Malformed { reason, position: 0 })
    })
}

/// The codec's version with the same fields: it is a release behind on ListOffsets, whose version
/// 11 only gives one more timestamp a meaning (KIP-1023).
pub(crate) fn codec_version(api: ApiKey, version: i16) -> i16 {
    match api {
        ApiKey::ListOffsets => version.min(10),
        _ => version,
    }
}
