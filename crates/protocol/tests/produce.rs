//! Our Produce decoder and encoder against the codec's, in every version.

mod common;

use std::borrow::Cow;

use bytes::{Buf, Bytes};
use common::{
    Random,
    allocation::{Counting, peak_of},
    mutate::mutate,
    samples::{tags, text, topic_name, uuid, versions},
};
use kafka_protocol::messages::{
    self as codec,
    produce_request::{PartitionProduceData, TopicProduceData},
    produce_response::{
        BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint as CodecEndpoint,
        PartitionProduceResponse, TopicProduceResponse,
    },
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;
use tidelog_protocol::{
    ApiKey, RequestError, TopicRef,
    leader_hint::{CurrentLeader, NodeEndpoint},
    produce::{
        ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopicResponse,
        RecordError,
    },
};
use tidelog_types::{BrokerId, ErrorCode, LeaderEpoch, Offset, Uuid};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MUTATIONS: usize = 60;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_the_codec_encodes_is_decoded_alike(seed: u64) {
        for version in versions(ApiKey::Produce) {
            let mut random = Random::new(seed);
            let request = sample_request(version, &mut random);
            let mut body = encode(&request, version);
            body.extend(random.bytes(8));
            let decoded = ProduceRequest::decode(version, body.into());
            prop_assert_eq!(decoded.map(|decoded| as_codec(&decoded)), Ok(without_tags(request)));
        }
    }

    #[test]
    fn a_spoiled_request_never_takes_memory_beyond_its_bound(seed: u64) {
        for version in versions(ApiKey::Produce) {
            let mut random = Random::new(seed);
            let body = encode(&sample_request(version, &mut random), version);
            for _ in 0..MUTATIONS {
                let mut body = body.clone();
                mutate(&mut body, &mut random);
                let bytes = body.len();
                let body = Bytes::from(body);
                let (_, peak) = peak_of(|| ProduceRequest::decode(version, body));
                prop_assert!(peak <= 2 * bytes + 64 * 1024, "{} for {}", peak, bytes);
            }
        }
    }

    #[test]
    fn a_response_is_encoded_as_the_codec_does(seed: u64, correlation_id: i32) {
        for version in versions(ApiKey::Produce) {
            let response = sample_response(version, &mut Random::new(seed));
            let mut frame = response.encode(version, correlation_id).to_bytes();
            prop_assert_eq!(frame.get_i32() as usize, frame.len());
            prop_assert_eq!(frame.get_i32(), correlation_id);
            if version >= 9 {
                prop_assert_eq!(frame.get_u8(), 0);
            }
            let mut expected = Vec::new();
            let codec = response_as_codec(&response, version);
            codec.encode(&mut expected, version).unwrap();
            prop_assert_eq!(&frame, &expected, "version {}", version);
            prop_assert_eq!(codec::ProduceResponse::decode(&mut frame, version).unwrap(), codec);
        }
    }
}

#[test]
fn a_flood_of_partitions_without_records_is_refused() {
    for version in [3, 12, 13] {
        let partitions = vec![PartitionProduceData::default().with_records(None); 20_000];
        let topic = TopicProduceData::default().with_partition_data(partitions);
        let request = codec::ProduceRequest::default().with_topic_data(vec![topic]);
        let refused = ProduceRequest::decode(version, encode(&request, version).into());
        assert!(matches!(refused, Err(RequestError::TooCostly { .. })), "{version}: {refused:?}");
    }
}

#[test]
fn a_small_batch_does_not_pin_a_large_frame() {
    let records = |index, bytes| {
        PartitionProduceData::default()
            .with_index(index)
            .with_records(Some(Bytes::from(vec![index as u8; bytes])))
    };
    let topic =
        TopicProduceData::default().with_partition_data(vec![records(1, 100), records(2, 10_000)]);
    let request = codec::ProduceRequest::default().with_topic_data(vec![topic]);
    let body = Bytes::from(encode(&request, 9));
    let decoded = ProduceRequest::decode(9, body.clone()).unwrap();
    let (_, partitions) = decoded.topics().next().unwrap();
    let shared = partitions.iter().map(|partition| {
        let records = partition.records.as_ref().unwrap();
        body.as_ptr_range().contains(&records.as_ptr())
    });
    assert_eq!(shared.collect::<Vec<_>>(), [false, true]);
}

fn encode(request: &codec::ProduceRequest, version: i16) -> Vec<u8> {
    let mut body = Vec::new();
    request.encode(&mut body, version).expect("a sample fits its version");
    body
}

fn sample_request(version: i16, random: &mut Random) -> codec::ProduceRequest {
    let flexible = version >= 9;
    let partition = |random: &mut Random| {
        PartitionProduceData::default()
            .with_index(random.int32())
            .with_records(random.maybe(|random| random.bytes(300).into()))
            .with_unknown_tagged_fields(tags(flexible, random))
    };
    let topic = |random: &mut Random| {
        let topic = TopicProduceData::default()
            .with_partition_data(random.list(partition))
            .with_unknown_tagged_fields(tags(flexible, random));
        match version >= 13 {
            true => topic.with_topic_id(uuid(random)),
            false => topic.with_name(topic_name(random)),
        }
    };
    codec::ProduceRequest::default()
        .with_transactional_id(random.maybe(|random| text(random).into()))
        .with_acks(random.int16())
        .with_timeout_ms(random.int32())
        .with_topic_data(random.list(topic))
        .with_unknown_tagged_fields(tags(flexible, random))
}

