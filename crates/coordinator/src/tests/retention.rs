//! Offsets that nobody needs any more.

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Time enough for what has expired to be looked for.
const CHECK: Duration = Duration::from_secs(600);

#[test]
fn a_group_that_only_keeps_offsets_keeps_each_for_its_time() {
    let mut test = GroupTest::new();
    test.commit(outsider(GROUP, "early", 0, 1));
    test.advance(HOUR);
    test.commit(outsider(GROUP, "late", 0, 2));
    test.advance(RETENTION - HOUR - CHECK);
    assert_eq!(test.offsets(GROUP).len(), 2);
    test.advance(2 * CHECK);
    assert_eq!(test.offsets(GROUP), [("late".into(), 0, 2)]);
    test.advance(HOUR);
    assert_eq!((test.offsets(GROUP), test.shard.groups().count()), (vec![], 0));
    test.restart();
    assert_eq!(test.shard.groups().count(), 0);
}

#[test]
fn a_group_that_lost_its_members_keeps_all_offsets_from_then_on() {
    for is_restarted in [false, true] {
        let mut test = GroupTest::new();
        let session_timeout = 3 * CHECK;
        let id = test.join(JoinGroup { session_timeout, ..dynamic("") });
        let members = [test.joined_later(id).member_id];
        test.assign(&members, 1);
        test.commit(member_commit(&members[0], 1));
        for _ in 0..=RETENTION.as_secs() / CHECK.as_secs() {
            test.advance(CHECK);
            test.heartbeat(&members[0], 1);
        }
        assert_eq!(test.state(), "Stable");
        test.advance(session_timeout);
        assert_eq!(test.state(), "Empty");
        if is_restarted {
            test.restart();
        }
        test.advance(RETENTION - CHECK);
        assert_eq!(test.offsets(GROUP), [("topic".into(), 0, 7)]);
        test.advance(2 * CHECK);
        assert_eq!((test.offsets(GROUP), test.shard.groups().count()), (vec![], 0));
        test.restart();
        assert_eq!(test.shard.groups().count(), 0, "its own record is gone too");
    }
}

#[test]
fn members_keep_the_offsets_of_what_they_consume() {
    let consumes = |topics: &[&str]| vec![("range".to_owned(), subscription(topics))];
    // Protocol type, protocols, and which of the two offsets remain.
    type Case = (&'static str, Vec<(String, Bytes)>, &'static [&'static str]);
    let cases: [Case; 3] = [
        ("consumer", consumes(&["mine"]), &["mine"]),
        ("consumer", protocols(&["range"]), &["mine", "other"]),
        ("connect", consumes(&["mine"]), &["mine", "other"]),
    ];
    for (protocol_type, protocols, remaining) in cases {
        for is_restarted in [false, true] {
            let mut test = GroupTest::new();
            let session_timeout = Duration::from_secs(1_800);
            let id = test.join(JoinGroup {
                protocol_type: protocol_type.into(),
                protocols: protocols.clone(),
                session_timeout,
                ..dynamic("")
            });
            let member_id = test.joined_later(id).member_id;
            let mut leader = leader_of(std::slice::from_ref(&member_id), 1);
            leader.protocol_type = None;
            assert_eq!(test.sync_now(leader).error_code, ErrorCode::None);
            for topic in ["mine", "other"] {
                let offsets = outsider(GROUP, topic, 0, 1).offsets;
                test.commit(CommitOffsets { offsets, ..member_commit(&member_id, 1) });
            }
            if is_restarted {
                test.restart();
            }
            for _ in 0..=RETENTION.as_secs() / CHECK.as_secs() {
                test.advance(CHECK);
                assert_eq!(test.heartbeat(&member_id, 1), ErrorCode::None);
            }
            let offsets = test.offsets(GROUP);
            let topics: Vec<_> = offsets.iter().map(|(topic, _, _)| topic.as_str()).collect();
            assert_eq!(topics, remaining, "{protocol_type} {is_restarted}");
        }
    }
}

#[test]
fn an_offset_is_kept_as_long_as_its_commit_asked() {
    let mut test = GroupTest::new();
    let long = RETENTION + 2 * HOUR;
    for (topic, retention) in [("short", Some(HOUR)), ("usual", None), ("long", Some(long))] {
        test.commit(CommitOffsets { retention, ..outsider(GROUP, topic, 0, 1) });
    }
    test.restart();
    for (wait, remaining) in [
        (HOUR - CHECK, &["long", "short", "usual"][..]),
        (2 * CHECK, &["long", "usual"]),
        (RETENTION - HOUR, &["long"]),
        (2 * HOUR, &[]),
    ] {
        test.advance(wait);
        let offsets = test.offsets(GROUP);
        let topics: Vec<_> = offsets.iter().map(|(topic, _, _)| topic.as_str()).collect();
        assert_eq!(topics, remaining);
    }
}

#[test]
fn what_has_expired_is_found_part_by_part() {
    let mut test = GroupTest::new();
    for group in 0..2_500 {
        test.commit(outsider(&format!("group-{group:04}"), "topic", 0, 1));
    }
    test.advance(RETENTION - CHECK);
    assert_eq!(test.shard.groups().count(), 2_500);
    let before = test.log.len();
    test.pass(2 * CHECK);
    for (tombstones, is_over) in [(1_000, false), (2_000, false), (2_500, true)] {
        let planned = test.shard.plan_due(test.now);
        test.happen(planned);
        assert_eq!(test.log.len() - before, tombstones);
        let is_due = test.shard.next_deadline().is_some_and(|next| next <= test.now.elapsed);
        assert_eq!(!is_due, is_over);
    }
    assert_eq!(test.shard.groups().count(), 0);
}

#[test]
fn a_group_without_members_and_offsets_is_forgotten() {
    let mut test = GroupTest::new();
    let members = test.stable(1);
    test.leave(&[(&members[0], None)]);
    // Somebody is about to join.
    test.advance(CHECK - SESSION);
    test.join_now(JoinGroup { requires_known_member_id: true, ..dynamic("") });
    test.advance(SESSION - Duration::from_millis(1));
    assert_eq!(test.state(), "Empty");
    test.advance(2 * CHECK);
    assert_eq!(test.state(), "none");
    test.restart();
    assert_eq!(test.state(), "none");
}
