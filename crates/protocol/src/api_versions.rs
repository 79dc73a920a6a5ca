//! The one table of APIs and versions, and the ApiVersions reply that is made from it.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse,
    api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
};
use kafka_protocol::protocol::StrBytes;
use tidelog_types::ErrorCode;

use crate::{
    RequestHeader, error::RequestError, outgoing::Outgoing, request, response,
    response::EncodeError,
};

/// What the table says of one API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// Which one.
    pub key: ApiKey,
    /// Kafka's name.
    pub name: &'static str,
    /// Lowest version that clients are told of.
    pub advertised_min: i16,
    /// Lowest version that is served; below it the connection is closed.
    pub served_min: i16,
    /// Highest version that is told of and served.
    pub max: i16,
    /// First version with compact lengths and tagged fields (KIP-482).
    pub flexible_from: i16,
    /// Largest frame that is read for it, in bytes; `usize::MAX` leaves that to the listener.
    pub frame_bytes_max: usize,
}

macro_rules! apis {
    ($($name:ident = $key:literal, advertised $least:literal, served $min:literal to $max:literal,
       flexible $flexible:literal, frame $frame:expr;)*) => {
        /// An API that is served.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        #[allow(missing_docs, reason = "the names are Kafka's own")]
        pub enum ApiKey { $($name = $key,)* }

        /// Every API that is served, by key. Dispatcher, ApiVersions and documentation read it.
        pub const TABLE: &[Api] = &[$(Api {
            key: ApiKey::$name, name: stringify!($name), advertised_min: $least, served_min: $min,
            max: $max, flexible_from: $flexible, frame_bytes_max: $frame,
        },)*];

        impl ApiKey {
            /// Reads the wire's number; `None` for an API that is not served.
            #[must_use]
            pub fn from_wire(key: i16) -> Option<ApiKey> {
                match key { $($key => Some(ApiKey::$name),)* _ => None }
            }

            /// What the table says of it.
            #[must_use]
            pub fn api(self) -> &'static Api {
                enum Row { $($name,)* }
                match self { $(ApiKey::$name => &TABLE[Row::$name as usize],)* }
            }
        }
    };
}

const MIB: usize = 1024 * 1024;
const UNLIMITED: usize = usize::MAX;

apis! {
    Produce = 0, advertised 0, served 3 to 13, flexible 9, frame UNLIMITED;
    Fetch = 1, advertised 4, served 4 to 18, flexible 12, frame UNLIMITED;
    ListOffsets = 2, advertised 1, served 1 to 11, flexible 6, frame MIB;
    Metadata = 3, advertised 0, served 0 to 13, flexible 9, frame 8 * MIB;
    FindCoordinator = 10, advertised 0, served 0 to 6, flexible 3, frame MIB;
    ApiVersions = 18, advertised 0, served 0 to 4, flexible 3, frame MIB;
    CreateTopics = 19, advertised 2, served 2 to 7, flexible 5, frame 8 * MIB;
    DeleteTopics = 20, advertised 1, served 1 to 6, flexible 4, frame MIB;
    InitProducerId = 22, advertised 0, served 0 to 5, flexible 2, frame MIB;
    OffsetForLeaderEpoch = 23, advertised 2, served 2 to 4, flexible 4, frame MIB;
    DescribeConfigs = 32, advertised 1, served 1 to 4, flexible 4, frame MIB;
    DescribeCluster = 60, advertised 0, served 0 to 2, flexible 0, frame MIB;
}

impl ApiKey {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.api().name
    }

    /// Whether a request of this version is answered.
    #[must_use]
    pub fn serves(self, version: i16) -> bool {
        (self.api().served_min..=self.api().max).contains(&version)
    }

    /// Whether this version has compact lengths and tagged fields (KIP-482).
    #[must_use]
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.api().flexible_from
    }
}

