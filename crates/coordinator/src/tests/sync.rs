//! SyncGroup.

use super::*;

fn refused(error_code: ErrorCode) -> Synced {
    Synced { error_code, protocol_type: None, protocol_name: None, assignment: Bytes::new() }
}

fn assigned(assignment: &str) -> Synced {
    Synced {
        error_code: ErrorCode::None,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignment: Bytes::from(assignment.to_owned()),
    }
}

#[test]
fn whoever_is_not_in_the_generation_gets_no_assignment() {
    let connect = Some("connect".to_owned());
    let sticky = Some("sticky".to_owned());
    let instance = Some("instance".to_owned());
    type Spoil = Box<dyn Fn(SyncGroup) -> SyncGroup>;
    let cases: [(Spoil, ErrorCode); 8] = [
        (Box::new(|sync| SyncGroup { group_id: String::new(), ..sync }), ErrorCode::InvalidGroupId),
        (
            Box::new(|sync| SyncGroup { group_id: "other".into(), ..sync }),
            ErrorCode::UnknownMemberId,
        ),
        (
            Box::new(|sync| SyncGroup { member_id: "stranger".into(), ..sync }),
            ErrorCode::UnknownMemberId,
        ),
        (
            Box::new(move |sync| SyncGroup { group_instance_id: instance.clone(), ..sync }),
            ErrorCode::UnknownMemberId,
        ),
        (Box::new(|sync| SyncGroup { generation_id: 0, ..sync }), ErrorCode::IllegalGeneration),
        (Box::new(|sync| SyncGroup { generation_id: 2, ..sync }), ErrorCode::IllegalGeneration),
        (
            Box::new(move |sync| SyncGroup { protocol_type: connect.clone(), ..sync }),
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            Box::new(move |sync| SyncGroup { protocol_name: sticky.clone(), ..sync }),
            ErrorCode::InconsistentGroupProtocol,
        ),
    ];
    for (spoil, error) in cases {
        let mut test = GroupTest::new();
        let members = test.begin_generation(1);
        assert_eq!(test.sync_now(spoil(leader_of(&members, 1))), refused(error));
        assert_eq!(test.state(), "CompletingRebalance");
        test.assign(&members, 1);
        assert_eq!(test.sync_now(spoil(follower(&members[0], 1))), refused(error));
    }
}

#[test]
fn followers_wait_for_the_leader_and_what_it_says_is_recorded() {
    let mut test = GroupTest::new();
    let members = test.begin_generation(3);
    let follower = test.sync(super::follower(&members[1], 1));
    assert!(test.waits(follower));
    assert_eq!(test.log, []);
    // It forgets one, and names one that is not there.
    let mut said = leader_of(&members[..2], 1);
    said.assignments.push(("stranger".into(), Bytes::from_static(b"lost")));
    assert_eq!(test.sync_now(said), assigned(&members[0]));
    assert_eq!(test.synced(follower), assigned(&members[1]));
    assert_eq!(test.sync_now(super::follower(&members[2], 1)), assigned(""));
    let [(key, value)] = &test.log[..] else { panic!("one record: {:?}", test.log) };
    let record = GroupRecord::decode(key, value.as_ref()).unwrap();
    let GroupRecord::GroupMetadata { value: Some(value), .. } = record else {
        panic!("{record:?}")
    };
    let recorded = value.members.iter().map(|one| (&*one.member_id, &one.assignment[..]));
    let mut recorded: Vec<_> = recorded.collect();
    recorded.sort_by_key(|(member_id, _)| members.iter().position(|id| id == member_id));
    let expected = [
        (members[0].as_str(), members[0].as_bytes()),
        (members[1].as_str(), members[1].as_bytes()),
        (members[2].as_str(), &b""[..]),
    ];
    assert_eq!(recorded, expected);
    assert_eq!((value.generation_id, value.leader.as_deref()), (1, Some(members[0].as_str())));
}

#[test]
fn while_members_join_there_is_no_assignment() {
    let mut test = GroupTest::new();
    let members = test.stable(2);
    test.join(dynamic(&members[0]));
    let sync = test.sync_now(follower(&members[1], 1));
    assert_eq!(sync, refused(ErrorCode::RebalanceInProgress));
}

#[test]
fn a_member_that_asks_again_is_told_so_on_its_first_request() {
    let mut test = GroupTest::new();
    let members = test.begin_generation(2);
    let first = test.sync(follower(&members[1], 1));
    let second = test.sync(follower(&members[1], 1));
    assert_eq!(test.synced(first), refused(ErrorCode::RebalanceInProgress));
    assert_eq!(test.sync_now(leader_of(&members, 1)), assigned(&members[0]));
    assert_eq!(test.synced(second), assigned(&members[1]));
}

#[test]
fn members_that_do_not_sync_in_time_are_removed() {
    let mut test = GroupTest::new();
    let members = test.begin_generation(3);
    let waiting = test.sync(follower(&members[1], 1));
    for _ in 0..REBALANCE.as_secs() / 5 {
        assert!(test.waits(waiting));
        test.heartbeat(&members[0], 1);
        test.heartbeat(&members[2], 1);
        test.advance(Duration::from_secs(5));
    }
    assert_eq!(test.synced(waiting), refused(ErrorCode::RebalanceInProgress));
    assert_eq!(test.rebalances.last(), Some(&RebalanceCause::SyncExpired));
    assert_eq!(test.heartbeat(&members[0], 1), ErrorCode::UnknownMemberId);
    let joined = test.join_now(dynamic(&members[1]));
    assert_eq!((joined.generation_id, joined.members.len()), (2, 1));
}

#[test]
fn followers_that_do_not_sync_in_a_stable_group_are_removed_too() {
    let mut test = GroupTest::new();
    let members = test.begin_generation(2);
    test.sync(leader_of(&members, 1));
    for _ in 0..REBALANCE.as_secs() / 5 {
        assert_eq!(test.state(), "Stable");
        members
            .iter()
            .for_each(|member_id| assert_eq!(test.heartbeat(member_id, 1), ErrorCode::None));
        test.advance(Duration::from_secs(5));
    }
    assert_eq!(test.state(), "PreparingRebalance");
    assert_eq!(test.heartbeat(&members[1], 1), ErrorCode::UnknownMemberId);
    // Once all have asked, nobody is waited for.
    let mut test = GroupTest::new();
    let members = test.stable(2);
    for _ in 0..2 * REBALANCE.as_secs() / 5 {
        members
            .iter()
            .for_each(|member_id| assert_eq!(test.heartbeat(member_id, 1), ErrorCode::None));
        test.advance(Duration::from_secs(5));
    }
    assert_eq!(test.state(), "Stable");
}

#[test]
fn an_assignment_that_fits_no_record_is_refused() {
    let settings = GroupSettings { group_record_bytes_max: 1_000, ..GroupSettings::default() };
    let mut test = GroupTest::with(settings);
    let members = test.begin_generation(2);
    let waiting = test.sync(follower(&members[1], 1));
    let mut said = leader_of(&members, 1);
    said.assignments[0].1 = Bytes::from(vec![0; 1_000]);
    assert_eq!(test.sync_now(said), refused(ErrorCode::UnknownServerError));
    assert_eq!(test.synced(waiting), refused(ErrorCode::UnknownServerError));
    assert_eq!(test.state(), "PreparingRebalance");
    assert_eq!(test.rebalances.last(), Some(&RebalanceCause::AssignmentTooLarge));
    assert_eq!(test.log, []);
}
