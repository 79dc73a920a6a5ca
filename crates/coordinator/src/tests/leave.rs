//! LeaveGroup.

use super::*;

fn left(members: &[ErrorCode]) -> Left {
    Left { error_code: ErrorCode::None, members: members.to_vec() }
}

#[test]
fn each_member_is_told_whether_it_has_left() {
    let mut test = GroupTest::new();
    let ids = ["", "", "one", "two"].map(|instance_id| {
        let request = if instance_id.is_empty() { dynamic("") } else { fixed(instance_id) };
        test.join(request)
    });
    let [first, second, one, two] = ids.map(|id| test.joined_later(id).member_id);
    let told = test.join_now(JoinGroup { requires_known_member_id: true, ..dynamic("") });
    let cases: [(&str, Option<&str>, ErrorCode); 10] = [
        ("stranger", None, ErrorCode::UnknownMemberId),
        ("", None, ErrorCode::UnknownMemberId),
        ("", Some("three"), ErrorCode::UnknownMemberId),
        (&two, Some("one"), ErrorCode::FencedInstanceId),
        (&first, Some("one"), ErrorCode::FencedInstanceId),
        (&first, None, ErrorCode::None),
        (&first, None, ErrorCode::UnknownMemberId),
        (&one, Some("one"), ErrorCode::None),
        ("", Some("two"), ErrorCode::None),
        (&told.member_id, None, ErrorCode::None),
    ];
    let members: Vec<_> = cases.iter().map(|(member, instance, _)| (*member, *instance)).collect();
    let codes: Vec<_> = cases.iter().map(|(_, _, code)| *code).collect();
    assert_eq!(test.leave(&members), left(&codes));
    let remaining = test.describe().unwrap().members;
    assert_eq!(remaining.iter().map(|one| &one.member_id).collect::<Vec<_>>(), [&second]);
    assert_eq!(test.state(), "PreparingRebalance");
    assert_eq!(test.rebalances, [RebalanceCause::MemberJoined, RebalanceCause::MemberLeft]);
}

#[test]
fn nobody_leaves_a_group_that_is_not_there() {
    let mut test = GroupTest::new();
    let unknown = ErrorCode::UnknownMemberId;
    assert_eq!(test.leave(&[("a", None), ("b", None)]), left(&[unknown, unknown]));
    let nowhere = GroupRequest::Leave(LeaveGroup { group_id: String::new(), members: vec![] });
    let refused = Left { error_code: ErrorCode::InvalidGroupId, members: vec![] };
    assert_eq!(test.ask(nowhere), GroupResponse::Leave(refused));
}

#[test]
fn what_a_leaving_member_waited_for_is_answered() {
    let mut test = GroupTest::new();
    let members = test.begin_generation(2);
    let sync = test.sync(follower(&members[1], 1));
    test.leave(&[(&members[1], None)]);
    assert_eq!(test.synced(sync).error_code, ErrorCode::UnknownMemberId);
    test.join(fixed("instance"));
    let joining = test.join(dynamic(&members[0]));
    assert_eq!(test.joined(joining).generation_id, 2);
    let id = test.join(JoinGroup { protocols: protocols(&["range", "b"]), ..dynamic(&members[0]) });
    assert!(test.waits(id));
    test.leave(&[(&members[0], None)]);
    assert_eq!(test.joined(id).error_code, ErrorCode::UnknownMemberId);
}

#[test]
fn the_others_need_not_wait_for_who_left() {
    let mut test = GroupTest::new();
    let members = test.stable(2);
    let id = test.join(dynamic(&members[0]));
    assert!(test.waits(id));
    test.leave(&[(&members[1], None)]);
    assert_eq!(test.joined(id).generation_id, 2);
}

#[test]
fn a_group_that_all_have_left_is_empty_in_a_generation_of_its_own() {
    let mut test = GroupTest::new();
    let members = test.stable(1);
    assert_eq!(test.leave(&[(&members[0], None)]), left(&[ErrorCode::None]));
    let empty = DescribedGroup {
        state: "Empty",
        protocol_type: "consumer".into(),
        protocol_name: String::new(),
        members: vec![],
    };
    assert_eq!(test.describe(), Ok(empty.clone()));
    test.restart();
    assert_eq!(test.describe(), Ok(empty));
    let id = test.join(dynamic(""));
    assert_eq!(test.joined_later(id).generation_id, 3);
}

#[test]
fn a_first_generation_that_all_have_left_begins_nothing() {
    let mut test = GroupTest::new();
    let told = test.join_now(JoinGroup { requires_known_member_id: true, ..dynamic("") });
    let id = test.join(dynamic(&told.member_id));
    test.leave(&[(&told.member_id, None)]);
    assert_eq!(test.joined(id).error_code, ErrorCode::UnknownMemberId);
    assert_eq!(test.state(), "PreparingRebalance");
    test.advance(FIRST_WAIT);
    assert_eq!(test.state(), "Empty");
}
