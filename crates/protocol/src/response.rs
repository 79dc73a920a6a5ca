//! Responses that the kafka-protocol codec encodes.

use kafka_protocol::protocol::Encodable;

use crate::{
    header::RequestHeader,
    outgoing::{Outgoing, begin_frame},
    request::codec_version,
};

/// A response that its version cannot express: a mistake of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{api} version {version} cannot say what it was given: {reason}")]
pub struct EncodeError {
    /// Kafka's name of the API.
    pub api: &'static str,
    /// The response's version.
    pub version: i16,
    /// The codec's own words.
    pub reason: String,
}

/// Encodes the answer to a request, in the request's version.
///
/// # Errors
/// When a field is set that the version does not have.
pub fn encode<R: Encodable>(
    request: &RequestHeader,
    response: &R,
) -> Result<Outgoing, EncodeError> {
    encode_as(request, request.api_version, response)
}

/// Encodes the answer to a request in another version than the request's.
pub(crate) fn encode_as<R: Encodable>(
    request: &RequestHeader,
    version: i16,
    response: &R,
) -> Result<Outgoing, EncodeError> {
    let api = request.api_key;
    let refused = |reason: String| EncodeError { api: api.name(), version, reason };
    let codec_version = codec_version(api, version);
    let size = response.compute_size(codec_version).map_err(|error| refused(error.to_string()))?;
    let mut frame = begin_frame(api, version, request.correlation_id, size);
    let begun = frame.len();
    response.encode(&mut frame, codec_version).map_err(|error| refused(error.to_string()))?;
    assert_eq!(frame.len() - begun, size, "the codec writes what it says it will");
    Ok(Outgoing::from_frame(frame))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ListOffsetsResponse;

    use super::*;
    use crate::ApiKey;

    fn header(api_key: ApiKey, api_version: i16) -> RequestHeader {
        RequestHeader { api_key, api_version, correlation_id: 0x0102_0304, client_id: None }
    }

    #[test]
    fn list_offsets_11_is_answered_though_the_codec_ends_at_10() {
        let response = ListOffsetsResponse::default().with_throttle_time_ms(9);
        let outgoing = encode(&header(ApiKey::ListOffsets, 11), &response).unwrap();
        let expected = [0, 0, 0, 11, 1, 2, 3, 4, 0, 0, 0, 0, 9, 1, 0];
        assert_eq!(outgoing.to_bytes(), expected[..]);
    }

    #[test]
    fn a_field_that_the_version_does_not_have_is_our_mistake() {
        use kafka_protocol::messages::{InitProducerIdResponse, MetadataResponse};
        let response = MetadataResponse::default().with_cluster_authorized_operations(1);
        let refused = encode(&header(ApiKey::Metadata, 12), &response);
        assert!(refused.is_err(), "{refused:?}");
        let response = InitProducerIdResponse::default();
        assert!(encode(&header(ApiKey::InitProducerId, 0), &response).is_ok());
    }
}
