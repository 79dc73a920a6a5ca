//! Many members and many groups: what they cost in time and in memory.

#![allow(clippy::disallowed_types, reason = "a test of speed looks at the clock")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidelog_coordinator::request::{
    CommitOffsets, Heartbeat, JoinGroup, Joined, OffsetToCommit, SyncGroup,
};
use tidelog_coordinator::{
    Event, GroupRequest, GroupResponse, GroupSettings, GroupShard, Now, Planned, RequestId,
};
use tidelog_types::{ErrorCode, LeaderEpoch, Offset, TopicId, Uuid};

const MEMBERS: usize = 1_000;
const GROUPS: usize = 10_000;

struct Shard {
    shard: GroupShard,
    now: Now,
    asked: u64,
    replies: Vec<(RequestId, GroupResponse)>,
}

impl Shard {
    fn new(initial_rebalance_delay: Duration) -> Shard {
        let now = Now { elapsed: Duration::ZERO, wall_ms: 1_700_000_000_000 };
        let settings = GroupSettings { initial_rebalance_delay, ..GroupSettings::default() };
        let shard = GroupShard::new(settings);
        Shard { shard, now, asked: 0, replies: Vec::new() }
    }

    fn send(&mut self, request: &GroupRequest) {
        self.asked += 1;
        let planned = self.shard.plan(RequestId(self.asked), request, self.now);
        self.happen(planned);
    }

    fn happen(&mut self, planned: Planned) {
        for event in &planned.events {
            if let Event::Record(record) = event {
                std::hint::black_box(record.encode());
            }
            self.shard.replay(event);
        }
        self.replies.extend(planned.replies);
    }

    fn advance(&mut self, duration: Duration) {
        self.now.elapsed += duration;
        while self.shard.next_deadline().is_some_and(|next| next <= self.now.elapsed) {
            self.happen(self.shard.plan_due(self.now));
        }
    }

    fn joined(&mut self) -> Vec<Joined> {
        let replies = std::mem::take(&mut self.replies);
        let joined = replies.into_iter().map(|(_, response)| match response {
            GroupResponse::Join(joined) => joined,
            other => panic!("not joined: {other:?}"),
        });
        joined.collect()
    }
}

fn join(group_id: &str, member_id: &str, number: usize) -> GroupRequest {
    GroupRequest::Join(JoinGroup {
        group_id: group_id.into(),
        member_id: member_id.into(),
        group_instance_id: None,
        client_id: "consumer-of-orders".into(),
        client_host: "/192.168.100.200".into(),
        new_member: Uuid((number as u128).to_be_bytes()),
        session_timeout: Duration::from_secs(45),
        rebalance_timeout: Duration::from_secs(300),
        protocol_type: "consumer".into(),
        protocols: vec![
            ("range".into(), Bytes::from(vec![1; 100])),
            ("cooperative-sticky".into(), Bytes::from(vec![2; 150])),
        ],
        requires_known_member_id: true,
        supports_skipping_assignment: true,
        reason: None,
    })
}

fn sync(group_id: &str, joined: &Joined) -> GroupRequest {
    let assignment = |id: &String| (id.clone(), Bytes::from(vec![3; 100]));
    GroupRequest::Sync(SyncGroup {
        group_id: group_id.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        protocol_type: joined.protocol_type.clone(),
        protocol_name: joined.protocol_name.clone(),
        assignments: joined.members.iter().map(|one| assignment(&one.member_id)).collect(),
    })
}

/// Nothing that a member does may cost what the group is large: a thousand of them have to settle
/// in seconds, on a busy machine and without optimisation.
#[test]
fn a_thousand_members_settle_in_seconds() {
    let mut test = Shard::new(Duration::from_secs(3));
    let began = Instant::now();
    for number in 0..MEMBERS {
        test.send(&join("group", "", number));
    }
    let told = test.joined();
    assert!(told.iter().all(|told| told.error_code == ErrorCode::MemberIdRequired));
    let mut member_ids: Vec<String> = told.into_iter().map(|told| told.member_id).collect();
    for generation_id in 1..=3 {
        for (number, member_id) in member_ids.iter().enumerate() {
            test.send(&join("group", member_id, number));
        }
        // The first time, until nobody new has come for the initial delay.
        test.advance(Duration::from_secs(3));
        test.advance(Duration::from_secs(3));
        let joined = test.joined();
        assert_eq!(joined.len(), MEMBERS);
        assert!(joined.iter().all(|one| one.generation_id == generation_id));
        // The leader's assignment comes last: everybody waits for it.
        let (leaders, followers): (Vec<_>, Vec<_>) =
            joined.iter().partition(|one| one.leader == one.member_id);
        followers.iter().chain(&leaders).for_each(|one| test.send(&sync("group", one)));
        assert_eq!(test.replies.len(), MEMBERS);
        test.replies.clear();
        // The leader joins first the next time, which sends all the others back.
        member_ids.sort_by_key(|member_id| *member_id != leaders[0].member_id);
        for member_id in &member_ids {
            test.send(&GroupRequest::Heartbeat(Heartbeat {
                group_id: "group".into(),
                generation_id,
                member_id: member_id.clone(),
                group_instance_id: None,
            }));
        }
        let alive = GroupResponse::Heartbeat(ErrorCode::None);
        assert!(test.replies.drain(..).all(|(_, response)| response == alive));
    }
    let took = began.elapsed();
    eprintln!("three generations of {MEMBERS} members took {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Each group has a member that consumes, and offsets in ten partitions.
#[test]
fn ten_thousand_idle_groups_fit_into_a_hundred_megabytes() {
    let before = resident_bytes();
    let mut test = Shard::new(Duration::ZERO);
    for number in 0..GROUPS {
        let group_id = format!("group-of-consumers-{number}");
        test.send(&join(&group_id, "", number));
        let member_id = test.joined().remove(0).member_id;
        test.send(&join(&group_id, &member_id, number));
        test.advance(Duration::ZERO);
        let joined = test.joined().remove(0);
        test.send(&sync(&group_id, &joined));
        test.send(&commit(&group_id, &joined));
        let committed = GroupResponse::CommitOffsets(vec![ErrorCode::None; 10]);
        assert_eq!(test.replies.pop().map(|(_, response)| response), Some(committed));
        test.replies.clear();
    }
    let stable = test.shard.groups().filter(|group| group.state == "Stable").count();
    assert_eq!(stable, GROUPS);
    let took = resident_bytes().saturating_sub(before);
    eprintln!("{GROUPS} groups took {took} bytes");
    assert!(took < 100 << 20, "{took} bytes");
}

fn commit(group_id: &str, joined: &Joined) -> GroupRequest {
    let offset = |partition| OffsetToCommit {
        topic: "topic-of-orders".into(),
        topic_id: TopicId::ZERO,
        partition,
        offset: Offset(1_000_000),
        leader_epoch: LeaderEpoch(3),
        metadata: String::new(),
    };
    GroupRequest::CommitOffsets(CommitOffsets {
        group_id: group_id.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        retention: None,
        unknown_group: ErrorCode::GroupIdNotFound,
        offsets: (0..10).map(offset).collect(),
    })
}

/// What the process has in memory: the second number of `/proc/self/statm`, in pages.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("on Linux");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number of pages") * 4_096
}
