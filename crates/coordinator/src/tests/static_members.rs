//! Static members (KIP-345): an instance id outlives the client that has it.

use super::*;

/// A stable group of a static member, which leads or not, and a dynamic one: their ids.
fn with_static(test: &mut GroupTest, leads: bool) -> (String, String) {
    let (instance, other) = if leads {
        let instance = test.join(fixed("instance"));
        (instance, test.join(dynamic("")))
    } else {
        let other = test.join(dynamic(""));
        (test.join(fixed("instance")), other)
    };
    let (instance, other) = (test.joined_later(instance), test.joined_later(other));
    assert_eq!(instance.leader == instance.member_id, leads);
    let mut members = vec![instance.member_id.clone(), other.member_id.clone()];
    members.sort_by_key(|member_id| *member_id != instance.leader);
    test.assign(&members, 1);
    (instance.member_id, other.member_id)
}

#[test]
fn a_static_member_that_is_started_again_keeps_its_assignment_without_a_rebalance() {
    for (leads, is_skipping) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut test = GroupTest::new();
        let (old, other) = with_static(&mut test, leads);
        let joined = test
            .join_now(JoinGroup { supports_skipping_assignment: is_skipping, ..fixed("instance") });
        assert_ne!(joined.member_id, old);
        assert_eq!((joined.error_code, joined.generation_id), (ErrorCode::None, 1));
        assert_eq!(joined.skip_assignment, leads && is_skipping);
        let leader = match (leads, is_skipping) {
            (false, _) => &other,
            (true, true) => &joined.member_id,
            // It would assign anew, which nobody asked for.
            (true, false) => &old,
        };
        assert_eq!(&joined.leader, leader);
        assert_eq!(joined.members.len(), if leads && is_skipping { 2 } else { 0 });
        let sync = test.sync_now(follower(&joined.member_id, 1));
        assert_eq!(sync.assignment, old.as_bytes(), "the assignment of its old self");
        assert_eq!(test.state(), "Stable");
        assert_eq!(test.rebalances, [RebalanceCause::MemberJoined]);
        // So it is after a restart.
        let before = test.describe();
        test.restart();
        assert_eq!(test.describe(), before);
        let fenced = test.heartbeat_as(&old, 1, Some("instance"));
        assert_eq!(fenced, ErrorCode::FencedInstanceId);
        assert_eq!(test.heartbeat(&old, 1), ErrorCode::UnknownMemberId);
        let alive = test.heartbeat_as(&joined.member_id, 1, Some("instance"));
        assert_eq!(alive, ErrorCode::None);
    }
}

#[test]
fn one_that_comes_back_with_other_protocols_has_the_group_agree_anew() {
    let mut test = GroupTest::new();
    let both = protocols(&["range", "sticky"]);
    let ids = [
        test.join(JoinGroup { protocols: both.clone(), ..fixed("instance") }),
        test.join(JoinGroup { protocols: both, ..dynamic("") }),
    ];
    let mut members = ids.map(|id| test.joined_later(id).member_id).to_vec();
    let leader = test.join_now(dynamic_both(&members[1])).leader;
    members.sort_by_key(|member_id| *member_id != leader);
    test.assign(&members, 1);
    let only = JoinGroup { protocols: protocols(&["sticky"]), ..fixed("instance") };
    let id = test.join(only);
    assert!(test.waits(id));
    assert_eq!(test.state(), "PreparingRebalance");
    assert_eq!(test.rebalances.last(), Some(&RebalanceCause::StaticMemberReplaced));
    let none = JoinGroup { protocols: protocols(&["other"]), ..fixed("instance") };
    assert_eq!(test.join_now(none).error_code, ErrorCode::InconsistentGroupProtocol);
}

fn dynamic_both(member_id: &str) -> JoinGroup {
    JoinGroup { protocols: protocols(&["range", "sticky"]), ..dynamic(member_id) }
}

#[test]
fn the_old_self_is_fenced_while_it_waits_to_join() {
    let mut test = GroupTest::new();
    let (old, other) = with_static(&mut test, false);
    let other = test.join(dynamic(&other));
    let waiting =
        test.send(GroupRequest::Join(JoinGroup { member_id: old.clone(), ..fixed("instance") }));
    assert_eq!(test.joined(waiting).generation_id, 2);
    assert_eq!(test.joined(other).generation_id, 2);
    // Again, but this time it is started once more while it waits.
    let changed = JoinGroup { protocols: protocols(&["range", "b"]), ..fixed("instance") };
    let waiting = test.join(JoinGroup { member_id: old.clone(), ..changed });
    assert!(test.waits(waiting));
    let id = test.join(fixed("instance"));
    let fenced = test.joined(waiting);
    assert_eq!((fenced.error_code, fenced.member_id), (ErrorCode::FencedInstanceId, old));
    assert!(test.waits(id));
}

#[test]
fn the_old_self_is_fenced_while_it_waits_for_its_assignment() {
    let mut test = GroupTest::new();
    let ids = [test.join(dynamic("")), test.join(fixed("instance"))];
    let [leader, old] = ids.map(|id| test.joined_later(id));
    assert_eq!(leader.leader, leader.member_id);
    let waiting = test.sync(follower(&old.member_id, 1));
    let id = test.join(fixed("instance"));
    assert_eq!(test.synced(waiting).error_code, ErrorCode::FencedInstanceId);
    // The leader may be assigning to the old self: all has to begin again.
    assert_eq!(test.state(), "PreparingRebalance");
    assert_eq!(test.rebalances.last(), Some(&RebalanceCause::StaticMemberReplaced));
    test.join(dynamic(&leader.member_id));
    assert_eq!(test.joined(id).generation_id, 2);
}

#[test]
fn an_instance_id_has_one_member_at_a_time() {
    let mut test = GroupTest::new();
    let first = test.join(fixed("instance"));
    let second = test.join(fixed("instance"));
    assert_eq!(test.joined(first).error_code, ErrorCode::FencedInstanceId);
    let joined = test.joined_later(second);
    assert_eq!((joined.error_code, joined.members.len()), (ErrorCode::None, 1));
}

#[test]
fn a_static_member_that_stays_away_is_removed_after_its_session() {
    let mut test = GroupTest::new();
    let (old, other) = with_static(&mut test, true);
    test.advance(SESSION / 2);
    test.heartbeat(&other, 1);
    test.advance(SESSION / 2);
    assert_eq!(test.state(), "PreparingRebalance");
    let unknown = test.heartbeat_as(&old, 1, Some("instance"));
    assert_eq!(unknown, ErrorCode::UnknownMemberId);
}
