//! Our Fetch decoder and encoder against the codec's, in every version.

mod common;

use bytes::{Buf, Bytes};
use common::{
    Random,
    allocation::{Counting, peak_of},
    mutate::mutate,
    samples::{tags, text, topic_name, uuid, versions},
};
use kafka_protocol::messages::{
    self as codec,
    fetch_request::{FetchPartition as CodecPartition, FetchTopic, ForgottenTopic, ReplicaState},
    fetch_response::{
        AbortedTransaction as CodecAborted, EpochEndOffset as CodecEpochEnd,
        FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint as CodecEndpoint, PartitionData,
    },
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;
use tidelog_protocol::{
    ApiKey, RecordChunks, RequestError, TopicRef,
    fetch::{
        AbortedTransaction, EpochEndOffset, FetchPartitionResponse, FetchRequest, FetchResponse,
        FetchTopicResponse,
    },
    leader_hint::{CurrentLeader, NodeEndpoint},
};
use tidelog_types::{BATCH_HEADER_LEN, BrokerId, Entry, ErrorCode, LeaderEpoch, Offset};
use tidelog_types::{ProducerId, Uuid};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MUTATIONS: usize = 60;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_the_codec_encodes_is_decoded_alike(seed: u64) {
        for version in versions(ApiKey::Fetch) {
            let mut random = Random::new(seed);
            let request = sample_request(version, &mut random);
            let mut body = encode(&request, version);
            body.extend(random.bytes(8));
            let decoded = FetchRequest::decode(version, body.into());
            let decoded = decoded.map(|decoded| as_codec(&decoded, version));
            prop_assert_eq!(decoded, Ok(as_kept(request)), "version {}", version);
        }
    }

    #[test]
    fn a_spoiled_request_never_takes_memory_beyond_its_bound(seed: u64) {
        for version in versions(ApiKey::Fetch) {
            let mut random = Random::new(seed);
            let body = encode(&sample_request(version, &mut random), version);
            for _ in 0..MUTATIONS {
                let mut body = body.clone();
                mutate(&mut body, &mut random);
                let bytes = body.len();
                let body = Bytes::from(body);
                let (_, peak) = peak_of(|| FetchRequest::decode(version, body));
                prop_assert!(peak <= 2 * bytes + 64 * 1024, "{} for {}", peak, bytes);
            }
        }
    }

    #[test]
    fn a_response_is_encoded_as_the_codec_does(seed: u64, correlation_id: i32) {
        for version in versions(ApiKey::Fetch) {
            let response = sample_response(version, &mut Random::new(seed));
            let codec = response_as_codec(&response, version);
            let mut frame = response.encode(version, correlation_id).to_bytes();
            prop_assert_eq!(frame.get_i32() as usize, frame.len());
            prop_assert_eq!(frame.get_i32(), correlation_id);
            if version >= 12 {
                prop_assert_eq!(frame.get_u8(), 0);
            }
            let mut expected = Vec::new();
            codec.encode(&mut expected, version).unwrap();
            prop_assert_eq!(&frame, &expected, "version {}", version);
            prop_assert_eq!(codec::FetchResponse::decode(&mut frame, version).unwrap(), codec);
        }
    }
}

#[test]
fn an_ordinary_request_is_never_too_costly() {
    for version in versions(ApiKey::Fetch) {
        let partition = CodecPartition::default();
        let topics = (0..2000).map(|number| {
            let topic = FetchTopic::default().with_partitions(vec![partition.clone()]);
            match version >= 13 {
                true => topic.with_topic_id(uuid::Uuid::from_u128(number)),
                false => topic.with_topic(StrBytes::from_string(format!("t{number}")).into()),
            }
        });
        let request = codec::FetchRequest::default().with_topics(topics.collect());
        let decoded = FetchRequest::decode(version, encode(&request, version).into());
        assert_eq!(decoded.map(|request| request.topics().count()), Ok(2000), "version {version}");
    }
}

