//! Bytes that no client of good will sends, for every API and version that the broker offers.

use std::{
    io::{ErrorKind, Read as _},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        AlterConfigsRequest, ApiKey, ApiVersionsRequest, BrokerId, CreatePartitionsRequest,
        CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest,
        DescribeLogDirsRequest, DescribeProducersRequest, DescribeQuorumRequest,
        DescribeTopicPartitionsRequest, FetchRequest, FindCoordinatorRequest, GroupId,
        HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest,
        LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest,
        MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
        OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest, UpdateFeaturesRequest,
        alter_configs_request,
        create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
        describe_configs_request::DescribeConfigsResource,
        describe_log_dirs_request::DescribableLogDirTopic,
        describe_producers_request, describe_quorum_request, describe_topic_partitions_request,
        incremental_alter_configs_request,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestGroup,
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        sync_group_request::SyncGroupRequestAssignment,
        update_features_request::FeatureUpdateKey,
    },
    protocol::{Encodable, Message, Request, StrBytes},
};
use tidelog_tests::{
    batch::{self, Batch},
    node::{Node, Options},
    seed::Random,
    wire::{Wire, encode, fetch_request, produce_request, topic_name},
};
use uuid::Uuid;

const MIB: u64 = 1024 * 1024;
/// Bytes of a request's header that say which API, which version, and which request this is.
const HEADER_START_BYTES: usize = 8;
/// What a few thousand bad requests may add to a log that has no line a request.
const LOG_LINES_MAX: usize = 20;

#[test]
fn no_request_of_any_version_breaks_the_broker_or_fills_its_memory() {
    let test = "no_request_of_any_version_breaks_the_broker_or_fills_its_memory";
    let mut random = Random::new(test);
    let node = Node::start(Options::default());
    let mut friend = node.wire();
    assert_eq!(friend.create_topic("victim", &[]).expect("an answer"), 0);
    let idle = node.resident_bytes();
    let log_lines = node.log().len();
    let mut attack = Attack { node: &node, wire: None, sent: 0 };
    let topic_id = friend.topic_id("victim").expect("an answer");
    for (key, min, max) in friend.api_versions().expect("an answer") {
        for version in min..=max {
            let honest = honest_frame(key, version, topic_id);
            attack.send_mutations(&honest, &mut random);
        }
        friend.api_versions().unwrap_or_else(|error| panic!("after API {key}: {error}"));
        let peak = node.peak_resident_bytes();
        assert!(peak < idle + 128 * MIB, "API {key}: {} MiB", peak / MIB);
    }
    eprintln!("{} bad requests", attack.sent);
    assert!(attack.sent > 10_000, "only {} bad requests", attack.sent);
    let said = node.log().len() - log_lines;
    assert!(said <= LOG_LINES_MAX, "{said} lines in the log:\n{}", node.log_text());
}

#[test]
fn frames_of_absurd_lengths_end_their_connection_only() {
    let node = Node::start(Options::default());
    let mut friend = node.wire();
    for length in [i32::MIN, -1, 0, 1, 3, 7, 104_857_601, i32::MAX] {
        let mut wire = node.wire();
        std::io::Write::write_all(wire.stream(), &length.to_be_bytes()).expect("sent");
        let body = vec![0; usize::try_from(length.clamp(0, 64)).expect("not negative")];
        let _ = std::io::Write::write_all(wire.stream(), &body);
        let mut rest = Vec::new();
        let read = wire.stream().read_to_end(&mut rest);
        let closed = read.is_ok() || read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset);
        assert!(closed && rest.is_empty(), "length {length}: closed without a word");
        friend.api_versions().expect("others are served");
    }
}

