//! What stands in front of every request and every response.

use bytes::{Buf as _, Bytes};
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
    let mut body = frame;
    body.advance(body_start);
    Ok((header, body))
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

#[cfg(test)]
mod tests {
    use kafka_protocol::{messages, protocol::Encodable};
    use proptest::prelude::*;

    use super::*;
    use crate::api_versions::TABLE;

    fn refused(api_key: i16, api_version: i16) -> Result<(RequestHeader, Bytes), RequestError> {
        Err(RequestError::NotServed { api_key, api_version })
    }

    fn frame(api_key: i16, api_version: i16, rest: &[u8]) -> Bytes {
        let start = [api_key.to_be_bytes(), api_version.to_be_bytes()].concat();
        [&start, &[0, 0, 0, 9][..], rest].concat().into()
    }

    #[test]
    fn what_is_not_served_is_refused() {
        for (api_key, api_version) in
            [(0, 2), (0, 14), (0, -1), (1, 3), (1, 19), (3, 14), (4, 0), (24, 0), (-1, 0), (999, 0)]
        {
            let decoded = decode_request_header(frame(api_key, api_version, &[0xff, 0xff]));
            assert_eq!(decoded, refused(api_key, api_version));
        }
    }

    #[test]
    fn an_unknown_version_of_api_versions_is_told_its_correlation_id() {
        let api_key = ApiKey::ApiVersions;
        for api_version in [5, 99, i16::MAX, -1] {
            for rest in [&[][..], &[0xff, 0xff, 0], &[0x7f; 40]] {
                let decoded = decode_request_header(frame(18, api_version, rest));
                let header =
                    RequestHeader { api_key, api_version, correlation_id: 9, client_id: None };
                assert_eq!(decoded, Ok((header, Bytes::new())));
            }
        }
    }

    #[test]
    fn a_frame_too_short_for_a_header_is_refused() {
        let whole = frame(3, 12, &[0, 3, b'k', b'c', b'a', 0]);
        for length in 0..whole.len() {
            let decoded = decode_request_header(whole.slice(..length));
            assert!(matches!(decoded, Err(RequestError::Malformed(_))), "{length}: {decoded:?}");
        }
        assert!(decode_request_header(whole).is_ok());
    }

    #[test]
    fn the_codecs_headers_are_read_in_every_version() {
        for api in TABLE {
            for version in api.served_min..=api.max {
                let flexible = api.key.is_flexible(version);
                for client_id in [None, Some(StrBytes::from_static_str("rdkafka"))] {
                    let codec = messages::RequestHeader::default()
                        .with_request_api_key(api.key.code())
                        .with_request_api_version(version)
                        .with_correlation_id(77)
                        .with_client_id(client_id.clone());
                    let mut frame = Vec::new();
                    codec.encode(&mut frame, if flexible { 2 } else { 1 }).unwrap();
                    frame.extend(b"body");
                    let expected = RequestHeader {
                        api_key: api.key,
                        api_version: version,
                        correlation_id: 77,
                        client_id,
                    };
                    let decoded = decode_request_header(frame.into());
                    assert_eq!(decoded, Ok((expected, Bytes::from_static(b"body"))));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_frame_panics(frame: Vec<u8>, api in 0..TABLE.len(), version in -1_i16..20) {
            let key = TABLE[api].key.code();
            let lawful = [&key.to_be_bytes()[..], &version.to_be_bytes(), &frame].concat();
            let _ = decode_request_header(lawful.into());
            let _ = decode_request_header(frame.into());
        }
    }
}
