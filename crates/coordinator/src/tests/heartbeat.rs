//! Heartbeat, and what happens to members that send none.

use super::*;

#[test]
fn a_member_hears_what_its_group_is_about() {
    let mut test = GroupTest::new();
    assert_eq!(test.heartbeat("stranger", 1), ErrorCode::UnknownMemberId);
    let first = test.join(dynamic(""));
    let second = test.join(fixed("instance"));
    let (first, second) = (test.joined_later(first).member_id, test.joined_later(second).member_id);
    let cases = |state: ErrorCode| {
        [
            (first.as_str(), 1, None, state),
            (second.as_str(), 1, None, state),
            (second.as_str(), 1, Some("instance"), state),
            (first.as_str(), 0, None, ErrorCode::IllegalGeneration),
            (first.as_str(), 2, None, ErrorCode::IllegalGeneration),
            (first.as_str(), 1, Some("instance"), ErrorCode::FencedInstanceId),
            (first.as_str(), 1, Some("other"), ErrorCode::UnknownMemberId),
            ("stranger", 1, None, ErrorCode::UnknownMemberId),
            ("", 1, None, ErrorCode::UnknownMemberId),
        ]
    };
    for (member_id, generation_id, instance_id, expected) in cases(ErrorCode::None) {
        assert_eq!(
            test.heartbeat_as(member_id, generation_id, instance_id),
            expected,
            "completing"
        );
    }
    let leader = test.joined_leader(&first);
    let members =
        if leader == first { [&first, &second] } else { [&second, &first] }.map(String::clone);
    test.assign(&members, 1);
    for (member_id, generation_id, instance_id, expected) in cases(ErrorCode::None) {
        assert_eq!(test.heartbeat_as(member_id, generation_id, instance_id), expected, "stable");
    }
    test.join(dynamic(&leader));
    for (member_id, generation_id, instance_id, expected) in cases(ErrorCode::RebalanceInProgress) {
        assert_eq!(test.heartbeat_as(member_id, generation_id, instance_id), expected, "preparing");
    }
    test.leave(&[(&first, None), (&second, None)]);
    assert_eq!(test.heartbeat(&first, 2), ErrorCode::UnknownMemberId);
    let nowhere = Heartbeat {
        group_id: String::new(),
        generation_id: 1,
        member_id: first,
        group_instance_id: None,
    };
    assert_eq!(
        test.ask(GroupRequest::Heartbeat(nowhere)),
        GroupResponse::Heartbeat(ErrorCode::InvalidGroupId)
    );
}

impl GroupTest {
    /// Who leads, as a repeated join of the member is told.
    fn joined_leader(&mut self, member_id: &str) -> String {
        self.join_now(dynamic(member_id)).leader
    }
}

#[test]
fn a_member_that_falls_silent_is_removed_after_its_session() {
    let mut test = GroupTest::new();
    let members = test.stable(2);
    test.advance(SESSION / 2);
    assert_eq!(test.heartbeat(&members[0], 1), ErrorCode::None);
    test.advance(SESSION / 2 - Duration::from_millis(1));
    assert_eq!(test.state(), "Stable");
    test.advance(Duration::from_millis(1));
    assert_eq!(test.state(), "PreparingRebalance");
    assert_eq!(test.rebalances.last(), Some(&RebalanceCause::SessionExpired));
    assert_eq!(test.heartbeat(&members[1], 1), ErrorCode::UnknownMemberId);
    assert_eq!(test.heartbeat(&members[0], 1), ErrorCode::RebalanceInProgress);
    let joined = test.join_now(dynamic(&members[0]));
    assert_eq!((joined.generation_id, joined.leader), (2, members[0].clone()));
}

#[test]
fn heartbeats_and_commits_keep_a_member_while_others_join() {
    for is_commit in [false, true] {
        let mut test = GroupTest::new();
        let members = test.stable(2);
        test.join(dynamic(&members[0]));
        for _ in 0..5 {
            test.advance(SESSION - Duration::from_millis(1));
            if is_commit {
                assert_eq!(test.commit(member_commit(&members[1], 1)), [ErrorCode::None]);
            } else {
                let code = test.heartbeat(&members[1], 1);
                assert_eq!(code, ErrorCode::RebalanceInProgress);
            }
        }
        test.advance(SESSION - Duration::from_millis(1));
        assert_eq!(test.describe().unwrap().members.len(), 2);
        test.advance(Duration::from_millis(1));
        assert_eq!(test.describe().unwrap().members.len(), 1);
    }
}

#[test]
fn a_member_whose_request_waits_is_not_silent() {
    let mut test = GroupTest::new();
    let members = test.stable(3);
    let joining = test.join(dynamic(&members[0]));
    for _ in 0..5 {
        test.advance(SESSION - Duration::from_millis(1));
        test.heartbeat(&members[1], 1);
        test.heartbeat(&members[2], 1);
    }
    assert!(test.waits(joining));
    test.join(dynamic(&members[1]));
    test.join(dynamic(&members[2]));
    assert_eq!(test.joined(joining).generation_id, 2);
    let syncing = test.sync(follower(&members[1], 2));
    for _ in 0..5 {
        test.advance(SESSION - Duration::from_millis(1));
        test.heartbeat(&members[0], 2);
        test.heartbeat(&members[2], 2);
    }
    assert!(test.waits(syncing));
    test.sync(leader_of(&members, 2));
    // From then on it is to be heard of.
    assert_eq!(test.synced(syncing).error_code, ErrorCode::None);
    test.advance(SESSION);
    assert_eq!(test.heartbeat(&members[1], 2), ErrorCode::UnknownMemberId);
}

#[test]
fn when_the_last_member_falls_silent_the_group_is_empty() {
    let mut test = GroupTest::new();
    test.stable(3);
    test.advance(SESSION);
    assert_eq!(test.state(), "Empty");
    assert_eq!(test.rebalances.len(), 2, "one for all that fell silent at once");
}
