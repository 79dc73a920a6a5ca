//! One classic group: its members, its generation, and who waits for what.
//!
//! The maps share their nodes with their copies, so that a plan can play what would happen on a
//! copy of a group, however large it is.

pub(crate) mod admin;
pub(crate) mod change;
pub(crate) mod classic;
pub(crate) mod draft;
pub(crate) mod member;
pub(crate) mod offsets;
pub(crate) mod retention;
pub(crate) mod subscription;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, OrdSet};

use crate::record::GroupMetadataValue;
use member::{Member, Protocols};

/// A group. The default is one that nobody has heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) state: State,
    /// When it came into its state, in milliseconds since 1970, as the log has it.
    pub(crate) state_ms: Option<i64>,
    /// 0 before the first; then rises by one.
    pub(crate) generation_id: i32,
    /// Stays when the members go; `None` for a group that only keeps offsets.
    pub(crate) protocol_type: Option<Arc<str>>,
    pub(crate) protocol_name: Option<Arc<str>>,
    pub(crate) leader: Option<Arc<str>>,
    pub(crate) members: OrdMap<Arc<str>, Arc<Member>>,
    /// Which member has an instance id.
    pub(crate) static_members: OrdMap<Arc<str>, Arc<str>>,
    /// Ids of clients that are expected to join, and until when (KIP-394).
    pub(crate) reserved: OrdMap<Arc<str>, Duration>,
    /// Whether the log has a record of the group itself, not just of offsets.
    pub(crate) is_recorded: bool,
    /// Members whose JoinGroup waits.
    joins_waiting: usize,
    /// Members that have not asked for their assignment yet.
    unsynced: usize,
    /// How many members can do each protocol.
    supported: BTreeMap<Arc<str>, usize>,
    /// All that falls due, the next first.
    deadlines: OrdSet<(Duration, Timer)>,
    /// The two deadlines of the group itself.
    rebalance_deadline: Option<Duration>,
    sync_deadline: Option<Duration>,
}

/// Where a group is between two generations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// No members.
    #[default]
    Empty,
    /// Members are to join.
    PreparingRebalance {
        /// Of a group that was empty.
        initial: Option<Initial>,
    },
    /// Members have joined; the leader is to say who does what.
    CompletingRebalance,
    /// Members have their assignments.
    Stable,
}

/// A first rebalance waits for more members, the longer the more come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Initial {
    /// How long the present delay is.
    pub(crate) delay: Duration,
    /// How much longer it may become.
    pub(crate) remaining: Duration,
    /// Whether somebody came during the present delay.
    pub(crate) someone_joined: bool,
}

/// What falls due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The wait for members to join.
    Rebalance,
    /// The wait for members to ask for their assignment.
    Sync,
    /// The wait for a client to join with the id it was given.
    Reserved(Arc<str>),
    /// The silence of a member.
    Session(Arc<str>),
}

impl State {
    /// As Kafka writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance { .. } => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

impl Group {
    /// What falls due next, and when.
    pub(crate) fn next_due(&self) -> Option<&(Duration, Timer)> {
        self.deadlines.get_min()
    }

    pub(crate) fn is_preparing(&self) -> bool {
        matches!(self.state, State::PreparingRebalance { .. })
    }

    /// Whether nothing would be lost if it were forgotten, but for its offsets.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.is_recorded
            && self.members.is_empty()
            && self.reserved.is_empty()
            && self.state == State::Empty
    }

    /// Whether the next generation can begin: everybody who is known waits for it.
    pub(crate) fn has_everyone_joined(&self) -> bool {
        self.joins_waiting == self.members.len() && self.reserved.is_empty()
    }

    pub(crate) fn joins_waiting(&self) -> usize {
        self.joins_waiting
    }

    /// How long members are waited for: as long as the most patient asks.
    pub(crate) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    pub(crate) fn is_led_by(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Whether a client with these protocols can be in it: there has to be one for all.
    pub(crate) fn can_do(
        &self,
        protocol_type: &str,
        mut protocols: impl Iterator<Item: AsRef<str>>,
    ) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && protocols.next().is_some();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.any(|name| self.is_common(name.as_ref()))
    }