/// Largest frame, in bytes, that is worth reading for an API's number on the wire: nothing is ever
/// read for an API that is not served.
#[must_use]
pub fn frame_bytes_max(api_key: i16) -> usize {
    ApiKey::from_wire(api_key).map_or(0, |key| key.api().frame_bytes_max)
}

/// A feature as ApiVersions tells of it (KIP-584).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature<'a> {
    /// Kafka's name, such as `metadata.version`.
    pub name: &'a str,
    /// Lowest level that this broker works at.
    pub min: i16,
    /// Highest level that this broker works at.
    pub max: i16,
    /// The level the cluster agreed on, `None` while it is off.
    pub finalized: Option<i16>,
}

/// Answers an ApiVersions request of any version, unknown ones included.
///
/// `finalized_epoch` is the metadata offset at which the features were agreed on, -1 for unknown.
///
/// # Errors
/// The outer error asks to close the connection; the inner one is a mistake of ours.
pub fn respond(
    header: &RequestHeader,
    body: Bytes,
    features: &[Feature<'_>],
    finalized_epoch: i64,
) -> Result<Result<Outgoing, EncodeError>, RequestError> {
    if !ApiKey::ApiVersions.serves(header.api_version) {
        let version = 0; // the only one that a client of any age can read
        let refusal = ApiVersionsResponse::default()
            .with_error_code(ErrorCode::UnsupportedVersion.code())
            .with_api_keys(vec![advertised(ApiKey::ApiVersions.api())]);
        return Ok(response::encode_as(header, version, &refusal));
    }
    let request: ApiVersionsRequest = request::decode(header.api_version, body)?;
    let answer = match has_lawful_software(header.api_version, &request) {
        true => served(header.api_version, features, finalized_epoch),
        false => ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code()),
    };
    Ok(response::encode(header, &answer))
}

/// Everything the table advertises.
fn served(version: i16, features: &[Feature<'_>], finalized_epoch: i64) -> ApiVersionsResponse {
    let told = ApiVersionsResponse::default().with_api_keys(TABLE.iter().map(advertised).collect());
    if version < 3 {
        return told;
    }
    // Clients before version 4 choke on a lowest level of 0 (KAFKA-17011).
    let supported = features.iter().filter(|feature| version >= 4 || feature.min > 0);
    let finalized = features.iter().filter_map(|feature| Some((feature.name, feature.finalized?)));
    told.with_supported_features(supported.map(supported_key).collect())
        .with_finalized_features_epoch(finalized_epoch)
        .with_finalized_features(finalized.map(finalized_key).collect())
}

fn advertised(api: &Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key.code())
        .with_min_version(api.advertised_min)
        .with_max_version(api.max)
}

fn supported_key(feature: &Feature<'_>) -> SupportedFeatureKey {
    SupportedFeatureKey::default()
        .with_name(StrBytes::from_string(feature.name.to_owned()))
        .with_min_version(feature.min)
        .with_max_version(feature.max)
}

fn finalized_key((name, level): (&str, i16)) -> FinalizedFeatureKey {
    FinalizedFeatureKey::default()
        .with_name(StrBytes::from_string(name.to_owned()))
        .with_min_version_level(level)
        .with_max_version_level(level)
}

/// From version 3 on a client names itself, with letters, digits, dots and dashes (KIP-511).
fn has_lawful_software(version: i16, request: &ApiVersionsRequest) -> bool {
    let names = [&request.client_software_name, &request.client_software_version];
    version < 3 || names.into_iter().all(|name| is_lawful_name(name))
}

fn is_lawful_name(name: &str) -> bool {
    let ends_lawfully = |end: Option<u8>| end.is_some_and(|letter| letter.is_ascii_alphanumeric());
    let bytes = name.as_bytes();
    ends_lawfully(bytes.first().copied())
        && ends_lawfully(bytes.last().copied())
        && bytes.iter().all(|letter| letter.is_ascii_alphanumeric() || b"-.".contains(letter))
}