#[test]
fn a_request_for_one_partition_millions_of_times_is_too_costly() {
    let partitions = vec![CodecPartition::default(); 400_000];
    let topic = FetchTopic::default().with_partitions(partitions);
    let request = codec::FetchRequest::default().with_topics(vec![topic]);
    let body = Bytes::from(encode(&request, 4));
    assert!(body.len() < ApiKey::Fetch.api().frame_bytes_max, "{} bytes", body.len());
    let (decoded, peak) = peak_of(|| FetchRequest::decode(4, body));
    assert!(matches!(decoded, Err(RequestError::TooCostly { .. })), "{decoded:?}");
    assert!(peak < 64 * 1024, "{peak} bytes before it was refused");
}

#[test]
fn a_partition_without_records_has_empty_records_not_null() {
    for version in versions(ApiKey::Fetch) {
        let topic = match version >= 13 {
            true => TopicRef::Id(Uuid([1; 16])),
            false => TopicRef::Name(StrBytes::from_static_str("topic")),
        };
        let partitions = vec![FetchPartitionResponse::failed(0, ErrorCode::None)];
        let mut response = FetchResponse::failed(ErrorCode::None);
        response.topics.push(FetchTopicResponse { topic, partitions });
        let mut frame = response.encode(version, 1).to_bytes();
        frame.advance(if version >= 12 { 9 } else { 8 });
        let decoded = codec::FetchResponse::decode(&mut frame, version).unwrap();
        let partition = &decoded.responses[0].partitions[0];
        assert_eq!(partition.records, Some(Bytes::new()), "version {version}");
        assert_eq!(partition.aborted_transactions, None, "version {version}");
    }
}

fn encode(request: &codec::FetchRequest, version: i16) -> Vec<u8> {
    let mut body = Vec::new();
    request.encode(&mut body, version).expect("a sample fits its version");
    body
}

fn sample_request(version: i16, random: &mut Random) -> codec::FetchRequest {
    let flexible = version >= 12;
    let mut request = codec::FetchRequest::default()
        .with_max_wait_ms(random.int32())
        .with_min_bytes(random.int32())
        .with_max_bytes(random.int32())
        .with_isolation_level(random.below(2) as i8)
        .with_topics(random.list(|random| sample_topic(version, random)))
        .with_unknown_tagged_fields(tags(flexible, random));
    match version >= 15 {
        true => {
            request = request.with_replica_state(
                ReplicaState::default()
                    .with_replica_id(random.int32().into())
                    .with_replica_epoch(random.int64())
                    .with_unknown_tagged_fields(tags(true, random)),
            );
        }
        false => request = request.with_replica_id(random.int32().into()),
    }
    if version >= 7 {
        let forgotten = random.list(|random| sample_forgotten(version, random));
        request = request
            .with_session_id(random.int32())
            .with_session_epoch(random.int32())
            .with_forgotten_topics_data(forgotten);
    }
    if version >= 11 {
        request = request.with_rack_id(text(random));
    }
    if flexible {
        request = request.with_cluster_id(random.maybe(text));
    }
    request
}

fn sample_topic(version: i16, random: &mut Random) -> FetchTopic {
    let flexible = version >= 12;
    let partition = |random: &mut Random| {
        let partition = CodecPartition::default()
            .with_partition(random.int32())
            .with_fetch_offset(random.int64())
            .with_partition_max_bytes(random.int32())
            .with_current_leader_epoch(if version >= 9 { random.int32() } else { -1 })
            .with_last_fetched_epoch(if version >= 12 { random.int32() } else { -1 })
            .with_log_start_offset(if version >= 5 { random.int64() } else { -1 })
            .with_unknown_tagged_fields(tags(flexible, random));
        let partition = match version >= 17 {
            true => partition.with_replica_directory_id(uuid(random)),
            false => partition,
        };
        match version >= 18 {
            true => partition.with_high_watermark(random.int64()),
            false => partition,
        }
    };
    let topic = FetchTopic::default()
        .with_partitions(random.list(partition))
        .with_unknown_tagged_fields(tags(flexible, random));
    match version >= 13 {
        true => topic.with_topic_id(uuid(random)),
        false => topic.with_topic(topic_name(random)),
    }
}