#[test]
fn an_unknown_api_version_is_answered_so_that_clients_can_step_down() {
    let node = Node::start(Options::default());
    for version in [5, 99, i16::MAX] {
        let mut wire = node.wire();
        let mut frame = encode(&ApiVersionsRequest::default(), 3, 7);
        frame[2..4].copy_from_slice(&version.to_be_bytes());
        wire.send_frame(&frame).expect("sent");
        let answer = wire.receive_frame().expect("an answer");
        assert_eq!(answer[..4], 7_i32.to_be_bytes(), "the request's correlation id");
        assert_eq!(answer[4..6], 35_i16.to_be_bytes(), "UNSUPPORTED_VERSION in a body of v0");
    }
}

#[test]
fn a_batch_that_lies_is_refused_and_leaves_no_trace() {
    let node = Node::start(Options::default());
    let mut wire = node.wire();
    assert_eq!(wire.create_topic("honest", &[]).expect("an answer"), 0);
    let honest = Batch::new(vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]).encode();
    let mut next_offset = 0;
    let mut believed = Vec::new();
    for Lie { name, position, bytes, sealed, codes } in lies() {
        let mut batch = honest.clone();
        batch[position..position + bytes.len()].copy_from_slice(&bytes);
        if sealed {
            batch::seal(&mut batch);
        }
        let (code, _) = wire.produce("honest", batch.freeze()).expect(name);
        if !codes.contains(&code) {
            believed.push(format!("{name}: error {code}, expected one of {codes:?}"));
        }
        let (code, base_offset) = wire.produce("honest", honest.clone().freeze()).expect(name);
        assert_eq!((code, base_offset), (0, next_offset), "{name}: an honest batch after it");
        next_offset += 3;
    }
    for (name, records) in shapes(&honest) {
        let (code, _) = wire.produce("honest", records).expect(name);
        if ![CORRUPT_MESSAGE, INVALID_RECORD].contains(&code) {
            believed.push(format!("{name}: error {code}"));
        }
    }
    assert!(believed.is_empty(), "{}", believed.join("\n"));
    read_back(&mut wire, "honest", next_offset);
}

/// Reads all of partition 0 and checks what a consumer would.
fn read_back(wire: &mut Wire, topic: &str, end: i64) {
    let mut offset = 0;
    while offset < end {
        let fetched = wire.fetch(topic, offset, 1 << 20).expect("an answer");
        assert_eq!((fetched.error_code, fetched.high_watermark), (0, end));
        let batches = batch::split(fetched.records);
        assert!(!batches.is_empty(), "records from {offset}");
        for (base_offset, bytes) in batches {
            assert_eq!(base_offset, offset, "no gap");
            let mut sealed = BytesMut::from(&bytes[..]);
            batch::seal(&mut sealed);
            assert_eq!(sealed, bytes, "the CRC at {offset} is true");
            offset = batch::next_offset(&bytes);
        }
    }
    assert_eq!(offset, end);
}

/// One field of a batch that is not true.
struct Lie {
    name: &'static str,
    position: usize,
    bytes: Vec<u8>,
    /// Whether the CRC vouches for the lie.
    sealed: bool,
    codes: &'static [i16],
}

const CORRUPT_MESSAGE: i16 = 2;
const INVALID_TIMESTAMP: i16 = 32;
const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
const INVALID_RECORD: i16 = 87;

