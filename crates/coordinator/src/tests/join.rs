//! JoinGroup.

use super::*;
use crate::group::classic::{PROTOCOLS_MAX, RESERVED_IDS_MAX};

fn refused(error_code: ErrorCode, member_id: &str) -> Joined {
    Joined {
        error_code,
        generation_id: -1,
        protocol_type: None,
        protocol_name: None,
        leader: String::new(),
        skip_assignment: false,
        member_id: member_id.into(),
        members: Vec::new(),
    }
}

#[test]
fn what_no_group_could_grant_is_refused() {
    let long = "x".repeat(crate::record::STRING_BYTES_MAX + 1);
    let names: Vec<String> = (0..=PROTOCOLS_MAX).map(|name| name.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let large = vec![("range".to_owned(), Bytes::from(vec![0; 1_000_001]))];
    let ms = Duration::from_millis;
    let cases: [(JoinGroup, ErrorCode); 11] = [
        (JoinGroup { group_id: String::new(), ..dynamic("") }, ErrorCode::InvalidGroupId),
        (JoinGroup { group_id: long.clone(), ..dynamic("") }, ErrorCode::InvalidGroupId),
        (JoinGroup { session_timeout: ms(5_999), ..dynamic("") }, ErrorCode::InvalidSessionTimeout),
        (
            JoinGroup { session_timeout: ms(1_800_001), ..dynamic("") },
            ErrorCode::InvalidSessionTimeout,
        ),
        (dynamic("stranger"), ErrorCode::UnknownMemberId),
        (
            JoinGroup { protocol_type: String::new(), ..dynamic("") },
            ErrorCode::InconsistentGroupProtocol,
        ),
        (JoinGroup { protocols: vec![], ..dynamic("") }, ErrorCode::InconsistentGroupProtocol),
        (JoinGroup { protocols: protocols(&names), ..dynamic("") }, ErrorCode::InvalidRequest),
        (JoinGroup { protocols: large, ..dynamic("") }, ErrorCode::InvalidRequest),
        (JoinGroup { protocol_type: long.clone(), ..dynamic("") }, ErrorCode::InvalidRequest),
        (JoinGroup { group_instance_id: Some(long), ..dynamic("") }, ErrorCode::InvalidRequest),
    ];
    for (request, error) in cases {
        let mut test = GroupTest::new();
        let member_id = request.member_id.clone();
        assert_eq!(test.join_now(request), refused(error, &member_id));
        assert_eq!(test.shard.groups().count(), 0, "{error:?} leaves nothing");
    }
}

#[test]
fn what_does_not_fit_a_group_is_refused() {
    let mut test = GroupTest::new();
    let members = test.stable(2);
    let connect = JoinGroup { protocol_type: "connect".into(), ..dynamic("") };
    let other = JoinGroup { protocols: protocols(&["sticky"]), ..dynamic("") };
    let changed = JoinGroup { protocols: protocols(&["sticky"]), ..dynamic(&members[0]) };
    let pretender = JoinGroup { member_id: members[0].clone(), ..fixed("instance") };
    for (request, error) in [
        (connect, ErrorCode::InconsistentGroupProtocol),
        (other, ErrorCode::InconsistentGroupProtocol),
        (changed, ErrorCode::InconsistentGroupProtocol),
        (dynamic("stranger"), ErrorCode::UnknownMemberId),
        (pretender, ErrorCode::UnknownMemberId),
    ] {
        let member_id = request.member_id.clone();
        assert_eq!(test.join_now(request), refused(error, &member_id));
    }
    assert_eq!(test.state(), "Stable");
}

#[test]
fn a_new_client_is_told_its_id_and_joins_with_it() {
    let mut test = GroupTest::new();
    let first = JoinGroup { requires_known_member_id: true, ..dynamic("") };
    let told = test.join_now(first);
    assert_eq!(told, refused(ErrorCode::MemberIdRequired, &told.member_id));
    assert!(told.member_id.starts_with("client-00000000-0000-0000-0000-"), "{}", told.member_id);
    assert_eq!(test.state(), "Empty");
    let impostor = JoinGroup { member_id: told.member_id.clone(), ..fixed("instance") };
    assert_eq!(test.join_now(impostor).error_code, ErrorCode::UnknownMemberId);
    let again = JoinGroup { requires_known_member_id: true, ..dynamic(&told.member_id) };
    let id = test.join(again);
    test.advance(FIRST_WAIT);
    let joined = test.joined(id);
    assert_eq!((joined.error_code, joined.generation_id), (ErrorCode::None, 1));
    assert_eq!(joined.member_id, told.member_id);
}

#[test]
fn an_id_that_is_not_used_is_taken_back_after_a_session() {
    for (wait, error) in [(9_999, None), (10_000, Some(ErrorCode::UnknownMemberId))] {
        let mut test = GroupTest::new();
        let told = test.join_now(JoinGroup { requires_known_member_id: true, ..dynamic("") });
        test.advance(Duration::from_millis(wait));
        let id = test.join(dynamic(&told.member_id));
        let answer = test.answer(id).map(|answer| match answer {
            GroupResponse::Join(joined) => joined.error_code,
            other => panic!("{other:?}"),
        });
        assert_eq!(answer, error, "after {wait} ms");
        assert_eq!(test.shard.groups().count(), usize::from(error.is_none()));
    }
}

#[test]
fn ids_of_clients_that_never_join_are_bounded() {
    let mut test = GroupTest::new();
    let first = || JoinGroup { requires_known_member_id: true, ..dynamic("") };
    let mut shard = test.shard.clone();
    for id in 0..RESERVED_IDS_MAX as u64 {
        let planned = shard.plan(RequestId(id), &GroupRequest::Join(first()), test.now);
        planned.events.iter().for_each(|event| shard.replay(event));
    }
    test.shard = shard;
    assert_eq!(test.join_now(first()), refused(ErrorCode::GroupMaxSizeReached, ""));
}

#[test]
fn a_first_generation_waits_for_members_as_long_as_they_come() {
    // When further members join, in seconds after the first; when the generation begins.
    let cases: [(&[u64], u64); 5] =
        [(&[], 3), (&[1], 6), (&[1, 5], 9), (&[2, 4, 7, 8, 11, 14], 10), (&[2, 2, 2], 6)];
    for (joins, begins) in cases {
        let mut test = GroupTest::new();
        let ten = || JoinGroup { rebalance_timeout: Duration::from_secs(10), ..dynamic("") };
        let mut ids = vec![test.join(ten())];
        let mut at = 0;
        for join in joins.iter().filter(|join| **join < begins) {
            test.advance(Duration::from_secs(join - at));
            at = *join;
            ids.push(test.join(ten()));
        }
        test.advance(Duration::from_secs(begins - at) - Duration::from_millis(1));
        assert!(ids.iter().all(|id| test.waits(*id)), "{joins:?} begins too early");
        test.advance(Duration::from_millis(1));
        assert!(ids.iter().all(|id| !test.waits(*id)), "{joins:?} begins too late");
    }
}

#[test]
fn the_leader_is_told_of_all_members_and_the_others_of_the_leader() {
    let mut test = GroupTest::new();
    let ids = [test.join(dynamic("")), test.join(fixed("instance"))];
    test.advance(2 * FIRST_WAIT);
    let [first, second] = ids.map(|id| test.joined(id));
    let expected = Joined {
        error_code: ErrorCode::None,
        generation_id: 1,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        leader: first.member_id.clone(),
        skip_assignment: false,
        member_id: second.member_id.clone(),
        members: Vec::new(),
    };
    assert_eq!(second, expected);
    let told = |joined: &Joined, instance_id: Option<&str>| crate::request::JoinedMember {
        member_id: joined.member_id.clone(),
        group_instance_id: instance_id.map(str::to_owned),
        metadata: Bytes::from_static(b"told range"),
    };
    let members = vec![told(&first, None), told(&second, Some("instance"))];
    let expected = Joined { member_id: first.member_id.clone(), members, ..expected };
    assert_eq!(first, expected);
    assert_eq!(test.rebalances, [RebalanceCause::MemberJoined]);
}

#[test]
fn the_protocol_is_what_most_members_like_best_of_what_all_can_do() {
    let cases: [(&[&[&str]], &str); 6] = [
        (&[&["range"]], "range"),
        (&[&["a", "b"], &["b", "a"], &["b", "a"]], "b"),
        (&[&["c", "a"], &["c", "b", "a"], &["a"]], "a"),
        (&[&["a", "b"], &["b", "a"]], "a"),
        (&[&["b", "a"], &["a", "b"]], "a"),
        (
            &[&["cooperative-sticky", "range"], &["range", "cooperative-sticky"], &["range"]],
            "range",
        ),
    ];
    for (members, expected) in cases {
        let mut test = GroupTest::new();
        let join = |names: &&[&str]| JoinGroup { protocols: protocols(names), ..dynamic("") };
        let ids: Vec<_> = members.iter().map(|names| test.join(join(names))).collect();
        for id in ids {
            assert_eq!(
                test.joined_later(id).protocol_name.as_deref(),
                Some(expected),
                "{members:?}"
            );
        }
    }
}

#[test]
fn a_member_that_says_nothing_new_keeps_its_generation_unless_it_leads() {
    // Who joins again, with what, and whether all have to.
    for (who, names, is_rebalance) in [
        ("leader", &["range"][..], true),
        ("follower", &["range"], false),
        ("follower", &["range", "sticky"], true),
    ] {
        let mut test = GroupTest::new();
        let members = test.stable(2);
        let member_id = if who == "leader" { &members[0] } else { &members[1] };
        let id = test.join(JoinGroup { protocols: protocols(names), ..dynamic(member_id) });
        assert_eq!(test.waits(id), is_rebalance, "{who} {names:?}");
        if is_rebalance {
            assert_eq!(test.state(), "PreparingRebalance");
            assert_eq!(test.rebalances.last(), Some(&RebalanceCause::MemberRejoined));
        } else {
            let joined = test.joined(id);
            assert_eq!((joined.generation_id, joined.members.len()), (1, 0));
            assert_eq!(test.state(), "Stable");
        }
    }
}

#[test]
fn while_the_leader_assigns_a_repeated_join_is_answered_again() {
    let mut test = GroupTest::new();
    let members = test.begin_generation(2);
    let leader = test.join_now(dynamic(&members[0]));
    assert_eq!((leader.generation_id, leader.members.len()), (1, 2));
    let follower = test.join_now(dynamic(&members[1]));
    assert_eq!((follower.generation_id, follower.members.len()), (1, 0));
    assert_eq!(test.state(), "CompletingRebalance");
}

#[test]
fn while_the_leader_assigns_a_changed_join_sends_everybody_back() {
    let mut test = GroupTest::new();
    let members = test.begin_generation(3);
    let waiting = test.sync(super::follower(&members[1], 1));
    let both = protocols(&["range", "sticky"]);
    let id = test.join(JoinGroup { protocols: both, ..dynamic(&members[2]) });
    assert_eq!(test.synced(waiting).error_code, ErrorCode::RebalanceInProgress);
    assert!(test.waits(id));
    let others = [test.join(dynamic(&members[0])), test.join(dynamic(&members[1]))];
    for id in others.into_iter().chain([id]) {
        let joined = test.joined(id);
        assert_eq!((joined.error_code, joined.generation_id), (ErrorCode::None, 2));
    }
}

#[test]
fn members_that_do_not_join_in_time_are_left_behind() {
    let mut test = GroupTest::new();
    let slow = JoinGroup { rebalance_timeout: 2 * REBALANCE, ..dynamic("") };
    let absent = test.join(JoinGroup { session_timeout: 20 * SESSION, ..slow });
    let present = test.join(dynamic(""));
    let absent = test.joined_later(absent).member_id;
    let present = test.joined_later(present).member_id;
    test.assign(&[absent.clone(), present.clone()], 1);
    // A newcomer: the group waits as long as its most patient member asks.
    let newcomer = test.join(dynamic(""));
    let present = test.join(dynamic(&present));
    test.advance(2 * REBALANCE - Duration::from_millis(1));
    assert!(test.waits(newcomer) && test.waits(present));
    test.advance(Duration::from_millis(1));
    let (newcomer, present) = (test.joined(newcomer), test.joined(present));
    assert_eq!((newcomer.generation_id, present.generation_id), (2, 2));
    assert_ne!(present.leader, absent, "a leader that is gone does not lead");
    assert_eq!(newcomer.leader, present.leader);
    assert_eq!(test.heartbeat(&absent, 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_static_member_that_does_not_join_in_time_keeps_its_place() {
    let mut test = GroupTest::new();
    let ids = [test.join(dynamic("")), test.join(fixed("instance"))];
    let [dynamic_member, static_member] = ids.map(|id| test.joined_later(id).member_id);
    test.assign(&[dynamic_member.clone(), static_member.clone()], 1);
    let id = test.join(dynamic(&dynamic_member));
    // It lives, but does not join.
    for _ in 0..REBALANCE.as_secs() / 5 {
        test.advance(Duration::from_secs(5));
        test.heartbeat_as(&static_member, 1, Some("instance"));
    }
    let joined = test.joined(id);
    assert_eq!((joined.generation_id, joined.members.len()), (2, 2));
    assert_eq!(test.heartbeat_as(&static_member, 2, Some("instance")), ErrorCode::None);
}

#[test]
fn a_group_of_which_nobody_joins_waits_for_its_sessions() {
    let mut test = GroupTest::new();
    let long = JoinGroup { session_timeout: 3 * REBALANCE, ..fixed("instance") };
    let id = test.join(long);
    test.advance(FIRST_WAIT);
    let member_id = test.joined(id).member_id;
    test.assign(std::slice::from_ref(&member_id), 1);
    let newcomer = test.join(dynamic(""));
    let newcomer_id = the_other(&mut test, &member_id);
    test.leave(&[(&newcomer_id, None)]);
    assert_eq!(test.joined(newcomer).error_code, ErrorCode::UnknownMemberId);
    test.advance(3 * REBALANCE - Duration::from_millis(1));
    assert_eq!(test.state(), "PreparingRebalance", "its one member may still come");
    test.advance(Duration::from_millis(1));
    assert_eq!(test.state(), "Empty");
}

/// The member that is not this one.
fn the_other(test: &mut GroupTest, not: &str) -> String {
    let members = test.describe().unwrap().members;
    members.into_iter().map(|member| member.member_id).find(|member_id| member_id != not).unwrap()
}

#[test]
fn a_member_that_would_wait_for_no_time_keeps_nobody_busy() {
    let mut test = GroupTest::new();
    let ids = [test.join(fixed("hasty")), test.join(fixed("other"))];
    let joined = ids.map(|id| test.joined_later(id));
    let mut members = joined.clone().map(|joined| joined.member_id);
    members.sort_by_key(|member_id| *member_id != joined[0].leader);
    test.assign(&members, 1);
    test.join_now(JoinGroup { rebalance_timeout: Duration::ZERO, ..fixed("hasty") });
    test.leave(&[("", Some("other"))]);
    assert_eq!(test.state(), "PreparingRebalance");
    let mut rounds = 0;
    while test.state() == "PreparingRebalance" {
        test.pass(Duration::from_millis(1));
        let planned = test.shard.plan_due(test.now);
        rounds += planned.events.len();
        test.happen(planned);
    }
    assert!(rounds <= 15, "{rounds} things happened in the {SESSION:?} of a session");
}

#[test]
fn a_client_that_waits_for_its_first_generation_is_given_up_after_five_minutes() {
    let mut test = GroupTest::new();
    let patient = JoinGroup { rebalance_timeout: 10 * REBALANCE, ..dynamic("") };
    let id = test.join(JoinGroup { session_timeout: 20 * REBALANCE, ..patient });
    test.advance(FIRST_WAIT);
    let member_id = test.joined(id).member_id;
    test.assign(&[member_id], 1);
    let waiting = test.join(dynamic(""));
    test.advance(Duration::from_millis(299_999));
    assert!(test.waits(waiting));
    test.advance(Duration::from_millis(1));
    assert_eq!(test.joined(waiting), refused(ErrorCode::UnknownMemberId, ""));
}

#[test]
fn asking_again_does_not_make_a_new_client_wait_longer() {
    let mut test = GroupTest::new();
    let patient = || JoinGroup { rebalance_timeout: 10 * REBALANCE, ..dynamic("") };
    let id = test.join(JoinGroup { session_timeout: 20 * REBALANCE, ..patient() });
    let member_id = test.joined_later(id).member_id;
    test.assign(&[member_id], 1);
    let told = test.join_now(JoinGroup { requires_known_member_id: true, ..patient() });
    let mut waiting = test.join(dynamic(&told.member_id));
    for _ in 0..4 {
        test.advance(REBALANCE);
        waiting = test.join(dynamic(&told.member_id));
    }
    test.advance(REBALANCE - Duration::from_millis(1));
    assert!(test.waits(waiting));
    test.advance(Duration::from_millis(1));
    assert_eq!(test.joined(waiting), refused(ErrorCode::UnknownMemberId, ""));
}

#[test]
fn a_generation_waits_for_clients_that_were_told_their_id() {
    let mut test = GroupTest::new();
    let members = test.stable(1);
    let told = test.join_now(JoinGroup { requires_known_member_id: true, ..dynamic("") });
    let id = test.join(dynamic(&members[0]));
    test.advance(SESSION - Duration::from_millis(1));
    assert!(test.waits(id));
    let newcomer = test.join(dynamic(&told.member_id));
    assert_eq!(test.joined(id).generation_id, 2);
    assert_eq!(test.joined(newcomer).generation_id, 2);
    // Or until the id is taken back.
    test.join_now(JoinGroup { requires_known_member_id: true, ..dynamic("") });
    let both = [&members[0], &told.member_id];
    let changed = |id: &String| JoinGroup { protocols: protocols(&["range", "b"]), ..dynamic(id) };
    let ids = both.map(|member_id| test.join(changed(member_id)));
    test.advance(SESSION);
    assert_eq!(ids.map(|id| test.joined(id).generation_id), [3, 3]);
}

#[test]
fn a_client_that_asks_again_is_told_so_on_its_first_request() {
    let mut test = GroupTest::new();
    let members = test.stable(2);
    let first = test.join(dynamic(&members[0]));
    let second = test.join(dynamic(&members[0]));
    let superseded = refused(ErrorCode::RebalanceInProgress, &members[0]);
    assert_eq!(test.joined(first), superseded);
    let other = test.join(dynamic(&members[1]));
    assert_eq!(test.joined(second).generation_id, 2);
    assert_eq!(test.joined(other).generation_id, 2);
}

#[test]
fn a_group_has_at_most_its_size_of_members() {
    let settings = GroupSettings { group_size_max: 2, ..GroupSettings::default() };
    let mut test = GroupTest::with(settings);
    let members = test.stable(2);
    assert_eq!(test.join_now(dynamic("")), refused(ErrorCode::GroupMaxSizeReached, ""));
    assert_eq!(test.state(), "Stable");
    // While members join, whoever comes last is left out.
    let told = test.join_now(JoinGroup { requires_known_member_id: true, ..dynamic("") });
    assert_eq!(told.error_code, ErrorCode::GroupMaxSizeReached);
    let first = test.join(dynamic(&members[0]));
    let newcomer = test.join(dynamic(""));
    let last = test.join_now(dynamic(&members[1]));
    assert_eq!(last, refused(ErrorCode::GroupMaxSizeReached, ""));
    assert_eq!(test.joined(first).generation_id, 2);
    assert_eq!(test.joined(newcomer).generation_id, 2);
}

#[test]
fn member_ids_tell_whose_they_are_within_bounds() {
    let long = "é".repeat(1_000);
    for (request, prefix) in [
        (dynamic(""), "client-".to_owned()),
        (fixed("instance"), "instance-".to_owned()),
        (JoinGroup { client_id: long, ..dynamic("") }, format!("{}-", "é".repeat(127))),
    ] {
        let mut test = GroupTest::new();
        let id = test.join(request);
        test.advance(FIRST_WAIT);
        let member_id = test.joined(id).member_id;
        assert_eq!(member_id.len(), prefix.len() + 36, "{member_id}");
        assert!(member_id.starts_with(&prefix), "{member_id}");
    }
}
