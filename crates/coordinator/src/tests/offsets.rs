//! OffsetCommit, OffsetFetch, OffsetDelete.

use super::*;
use crate::request::{DeleteOffsets, FetchedOffset};

#[test]
fn only_members_of_the_generation_commit_where_there_are_members() {
    let mut test = GroupTest::new();
    let members = test.begin_generation(2);
    let illegal = ErrorCode::IllegalGeneration;
    let unknown = ErrorCode::UnknownMemberId;
    let fenced = CommitOffsets {
        group_instance_id: Some("instance".into()),
        ..member_commit(&members[0], 1)
    };
    let cases = |state: ErrorCode| {
        [
            (member_commit(&members[0], 1), state),
            (member_commit(&members[0], 0), illegal),
            (member_commit(&members[0], 2), illegal),
            (member_commit(&members[0], -1), illegal),
            (member_commit("stranger", 1), unknown),
            (member_commit("", 1), unknown),
            (outsider(GROUP, "topic", 0, 1), unknown),
            (fenced.clone(), unknown),
        ]
    };
    for (request, expected) in cases(ErrorCode::RebalanceInProgress) {
        assert_eq!(test.commit(request.clone()), [expected], "completing: {request:?}");
    }
    test.assign(&members, 1);
    for (request, expected) in cases(ErrorCode::None) {
        assert_eq!(test.commit(request.clone()), [expected], "stable: {request:?}");
    }
    test.join(dynamic(&members[0]));
    for (request, expected) in cases(ErrorCode::None) {
        assert_eq!(test.commit(request.clone()), [expected], "preparing: {request:?}");
    }
    test.leave(&[(&members[0], None), (&members[1], None)]);
    assert_eq!(test.commit(outsider(GROUP, "topic", 0, 1)), [ErrorCode::None], "empty");
    assert_eq!(test.commit(member_commit(&members[0], 2)), [unknown], "empty");
    assert_eq!(test.offsets(GROUP), [("topic".into(), 0, 1)]);
}

#[test]
fn a_group_is_made_by_whoever_commits_without_being_a_member() {
    let mut test = GroupTest::new();
    for code in [ErrorCode::GroupIdNotFound, ErrorCode::IllegalGeneration] {
        let member = CommitOffsets { unknown_group: code, ..member_commit("member", 1) };
        assert_eq!(test.commit(member), [code]);
    }
    assert_eq!(test.shard.groups().count(), 0);
    assert_eq!(test.commit(outsider("simple", "topic", 3, 5)), [ErrorCode::None]);
    // Kafka has always let the empty name commit and fetch.
    assert_eq!(test.commit(outsider("", "topic", 0, 6)), [ErrorCode::None]);
    assert_eq!(test.offsets("simple"), [("topic".into(), 3, 5)]);
    assert_eq!(test.offsets(""), [("topic".into(), 0, 6)]);
    let long = "x".repeat(crate::record::STRING_BYTES_MAX + 1);
    let refused = test.commit(outsider(&long, "topic", 0, 6));
    assert_eq!(refused, [ErrorCode::InvalidGroupId]);
}

#[test]
fn what_was_committed_is_what_is_fetched_even_after_a_restart() {
    let mut test = GroupTest::new();
    let mut topic_id = TopicId::ZERO;
    topic_id.0[0] = 9;
    let mut request = outsider(GROUP, "b", 1, 11);
    request.offsets[0].leader_epoch = LeaderEpoch(4);
    request.offsets[0].metadata = "a note".into();
    request.offsets[0].topic_id = topic_id;
    request.offsets.extend(outsider(GROUP, "a", 0, 22).offsets);
    assert_eq!(test.commit(request), [ErrorCode::None, ErrorCode::None]);
    assert_eq!(test.commit(outsider(GROUP, "a", 0, 23)), [ErrorCode::None]);
    let partitions = Some(vec![("b".into(), 1), ("nothing".into(), 0), ("a".into(), 0)]);
    let fetch = GroupRequest::FetchOffsets(FetchOffsets { partitions, ..fetch_all(GROUP) });
    let nothing = FetchedOffset {
        topic: "nothing".into(),
        topic_id: TopicId::ZERO,
        partition: 0,
        offset: None,
        leader_epoch: LeaderEpoch::NONE,
        metadata: String::new(),
        error_code: ErrorCode::None,
    };
    let expected = vec![
        FetchedOffset {
            topic: "b".into(),
            topic_id,
            partition: 1,
            offset: Some(Offset(11)),
            leader_epoch: LeaderEpoch(4),
            metadata: "a note".into(),
            ..nothing.clone()
        },
        nothing.clone(),
        FetchedOffset { topic: "a".into(), offset: Some(Offset(23)), ..nothing.clone() },
    ];
    let expected = GroupResponse::FetchOffsets(Ok(expected));
    assert_eq!(test.ask(fetch.clone()), expected);
    test.restart();
    assert_eq!(test.ask(fetch), expected);
    assert_eq!(test.offsets(GROUP), [("a".into(), 0, 23), ("b".into(), 1, 11)]);
    assert_eq!(test.offsets("nobody"), []);
    let partitions = Some(vec![("nothing".into(), 0)]);
    let of_nobody = FetchOffsets { partitions, ..fetch_all("nobody") };
    let fetched = test.ask(GroupRequest::FetchOffsets(of_nobody));
    assert_eq!(fetched, GroupResponse::FetchOffsets(Ok(vec![nothing])));
}