fn lies() -> Vec<Lie> {
    let lie = |name, position, bytes: &[u8], codes| Lie {
        name,
        position,
        bytes: bytes.to_vec(),
        sealed: true,
        codes,
    };
    const BROKEN: &[i16] = &[CORRUPT_MESSAGE, INVALID_RECORD];
    const INVALID: &[i16] = &[INVALID_RECORD];
    let mut lies = vec![
        lie("base offset 1", 0, &1_i64.to_be_bytes(), INVALID),
        lie("base offset -1", 0, &(-1_i64).to_be_bytes(), INVALID),
        lie("length 0", 8, &0_i32.to_be_bytes(), BROKEN),
        lie("length -1", 8, &(-1_i32).to_be_bytes(), BROKEN),
        lie("length 48", 8, &48_i32.to_be_bytes(), BROKEN),
        lie("length i32::MAX", 8, &i32::MAX.to_be_bytes(), BROKEN),
        lie("magic 0", 16, &[0], BROKEN),
        lie("magic 1", 16, &[1], BROKEN),
        lie("magic 3", 16, &[3], BROKEN),
        lie("magic -1", 16, &[0xff], BROKEN),
        lie("a control batch", 21, &0x20_i16.to_be_bytes(), INVALID),
        lie(
            "a transactional batch",
            21,
            &0x10_i16.to_be_bytes(),
            &[TRANSACTIONAL_ID_AUTHORIZATION_FAILED, INVALID_RECORD],
        ),
        lie(
            "compression 5",
            21,
            &5_i16.to_be_bytes(),
            &[INVALID_RECORD, UNSUPPORTED_COMPRESSION_TYPE, CORRUPT_MESSAGE],
        ),
        lie("last offset delta -1", 23, &(-1_i32).to_be_bytes(), INVALID),
        lie("last offset delta 1", 23, &1_i32.to_be_bytes(), INVALID),
        lie("last offset delta i32::MAX", 23, &i32::MAX.to_be_bytes(), INVALID),
        lie("newest in the far future", 35, &i64::MAX.to_be_bytes(), &[INVALID_TIMESTAMP]),
        lie("a producer without a sequence", 43, &7_i64.to_be_bytes(), INVALID),
        lie("count 0", 57, &0_i32.to_be_bytes(), INVALID),
        lie("count -1", 57, &(-1_i32).to_be_bytes(), INVALID),
        lie("count 4", 57, &4_i32.to_be_bytes(), INVALID),
        lie("count i32::MAX", 57, &i32::MAX.to_be_bytes(), INVALID),
        lie("delta and count i32::MAX", 23, &i32::MAX.to_be_bytes(), INVALID),
    ];
    // Any byte below the CRC, changed without it.
    for position in [21, 23, 27, 35, 43, 51, 53, 57, 61, 62, 66] {
        let codes = &[CORRUPT_MESSAGE];
        let bytes = vec![0x55];
        lies.push(Lie { name: "a wrong CRC", position, bytes, sealed: false, codes });
    }
    lies
}

/// What is not exactly one batch.
fn shapes(honest: &[u8]) -> Vec<(&'static str, Bytes)> {
    let twice = [honest, honest].concat();
    let longer = [honest, b"junk"].concat();
    vec![
        ("nothing", Bytes::new()),
        ("one byte", Bytes::from_static(b"x")),
        ("half a header", Bytes::copy_from_slice(&honest[..30])),
        ("a header only", Bytes::copy_from_slice(&honest[..batch::HEADER_BYTES])),
        ("all but a byte", Bytes::copy_from_slice(&honest[..honest.len() - 1])),
        ("two batches", Bytes::from(twice)),
        ("a batch and junk", Bytes::from(longer)),
    ]
}

/// Sends frames one after the other and does not care what becomes of its connection.
struct Attack<'a> {
    node: &'a Node,
    wire: Option<Wire>,
    sent: u32,
}

