//! Groups as clients, tools and time see them.

mod admin;
mod heartbeat;
mod hostile_log;
mod join;
mod leave;
mod model;

mod offsets;
mod restart;
mod retention;
mod static_members;
mod sync;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tidelog_types::{ErrorCode, LeaderEpoch, Offset, TopicId, Uuid};

use crate::request::{
    CommitOffsets, DescribedGroup, FetchOffsets, Heartbeat, JoinGroup, Joined, LeaveGroup,
    LeavingMember, Left, OffsetToCommit, SyncGroup, Synced,
};
use crate::{
    Event, GroupRecord, GroupRequest, GroupResponse, GroupSettings, GroupShard, Now, Planned,
    RebalanceCause, RequestId,
};

/// The group of most tests.
const GROUP: &str = "group";
const START_MS: i64 = 1_700_000_000_000;
const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);
/// Longer than the initial delay with its extensions can be.
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// A shard, its log, and everybody who asked it something. Time moves as the test says.
struct GroupTest {
    settings: GroupSettings,
    shard: GroupShard,
    log: Vec<(Bytes, Option<Bytes>)>,
    now: Now,
    asked: u64,
    answers: BTreeMap<RequestId, GroupResponse>,
    answered: u64,
    sent_away: Vec<RequestId>,
    rebalances: Vec<RebalanceCause>,
}

impl GroupTest {
    fn new() -> GroupTest {
        GroupTest::with(GroupSettings::default())
    }

    fn with(settings: GroupSettings) -> GroupTest {
        let now = Now { elapsed: Duration::from_secs(1_000), wall_ms: START_MS };
        let mut test = GroupTest {
            shard: GroupShard::new(settings.clone()),
            settings,
            log: Vec::new(),
            now,
            asked: 0,
            answers: BTreeMap::new(),
            answered: 0,
            sent_away: Vec::new(),
            rebalances: Vec::new(),
        };
        test.happen(test.shard.plan_loaded(now));
        test
    }

    /// Asks, and lets happen what follows.
    fn send(&mut self, request: GroupRequest) -> RequestId {
        self.asked += 1;
        let id = RequestId(self.asked);
        let planned = self.shard.plan(id, &request, self.now);
        self.happen(planned);
        id
    }

    fn happen(&mut self, planned: Planned) {
        for event in &planned.events {
            if let Event::Record(record) = event {
                self.log.push(record.encode());
            }
            self.shard.replay(event);
        }
        for (id, response) in planned.replies {
            self.answered += 1;
            let before = self.answers.insert(id, response);
            assert_eq!(before, None, "{id:?} is answered once");
        }
        self.rebalances.extend(planned.rebalances.iter().map(|rebalance| rebalance.cause));
    }

    /// Lets time pass, and happen what falls due on the way.
    fn advance(&mut self, duration: Duration) {
        let until = self.now.elapsed + duration;
        let mut rounds = 0;
        while let Some(deadline) = self.shard.next_deadline().filter(|next| *next <= until) {
            self.pass(deadline.saturating_sub(self.now.elapsed));
            let planned = self.shard.plan_due(self.now);
            assert_ne!(planned.events, [], "what is due happens");
            rounds += 1;
            assert!(rounds < 100_000, "time passes: {:?}", planned.events);
            self.happen(planned);
        }
        self.pass(until - self.now.elapsed);
    }

    fn pass(&mut self, duration: Duration) {
        self.now.elapsed += duration;
        self.now.wall_ms += i64::try_from(duration.as_millis()).unwrap();
    }

    /// The shard as another broker would load it.
    fn reloaded(&self) -> GroupShard {
        let mut shard = GroupShard::new(self.settings.clone());
        for (key, value) in &self.log {
            shard.load(&GroupRecord::decode(key, value.as_ref()).unwrap());
        }
        shard
    }

    /// Whoever waits is sent away; the shard is loaded from its log.
    fn restart(&mut self) {
        self.sent_away.extend(self.shard.waiting());
        self.shard = self.reloaded();
        self.happen(self.shard.plan_loaded(self.now));
    }

    fn answer(&mut self, id: RequestId) -> Option<GroupResponse> {
        self.answers.remove(&id)
    }