fn sample_forgotten(version: i16, random: &mut Random) -> ForgottenTopic {
    let topic = ForgottenTopic::default()
        .with_partitions(random.list(Random::int32))
        .with_unknown_tagged_fields(tags(version >= 12, random));
    match version >= 13 {
        true => topic.with_topic_id(uuid(random)),
        false => topic.with_topic(topic_name(random)),
    }
}

/// The request without what our decoder passes over.
fn as_kept(mut request: codec::FetchRequest) -> codec::FetchRequest {
    request.unknown_tagged_fields.clear();
    request.cluster_id = None;
    request.replica_state.unknown_tagged_fields.clear();
    for topic in &mut request.topics {
        topic.unknown_tagged_fields.clear();
        for partition in &mut topic.partitions {
            partition.unknown_tagged_fields.clear();
            partition.replica_directory_id = uuid::Uuid::nil();
            partition.high_watermark = i64::MAX;
        }
    }
    request.forgotten_topics_data.iter_mut().for_each(|t| t.unknown_tagged_fields.clear());
    request
}

fn as_codec(request: &FetchRequest, version: i16) -> codec::FetchRequest {
    let topics = request.topics().map(|(topic, partitions)| {
        let partitions = partitions.iter().map(|partition| {
            CodecPartition::default()
                .with_partition(partition.partition)
                .with_current_leader_epoch(partition.current_leader_epoch.0)
                .with_fetch_offset(partition.fetch_offset.0)
                .with_last_fetched_epoch(partition.last_fetched_epoch.0)
                .with_log_start_offset(partition.log_start_offset.0)
                .with_partition_max_bytes(partition.partition_max_bytes)
        });
        let codec = FetchTopic::default().with_partitions(partitions.collect());
        match topic {
            TopicRef::Name(name) => codec.with_topic(name.clone().into()),
            TopicRef::Id(id) => codec.with_topic_id(uuid::Uuid::from_bytes(id.0)),
        }
    });
    let forgotten = request.forgotten_topics().map(|(topic, partitions)| {
        let codec = ForgottenTopic::default().with_partitions(partitions.to_vec());
        match topic {
            TopicRef::Name(name) => codec.with_topic(name.clone().into()),
            TopicRef::Id(id) => codec.with_topic_id(uuid::Uuid::from_bytes(id.0)),
        }
    });
    let codec = codec::FetchRequest::default()
        .with_max_wait_ms(request.max_wait_ms)
        .with_min_bytes(request.min_bytes)
        .with_max_bytes(request.max_bytes)
        .with_isolation_level(i8::from(request.read_committed))
        .with_session_id(request.session_id)
        .with_session_epoch(request.session_epoch)
        .with_topics(topics.collect())
        .with_forgotten_topics_data(forgotten.collect())
        .with_rack_id(request.rack_id.clone());
    let replica_id = request.replica_id.0.into();
    match version >= 15 {
        true => codec.with_replica_state(
            ReplicaState::default()
                .with_replica_id(replica_id)
                .with_replica_epoch(request.replica_epoch),
        ),
        false => codec.with_replica_id(replica_id),
    }
}

fn sample_records(random: &mut Random) -> RecordChunks {
    let entry = |random: &mut Random| Entry {
        header: [random.int8() as u8; BATCH_HEADER_LEN],
        records: random.bytes(100).into(),
    };
    match random.below(3) {
        0 => RecordChunks::None,
        1 => RecordChunks::Entries(random.list(entry)),
        _ => RecordChunks::Bytes(random.list(|random| random.bytes(100).into())),
    }
}

