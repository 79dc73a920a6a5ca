//! From one generation to the next: when it begins, who is in it, who leads it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelog_types::ErrorCode;

use super::refused_sync;
use crate::group::change::{Change, Generation};
use crate::group::draft::Draft;
use crate::group::member::Member;
use crate::group::{Group, Initial, State};
use crate::record::GroupMetadataValue;
use crate::request::{GroupResponse, Joined, JoinedMember, RequestId};
use crate::shard::RebalanceCause;

/// How soon a rebalance that nobody joined is looked at again, at the earliest: members may be
/// willing to wait for no time at all.
const NOBODY_JOINED_DELAY: Duration = Duration::from_secs(1);

impl Draft<'_> {
    /// Something of the group has changed that all members have to agree on.
    pub(crate) fn rebalance_or_complete(&mut self, cause: RebalanceCause) {
        if self.group.is_preparing() {
            self.complete_join_if_all_are_there();
        } else {
            self.begin_rebalance(cause);
        }
    }

    /// Sends everybody back to join. A group that was empty first waits for whoever else comes.
    pub(crate) fn begin_rebalance(&mut self, cause: RebalanceCause) {
        self.note_rebalance(cause);
        if self.group.state == State::CompletingRebalance {
            self.refuse_syncs(ErrorCode::RebalanceInProgress);
        }
        let timeout = self.group.rebalance_timeout();
        let initial = (self.group.state == State::Empty).then(|| self.initial_delay(timeout));
        let deadline = self.after(initial.map_or(timeout, |initial| initial.delay));
        self.change(Change::RebalanceBegan { at_ms: self.now.wall_ms, deadline, initial });
        self.complete_join_if_all_are_there();
    }

    /// Ends the wait for members, unless it is the first one, which lasts its time.
    pub(crate) fn complete_join_if_all_are_there(&mut self) {
        let is_waiting = self.group.state == State::PreparingRebalance { initial: None };
        if is_waiting && self.group.has_everyone_joined() {
            self.complete_join();
        }
    }

    /// Begins the next generation with those who have joined. Members that have not are removed,
    /// but for static ones, which may come back.
    pub(crate) fn complete_join(&mut self) {
        assert!(self.group.is_preparing(), "joins are completed while members join");
        self.remove_absent_members();
        if self.group.members.is_empty() {
            self.record_empty();
        } else if self.group.joins_waiting() == 0 {
            let deadline = self.after(self.group.rebalance_timeout().max(NOBODY_JOINED_DELAY));
            self.change(Change::RebalanceExtended { deadline, initial: None });
        } else {
            self.begin_generation();
        }
    }

    /// Answers all members that wait for their assignment with an error.
    pub(crate) fn refuse_syncs(&mut self, error: ErrorCode) {
        for (_, id) in self.group.waiting_to_sync() {
            self.reply(id, GroupResponse::Sync(refused_sync(error)));
        }
        self.change(Change::SyncsAnswered { at: self.now.elapsed });
    }

    fn initial_delay(&self, timeout: Duration) -> Initial {
        let delay = self.settings.initial_rebalance_delay;
        Initial { delay, remaining: timeout.saturating_sub(delay), someone_joined: false }
    }

    fn remove_absent_members(&mut self) {
        let is_absent =
            |member: &&Arc<Member>| member.join.is_none() && member.group_instance_id.is_none();
        let absent = self.group.members.values().filter(is_absent);
        for member_id in absent.map(|member| member.member_id.clone()).collect::<Vec<_>>() {
            self.change(Change::Removed { member_id });
        }
    }

    fn record_empty(&mut self) {
        let value = GroupMetadataValue {
            protocol_type: self.group.protocol_type.clone().unwrap_or_default(),
            generation_id: self.group.next_generation_id(),
            protocol_name: None,
            leader: None,
            state_timestamp_ms: Some(self.now.wall_ms),
            members: Vec::new(),
        };
        self.record(Some(value));
    }

    fn begin_generation(&mut self) {
        let waiting = self.group.waiting_to_join();
        let timeout = self.group.rebalance_timeout();
        self.change(Change::GenerationBegan(Generation {
            generation_id: self.group.next_generation_id(),
            protocol_name: self.group.most_voted_protocol(),
            leader: self.group.next_leader(),
            at: self.now.elapsed,
            at_ms: self.now.wall_ms,
            deadline: self.after(timeout),
        }));
        for (member_id, id) in waiting {
            let joined = self.group.joined(&member_id);
            self.reply(id, GroupResponse::Join(joined));
        }
    }
}

impl Group {
    /// What a member of this generation is told; the leader also who else there is.
    pub(crate) fn joined(&self, member_id: &str) -> Joined {
        let leads = self.is_led_by(member_id);
        Joined {
            error_code: ErrorCode::None,
            generation_id: self.generation_id,
            protocol_type: self.protocol_type.as_deref().map(str::to_owned),
            protocol_name: self.protocol_name.as_deref().map(str::to_owned),
            leader: self.leader.as_deref().unwrap_or_default().to_owned(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: if leads { self.joined_members() } else { Vec::new() },
        }
    }

    /// The group as a record, with the assignments of its generation.
    pub(crate) fn to_record(
        &self,
        assignment_of: impl Fn(&Member) -> Bytes,
        state_timestamp_ms: Option<i64>,
    ) -> GroupMetadataValue {
        let protocol_name = self.protocol_name.clone().expect("a generation has a protocol");
        let record = |member: &Arc<Member>| member.to_record(&protocol_name, assignment_of(member));
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().expect("members have a protocol type"),
            generation_id: self.generation_id,
            leader: self.leader.clone(),
            state_timestamp_ms,
            members: self.members.values().map(record).collect(),
            protocol_name: Some(protocol_name),
        }
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol_name = self.protocol_name.as_deref().expect("a generation has a protocol");
        let joined = |member: &Arc<Member>| JoinedMember {
            member_id: member.member_id.as_ref().to_owned(),
            group_instance_id: member.group_instance_id.as_deref().map(str::to_owned),
            metadata: member.metadata(protocol_name),
        };
        self.members.values().map(joined).collect()
    }

    fn waiting_to_join(&self) -> Vec<(Arc<str>, RequestId)> {
        let members = self.members.values();
        members.filter_map(|member| Some((member.member_id.clone(), member.join?))).collect()
    }

    /// Members that asked for their assignment before there was one, and their requests.
    pub(crate) fn waiting_to_sync(&self) -> Vec<(Arc<str>, RequestId)> {
        let members = self.members.values();
        members.filter_map(|member| Some((member.member_id.clone(), member.sync?))).collect()
    }

    /// The leader stays as long as it joins.
    fn next_leader(&self) -> Arc<str> {
        let joins = |member: &&Arc<Member>| member.join.is_some();
        let present = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        let leader = present.filter(joins).or_else(|| self.members.values().find(joins));
        leader.expect("a generation begins with somebody who has joined").member_id.clone()
    }

    /// A group outlives its numbers only in theory; then they begin anew.
    fn next_generation_id(&self) -> i32 {
        self.generation_id.checked_add(1).unwrap_or(0)
    }
}
