//! Groups as their clients see them: found, joined, committed to, and the same after a power loss.

use std::time::{Duration, Instant};

use tidelog_protocol::{
    ApiKey,
    kafka_protocol::messages::{
        DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest, DescribeGroupsResponse,
        FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
        LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
        OffsetFetchRequest, SyncGroupRequest, SyncGroupResponse, TopicName,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic},
        offset_fetch_response::OffsetFetchResponseTopics,
        sync_group_request::SyncGroupRequestAssignment,
    },
};
use tidelog_wal::env::mem::MemFileSystem;

use crate::{
    configs::{TOPIC, described},
    context::{BrokerTest, is_pending, resolve, text},
    records::{batch, produce},
};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

const NONE: i16 = 0;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const NOT_COORDINATOR: i16 = 16;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const ILLEGAL_GENERATION: i16 = 22;
const MEMBER_ID_REQUIRED: i16 = 79;
const NON_EMPTY_GROUP: i16 = 68;
const REBALANCE_IN_PROGRESS: i16 = 27;
const UNKNOWN_MEMBER_ID: i16 = 25;
const GROUP_ID_NOT_FOUND: i16 = 69;

/// A broker whose groups wait for nobody, and whose offsets topic is there.
pub fn with_groups() -> BrokerTest {
    let test = BrokerTest::with(&[("group.initial.rebalance.delay.ms", "0")]);
    assert_eq!(find_coordinator(&test), (NONE, 1));
    settle(&test);
    test
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// Waits until no shard answers that it is loading.
fn settle(test: &BrokerTest) {
    const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    let list = || test.call(4, &ListGroupsRequest::default()).error_code;
    until("all shards are loaded", || list() != COORDINATOR_LOAD_IN_PROGRESS);
    // The loop may not have heard of its partitions yet.
    until("the topic is followed", || fetch(test, "nobody").0 != NOT_COORDINATOR);
}

fn find_coordinator(test: &BrokerTest) -> (i16, i32) {
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("group")]);
    let found = test.call(4, &request).coordinators.remove(0);
    (found.error_code, found.node_id.0)
}

pub fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

pub fn join(member_id: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(vec![1, 2, 3].into());
    JoinGroupRequest::default()
        .with_group_id(group("group"))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

pub fn sync(joined: &JoinGroupResponse) -> SyncGroupRequest {
    let assigned = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(vec![9, 9].into());
    SyncGroupRequest::default()
        .with_group_id(group("group"))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(vec![assigned])
}

pub fn commit(generation: i32, member_id: &str, offsets: &[(&str, i64)]) -> OffsetCommitRequest {
    let topic = |(topic, offset): &(&str, i64)| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(*offset);
        OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition])
    };
    OffsetCommitRequest::default()
        .with_group_id(group("group"))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member_id))
        .with_topics(offsets.iter().map(topic).collect())
}

fn commit_codes(test: &BrokerTest, request: &OffsetCommitRequest) -> Vec<i16> {
    let response = test.call(8, request);
    response.topics.iter().map(|topic| topic.partitions[0].error_code).collect()
}

/// Everything that a group has: its error, and its offsets by topic.
fn fetch(test: &BrokerTest, id: &str) -> (i16, Vec<(String, i64)>) {
    let wanted = OffsetFetchRequestGroup::default().with_group_id(group(id)).with_topics(None);
    let response = test.call(8, &OffsetFetchRequest::default().with_groups(vec![wanted]));
    let group = &response.groups[0];
    let topics = group.topics.iter();
    let offset = |topic: &OffsetFetchResponseTopics| {
        (topic.name.to_string(), topic.partitions[0].committed_offset)
    };
    (group.error_code, topics.map(offset).collect())
}

/// A lone member of a stable group.
fn stable(test: &BrokerTest) -> (JoinGroupResponse, SyncGroupResponse) {
    let joined = test.call(3, &join(""));
    assert_eq!(joined.error_code, NONE);
    let synced = test.call(5, &sync(&joined));
    (joined, synced)
}