fn sample_response(version: i16, random: &mut Random) -> FetchResponse {
    let partition = |random: &mut Random| FetchPartitionResponse {
        partition: random.int32(),
        error_code: ErrorCode::ALL[random.below(ErrorCode::ALL.len())],
        high_watermark: Offset(random.int64()),
        last_stable_offset: Offset(random.int64()),
        log_start_offset: Offset(random.int64()),
        diverging_epoch: random.maybe(|random| EpochEndOffset {
            epoch: LeaderEpoch(random.below(100) as i32),
            end_offset: Offset(random.int64()),
        }),
        current_leader: random.maybe(|random| CurrentLeader {
            leader_id: BrokerId(random.below(100) as i32),
            leader_epoch: LeaderEpoch(random.int32()),
        }),
        aborted_transactions: random.maybe(|random| {
            random.list(|random| AbortedTransaction {
                producer_id: ProducerId(random.int64()),
                first_offset: Offset(random.int64()),
            })
        }),
        preferred_read_replica: random.maybe(|random| BrokerId(random.below(100) as i32)),
        records: sample_records(random),
    };
    FetchResponse {
        throttle_time_ms: random.int32(),
        error_code: ErrorCode::ALL[random.below(ErrorCode::ALL.len())],
        session_id: random.int32(),
        topics: random.list(|random| FetchTopicResponse {
            topic: match version >= 13 {
                true => TopicRef::Id(Uuid(*uuid(random).as_bytes())),
                false => TopicRef::Name(text(random)),
            },
            partitions: random.list(partition),
        }),
        node_endpoints: random.list(|random| NodeEndpoint {
            node_id: BrokerId(random.int32()),
            host: random.text(),
            port: random.int32(),
            rack: random.maybe(Random::text),
        }),
    }
}

fn response_as_codec(response: &FetchResponse, version: i16) -> codec::FetchResponse {
    let topics = response.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| partition_as_codec(p, version));
        let codec = FetchableTopicResponse::default().with_partitions(partitions.collect());
        match &topic.topic {
            TopicRef::Name(name) => codec.with_topic(name.clone().into()),
            TopicRef::Id(id) => codec.with_topic_id(uuid::Uuid::from_bytes(id.0)),
        }
    });
    let endpoints = response.node_endpoints.iter().filter(|_| version >= 16).map(|endpoint| {
        CodecEndpoint::default()
            .with_node_id(endpoint.node_id.0.into())
            .with_host(StrBytes::from_string(endpoint.host.clone()))
            .with_port(endpoint.port)
            .with_rack(endpoint.rack.clone().map(StrBytes::from_string))
    });
    let codec = codec::FetchResponse::default()
        .with_throttle_time_ms(response.throttle_time_ms)
        .with_responses(topics.collect())
        .with_node_endpoints(endpoints.collect());
    match version >= 7 {
        true => {
            codec.with_error_code(response.error_code.code()).with_session_id(response.session_id)
        }
        false => codec,
    }
}

fn partition_as_codec(partition: &FetchPartitionResponse, version: i16) -> PartitionData {
    let aborted = partition.aborted_transactions.as_ref().map(|aborted| {
        let aborted = aborted.iter().map(|transaction| {
            CodecAborted::default()
                .with_producer_id(transaction.producer_id.0.into())
                .with_first_offset(transaction.first_offset.0)
        });
        aborted.collect()
    });
    let mut codec = PartitionData::default()
        .with_partition_index(partition.partition)
        .with_error_code(partition.error_code.code())
        .with_high_watermark(partition.high_watermark.0)
        .with_last_stable_offset(partition.last_stable_offset.0)
        .with_aborted_transactions(aborted)
        .with_records(Some(joined(&partition.records)));
    if version >= 5 {
        codec = codec.with_log_start_offset(partition.log_start_offset.0);
    }
    if let Some(replica) = partition.preferred_read_replica.filter(|_| version >= 11) {
        codec = codec.with_preferred_read_replica(replica.0.into());
    }
    if let Some(end) = partition.diverging_epoch.filter(|_| version >= 12) {
        codec = codec.with_diverging_epoch(
            CodecEpochEnd::default().with_epoch(end.epoch.0).with_end_offset(end.end_offset.0),
        );
    }
    if let Some(leader) = partition.current_leader.filter(|_| version >= 12) {
        codec = codec.with_current_leader(
            LeaderIdAndEpoch::default()
                .with_leader_id(leader.leader_id.0.into())
                .with_leader_epoch(leader.leader_epoch.0),
        );
    }
    codec
}

fn joined(records: &RecordChunks) -> Bytes {
    match records {
        RecordChunks::None => Bytes::new(),
        RecordChunks::Entries(entries) => {
            let pieces = entries.iter().flat_map(|entry| [&entry.header[..], &entry.records[..]]);
            pieces.flatten().copied().collect()
        }
        RecordChunks::Bytes(pieces) => pieces.iter().flatten().copied().collect(),
    }
}
