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
    /// First version with compact lengths and tagged fields (KIP-482); `i16::MAX` is none.
    pub flexible_from: i16,
    /// Largest frame that is read for it, in bytes; `usize::MAX` leaves that to the listener.
    pub frame_bytes_max: usize,
}

macro_rules! apis {
    ($($name:ident = $key:literal, advertised $least:literal, served $min:literal to $max:literal,
       flexible $flexible:expr, frame $frame:expr;)*) => {
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
const NEVER: i16 = i16::MAX;

apis! {
    Produce = 0, advertised 0, served 3 to 13, flexible 9, frame UNLIMITED;
    Fetch = 1, advertised 4, served 4 to 18, flexible 12, frame 8 * MIB;
    ListOffsets = 2, advertised 1, served 1 to 11, flexible 6, frame MIB;
    Metadata = 3, advertised 0, served 0 to 13, flexible 9, frame 8 * MIB;
    OffsetCommit = 8, advertised 2, served 2 to 10, flexible 8, frame 8 * MIB;
    OffsetFetch = 9, advertised 1, served 1 to 10, flexible 6, frame MIB;
    FindCoordinator = 10, advertised 0, served 0 to 6, flexible 3, frame MIB;
    JoinGroup = 11, advertised 0, served 0 to 9, flexible 6, frame 8 * MIB;
    Heartbeat = 12, advertised 0, served 0 to 4, flexible 4, frame MIB;
    LeaveGroup = 13, advertised 0, served 0 to 5, flexible 4, frame MIB;
    SyncGroup = 14, advertised 0, served 0 to 5, flexible 4, frame 8 * MIB;
    DescribeGroups = 15, advertised 0, served 0 to 6, flexible 5, frame MIB;
    ListGroups = 16, advertised 0, served 0 to 5, flexible 3, frame MIB;
    ApiVersions = 18, advertised 0, served 0 to 4, flexible 3, frame MIB;
    CreateTopics = 19, advertised 2, served 2 to 7, flexible 5, frame 8 * MIB;
    DeleteTopics = 20, advertised 1, served 1 to 6, flexible 4, frame MIB;
    DeleteRecords = 21, advertised 0, served 0 to 2, flexible 2, frame MIB;
    InitProducerId = 22, advertised 0, served 0 to 5, flexible 2, frame MIB;
    OffsetForLeaderEpoch = 23, advertised 2, served 2 to 4, flexible 4, frame MIB;
    DescribeConfigs = 32, advertised 1, served 1 to 4, flexible 4, frame MIB;
    AlterConfigs = 33, advertised 0, served 0 to 2, flexible 2, frame MIB;
    DescribeLogDirs = 35, advertised 1, served 1 to 4, flexible 2, frame MIB;
    CreatePartitions = 37, advertised 0, served 0 to 3, flexible 2, frame MIB;
    DeleteGroups = 42, advertised 0, served 0 to 2, flexible 2, frame MIB;
    IncrementalAlterConfigs = 44, advertised 0, served 0 to 1, flexible 1, frame MIB;
    OffsetDelete = 47, advertised 0, served 0 to 0, flexible NEVER, frame MIB;
    DescribeQuorum = 55, advertised 0, served 0 to 2, flexible 0, frame MIB;
    UpdateFeatures = 57, advertised 0, served 0 to 2, flexible 0, frame MIB;
    DescribeCluster = 60, advertised 0, served 0 to 2, flexible 0, frame MIB;
    DescribeProducers = 61, advertised 0, served 0 to 0, flexible 0, frame MIB;
    ListConfigResources = 74, advertised 0, served 0 to 1, flexible 0, frame MIB;
    DescribeTopicPartitions = 75, advertised 0, served 0 to 0, flexible 0, frame MIB;
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

#[cfg(test)]
mod tests {
    use bytes::Buf as _;
    use kafka_protocol::{
        messages as codec,
        protocol::{Decodable as _, Encodable as _, HeaderVersion, Message},
    };

    use super::*;

    const FEATURES: &[Feature<'static>] = &[
        Feature { name: "metadata.version", min: 7, max: 29, finalized: Some(29) },
        Feature { name: "group.version", min: 0, max: 1, finalized: None },
    ];

    fn header(api_version: i16) -> RequestHeader {
        let api_key = ApiKey::ApiVersions;
        RequestHeader { api_key, api_version, correlation_id: 5, client_id: None }
    }

    fn request(version: i16, name: &str, software_version: &str) -> Bytes {
        let own = |text: &str| StrBytes::from_string(text.to_owned());
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request = request
                .with_client_software_name(own(name))
                .with_client_software_version(own(software_version));
        }
        let mut body = Vec::new();
        request.encode(&mut body, version).unwrap();
        body.into()
    }

    /// Answers and reads the answer back; its header never has tagged fields.
    fn answer(version: i16, body: Bytes, response_version: i16) -> ApiVersionsResponse {
        let outgoing = respond(&header(version), body, FEATURES, 3).unwrap().unwrap();
        let mut frame = outgoing.to_bytes();
        assert_eq!(frame.get_i32() as usize, frame.len());
        assert_eq!(frame.get_i32(), 5);
        let response = ApiVersionsResponse::decode(&mut frame, response_version).unwrap();
        assert!(frame.is_empty());
        response
    }

    #[test]
    fn every_served_version_is_told_the_table() {
        for version in 0..=4 {
            let response = answer(version, request(version, "librdkafka", "2.16.0"), version);
            assert_eq!(response.error_code, 0);
            let told = response.api_keys.iter().map(|api| (api.api_key, api.min_version));
            let table = TABLE.iter().map(|api| (api.key.code(), api.advertised_min));
            assert!(told.eq(table), "version {version}");
        }
    }

    #[test]
    fn an_unknown_version_is_answered_as_version_0_with_our_range() {
        for version in [5, 99, i16::MAX, -1] {
            let response = answer(version, Bytes::from_static(b"who knows"), 0);
            assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code());
            assert_eq!(response.api_keys, vec![advertised(ApiKey::ApiVersions.api())]);
        }
    }

    #[test]
    fn features_are_told_from_version_3_on_and_a_lowest_level_of_0_from_4_on() {
        for (version, supported) in [(2, 0), (3, 1), (4, 2)] {
            let response = answer(version, request(version, "kcat", "1.7"), version);
            assert_eq!(response.supported_features.len(), supported, "version {version}");
            assert_eq!(response.finalized_features.len(), usize::from(version >= 3));
            let epoch = if version >= 3 { 3 } else { -1 };
            assert_eq!(response.finalized_features_epoch, epoch, "version {version}");
        }
    }

    #[test]
    fn a_client_names_itself_lawfully_or_is_refused() {
        let cases = [
            ("apache-kafka-java", "4.2.0", true),
            ("a", "1", true),
            ("", "1", false),
            ("kafka", "", false),
            ("-kafka", "1", false),
            ("kafka.", "1", false),
            ("kafka client", "1", false),
            ("kafka_client", "1", false),
            ("käfka", "1", false),
        ];
        for (name, software_version, lawful) in cases {
            let response = answer(4, request(4, name, software_version), 4);
            let code = if lawful { ErrorCode::None } else { ErrorCode::InvalidRequest };
            assert_eq!(response.error_code, code.code(), "{name:?} {software_version:?}");
        }
    }

    #[test]
    fn the_table_is_in_order_and_each_row_is_found() {
        assert!(TABLE.is_sorted_by_key(|api| api.key.code()));
        for api in TABLE {
            assert_eq!(ApiKey::from_wire(api.key.code()), Some(api.key));
            assert_eq!(api.key.api(), api);
            assert!(api.advertised_min <= api.served_min, "{}", api.name);
        }
    }

    /// Versions that the codec decodes and its first flexible one. Of three APIs it does not know
    /// the last version, which `codec_version` and `topic_ids` make up for.
    fn codec_range<R: Message + HeaderVersion>() -> (i16, i16, i16) {
        let versions = R::VERSIONS.min..=R::VERSIONS.max;
        let flexible = versions.clone().find(|version| R::header_version(*version) == 2);
        (*versions.start(), *versions.end(), flexible.unwrap_or(i16::MAX))
    }

    #[test]
    fn the_table_agrees_with_the_codec() {
        let codec = [
            (ApiKey::Produce, codec_range::<codec::ProduceRequest>()),
            (ApiKey::Fetch, codec_range::<codec::FetchRequest>()),
            (ApiKey::ListOffsets, codec_range::<codec::ListOffsetsRequest>()),
            (ApiKey::Metadata, codec_range::<codec::MetadataRequest>()),
            (ApiKey::OffsetCommit, codec_range::<codec::OffsetCommitRequest>()),
            (ApiKey::OffsetFetch, codec_range::<codec::OffsetFetchRequest>()),
            (ApiKey::FindCoordinator, codec_range::<codec::FindCoordinatorRequest>()),
            (ApiKey::JoinGroup, codec_range::<codec::JoinGroupRequest>()),
            (ApiKey::Heartbeat, codec_range::<codec::HeartbeatRequest>()),
            (ApiKey::LeaveGroup, codec_range::<codec::LeaveGroupRequest>()),
            (ApiKey::SyncGroup, codec_range::<codec::SyncGroupRequest>()),
            (ApiKey::DescribeGroups, codec_range::<codec::DescribeGroupsRequest>()),
            (ApiKey::ListGroups, codec_range::<codec::ListGroupsRequest>()),
            (ApiKey::DeleteGroups, codec_range::<codec::DeleteGroupsRequest>()),
            (ApiKey::OffsetDelete, codec_range::<codec::OffsetDeleteRequest>()),
            (ApiKey::ApiVersions, codec_range::<codec::ApiVersionsRequest>()),
            (ApiKey::CreateTopics, codec_range::<codec::CreateTopicsRequest>()),
            (ApiKey::DeleteTopics, codec_range::<codec::DeleteTopicsRequest>()),
            (ApiKey::InitProducerId, codec_range::<codec::InitProducerIdRequest>()),
            (ApiKey::OffsetForLeaderEpoch, codec_range::<codec::OffsetForLeaderEpochRequest>()),
            (ApiKey::DescribeConfigs, codec_range::<codec::DescribeConfigsRequest>()),
            (ApiKey::DescribeCluster, codec_range::<codec::DescribeClusterRequest>()),
            (ApiKey::DeleteRecords, codec_range::<codec::DeleteRecordsRequest>()),
            (ApiKey::AlterConfigs, codec_range::<codec::AlterConfigsRequest>()),
            (ApiKey::DescribeLogDirs, codec_range::<codec::DescribeLogDirsRequest>()),
            (ApiKey::CreatePartitions, codec_range::<codec::CreatePartitionsRequest>()),
            (
                ApiKey::IncrementalAlterConfigs,
                codec_range::<codec::IncrementalAlterConfigsRequest>(),
            ),
            (ApiKey::DescribeQuorum, codec_range::<codec::DescribeQuorumRequest>()),
            (ApiKey::UpdateFeatures, codec_range::<codec::UpdateFeaturesRequest>()),
            (ApiKey::DescribeProducers, codec_range::<codec::DescribeProducersRequest>()),
            (ApiKey::ListConfigResources, codec_range::<codec::ListConfigResourcesRequest>()),
            (
                ApiKey::DescribeTopicPartitions,
                codec_range::<codec::DescribeTopicPartitionsRequest>(),
            ),
        ];
        assert_eq!(codec.len(), TABLE.len());
        for (key, (min, max, flexible_from)) in codec {
            let api = key.api();
            let is_behind =
                matches!(key, ApiKey::ListOffsets | ApiKey::OffsetCommit | ApiKey::OffsetFetch);
            let max = if is_behind { max + 1 } else { max };
            assert_eq!((api.served_min, api.max), (min, max), "{}", api.name);
            assert_eq!(api.flexible_from, flexible_from, "{}", api.name);
        }
    }
}
