//! ListGroups, DescribeGroups, DeleteGroups, and what metrics are told.

use super::*;
use crate::request::{DescribedMember, ListGroups, ListedGroup};

fn delete(group_id: &str) -> GroupRequest {
    GroupRequest::Delete { group_id: group_id.into() }
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut test = GroupTest::new();
    test.stable(1);
    test.commit(outsider("simple", "topic", 0, 1));
    let listed = |group_id: &str, protocol_type: &str, state| ListedGroup {
        group_id: group_id.into(),
        protocol_type: protocol_type.into(),
        state,
        group_type: "classic",
    };
    let stable = listed(GROUP, "consumer", "Stable");
    let simple = listed("simple", "", "Empty");
    let cases: [(&[&str], &[&str], Vec<ListedGroup>); 7] = [
        (&[], &[], vec![stable.clone(), simple.clone()]),
        (&["stable"], &[], vec![stable.clone()]),
        (&["EMPTY", "Dead"], &[], vec![simple.clone()]),
        (&["no such state"], &[], vec![]),
        (&[], &["Classic"], vec![stable.clone(), simple]),
        (&[], &["consumer"], vec![]),
        (&["Stable"], &["consumer", "classic"], vec![stable]),
    ];
    for (states, types, expected) in cases {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let request = ListGroups { states: owned(states), types: owned(types) };
        let answer = test.ask(GroupRequest::List(request));
        assert_eq!(answer, GroupResponse::List(expected), "{states:?} {types:?}");
    }
}

#[test]
fn what_members_agreed_on_is_described_once_they_agree() {
    let mut test = GroupTest::new();
    assert_eq!(test.describe(), Err(ErrorCode::GroupIdNotFound));
    let members = test.begin_generation(1);
    let silent = DescribedMember {
        member_id: members[0].clone(),
        group_instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        metadata: Bytes::new(),
        assignment: Bytes::new(),
    };
    let agreeing = DescribedMember {
        metadata: Bytes::from_static(b"told range"),
        assignment: Bytes::from(members[0].clone()),
        ..silent.clone()
    };
    let group = |state, protocol_name: &str, member: &DescribedMember| DescribedGroup {
        state,
        protocol_type: "consumer".into(),
        protocol_name: protocol_name.into(),
        members: vec![member.clone()],
    };
    assert_eq!(test.describe(), Ok(group("CompletingRebalance", "", &silent)));
    test.assign(&members, 1);
    assert_eq!(test.describe(), Ok(group("Stable", "range", &agreeing)));
    test.restart();
    assert_eq!(test.describe(), Ok(group("Stable", "range", &agreeing)));
    test.join(dynamic(""));
    assert_eq!(
        test.describe().map(|group| (group.state, group.protocol_name)),
        Ok(("PreparingRebalance", String::new()))
    );
}

#[test]
fn only_a_group_without_members_is_deleted() {
    let mut test = GroupTest::new();
    let deleted = |code| GroupResponse::Delete(code);
    assert_eq!(test.ask(delete(GROUP)), deleted(ErrorCode::GroupIdNotFound));
    let members = test.begin_generation(1);
    assert_eq!(test.ask(delete(GROUP)), deleted(ErrorCode::NonEmptyGroup));
    test.assign(&members, 1);
    assert_eq!(test.commit(member_commit(&members[0], 1)), [ErrorCode::None]);
    assert_eq!(test.ask(delete(GROUP)), deleted(ErrorCode::NonEmptyGroup));
    test.join(dynamic(""));
    assert_eq!(test.ask(delete(GROUP)), deleted(ErrorCode::NonEmptyGroup));
    test.restart();
    test.leave(&[(&members[0], None)]);
    assert_eq!(test.ask(delete(GROUP)), deleted(ErrorCode::None));
    assert_eq!((test.offsets(GROUP), test.shard.groups().count()), (vec![], 0));
    test.restart();
    assert_eq!((test.offsets(GROUP), test.shard.groups().count()), (vec![], 0));
}

#[test]
fn what_a_crash_leaves_of_a_deletion_is_a_group() {
    let mut test = GroupTest::new();
    let members = test.stable(1);
    test.commit(member_commit(&members[0], 1));
    test.leave(&[(&members[0], None)]);
    let before = test.log.len();
    test.ask(delete(GROUP));
    assert_eq!(test.log.len(), before + 2);
    for (records, groups, offsets) in [(0, 1, 1), (1, 1, 0), (2, 0, 0)] {
        let mut shard = GroupShard::new(GroupSettings::default());
        for (key, value) in &test.log[..before + records] {
            shard.load(&GroupRecord::decode(key, value.as_ref()).unwrap());
        }
        assert_eq!(shard.groups().count(), groups, "after {records} records");
        let found: usize = shard.groups().map(|group| group.offsets_len()).sum();
        assert_eq!(found, offsets, "after {records} records");
    }
}

#[test]
fn metrics_are_told_of_every_group() {
    let mut test = GroupTest::new();
    let members = test.stable(2);
    test.commit(member_commit(&members[0], 1));
    test.commit(outsider("simple", "topic", 3, 5));
    let told: Vec<_> = test.shard.groups().collect();
    let told = told.iter().map(|group| {
        (group.group_id, group.state, group.members, group.offsets().collect::<Vec<_>>())
    });
    let expected = [
        (GROUP, "Stable", 2, vec![("topic", 0, Offset(7))]),
        ("simple", "Empty", 0, vec![("topic", 3, Offset(5))]),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    let names: Vec<_> = RebalanceCause::ALL.iter().map(|cause| cause.name()).collect();
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
}