fn without_tags(mut request: codec::ProduceRequest) -> codec::ProduceRequest {
    request.unknown_tagged_fields.clear();
    for topic in &mut request.topic_data {
        topic.unknown_tagged_fields.clear();
        topic.partition_data.iter_mut().for_each(|p| p.unknown_tagged_fields.clear());
    }
    request
}

fn as_codec(request: &ProduceRequest) -> codec::ProduceRequest {
    let topics = request.topics().map(|(topic, partitions)| {
        let partitions = partitions.iter().map(|partition| {
            PartitionProduceData::default()
                .with_index(partition.index)
                .with_records(partition.records.clone())
        });
        let codec = TopicProduceData::default().with_partition_data(partitions.collect());
        match topic {
            TopicRef::Name(name) => codec.with_name(name.clone().into()),
            TopicRef::Id(id) => codec.with_topic_id(uuid::Uuid::from_bytes(id.0)),
        }
    });
    codec::ProduceRequest::default()
        .with_transactional_id(request.transactional_id.clone().map(Into::into))
        .with_acks(request.acks)
        .with_timeout_ms(request.timeout_ms)
        .with_topic_data(topics.collect())
}

fn sample_response(version: i16, random: &mut Random) -> ProduceResponse {
    let message = |random: &mut Random| random.maybe(|random| Cow::Owned(random.text()));
    let partition = |random: &mut Random| ProducePartitionResponse {
        index: random.int32(),
        error_code: ErrorCode::ALL[random.below(ErrorCode::ALL.len())],
        base_offset: Offset(random.int64()),
        log_append_time_ms: random.int64(),
        log_start_offset: Offset(random.int64()),
        record_errors: random
            .list(|random| RecordError { batch_index: random.int32(), message: message(random) }),
        error_message: message(random),
        current_leader: random.maybe(|random| CurrentLeader {
            leader_id: BrokerId(random.below(100) as i32),
            leader_epoch: LeaderEpoch(random.int32()),
        }),
    };
    ProduceResponse {
        topics: random.list(|random| ProduceTopicResponse {
            topic: match version >= 13 {
                true => TopicRef::Id(Uuid(*uuid(random).as_bytes())),
                false => TopicRef::Name(text(random)),
            },
            partitions: random.list(partition),
        }),
        throttle_time_ms: random.int32(),
        node_endpoints: random.list(|random| NodeEndpoint {
            node_id: BrokerId(random.int32()),
            host: random.text(),
            port: random.int32(),
            rack: random.maybe(Random::text),
        }),
    }
}

fn response_as_codec(response: &ProduceResponse, version: i16) -> codec::ProduceResponse {
    let topics = response.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| partition_as_codec(p, version));
        let codec = TopicProduceResponse::default().with_partition_responses(partitions.collect());
        match &topic.topic {
            TopicRef::Name(name) => codec.with_name(name.clone().into()),
            TopicRef::Id(id) => codec.with_topic_id(uuid::Uuid::from_bytes(id.0)),
        }
    });
    let endpoints = response.node_endpoints.iter().filter(|_| version >= 10).map(|endpoint| {
        CodecEndpoint::default()
            .with_node_id(endpoint.node_id.0.into())
            .with_host(StrBytes::from_string(endpoint.host.clone()))
            .with_port(endpoint.port)
            .with_rack(endpoint.rack.clone().map(StrBytes::from_string))
    });
    codec::ProduceResponse::default()
        .with_responses(topics.collect())
        .with_throttle_time_ms(response.throttle_time_ms)
        .with_node_endpoints(endpoints.collect())
}

fn partition_as_codec(
    partition: &ProducePartitionResponse,
    version: i16,
) -> PartitionProduceResponse {
    let owned = |message: &Option<Cow<'static, str>>| {
        message.clone().map(|message| StrBytes::from_string(message.into_owned()))
    };
    let mut codec = PartitionProduceResponse::default()
        .with_index(partition.index)
        .with_error_code(partition.error_code.code())
        .with_base_offset(partition.base_offset.0)
        .with_log_append_time_ms(partition.log_append_time_ms);
    if version >= 5 {
        codec = codec.with_log_start_offset(partition.log_start_offset.0);
    }
    if version >= 8 {
        let errors = partition.record_errors.iter().map(|error| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(error.batch_index)
                .with_batch_index_error_message(owned(&error.message))
        });
        codec = codec
            .with_record_errors(errors.collect())
            .with_error_message(owned(&partition.error_message));
    }
    if let Some(leader) = partition.current_leader.filter(|_| version >= 10) {
        codec = codec.with_current_leader(
            LeaderIdAndEpoch::default()
                .with_leader_id(leader.leader_id.0.into())
                .with_leader_epoch(leader.leader_epoch.0),
        );
    }
    codec
}