impl Attack<'_> {
    fn send_mutations(&mut self, honest: &[u8], random: &mut Random) {
        const HUGE: [&[u8]; 4] = [
            &[0x7f, 0xff, 0xff, 0xff],       // i32::MAX, and i16::MAX at its start
            &[0xff, 0xff, 0xff, 0xff, 0x07], // the same as a varint
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f], // more than a varint holds
            &[0x80, 0x00, 0x00, 0x00],       // i32::MIN
        ];
        for position in HEADER_START_BYTES..honest.len() {
            self.send(&honest[..position]);
            for huge in HUGE {
                let mut frame = honest.to_vec();
                let end = honest.len().min(position + huge.len());
                frame[position..end].copy_from_slice(&huge[..end - position]);
                self.send(&frame);
            }
        }
        for _ in 0..20 {
            let mut frame = honest.to_vec();
            for _ in 0..=random.below(4) {
                let position = HEADER_START_BYTES + random.index(honest.len() - HEADER_START_BYTES);
                frame[position] = random.bits().to_le_bytes()[0];
            }
            self.send(&frame);
        }
    }

    fn send(&mut self, frame: &[u8]) {
        self.sent += 1;
        let mut wire = self.wire.take().unwrap_or_else(|| {
            let mut wire = self.node.wire();
            // Some requests ask to be answered late: those answers are not waited for.
            let patience = Some(Duration::from_millis(20));
            wire.stream().set_read_timeout(patience).expect("a socket");
            wire
        });
        let answered = wire.send_frame(frame).and_then(|()| wire.receive_frame());
        self.wire = answered.is_ok().then_some(wire);
    }
}

/// A request that the broker would answer, as one frame, at any version that it offers.
fn honest_frame(key: i16, version: i16, topic_id: Uuid) -> Vec<u8> {
    let api = ApiKey::try_from(key).expect("an API of Kafka's");
    match api {
        ApiKey::Produce => frame(&produce(version, topic_id), version),
        ApiKey::Fetch => frame(&fetch(version, topic_id), version),
        ApiKey::ListOffsets => frame(&list_offsets(), version),
        ApiKey::Metadata => frame(&metadata(), version),
        ApiKey::ApiVersions => frame(&api_versions(version), version),
        ApiKey::CreateTopics => frame(&create_topics(), version),
        ApiKey::DeleteTopics => frame(&delete_topics(version), version),
        ApiKey::DescribeConfigs => frame(&describe_configs(), version),
        ApiKey::DescribeCluster => frame(&DescribeClusterRequest::default(), version),
        ApiKey::InitProducerId => frame(&init_producer_id(), version),
        ApiKey::FindCoordinator => frame(&find_coordinator(version), version),
        ApiKey::OffsetCommit
        | ApiKey::OffsetFetch
        | ApiKey::JoinGroup
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::SyncGroup
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups
        | ApiKey::DeleteGroups
        | ApiKey::OffsetDelete => honest_group_frame(api, version),
        ApiKey::OffsetForLeaderEpoch => frame(&offset_for_leader_epoch(), version),
        ApiKey::DeleteRecords => frame(&delete_records(), version),
        ApiKey::AlterConfigs => frame(&alter_configs(), version),
        ApiKey::DescribeLogDirs => frame(&describe_log_dirs(), version),
        ApiKey::CreatePartitions => frame(&create_partitions(), version),
        ApiKey::IncrementalAlterConfigs => frame(&incremental_alter_configs(), version),
        ApiKey::DescribeQuorum => frame(&describe_quorum(), version),
        ApiKey::UpdateFeatures => frame(&update_features(version), version),
        ApiKey::DescribeProducers => frame(&describe_producers(), version),
        ApiKey::ListConfigResources => frame(&list_config_resources(version), version),
        ApiKey::DescribeTopicPartitions => frame(&describe_topic_partitions(), version),
        other => panic!("{other:?} is offered: give it an honest request here"),
    }
}

