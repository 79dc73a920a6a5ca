//! What stands in front of every request and every response.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use crate::{
    api_versions::ApiKey,
    error::{Malformed, RequestError},
    wire::{Reader, Writer},
};

/// A request's header (version 1, or 2 for flexible requests).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// What is asked for.
    pub api_key: ApiKey,
    /// In which version: one that the table serves, or any at all for ApiVersions.
    pub api_version: i16,
    /// Chosen by the client, given back with the answer.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
}

/// Splits a frame into header and body.
///
/// Of an ApiVersions request in a version that is not served only the correlation id is read, and
/// the body is empty: nobody knows what a later version will look like.
///
/// # Errors
/// The connection is to be closed.
pub fn decode_request_header(frame: Bytes) -> Result<(RequestHeader, Bytes), RequestError> {
    let mut reader = Reader::new(&frame);
    let (key, api_version) = (reader.int16()?, reader.int16()?);
    let correlation_id = reader.int32()?;
    let not_served = RequestError::NotServed { api_key: key, api_version };
    let api_key = ApiKey::from_wire(key).ok_or(not_served.clone())?;
    let mut header = RequestHeader { api_key, api_version, correlation_id, client_id: None };
    if !api_key.serves(api_version) {
        return match api_key {
            ApiKey::ApiVersions => Ok((header, Bytes::new())),
            _ => Err(not_served),
        };
    }
    // Its length stays two bytes in flexible versions too.
    let client_id = reader.string(false)?;
    if api_key.is_flexible(api_version) {
        reader.skip_tagged_fields()?;
    }
    let body_start = reader.position();
    header.client_id = client_id.map(|range| text(frame.slice(range))).transpose()?;
    Ok((header, frame.slice(body_start..)))
}

/// Appends a response's header (version 0, or 1 for flexible responses).
///
/// ApiVersions answers with version 0 always, so that a client can read it before it knows what the
/// broker speaks (KIP-511).
pub fn encode_response_header(
    api_key: ApiKey,
    version: i16,
    correlation_id: i32,
    out: &mut Vec<u8>,
) {
    out.put_int32(correlation_id);
    out.put_no_tagged_fields(api_key != ApiKey::ApiVersions && api_key.is_flexible(version));
}

/// Bytes that were checked to be UTF-8.
pub(crate) fn text(bytes: Bytes) -> Result<StrBytes, Malformed> {
    let refused = Malformed { reason: "a string is not UTF-8", position: 0 };
    StrBytes::from_utf8(bytes).map_err(|_| refused)
}