    fn ask(&mut self, request: GroupRequest) -> GroupResponse {
        let id = self.send(request);
        self.answer(id).expect("answered at once")
    }

    fn waits(&self, id: RequestId) -> bool {
        !self.answers.contains_key(&id)
    }

    fn joined(&mut self, id: RequestId) -> Joined {
        match self.answer(id) {
            Some(GroupResponse::Join(joined)) => joined,
            other => panic!("not joined: {other:?}"),
        }
    }

    /// Lets just so much time pass that the join is answered.
    fn joined_later(&mut self, id: RequestId) -> Joined {
        while self.waits(id) {
            let next = self.shard.next_deadline().expect("what waits is waited for");
            self.advance(next.saturating_sub(self.now.elapsed));
        }
        self.joined(id)
    }

    fn synced(&mut self, id: RequestId) -> Synced {
        match self.answer(id) {
            Some(GroupResponse::Sync(synced)) => synced,
            other => panic!("not synced: {other:?}"),
        }
    }

    fn join(&mut self, request: JoinGroup) -> RequestId {
        self.send(GroupRequest::Join(request))
    }

    fn join_now(&mut self, request: JoinGroup) -> Joined {
        let id = self.join(request);
        self.joined(id)
    }

    fn sync(&mut self, request: SyncGroup) -> RequestId {
        self.send(GroupRequest::Sync(request))
    }

    fn sync_now(&mut self, request: SyncGroup) -> Synced {
        let id = self.sync(request);
        self.synced(id)
    }

    fn heartbeat(&mut self, member_id: &str, generation_id: i32) -> ErrorCode {
        self.heartbeat_as(member_id, generation_id, None)
    }

    fn heartbeat_as(
        &mut self,
        member_id: &str,
        generation_id: i32,
        group_instance_id: Option<&str>,
    ) -> ErrorCode {
        let heartbeat = Heartbeat {
            group_id: GROUP.into(),
            generation_id,
            member_id: member_id.into(),
            group_instance_id: group_instance_id.map(str::to_owned),
        };
        match self.ask(GroupRequest::Heartbeat(heartbeat)) {
            GroupResponse::Heartbeat(code) => code,
            other => panic!("not of a heartbeat: {other:?}"),
        }
    }

    /// Who leaves: member id, instance id.
    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Left {
        let leaving = |(member_id, instance_id): &(&str, Option<&str>)| LeavingMember {
            member_id: (*member_id).into(),
            group_instance_id: instance_id.map(str::to_owned),
            reason: None,
        };
        let members = members.iter().map(leaving).collect();
        match self.ask(GroupRequest::Leave(LeaveGroup { group_id: GROUP.into(), members })) {
            GroupResponse::Leave(left) => left,
            other => panic!("not left: {other:?}"),
        }
    }

    fn commit(&mut self, request: CommitOffsets) -> Vec<ErrorCode> {
        match self.ask(GroupRequest::CommitOffsets(request)) {
            GroupResponse::CommitOffsets(codes) => codes,
            other => panic!("not committed: {other:?}"),
        }
    }

    /// All offsets of a group: topic, partition, offset.
    fn offsets(&mut self, group_id: &str) -> Vec<(String, i32, i64)> {
        match self.ask(GroupRequest::FetchOffsets(fetch_all(group_id))) {
            GroupResponse::FetchOffsets(Ok(offsets)) => offsets
                .into_iter()
                .map(|at| (at.topic, at.partition, at.offset.map_or(-1, |offset| offset.0)))
                .collect(),
            other => panic!("not fetched: {other:?}"),
        }
    }

    fn describe(&mut self) -> Result<DescribedGroup, ErrorCode> {
        match self.ask(GroupRequest::Describe { group_id: GROUP.into() }) {
            GroupResponse::Describe(described) => described,
            other => panic!("not described: {other:?}"),
        }
    }