#[test]
fn metadata_is_bounded_offset_by_offset_in_javas_characters() {
    let mut test = GroupTest::new();
    let mut request = outsider(GROUP, "topic", 0, 1);
    // Two of Java's characters each.
    let texts = ["x".repeat(4_096), "x".repeat(4_097), "😀".repeat(2_048), "😀".repeat(2_049)];
    request.offsets = (0..)
        .zip(texts)
        .map(|(partition, metadata)| OffsetToCommit {
            metadata,
            partition,
            ..request.offsets[0].clone()
        })
        .collect();
    let (fits, large) = (ErrorCode::None, ErrorCode::OffsetMetadataTooLarge);
    assert_eq!(test.commit(request), [fits, large, fits, large]);
    assert_eq!(test.offsets(GROUP), [("topic".into(), 0, 1), ("topic".into(), 2, 1)]);
}

#[test]
fn offsets_are_deleted_where_nobody_consumes() {
    let delete = |group_id: &str, topic: &str| {
        GroupRequest::DeleteOffsets(DeleteOffsets {
            group_id: group_id.into(),
            partitions: vec![(topic.into(), 0), (topic.into(), 9)],
        })
    };
    let deleted = |code| GroupResponse::DeleteOffsets(Ok(vec![code, code]));
    let refused = |code| GroupResponse::DeleteOffsets(Err(code));
    let mut test = GroupTest::new();
    assert_eq!(test.ask(delete("", "topic")), refused(ErrorCode::InvalidGroupId));
    assert_eq!(test.ask(delete("nobody", "topic")), refused(ErrorCode::GroupIdNotFound));
    let subscribed = vec![("range".into(), subscription(&["mine"]))];
    let id = test.join(JoinGroup { protocols: subscribed, ..dynamic("") });
    let member_id = test.joined_later(id).member_id;
    test.assign(std::slice::from_ref(&member_id), 1);
    let mut request = member_commit(&member_id, 1);
    request.offsets =
        ["mine", "other"].map(|topic| outsider("", topic, 0, 1).offsets.remove(0)).into();
    test.commit(request);
    assert_eq!(test.ask(delete(GROUP, "mine")), deleted(ErrorCode::GroupSubscribedToTopic));
    assert_eq!(test.ask(delete(GROUP, "other")), deleted(ErrorCode::None));
    assert_eq!(test.offsets(GROUP), [("mine".into(), 0, 1)]);
    test.restart();
    assert_eq!(test.ask(delete(GROUP, "mine")), deleted(ErrorCode::GroupSubscribedToTopic));
    test.leave(&[(&member_id, None)]);
    assert_eq!(test.ask(delete(GROUP, "mine")), deleted(ErrorCode::None));
    assert_eq!(test.offsets(GROUP), []);
}

#[test]
fn nobody_knows_what_a_group_of_another_kind_needs() {
    for (protocol_type, expected) in [
        ("connect", GroupResponse::DeleteOffsets(Err(ErrorCode::NonEmptyGroup))),
        // Its subscription cannot be read.
        ("consumer", GroupResponse::DeleteOffsets(Ok(vec![ErrorCode::GroupSubscribedToTopic]))),
    ] {
        let mut test = GroupTest::new();
        test.commit(outsider(GROUP, "topic", 0, 1));
        let id = test.join(JoinGroup { protocol_type: protocol_type.into(), ..dynamic("") });
        test.joined_later(id);
        let partitions = vec![("topic".into(), 0)];
        let request = DeleteOffsets { group_id: GROUP.into(), partitions };
        assert_eq!(test.ask(GroupRequest::DeleteOffsets(request)), expected);
    }
}

#[test]
fn offsets_of_deleted_topics_are_forgotten_in_every_group() {
    let mut test = GroupTest::new();
    for (group_id, topic) in [("a", "gone"), ("b", "gone"), ("b", "here"), ("c", "here")] {
        test.commit(outsider(group_id, topic, 0, 1));
    }
    let topics = vec!["gone".into(), "never".into()];
    let forgotten = test.ask(GroupRequest::ForgetTopics { topics });
    assert_eq!(forgotten, GroupResponse::ForgetTopics);
    test.restart();
    assert_eq!(test.offsets("a"), []);
    assert_eq!(test.offsets("b"), [("here".into(), 0, 1)]);
    assert_eq!(test.offsets("c"), [("here".into(), 0, 1)]);
    assert_eq!(test.shard.groups().map(|group| group.group_id).collect::<Vec<_>>(), ["b", "c"]);
}
