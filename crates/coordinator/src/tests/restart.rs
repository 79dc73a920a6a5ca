//! What a shard is after it was loaded from its log.

use super::*;

#[test]
fn whoever_waits_when_the_shard_goes_is_sent_away() {
    let mut test = GroupTest::new();
    let members = test.begin_generation(2);
    let sync = test.sync(follower(&members[1], 1));
    let mut elsewhere = dynamic("");
    elsewhere.group_id = "elsewhere".into();
    let join = test.join(elsewhere);
    test.restart();
    assert_eq!(test.sent_away, [join, sync]);
    assert_eq!(test.state(), "none", "no generation was ever recorded");
}

#[test]
fn members_of_a_stable_group_go_on_as_if_nothing_had_happened() {
    let mut test = GroupTest::new();
    let members = test.stable(3);
    test.advance(SESSION - Duration::from_millis(1));
    test.restart();
    // Each has a session's time from now on.
    test.advance(SESSION - Duration::from_millis(1));
    for member_id in &members {
        assert_eq!(test.heartbeat(member_id, 1), ErrorCode::None);
        let sync = test.sync_now(follower(member_id, 1));
        assert_eq!(
            (sync.error_code, &sync.assignment[..]),
            (ErrorCode::None, member_id.as_bytes())
        );
        assert_eq!(test.commit(member_commit(member_id, 1)), [ErrorCode::None]);
    }
    let follower = test.join_now(dynamic(&members[1]));
    assert_eq!((follower.error_code, follower.generation_id), (ErrorCode::None, 1));
    assert_eq!(follower.leader, members[0]);
    let ids: Vec<_> = members.iter().map(|member_id| test.join(dynamic(member_id))).collect();
    let joined: Vec<Joined> = ids.into_iter().map(|id| test.joined(id)).collect();
    assert!(joined.iter().all(|one| one.generation_id == 2), "{joined:?}");
    test.advance(SESSION);
    assert_eq!(test.state(), "Empty");
}

#[test]
fn a_member_has_the_session_that_it_last_asked_for() {
    let mut test = GroupTest::new();
    let members = test.stable(1);
    let id = test.join(JoinGroup { session_timeout: 3 * SESSION, ..dynamic(&members[0]) });
    assert_eq!(test.joined(id).generation_id, 2);
    test.assign(&members, 2);
    test.restart();
    test.advance(3 * SESSION - Duration::from_millis(1));
    assert_eq!(test.state(), "Stable");
    test.advance(Duration::from_millis(1));
    assert_eq!(test.state(), "Empty");
}

#[test]
fn a_rebalance_under_way_is_forgotten() {
    let mut test = GroupTest::new();
    let members = test.stable(2);
    test.join(dynamic(&members[0]));
    test.restart();
    assert_eq!(test.state(), "Stable");
    for member_id in &members {
        assert_eq!(test.heartbeat(member_id, 1), ErrorCode::None);
    }
}

#[test]
fn a_group_that_has_become_too_large_has_to_agree_who_stays() {
    let mut test = GroupTest::new();
    let members = test.stable(3);
    test.settings.group_size_max = 2;
    test.restart();
    assert_eq!(test.rebalances.last(), Some(&RebalanceCause::OverCapacity));
    assert_eq!(test.commit(member_commit(&members[2], 1)), [ErrorCode::None]);
    let first = [test.join(dynamic(&members[0])), test.join(dynamic(&members[1]))];
    let last = test.join_now(dynamic(&members[2]));
    assert_eq!(last.error_code, ErrorCode::GroupMaxSizeReached);
    assert_eq!(first.map(|id| test.joined(id).generation_id), [2, 2]);
}

#[test]
fn a_log_may_say_anything_of_a_group() {
    use crate::record::{GroupMetadataValue, MemberMetadata};
    let member = |member_id: &str, instance_id: Option<&str>| MemberMetadata {
        member_id: member_id.into(),
        group_instance_id: instance_id.map(Into::into),
        client_id: "".into(),
        client_host: "".into(),
        rebalance_timeout_ms: -5,
        session_timeout_ms: -5,
        subscription: Bytes::new(),
        assignment: Bytes::new(),
    };
    let value = |leader: Option<&str>, members: Vec<MemberMetadata>| GroupMetadataValue {
        protocol_type: "".into(),
        generation_id: i32::MAX,
        protocol_name: Some("range".into()),
        leader: leader.map(Into::into),
        state_timestamp_ms: None,
        members,
    };
    let records = [
        (value(Some("gone"), vec![member("a", None), member("a", Some("i"))]), 1),
        (value(None, vec![member("a", Some("i")), member("b", Some("i"))]), 1),
        (value(None, vec![member("b", Some("j")), member("a", Some("i"))]), 2),
        (value(None, vec![member("a", Some("j")), member("c", Some("i"))]), 2),
        (value(Some("gone"), vec![]), 0),
    ];
    let mut test = GroupTest::new();
    for (value, members) in records {
        let group_id = GROUP.into();
        let record = GroupRecord::GroupMetadata { group_id, value: Some(value) };
        test.log.push(record.encode());
        test.shard = test.reloaded();
        assert_eq!(test.describe().unwrap().members.len(), members);
        let mut going_on = GroupTest::new();
        going_on.log.clone_from(&test.log);
        going_on.restart();
        going_on.advance(Duration::from_millis(1));
        assert_eq!(going_on.describe().unwrap().members, [], "their sessions are over at once");
    }
}
