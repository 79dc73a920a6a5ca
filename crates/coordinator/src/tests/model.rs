//! Random clients, time and restarts, against what clients may rely on.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::request::DeleteOffsets;

const GROUPS: [&str; 2] = ["one", "two"];
const CLIENTS: usize = 5;
/// Clients from this one on are static members.
const FIRST_STATIC: usize = 3;

/// What one of the clients does, or what happens to all.
#[derive(Debug, Clone)]
enum Step {
    Join {
        client: usize,
        protocols: usize,
        knows_id: bool,
    },
    Sync {
        client: usize,
    },
    Heartbeat {
        client: usize,
    },
    Leave {
        client: usize,
    },
    /// A client is started again: it has forgotten who it was.
    Restart {
        client: usize,
    },
    Commit {
        client: usize,
        partition: i32,
        offset: i64,
        retention_s: Option<u64>,
    },
    CommitAsOutsider {
        group: usize,
        partition: i32,
        offset: i64,
    },
    DeleteOffsets {
        group: usize,
        partition: i32,
    },
    DeleteGroup {
        group: usize,
    },
    ForgetTopics,
    Pass {
        ms: u64,
    },
    Reload,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let group = 0..GROUPS.len();
    let join = (client.clone(), 0..3_usize, any::<bool>())
        .prop_map(|(client, protocols, knows_id)| Step::Join { client, protocols, knows_id });
    let retention_s = prop::option::weighted(0.2, 1..2_000_u64);
    let commit = (client.clone(), 0..3, 0..1_000_i64, retention_s).prop_map(
        |(client, partition, offset, retention_s)| Step::Commit {
            client,
            partition,
            offset,
            retention_s,
        },
    );
    let outsider = (group.clone(), 0..3, 0..1_000_i64)
        .prop_map(|(group, partition, offset)| Step::CommitAsOutsider { group, partition, offset });
    let delete_offsets = (group.clone(), 0..3)
        .prop_map(|(group, partition)| Step::DeleteOffsets { group, partition });
    let pass = prop_oneof![4 => 0..5_000_u64, 2 => 5_000..70_000_u64, 1 => 70_000..2_000_000_u64];
    let step = prop_oneof![
        12 => join,
        12 => client.clone().prop_map(|client| Step::Sync { client }),
        6 => client.clone().prop_map(|client| Step::Heartbeat { client }),
        2 => client.clone().prop_map(|client| Step::Leave { client }),
        2 => client.prop_map(|client| Step::Restart { client }),
        6 => commit,
        2 => outsider,
        1 => delete_offsets,
        1 => group.prop_map(|group| Step::DeleteGroup { group }),
        1 => Just(Step::ForgetTopics),
        10 => pass.prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Reload),
    ];
    prop::collection::vec(step, 1..120)
}

/// What a client knows of itself.
#[derive(Debug, Clone, Default)]
struct Client {
    member_id: String,
    generation_id: i32,
    leads: Vec<String>,
    assignment: Option<Bytes>,
    waits: Option<RequestId>,
}

/// What clients know, and what the shard promised them.
struct Model {
    test: GroupTest,
    clients: Vec<Client>,
    /// By group and partition: the offset, and when it is forgotten, if anything was said.
    offsets: BTreeMap<(&'static str, i32), (i64, Option<i64>)>,
    assignments: u64,
}

impl Model {
    fn new() -> Model {
        let settings = GroupSettings {
            group_size_max: 4,
            // Longer than any run, so that only what a commit asked for expires.
            offsets_retention: Duration::from_secs(1_000_000_000),
            ..GroupSettings::default()
        };
        Model {
            test: GroupTest::with(settings),
            clients: vec![Client::default(); CLIENTS],
            offsets: BTreeMap::new(),
            assignments: 0,
        }
    }

    fn group_of(client: usize) -> &'static str {
        GROUPS[usize::from(client == 2)]
    }