#[test]
fn asking_for_a_coordinator_creates_the_offsets_topic() {
    let test = BrokerTest::new();
    let unknown = test.call(3, &join(""));
    assert_eq!(unknown.error_code, NOT_COORDINATOR, "there is no topic yet");
    assert_eq!(find_coordinator(&test), (NONE, 1));
    let metadata = test.metadata(12);
    let topic = metadata.topics.iter().find(|t| t.is_internal).expect("an internal topic");
    assert_eq!(topic.name.as_ref().map(|name| name.as_str()), Some("__consumer_offsets"));
    assert_eq!(topic.partitions.len(), 50);
}

#[test]
fn the_offsets_topic_is_as_its_settings_say() {
    let test = BrokerTest::with(&[
        ("offsets.topic.num.partitions", "3"),
        ("offsets.topic.segment.bytes", "1048576"),
    ]);
    assert_eq!(find_coordinator(&test), (NONE, 1));
    assert_eq!(test.metadata(12).topics[0].partitions.len(), 3);
    for (key, value) in [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("compression.type", "producer"),
    ] {
        let said = described(&test, TOPIC, "__consumer_offsets", key);
        assert_eq!(said.map(|(value, ..)| value).as_deref(), Some(value), "{key}");
    }
}

#[test]
fn a_client_that_is_told_its_member_id_joins_with_it_and_leads_alone() {
    let test = with_groups();
    let told = test.call(9, &join(""));
    assert_eq!((told.error_code, told.generation_id), (MEMBER_ID_REQUIRED, -1));
    assert!(told.member_id.starts_with("test-"), "{:?}", told.member_id);
    assert_eq!((told.protocol_type, told.protocol_name), (None, None));
    let joined = test.call(9, &join(&told.member_id));
    assert_eq!((joined.error_code, joined.generation_id), (NONE, 1));
    assert_eq!((&joined.leader, &joined.member_id), (&told.member_id, &told.member_id));
    assert_eq!(joined.protocol_name, Some(text("range")));
    assert_eq!(joined.members[0].metadata, vec![1, 2, 3]);
    let synced = test.call(5, &sync(&joined));
    assert_eq!((synced.error_code, &synced.assignment[..]), (NONE, &[9, 9][..]));
}

#[test]
fn an_old_version_is_told_no_protocol_in_nothing() {
    let test = with_groups();
    let refused = test.call(4, &join(""));
    assert_eq!((refused.error_code, refused.protocol_name), (MEMBER_ID_REQUIRED, Some(text(""))));
}

#[test]
fn a_member_hears_of_a_rebalance_and_waits_for_the_others() {
    let test = with_groups();
    let (first, _) = stable(&test);
    let mut second = test.send(3, &join(""));
    until("the first hears of it", || heartbeat(&test, &first) == REBALANCE_IN_PROGRESS);
    assert!(is_pending(&mut second), "the first has not joined again");
    let again = test.call(3, &join(&first.member_id));
    assert_eq!((again.generation_id, again.members.len()), (2, 2));
    let second = resolve(second).expect("the connection stays").expect("an answer");
    let second = crate::context::decode::<JoinGroupRequest>(3, second);
    assert_eq!((second.generation_id, second.members.len()), (2, 0), "only the leader is told");
}

fn heartbeat(test: &BrokerTest, joined: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group("group"))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone());
    test.call(3, &request).error_code
}

#[test]
fn members_and_offsets_are_the_same_after_a_power_loss() {
    let test = with_groups();
    test.create_topic("topic", 1, &[]);
    let (member, _) = stable(&test);
    let codes = commit_codes(&test, &commit(1, &member.member_id, &[("topic", 42)]));
    assert_eq!(codes, [NONE]);
    let before = describe(&test);
    for seed in 0..3 {
        let test = test.after_power_loss(seed);
        settle(&test);
        assert_eq!(fetch(&test, "group"), (NONE, vec![("topic".to_owned(), 42)]));
        assert_eq!(describe(&test), before, "the group is what it was");
        assert_eq!(heartbeat(&test, &member), NONE, "its member lives on");
        let codes = commit_codes(&test, &commit(1, &member.member_id, &[("topic", 43)]));
        assert_eq!(codes, [NONE]);
    }
}