/// The same for the APIs of groups. Versions that name topics by id are asked about none: the codec
/// writes these as it writes the version before.
fn honest_group_frame(api: ApiKey, version: i16) -> Vec<u8> {
    let group = || GroupId(text("group"));
    match api {
        ApiKey::OffsetCommit => {
            let partition = OffsetCommitRequestPartition::default();
            let topic = OffsetCommitRequestTopic::default()
                .with_name(topic_name("victim"))
                .with_partitions(vec![partition]);
            let topics = if version < 10 { vec![topic] } else { Vec::new() };
            let request = OffsetCommitRequest::default().with_group_id(group());
            frame(&request.with_topics(topics), version)
        }
        ApiKey::OffsetFetch if version < 8 => {
            frame(&OffsetFetchRequest::default().with_group_id(group()), version)
        }
        ApiKey::OffsetFetch => {
            let wanted = OffsetFetchRequestGroup::default().with_group_id(group());
            let wanted = wanted.with_topics(None);
            frame(&OffsetFetchRequest::default().with_groups(vec![wanted]), version)
        }
        ApiKey::JoinGroup => {
            let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
            let request = JoinGroupRequest::default().with_group_id(group());
            let request = request.with_protocol_type(text("consumer"));
            frame(&request.with_protocols(vec![protocol]), version)
        }
        ApiKey::Heartbeat => frame(&HeartbeatRequest::default().with_group_id(group()), version),
        ApiKey::LeaveGroup if version < 3 => {
            frame(&LeaveGroupRequest::default().with_group_id(group()), version)
        }
        ApiKey::LeaveGroup => {
            let request = LeaveGroupRequest::default().with_group_id(group());
            frame(&request.with_members(vec![MemberIdentity::default()]), version)
        }
        ApiKey::SyncGroup => {
            let assignment = SyncGroupRequestAssignment::default();
            let request = SyncGroupRequest::default().with_group_id(group());
            frame(&request.with_assignments(vec![assignment]), version)
        }
        ApiKey::DescribeGroups => {
            frame(&DescribeGroupsRequest::default().with_groups(vec![group()]), version)
        }
        ApiKey::ListGroups => frame(&ListGroupsRequest::default(), version),
        ApiKey::DeleteGroups => {
            frame(&DeleteGroupsRequest::default().with_groups_names(vec![group()]), version)
        }
        ApiKey::OffsetDelete => {
            frame(&OffsetDeleteRequest::default().with_group_id(group()), version)
        }
        other => unreachable!("{other:?} is none of a group's"),
    }
}

/// Encodes at the nearest version that the codec knows, under the version asked for.
fn frame<R: Request + Encodable + Message>(request: &R, version: i16) -> Vec<u8> {
    let known = version.clamp(R::VERSIONS.min, R::VERSIONS.max);
    let mut frame = encode(request, known, 1);
    frame[2..4].copy_from_slice(&version.to_be_bytes());
    frame
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn produce(version: i16, topic_id: Uuid) -> ProduceRequest {
    let batch = Batch::new(vec![b"a record".to_vec()]).encode().freeze();
    let mut request = produce_request("victim", batch, 1);
    if version >= 13 {
        request.topic_data[0].name = topic_name("");
        request.topic_data[0].topic_id = topic_id;
    }
    request
}

fn fetch(version: i16, topic_id: Uuid) -> FetchRequest {
    let mut request = fetch_request("victim", 0, 1 << 20);
    if version >= 13 {
        request.topics[0].topic = topic_name("");
        request.topics[0].topic_id = topic_id;
    }
    request
}

fn init_producer_id() -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transactional_id(None)
}

fn list_offsets() -> ListOffsetsRequest {
    let partition = ListOffsetsPartition::default().with_timestamp(-1);
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name("victim"))
        .with_partitions(vec![partition]);
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}

fn metadata() -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name("victim")));
    MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(true)
}

fn api_versions(version: i16) -> ApiVersionsRequest {
    let request = ApiVersionsRequest::default();
    match version {
        ..3 => request,
        3.. => request
            .with_client_software_name(text("test"))
            .with_client_software_version(text("1.0")),
    }
}

fn create_topics() -> CreateTopicsRequest {
    let setting = CreatableTopicConfig::default()
        .with_name(text("segment.bytes"))
        .with_value(Some(text("100000")));
    let topic = CreatableTopic::default()
        .with_name(topic_name("made"))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![setting]);
    CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(1_000)
        .with_validate_only(true)
}

