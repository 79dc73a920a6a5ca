//! A log that somebody else wrote: whatever it says, the shard goes on.

use proptest::prelude::*;

use super::*;
use crate::record::{GroupMetadataValue, MemberMetadata, OffsetCommitValue};

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "b", "c"]).prop_map(str::to_owned)
}

fn maybe() -> impl Strategy<Value = Option<String>> {
    prop::option::weighted(0.7, text())
}

fn any_ms() -> impl Strategy<Value = i32> {
    prop_oneof![Just(-1), Just(0), Just(10_000), Just(i32::MAX), any::<i32>()]
}

fn member() -> impl Strategy<Value = MemberMetadata> {
    (text(), maybe(), any_ms(), any_ms(), prop::sample::select(vec![0_usize, 3])).prop_map(
        |(member_id, instance_id, rebalance_timeout_ms, session_timeout_ms, length)| {
            MemberMetadata {
                member_id: member_id.as_str().into(),
                group_instance_id: instance_id.as_deref().map(Into::into),
                client_id: "".into(),
                client_host: "".into(),
                rebalance_timeout_ms,
                session_timeout_ms,
                subscription: Bytes::from(vec![0; length]),
                assignment: Bytes::from(member_id),
            }
        },
    )
}

fn group_value() -> impl Strategy<Value = GroupMetadataValue> {
    let numbers = (prop_oneof![Just(0), Just(1), any::<i32>()], prop::option::of(any::<i64>()));
    let types = prop::sample::select(vec!["", "consumer", "connect"]);
    let names = prop::option::weighted(0.9, prop::sample::select(vec!["range", "sticky"]));
    (types, names, maybe(), numbers, prop::collection::vec(member(), 0..4)).prop_map(
        |(protocol_type, name, leader, (generation_id, state_timestamp_ms), members)| {
            GroupMetadataValue {
                protocol_type: protocol_type.into(),
                generation_id,
                protocol_name: name.map(Into::into),
                leader: leader.as_deref().map(Into::into),
                state_timestamp_ms,
                members,
            }
        },
    )
}

fn offset_value() -> impl Strategy<Value = OffsetCommitValue> {
    (any::<i64>(), any::<i64>(), prop::option::of(any::<i64>())).prop_map(
        |(offset, commit_timestamp_ms, expire_timestamp_ms)| OffsetCommitValue {
            offset: Offset(offset),
            leader_epoch: LeaderEpoch::NONE,
            metadata: String::new(),
            commit_timestamp_ms,
            expire_timestamp_ms,
            topic_id: TopicId::ZERO,
        },
    )
}

fn record() -> impl Strategy<Value = GroupRecord> {
    let group = prop::option::weighted(0.9, group_value())
        .prop_map(|value| GroupRecord::GroupMetadata { group_id: GROUP.into(), value });
    let offset = (text(), any::<i32>(), prop::option::weighted(0.7, offset_value())).prop_map(
        |(topic, partition, value)| GroupRecord::OffsetCommit {
            group_id: GROUP.into(),
            topic: topic.as_str().into(),
            partition,
            value,
        },
    );
    prop_oneof![3 => group, 1 => offset]
}

/// What a client may ask that believes what the log says.
fn request() -> impl Strategy<Value = GroupRequest> {
    let names = prop::sample::select(vec![&["range"][..], &["sticky", "range"]]);
    let join = (text(), maybe(), any_ms(), names).prop_map(|(member_id, instance, ms, names)| {
        GroupRequest::Join(JoinGroup {
            group_instance_id: instance,
            rebalance_timeout: Duration::from_millis(ms.unsigned_abs().into()),
            protocols: protocols(names),
            ..dynamic(&member_id)
        })
    });
    let generation_id = || prop_oneof![Just(1), Just(2), Just(0), Just(i32::MIN), any::<i32>()];
    let sync = (text(), generation_id()).prop_map(|(member_id, generation_id)| {
        GroupRequest::Sync(leader_of(&[member_id], generation_id))
    });
    let heartbeat = (text(), generation_id(), maybe()).prop_map(
        |(member_id, generation_id, group_instance_id)| {
            let group_id = GROUP.into();
            GroupRequest::Heartbeat(Heartbeat {
                group_id,
                generation_id,
                member_id,
                group_instance_id,
            })
        },
    );
    let leave = (text(), maybe()).prop_map(|(member_id, group_instance_id)| {
        let member = LeavingMember { member_id, group_instance_id, reason: None };
        GroupRequest::Leave(LeaveGroup { group_id: GROUP.into(), members: vec![member] })
    });
    let commit = (text(), generation_id()).prop_map(|(member_id, generation_id)| {
        GroupRequest::CommitOffsets(member_commit(&member_id, generation_id))
    });
    let delete = Just(GroupRequest::Delete { group_id: GROUP.into() });
    prop_oneof![4 => join, 2 => sync, 1 => heartbeat, 1 => leave, 1 => commit, 1 => delete]
}

proptest! {
    #[test]
    fn whatever_a_log_says_the_shard_goes_on(
        records in prop::collection::vec(record(), 1..6),
        requests in prop::collection::vec((request(), 0..100_000_u64), 0..20),
    ) {
        let mut test = GroupTest::new();
        for record in records {
            let (key, value) = record.encode();
            // What no shard would take, the log's reader leaves out.
            if GroupRecord::decode(&key, value.as_ref()).is_ok() {
                test.log.push((key, value));
            }
        }
        test.restart();
        for (request, ms) in requests {
            test.send(request);
            test.advance(Duration::from_millis(ms));
        }
        test.restart();
        prop_assert_eq!(test.answered + test.sent_away.len() as u64, test.asked);
    }
}