fn describe(test: &BrokerTest) -> DescribeGroupsResponse {
    test.call(5, &DescribeGroupsRequest::default().with_groups(vec![group("group")]))
}

#[test]
fn what_was_not_answered_is_committed_or_not_but_never_in_between() {
    let test = with_groups();
    test.create_topic("topic", 1, &[]);
    for offset in 1..=20 {
        assert_eq!(commit_codes(&test, &commit(-1, "", &[("topic", offset)])), [NONE]);
        drop(test.send(8, &commit(-1, "", &[("topic", offset + 1)]))); // nobody waits for it
        let after = test.after_power_loss(u64::try_from(offset).expect("small"));
        settle(&after);
        let (_, offsets) = fetch(&after, "group");
        assert!([offset, offset + 1].contains(&offsets[0].1), "{offsets:?} after {offset}");
    }
}

#[test]
fn an_offset_is_synced_before_its_commit_is_answered() {
    let test = with_groups();
    test.create_topic("topic", 1, &[]);
    for offset in 0..50 {
        let before = test.fs.syncs();
        assert_eq!(commit_codes(&test, &commit(-1, "", &[("topic", offset)])), [NONE]);
        assert!(test.fs.syncs() > before, "offset {offset} was answered before a sync");
    }
}

#[test]
fn a_full_disk_refuses_offsets_and_keeps_members_and_forgets_topics_once_there_is_room() {
    let fs = MemFileSystem::new();
    let settings = [("group.initial.rebalance.delay.ms", "0"), ("log.segment.bytes", "1000000")];
    let test = BrokerTest::start(fs.clone(), &settings);
    assert_eq!(find_coordinator(&test), (NONE, 1));
    settle(&test);
    for name in ["topic", "gone"] {
        test.create_topic(name, 1, &[]);
    }
    let (member, _) = stable(&test);
    let send =
        |offsets: &[(&str, i64)]| commit_codes(&test, &commit(1, &member.member_id, offsets))[0];
    assert_eq!(send(&[("topic", 1), ("gone", 7)]), NONE);
    fs.set_capacity(8 << 20);
    let value = "x".repeat(100_000);
    until("the disk is full", || {
        produce(&test, "topic", batch(&[&value]));
        send(&[("topic", 2)]) == COORDINATOR_NOT_AVAILABLE
    });
    let lost = test.metric("tidelog_group_coordinator_lost_total");
    for offset in 3..10 {
        assert_eq!(send(&[("topic", offset)]), COORDINATOR_NOT_AVAILABLE);
    }
    let lost_since = test.metric("tidelog_group_coordinator_lost_total") - lost;
    assert_eq!(lost_since, 0.0, "what the log would not take is not planned");
    assert_eq!(heartbeat(&test, &member), NONE, "its member lives on");
    let delete = DeleteTopicsRequest::default().with_timeout_ms(10_000);
    test.call(4, &delete.with_topic_names(vec![TopicName(text("gone"))]));
    fs.set_capacity(u64::MAX);
    until("there is room again", || send(&[("topic", 3)]) == NONE);
    assert_eq!(heartbeat(&test, &member), NONE, "nobody had to join again");
    let kept = (NONE, vec![("topic".to_owned(), 3)]);
    until("the deleted topic is forgotten", || fetch(&test, "group") == kept);
}

#[test]
fn a_partition_that_does_not_exist_is_refused_by_itself() {
    let test = with_groups();
    test.create_topic("topic", 1, &[]);
    let codes = commit_codes(&test, &commit(-1, "", &[("nothing", 1), ("topic", 2)]));
    assert_eq!(codes, [UNKNOWN_TOPIC_OR_PARTITION, NONE]);
    let mut request = commit(-1, "", &[("topic", 3)]);
    request.topics[0].partitions[0].partition_index = 1;
    assert_eq!(commit_codes(&test, &request), [UNKNOWN_TOPIC_OR_PARTITION]);
    assert_eq!(fetch(&test, "group"), (NONE, vec![("topic".to_owned(), 2)]));
}