    fn instance_of(client: usize) -> Option<String> {
        (client >= FIRST_STATIC).then(|| format!("instance-{client}"))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Join { client, protocols, knows_id } => self.join(client, protocols, knows_id),
            Step::Sync { client } => self.sync(client),
            Step::Heartbeat { client } => {
                let heartbeat = self.heartbeat_of(client);
                self.test.ask(GroupRequest::Heartbeat(heartbeat));
            }
            Step::Leave { client } => self.leave(client),
            Step::Restart { client } => {
                self.clients[client] = Client::default();
            }
            Step::Commit { client, partition, offset, retention_s } => {
                let request = self.commit_of(client, partition, offset, retention_s);
                self.commit(Model::group_of(client), request);
            }
            Step::CommitAsOutsider { group, partition, offset } => {
                self.commit(GROUPS[group], outsider(GROUPS[group], "topic", partition, offset));
            }
            Step::DeleteOffsets { group, partition } => {
                self.delete_offsets(GROUPS[group], partition)
            }
            Step::DeleteGroup { group } => self.delete_group(GROUPS[group]),
            Step::ForgetTopics => {
                self.test.ask(GroupRequest::ForgetTopics { topics: vec!["topic".into()] });
                self.offsets.clear();
            }
            Step::Pass { ms } => self.test.advance(Duration::from_millis(ms)),
            Step::Reload => self.test.restart(),
        }
        self.listen();
    }

    fn join(&mut self, client: usize, protocols: usize, knows_id: bool) {
        let names: &[&[&str]] = &[&["range"], &["range", "sticky"], &["sticky", "range"]];
        let request = JoinGroup {
            group_id: Model::group_of(client).into(),
            group_instance_id: Model::instance_of(client),
            protocols: super::protocols(names[protocols]),
            requires_known_member_id: knows_id,
            supports_skipping_assignment: knows_id,
            ..dynamic(&self.clients[client].member_id)
        };
        self.clients[client].waits = Some(self.test.join(request));
    }

    /// A leader gives each member a partition of its own, and says which time this is.
    fn sync(&mut self, client: usize) {
        self.assignments += 1;
        let told = |(partition, member_id): (usize, &String)| {
            (member_id.clone(), Bytes::from(format!("{}: {partition}", self.assignments)))
        };
        let known = &self.clients[client];
        let request = SyncGroup {
            group_id: Model::group_of(client).into(),
            group_instance_id: Model::instance_of(client),
            assignments: known.leads.iter().enumerate().map(told).collect(),
            ..follower(&known.member_id, known.generation_id)
        };
        self.clients[client].waits = Some(self.test.sync(request));
    }

    fn leave(&mut self, client: usize) {
        let member = LeavingMember {
            member_id: self.clients[client].member_id.clone(),
            group_instance_id: Model::instance_of(client),
            reason: None,
        };
        let group_id = Model::group_of(client).into();
        self.test.ask(GroupRequest::Leave(LeaveGroup { group_id, members: vec![member] }));
        self.clients[client].assignment = None;
    }

    fn heartbeat_of(&self, client: usize) -> Heartbeat {
        Heartbeat {
            group_id: Model::group_of(client).into(),
            generation_id: self.clients[client].generation_id,
            member_id: self.clients[client].member_id.clone(),
            group_instance_id: Model::instance_of(client),
        }
    }

    fn commit_of(
        &self,
        client: usize,
        partition: i32,
        offset: i64,
        retention_s: Option<u64>,
    ) -> CommitOffsets {
        CommitOffsets {
            member_id: self.clients[client].member_id.clone(),
            generation_id: self.clients[client].generation_id,
            group_instance_id: Model::instance_of(client),
            retention: retention_s.map(Duration::from_secs),
            ..outsider(Model::group_of(client), "topic", partition, offset)
        }
    }

    fn commit(&mut self, group: &'static str, request: CommitOffsets) {
        let at = (group, request.offsets[0].partition);
        let offset = request.offsets[0].offset.0;
        let expires = request
            .retention
            .map(|retention| self.test.now.wall_ms + i64::try_from(retention.as_millis()).unwrap());
        if self.test.commit(request) == [ErrorCode::None] {
            self.offsets.insert(at, (offset, expires));
        }
    }

    fn delete_offsets(&mut self, group: &'static str, partition: i32) {
        let partitions = vec![("topic".into(), partition)];
        let request = DeleteOffsets { group_id: group.into(), partitions };
        let answer = self.test.ask(GroupRequest::DeleteOffsets(request));
        if answer == GroupResponse::DeleteOffsets(Ok(vec![ErrorCode::None])) {
            self.offsets.remove(&(group, partition));
        }
    }

    fn delete_group(&mut self, group: &'static str) {
        let answer = self.test.ask(GroupRequest::Delete { group_id: group.into() });
        if answer == GroupResponse::Delete(ErrorCode::None) {
            self.offsets.retain(|(of, _), _| *of != group);
        }
    }

    /// Clients hear what they were answered, and do what real ones do about it.
    fn listen(&mut self) {
        for client in &mut self.clients {
            let answer = client.waits.and_then(|id| self.test.answer(id));
            client.waits = client.waits.filter(|_| answer.is_none());
            match answer {
                Some(GroupResponse::Join(joined)) => client.hear_joined(joined),
                Some(GroupResponse::Sync(synced)) if synced.error_code == ErrorCode::None => {
                    client.assignment = Some(synced.assignment);
                }
                Some(GroupResponse::Sync(_)) => client.assignment = None,
                _ => {}
            }
        }
    }

    fn check(&mut self) {
        self.check_time();
        self.check_offsets();
        self.check_owners();
        self.check_reloaded();
    }

    /// Nothing is left to do once time has passed.
    fn check_time(&self) {
        let next = self.test.shard.next_deadline();
        assert!(next.is_none_or(|next| next >= self.test.now.elapsed), "{next:?} has passed");
    }

    fn check_offsets(&mut self) {
        let now_ms = self.test.now.wall_ms;
        for group in GROUPS {
            let kept = self.test.offsets(group);
            let kept: BTreeMap<i32, i64> =
                kept.into_iter().map(|(_, partition, offset)| (partition, offset)).collect();
            for partition in 0..3 {
                let promised = self.offsets.get(&(group, partition));
                match (promised, kept.get(&partition)) {
                    (Some((offset, _)), Some(kept)) => {
                        assert_eq!(offset, kept, "{group} {partition}")
                    }
                    // What expires may go at any time from then on, and for good.
                    (Some((_, Some(expires))), None) => {
                        assert!(*expires <= now_ms, "{group} {partition}");
                        self.offsets.remove(&(group, partition));
                    }
                    (Some((_, None)), None) => panic!("{group} {partition} is lost"),
                    (None, kept) => assert_eq!(kept, None, "{group} {partition}"),
                }
            }
        }
    }

    /// Those whom a group takes for members of its generation are in one generation; and if they
    /// have assignments of it, these are by one leader, each somebody else's.
    fn check_owners(&mut self) {
        for group in GROUPS {
            let clients = (0..CLIENTS).filter(|client| Model::group_of(*client) == group);
            let (mut generations, mut leaders) = (BTreeSet::new(), BTreeSet::new());
            let mut owned = BTreeSet::new();
            for client in clients.collect::<Vec<_>>() {
                let request = GroupRequest::Heartbeat(self.heartbeat_of(client));
                let planned = self.test.shard.plan(RequestId(0), &request, self.test.now);
                let code = planned.replies[0].1.clone();
                if code != GroupResponse::Heartbeat(ErrorCode::None) {
                    continue;
                }
                generations.insert(self.clients[client].generation_id);
                let assignment = self.clients[client].assignment.as_ref();
                if let Some(assignment) = assignment.filter(|assignment| !assignment.is_empty()) {
                    let text = std::str::from_utf8(assignment).unwrap();
                    leaders.insert(text.split_once(':').unwrap().0.to_owned());
                    assert!(owned.insert(text.to_owned()), "{text} has two owners in {group}");
                }
            }
            assert!(generations.len() <= 1, "{group} has members of {generations:?}");
            assert!(leaders.len() <= 1, "{group} has assignments of {leaders:?}");
        }
    }

    /// A shard that is loaded now knows what has been promised to last.
    fn check_reloaded(&self) {
        let loaded = self.test.reloaded();
        for group in GROUPS {
            let ask = |shard: &GroupShard, request: &GroupRequest| {
                shard.plan(RequestId(0), request, self.test.now).replies.remove(0).1
            };
            let fetch = GroupRequest::FetchOffsets(fetch_all(group));
            assert_eq!(ask(&loaded, &fetch), ask(&self.test.shard, &fetch));
            let describe = GroupRequest::Describe { group_id: group.into() };
            let GroupResponse::Describe(live) = ask(&self.test.shard, &describe) else { panic!() };
            let GroupResponse::Describe(loaded) = ask(&loaded, &describe) else { panic!() };
            match &live {
                Ok(described) if described.state == "Stable" => assert_eq!(loaded, live),
                // Somebody may be about to join a group that was never recorded.
                Ok(described) if described.state == "Empty" => {
                    assert!(loaded == live || loaded.is_err(), "{loaded:?} is not {live:?}");
                }
                Ok(_) => {}
                Err(_) => assert_eq!(loaded, live),
            }
        }
    }

    /// In the end each request has been answered, once.
    fn finish(mut self) {
        self.test.restart();
        assert_eq!(self.test.answered + self.test.sent_away.len() as u64, self.test.asked);
    }
}

impl Client {
    fn hear_joined(&mut self, joined: Joined) {
        match joined.error_code {
            ErrorCode::None => {
                if self.generation_id != joined.generation_id {
                    self.assignment = None;
                }
                self.member_id = joined.member_id;
                self.generation_id = joined.generation_id;
                let members = joined.members.into_iter().map(|member| member.member_id);
                self.leads = if joined.skip_assignment { vec![] } else { members.collect() };
            }
            ErrorCode::MemberIdRequired => self.member_id = joined.member_id,
            ErrorCode::RebalanceInProgress => {}
            _ => *self = Client::default(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 1_000, ..ProptestConfig::default() })]
    #[test]
    fn clients_get_what_they_may_rely_on(steps in steps()) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step);
            model.check();
        }
        model.finish();
    }
}
