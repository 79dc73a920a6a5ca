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