#[test]
fn a_stranger_commits_nothing() {
    let test = with_groups();
    test.create_topic("topic", 1, &[]);
    assert_eq!(commit_codes(&test, &commit(7, "who", &[("topic", 1)])), [ILLEGAL_GENERATION]);
}

#[test]
fn a_deleted_topic_takes_its_offsets_with_it() {
    let test = with_groups();
    test.create_topic("kept", 1, &[]);
    test.create_topic("topic", 1, &[]);
    assert_eq!(commit_codes(&test, &commit(-1, "", &[("kept", 1), ("topic", 2)])), [NONE, NONE]);
    let delete = DeleteTopicsRequest::default().with_timeout_ms(10_000);
    let deleted = test.call(4, &delete.with_topic_names(vec![TopicName(text("topic"))]));
    assert_eq!(deleted.responses[0].error_code, NONE);
    let kept = (NONE, vec![("kept".to_owned(), 1)]);
    until("its offsets are forgotten", || fetch(&test, "group") == kept);
    let test = test.after_power_loss(1);
    settle(&test);
    assert_eq!(fetch(&test, "group").1[0], ("kept".to_owned(), 1));
}

#[test]
fn a_group_goes_once_its_last_member_has_left() {
    let test = with_groups();
    let (member, _) = stable(&test);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("group")]);
    assert_eq!(test.call(2, &delete).results[0].error_code, NON_EMPTY_GROUP);
    let leaving = MemberIdentity::default().with_member_id(member.member_id.clone());
    let leave = LeaveGroupRequest::default().with_group_id(group("group"));
    let left = test.call(5, &leave.with_members(vec![leaving]));
    assert_eq!((left.error_code, left.members[0].error_code), (NONE, NONE));
    let listed = test.call(5, &ListGroupsRequest::default());
    let states: Vec<_> = listed.groups.iter().map(|g| (&*g.group_state, &*g.group_type)).collect();
    assert_eq!(states.len(), 1);
    assert_eq!(states[0].0, "Empty");
    assert_eq!(test.call(2, &delete).results[0].error_code, NONE);
    assert!(test.call(5, &ListGroupsRequest::default()).groups.is_empty());
    let described = describe(&test);
    assert_eq!(described.groups[0].group_state, text("Dead"));
}

#[test]
fn a_stop_tells_whoever_waits_to_look_elsewhere() {
    let test = with_groups();
    stable(&test);
    let waiting = test.send(3, &join(""));
    test.broker.stop_groups();
    let answer = resolve(waiting).expect("the connection stays").expect("an answer");
    let answer = crate::context::decode::<JoinGroupRequest>(3, answer);
    assert_eq!(answer.error_code, NOT_COORDINATOR);
    let late = test.call(3, &join(""));
    assert_eq!(late.error_code, NOT_COORDINATOR);
}