    /// The protocol that all members can do and most like best; of two, the first by name.
    pub(crate) fn most_voted_protocol(&self) -> Arc<str> {
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            let mut names = member.protocols.iter().map(|(name, _)| name);
            let choice = names.find(|name| self.is_common(name));
            *votes.entry(choice.expect("members have a protocol in common")).or_default() += 1;
        }
        let best = votes.into_iter().rev().max_by_key(|(_, votes)| *votes);
        best.expect("a group that votes has members").0.clone()
    }

    fn is_common(&self, protocol_name: &str) -> bool {
        self.supported.get(protocol_name) == Some(&self.members.len())
    }

    /// Applies a record of the log: the group is what it says. A member of which it says what is
    /// so stays as it is, but for its assignment.
    pub(crate) fn replay(&mut self, value: Option<&GroupMetadataValue>) {
        assert_eq!(self.joins_waiting, 0, "nobody waits for what the log has decided");
        let Some(value) = value else {
            *self = Group::default();
            return;
        };
        self.is_recorded = true;
        self.generation_id = value.generation_id;
        self.protocol_type =
            Some(value.protocol_type.clone()).filter(|protocol_type| !protocol_type.is_empty());
        self.protocol_name = value.protocol_name.clone();
        self.replay_members(value);
        let leader = value.leader.as_ref().filter(|leader| self.members.contains_key(*leader));
        self.leader = leader.or(self.members.keys().next()).cloned();
        let state = if self.members.is_empty() { State::Empty } else { State::Stable };
        self.set_state(state, value.state_timestamp_ms);
        self.set_timer(Timer::Rebalance, None);
        if self.members.is_empty() {
            self.set_timer(Timer::Sync, None);
        }
    }

    fn replay_members(&mut self, value: &GroupMetadataValue) {
        let mut gone = self.members.clone();
        let protocol_name = value.protocol_name.as_ref();
        for recorded in &value.members {
            let known = gone.remove(&recorded.member_id).filter(|known| {
                protocol_name.is_some_and(|name| known.is_recorded_by(recorded, name))
            });
            if known.is_some() {
                let assignment = recorded.assignment.clone();
                self.update(&recorded.member_id, |member| member.assignment = assignment);
            } else {
                let loaded = Member::loaded(recorded, protocol_name);
                self.make_room_for(&loaded);
                self.insert(Arc::new(loaded));
            }
        }
        gone.keys().for_each(|member_id| self.forget(member_id));
    }

    /// Of two members with one id, or one instance id, the later stays: a log may say anything.
    fn make_room_for(&mut self, member: &Member) {
        self.forget(&member.member_id);
        let instance_id = member.group_instance_id.as_ref();
        if let Some(other) = instance_id.and_then(|id| self.static_members.get(id)).cloned() {
            self.forget(&other);
        }
    }

    fn forget(&mut self, member_id: &Arc<str>) {
        if self.members.contains_key(member_id) {
            self.take(member_id);
        }
    }

    fn insert(&mut self, member: Arc<Member>) {
        let member_id = member.member_id.clone();
        if let Some(instance_id) = &member.group_instance_id {
            let before = self.static_members.insert(instance_id.clone(), member_id.clone());
            assert_eq!(before, None, "an instance id belongs to one member");
        }
        self.leader.get_or_insert_with(|| member_id.clone());
        self.count(&member_id, &Counted::of(&member));
        let before = self.members.insert(member_id, member);
        assert!(before.is_none(), "a member joins once");
    }

    fn take(&mut self, member_id: &Arc<str>) -> Arc<Member> {
        let member = self.members.remove(member_id).expect("a change names a member");
        if let Some(instance_id) = &member.group_instance_id {
            let owner = self.static_members.remove(instance_id);
            assert_eq!(owner.as_ref(), Some(member_id), "an instance id belongs to its member");
        }
        self.discount(member_id, &Counted::of(&member));
        member
    }

    fn update(&mut self, member_id: &Arc<str>, change: impl FnOnce(&mut Member)) {
        let member = self.members.get_mut(member_id).expect("a change names a member");
        let member = Arc::make_mut(member);
        let before = Counted::of(member);
        change(member);
        let after = Counted::of(member);
        self.discount(member_id, &before);
        self.count(member_id, &after);
        if self.unsynced == 0 {
            self.set_timer(Timer::Sync, None);
        }
    }

    fn update_all(&mut self, change: impl Fn(&mut Member)) {
        let members: Vec<Arc<str>> = self.members.keys().cloned().collect();
        members.iter().for_each(|member_id| self.update(member_id, &change));
    }

    fn count(&mut self, member_id: &Arc<str>, counted: &Counted) {
        self.joins_waiting += usize::from(counted.waits_to_join);
        self.unsynced += usize::from(counted.is_unsynced);
        for (name, _) in counted.protocols.iter() {
            *self.supported.entry(name.clone()).or_default() += 1;
        }
        if let Some(deadline) = counted.deadline {
            self.deadlines.insert((deadline, Timer::Session(member_id.clone())));
        }
    }

    fn discount(&mut self, member_id: &Arc<str>, counted: &Counted) {
        self.joins_waiting -= usize::from(counted.waits_to_join);
        self.unsynced -= usize::from(counted.is_unsynced);
        for (name, _) in counted.protocols.iter() {
            let count = self.supported.get_mut(name).expect("what was counted");
            *count -= 1;
            if *count == 0 {
                self.supported.remove(name);
            }
        }
        if let Some(deadline) = counted.deadline {
            self.deadlines.remove(&(deadline, Timer::Session(member_id.clone())));
        }
    }

    fn set_state(&mut self, state: State, since_ms: Option<i64>) {
        self.state = state;
        self.state_ms = since_ms;
    }

    /// Starts, moves or stops one of the group's own two timers.
    fn set_timer(&mut self, timer: Timer, deadline: Option<Duration>) {
        let slot = match timer {
            Timer::Rebalance => &mut self.rebalance_deadline,
            Timer::Sync => &mut self.sync_deadline,
            Timer::Reserved(_) | Timer::Session(_) => unreachable!("members have their own"),
        };
        if let Some(before) = std::mem::replace(slot, deadline) {
            self.deadlines.remove(&(before, timer.clone()));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, timer));
        }
    }
}

/// What a group keeps count of, of one member.
struct Counted {
    waits_to_join: bool,
    is_unsynced: bool,
    protocols: Protocols,
    deadline: Option<Duration>,
}

impl Counted {
    fn of(member: &Member) -> Counted {
        Counted {
            waits_to_join: member.join.is_some(),
            is_unsynced: !member.has_synced,
            protocols: member.protocols.clone(),
            deadline: member.deadline,
        }
    }
}
