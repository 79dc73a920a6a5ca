//! What can happen to a group that no record tells of, and what it does to the group.

use std::sync::Arc;
use std::time::Duration;

use super::member::{Member, Protocols};
use super::{Group, Initial, State, Timer};
use crate::request::RequestId;

/// Something that happened to one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A client was told its id and is expected to join with it (KIP-394).
    IdGiven { member_id: Arc<str>, until: Duration },
    /// It did not, or it said that it will not.
    IdTakenBack { member_id: Arc<str> },
    /// A client became a member, and waits for a generation.
    Joined { member: Arc<Member>, protocol_type: Arc<str> },
    /// A member told anew what it can do.
    Rejoined(Rejoined),
    /// A static member came back without its id and has a new one. What it waited for is answered.
    Replaced { member_id: Arc<str>, by: Arc<str>, until: Duration },
    /// A member is gone. What it waited for is answered.
    Removed { member_id: Arc<str> },
    /// All members are to join again. No syncs wait any more.
    RebalanceBegan { at_ms: i64, deadline: Duration, initial: Option<Initial> },
    /// Members have longer to join.
    RebalanceExtended { deadline: Duration, initial: Option<Initial> },
    /// Everybody has joined who will. All joins that waited are answered.
    GenerationBegan(Generation),
    /// A member asked for its assignment before there was one.
    SyncAwaited { member_id: Arc<str>, sync: RequestId },
    /// A member asked for its assignment, and has it.
    Synced { member_id: Arc<str> },
    /// All syncs that waited are answered.
    SyncsAnswered { at: Duration },
    /// A member was heard of.
    SessionRenewed { member_id: Arc<str>, until: Duration },
    /// All members are given a session's time: the group was loaded.
    SessionsBegan { at: Duration },
}

/// What a member says of itself when it joins again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejoined {
    pub(crate) member_id: Arc<str>,
    pub(crate) protocols: Protocols,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// The request that waits; `None` if the plan that says so answers it.
    pub(crate) join: Option<RequestId>,
}

/// A new generation, before its leader has said who does what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) generation_id: i32,
    pub(crate) protocol_name: Arc<str>,
    pub(crate) leader: Arc<str>,
    pub(crate) at: Duration,
    pub(crate) at_ms: i64,
    /// When members that have not synced are given up.
    pub(crate) deadline: Duration,
}

impl Group {
    /// Applies what happened. The plan that says so has looked at this very group.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::IdGiven { member_id, until } => self.give_id(member_id, *until),
            Change::IdTakenBack { member_id } => self.take_back_id(member_id),
            Change::Joined { member, protocol_type } => self.add(member, protocol_type),
            Change::Rejoined(said) => self.update(&said.member_id, |member| rejoin(member, said)),
            Change::Replaced { member_id, by, until } => self.replace(member_id, by, *until),
            Change::Removed { member_id } => self.remove(member_id),
            Change::RebalanceBegan { at_ms, deadline, initial } => {
                self.begin_rebalance(*at_ms, *deadline, *initial);
            }
            Change::RebalanceExtended { deadline, initial } => {
                assert!(self.is_preparing(), "only a rebalance under way is extended");
                self.set_state(State::PreparingRebalance { initial: *initial }, self.state_ms);
                self.set_timer(Timer::Rebalance, Some(*deadline));
            }
            Change::GenerationBegan(generation) => self.begin_generation(generation),
            Change::SyncAwaited { member_id, sync } => self.update(member_id, |member| {
                member.sync = Some(*sync);
                member.has_synced = true;
                member.deadline = None;
            }),
            Change::Synced { member_id } => self.update(member_id, |m| m.has_synced = true),
            Change::SyncsAnswered { at } => self.answer_syncs(*at),
            Change::SessionRenewed { member_id, until } => {
                self.update(member_id, |member| member.deadline = Some(*until));
            }
            Change::SessionsBegan { at } => {
                self.update_all(|member| member.deadline = Some(*at + member.session_timeout));
            }
        }
    }

    fn give_id(&mut self, member_id: &Arc<str>, until: Duration) {
        assert!(!self.members.contains_key(member_id), "a member has an id already");
        let before = self.reserved.insert(member_id.clone(), until);
        assert!(before.is_none(), "an id is given once");
        self.deadlines.insert((until, Timer::Reserved(member_id.clone())));
    }

    fn take_back_id(&mut self, member_id: &Arc<str>) {
        let until = self.reserved.remove(member_id).expect("an id that was given");
        self.deadlines.remove(&(until, Timer::Reserved(member_id.clone())));
    }

    fn add(&mut self, member: &Arc<Member>, protocol_type: &Arc<str>) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.clone());
        }
        if self.reserved.contains_key(&member.member_id) {
            self.take_back_id(&member.member_id);
        }
        if let State::PreparingRebalance { initial: Some(initial) } = &mut self.state {
            initial.someone_joined = true;
        }
        self.insert(member.clone());
    }

    fn replace(&mut self, member_id: &Arc<str>, by: &Arc<str>, until: Duration) {
        let led = self.leader.as_ref() == Some(member_id);
        let mut member = Arc::unwrap_or_clone(self.take(member_id));
        member.member_id = by.clone();
        member.join = None;
        member.sync = None;
        member.is_new = false;
        member.deadline = Some(until);
        self.insert(Arc::new(member));
        if led {
            self.leader = Some(by.clone());
        }
    }

    /// Another member leads where the leader is gone, so that a generation always has a leader.
    fn remove(&mut self, member_id: &Arc<str>) {
        self.take(member_id);
        if self.leader.as_ref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    fn begin_rebalance(&mut self, at_ms: i64, deadline: Duration, initial: Option<Initial>) {
        assert!(!self.is_preparing(), "a rebalance begins once");
        if self.state == State::CompletingRebalance {
            self.update_all(|member| {
                assert_eq!(member.sync, None, "a sync is answered before its generation ends");
                member.assignment.clear();
            });
        }
        self.set_state(State::PreparingRebalance { initial }, Some(at_ms));
        self.set_timer(Timer::Sync, None);
        self.set_timer(Timer::Rebalance, Some(deadline));
    }

    fn begin_generation(&mut self, began: &Generation) {
        assert!(self.is_preparing(), "a generation begins at the end of a rebalance");
        assert!(self.members.contains_key(&began.leader), "the leader is a member");
        self.generation_id = began.generation_id;
        self.protocol_name = Some(began.protocol_name.clone());
        self.leader = Some(began.leader.clone());
        self.update_all(|member| {
            member.join = None;
            member.is_new = false;
            member.has_synced = false;
            member.deadline = Some(began.at + member.session_timeout);
        });
        self.set_state(State::CompletingRebalance, Some(began.at_ms));
        self.set_timer(Timer::Rebalance, None);
        self.set_timer(Timer::Sync, Some(began.deadline));
    }

    /// A member whose request waited could not be heard of: its session begins anew.
    fn answer_syncs(&mut self, at: Duration) {
        self.update_all(|member| {
            if member.sync.take().is_some() {
                member.deadline = Some(at + member.session_timeout);
            }
        });
    }
}

fn rejoin(member: &mut Member, said: &Rejoined) {
    member.protocols = said.protocols.clone();
    member.session_timeout = said.session_timeout;
    member.rebalance_timeout = said.rebalance_timeout;
    member.join = said.join;
    // Whoever waits is there; but one that never had an answer may be a client long gone.
    if said.join.is_some() && !member.is_new {
        member.deadline = None;
    }
}