/// Asks one API of groups in one version, in the way its clients do. Versions that name topics by
/// id are asked about none.
pub fn ask(test: &BrokerTest, key: ApiKey, version: i16) {
    let topics: &[(&str, i64)] = if version < 10 { &[("topic", 5)] } else { &[] };
    let old = |code: i16, since: i16| if version < since { NONE } else { code };
    match key {
        ApiKey::OffsetCommit => {
            let mut request = commit(-1, "", topics);
            for topic in &mut request.topics {
                topic.partitions[0].committed_leader_epoch = -1;
            }
            let response = test.call(version, &request);
            assert!(response.topics.iter().all(|t| t.partitions[0].error_code == NONE));
        }
        ApiKey::OffsetFetch => offset_fetch(test, version),
        ApiKey::JoinGroup => {
            let rebalance_timeout_ms = if version == 0 { -1 } else { 30_000 };
            let request = join("").with_rebalance_timeout_ms(rebalance_timeout_ms);
            let request = request.with_group_id(group(&format!("joined in {version}")));
            let joined = test.call(version, &request);
            let generation = if version < 4 { 1 } else { -1 };
            let expected = (old(MEMBER_ID_REQUIRED, 4), generation);
            assert_eq!((joined.error_code, joined.generation_id), expected, "v{version}");
        }
        ApiKey::SyncGroup => {
            let mut request = sync(&JoinGroupResponse::default().with_member_id(text("who")));
            if version < 5 {
                (request.protocol_type, request.protocol_name) = (None, None);
            }
            assert_eq!(test.call(version, &request).error_code, UNKNOWN_MEMBER_ID, "v{version}");
        }
        ApiKey::Heartbeat => {
            let request = HeartbeatRequest::default().with_group_id(group("group"));
            assert_eq!(test.call(version, &request).error_code, UNKNOWN_MEMBER_ID, "v{version}");
        }
        ApiKey::LeaveGroup => {
            let request = LeaveGroupRequest::default().with_group_id(group("group"));
            let response = match version < 3 {
                true => test.call(version, &request.with_member_id(text("who"))),
                false => {
                    let who = MemberIdentity::default().with_member_id(text("who"));
                    test.call(version, &request.with_members(vec![who]))
                }
            };
            let code = response.members.first().map_or(response.error_code, |m| m.error_code);
            assert_eq!(code, UNKNOWN_MEMBER_ID, "v{version}");
        }
        ApiKey::DescribeGroups => {
            let request = DescribeGroupsRequest::default().with_groups(vec![group("nobody")]);
            let request = request.with_include_authorized_operations(version >= 3);
            let described = test.call(version, &request).groups.remove(0);
            assert_eq!(described.error_code, old(GROUP_ID_NOT_FOUND, 6), "v{version}");
            assert_eq!(described.group_state, text("Dead"), "v{version}");
        }
        ApiKey::ListGroups => {
            let response = test.call(version, &ListGroupsRequest::default());
            assert!(response.groups.iter().any(|g| *g.group_id.0 == *"group"), "v{version}");
        }
        ApiKey::DeleteGroups => {
            let request = DeleteGroupsRequest::default().with_groups_names(vec![group("nobody")]);
            assert_eq!(test.call(version, &request).results[0].error_code, GROUP_ID_NOT_FOUND);
        }
        ApiKey::OffsetDelete => {
            let partition = OffsetDeleteRequestPartition::default();
            let topic = OffsetDeleteRequestTopic::default().with_name(TopicName(text("topic")));
            let topic = topic.with_partitions(vec![partition]);
            let request = OffsetDeleteRequest::default().with_group_id(group("group"));
            let response = test.call(version, &request.with_topics(vec![topic]));
            assert_eq!((response.error_code, response.topics[0].partitions[0].error_code), (0, 0));
        }
        other => unreachable!("{other:?} is none of a group's"),
    }
}

fn offset_fetch(test: &BrokerTest, version: i16) {
    let offset = match version {
        ..8 => {
            let topic = OffsetFetchRequestTopic::default()
                .with_name(TopicName(text("topic")))
                .with_partition_indexes(vec![0]);
            let request = OffsetFetchRequest::default().with_group_id(group("group"));
            let response = test.call(version, &request.with_topics(Some(vec![topic])));
            response.topics[0].partitions[0].committed_offset
        }
        8.. => {
            let all = OffsetFetchRequestGroup::default().with_group_id(group("group"));
            let request = OffsetFetchRequest::default().with_groups(vec![all.with_topics(None)]);
            let response = test.call(version, &request);
            let topic = &response.groups[0].topics[0];
            assert_eq!(topic.topic_id.is_nil(), version < 10, "v{version}");
            assert_eq!(topic.name.is_empty(), version >= 10, "v{version}");
            topic.partitions[0].committed_offset
        }
    };
    assert_eq!(offset, 5, "v{version}");
}