fn delete_topics(version: i16) -> DeleteTopicsRequest {
    let request = DeleteTopicsRequest::default().with_timeout_ms(1_000);
    let name = topic_name("nowhere");
    match version {
        ..6 => request.with_topic_names(vec![name]),
        6.. => request.with_topics(vec![DeleteTopicState::default().with_name(Some(name))]),
    }
}

fn describe_configs() -> DescribeConfigsRequest {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("victim"))
        .with_configuration_keys(Some(vec![text("segment.bytes")]));
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    let request = FindCoordinatorRequest::default();
    match version {
        ..4 => request.with_key(text("group")),
        4.. => request.with_coordinator_keys(vec![text("group")]),
    }
}

fn offset_for_leader_epoch() -> OffsetForLeaderEpochRequest {
    let partition =
        OffsetForLeaderPartition::default().with_current_leader_epoch(-1).with_leader_epoch(0);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(topic_name("victim"))
        .with_partitions(vec![partition]);
    OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
}

fn delete_records() -> DeleteRecordsRequest {
    let topic = DeleteRecordsTopic::default()
        .with_name(topic_name("victim"))
        .with_partitions(vec![DeleteRecordsPartition::default().with_offset(0)]);
    DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000)
}

fn alter_configs() -> AlterConfigsRequest {
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(text("flush.ms"))
        .with_value(Some(text("1000")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("victim"))
        .with_configs(vec![config]);
    AlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(true)
}

fn describe_log_dirs() -> DescribeLogDirsRequest {
    let topic =
        DescribableLogDirTopic::default().with_topic(topic_name("victim")).with_partitions(vec![0]);
    DescribeLogDirsRequest::default().with_topics(Some(vec![topic]))
}

fn create_partitions() -> CreatePartitionsRequest {
    let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
    let topic = CreatePartitionsTopic::default()
        .with_name(topic_name("victim"))
        .with_count(2)
        .with_assignments(Some(vec![assignment]));
    CreatePartitionsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(1_000)
        .with_validate_only(true)
}

fn incremental_alter_configs() -> IncrementalAlterConfigsRequest {
    let config = incremental_alter_configs_request::AlterableConfig::default()
        .with_name(text("flush.ms"))
        .with_value(Some(text("1000")));
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("victim"))
        .with_configs(vec![config]);
    IncrementalAlterConfigsRequest::default()
        .with_resources(vec![resource])
        .with_validate_only(true)
}

fn describe_quorum() -> DescribeQuorumRequest {
    let topic = describe_quorum_request::TopicData::default()
        .with_topic_name(topic_name("__cluster_metadata"))
        .with_partitions(vec![describe_quorum_request::PartitionData::default()]);
    DescribeQuorumRequest::default().with_topics(vec![topic])
}

fn update_features(version: i16) -> UpdateFeaturesRequest {
    let update = FeatureUpdateKey::default()
        .with_feature(text("tidelog.metadata.version"))
        .with_max_version_level(1);
    UpdateFeaturesRequest::default()
        .with_feature_updates(vec![update])
        .with_timeout_ms(1_000)
        .with_validate_only(version >= 1)
}

fn describe_producers() -> DescribeProducersRequest {
    let topic = describe_producers_request::TopicRequest::default()
        .with_name(topic_name("victim"))
        .with_partition_indexes(vec![0]);
    DescribeProducersRequest::default().with_topics(vec![topic])
}

fn list_config_resources(version: i16) -> ListConfigResourcesRequest {
    let types = if version >= 1 { vec![2, 4] } else { Vec::new() };
    ListConfigResourcesRequest::default().with_resource_types(types)
}

fn describe_topic_partitions() -> DescribeTopicPartitionsRequest {
    let topic =
        describe_topic_partitions_request::TopicRequest::default().with_name(topic_name("victim"));
    let cursor =
        describe_topic_partitions_request::Cursor::default().with_topic_name(topic_name("victim"));
    DescribeTopicPartitionsRequest::default()
        .with_topics(vec![topic])
        .with_response_partition_limit(10)
        .with_cursor(Some(cursor))
}
