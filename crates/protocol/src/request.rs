//! Requests that the kafka-protocol codec decodes, once their shape is checked.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, OffsetForLeaderEpochRequest,
};
use kafka_protocol::protocol::Decodable;

use crate::{
    api_versions::ApiKey,
    error::{Malformed, RequestError},
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
    };
}

codec_requests! {
    ApiVersionsRequest: ApiVersions,
    CreateTopicsRequest: CreateTopics,
    DeleteTopicsRequest: DeleteTopics,
    DescribeClusterRequest: DescribeCluster,
    DescribeConfigsRequest: DescribeConfigs,
    FindCoordinatorRequest: FindCoordinator,
    InitProducerIdRequest: InitProducerId,
    ListOffsetsRequest: ListOffsets,
    MetadataRequest: Metadata,
    OffsetForLeaderEpochRequest: OffsetForLeaderEpoch,
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