    fn state(&mut self) -> &'static str {
        self.describe().map_or("none", |described| described.state)
    }

    /// Lets so many new members join and waits until they have: their ids, the leader's first.
    fn begin_generation(&mut self, members: usize) -> Vec<String> {
        let ids: Vec<RequestId> = (0..members).map(|_| self.join(dynamic(""))).collect();
        let joined: Vec<Joined> = ids.into_iter().map(|id| self.joined_later(id)).collect();
        let leader = joined[0].leader.clone();
        let mut member_ids: Vec<String> = joined.into_iter().map(|one| one.member_id).collect();
        member_ids.sort_by_key(|member_id| *member_id != leader);
        member_ids
    }

    /// The members of a stable group in its first generation, the leader first. Each has its own
    /// id for an assignment.
    fn stable(&mut self, members: usize) -> Vec<String> {
        let member_ids = self.begin_generation(members);
        self.assign(&member_ids, 1);
        member_ids
    }

    /// The leader, first of the members, gives each its own id; all ask for it.
    fn assign(&mut self, member_ids: &[String], generation_id: i32) {
        for member_id in &member_ids[1..] {
            self.sync(follower(member_id, generation_id));
        }
        let leader = leader_of(member_ids, generation_id);
        assert_eq!(self.sync_now(leader).error_code, ErrorCode::None);
        assert_eq!(self.state(), "Stable");
    }
}

fn dynamic(member_id: &str) -> JoinGroup {
    JoinGroup {
        group_id: GROUP.into(),
        member_id: member_id.into(),
        group_instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        new_member: unique(),
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        protocol_type: "consumer".into(),
        protocols: protocols(&["range"]),
        requires_known_member_id: false,
        supports_skipping_assignment: true,
        reason: None,
    }
}

fn fixed(group_instance_id: &str) -> JoinGroup {
    JoinGroup { group_instance_id: Some(group_instance_id.into()), ..dynamic("") }
}

/// What each protocol is told names the protocol.
fn protocols(names: &[&str]) -> Vec<(String, Bytes)> {
    let told = |name: &str| Bytes::from(format!("told {name}"));
    names.iter().map(|name| ((*name).to_owned(), told(name))).collect()
}

/// Another id each time, from a count.
fn unique() -> Uuid {
    use std::cell::Cell;
    thread_local!(static COUNT: Cell<u128> = const { Cell::new(0) });
    COUNT.with(|count| {
        count.set(count.get() + 1);
        Uuid(count.get().to_be_bytes())
    })
}

fn follower(member_id: &str, generation_id: i32) -> SyncGroup {
    SyncGroup {
        group_id: GROUP.into(),
        generation_id,
        member_id: member_id.into(),
        group_instance_id: None,
        protocol_type: Some("consumer".into()),
        protocol_name: None,
        assignments: Vec::new(),
    }
}

fn leader_of(member_ids: &[String], generation_id: i32) -> SyncGroup {
    let assignment = |id: &String| (id.clone(), Bytes::from(id.clone()));
    let assignments = member_ids.iter().map(assignment).collect();
    SyncGroup { assignments, ..follower(&member_ids[0], generation_id) }
}

/// A commit of one offset by nobody in particular.
fn outsider(group_id: &str, topic: &str, partition: i32, offset: i64) -> CommitOffsets {
    CommitOffsets {
        group_id: group_id.into(),
        generation_id: -1,
        member_id: String::new(),
        group_instance_id: None,
        retention: None,
        unknown_group: ErrorCode::GroupIdNotFound,
        offsets: vec![OffsetToCommit {
            topic: topic.into(),
            topic_id: TopicId::ZERO,
            partition,
            offset: Offset(offset),
            leader_epoch: LeaderEpoch::NONE,
            metadata: String::new(),
        }],
    }
}

fn member_commit(member_id: &str, generation_id: i32) -> CommitOffsets {
    CommitOffsets { member_id: member_id.into(), generation_id, ..outsider(GROUP, "topic", 0, 7) }
}

fn fetch_all(group_id: &str) -> FetchOffsets {
    FetchOffsets {
        group_id: group_id.into(),
        member_id: None,
        member_epoch: -1,
        partitions: None,
        require_stable: false,
    }
}

/// A consumer's subscription, as the consumer protocol writes it.
fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 3];
    bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        bytes.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend([0xff; 4]);
    bytes.into()
}
