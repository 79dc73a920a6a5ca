//! SyncGroup: the leader says who does what, and everybody asks.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidelog_types::ErrorCode;

use super::check_group_id;
use crate::group::change::Change;
use crate::group::draft::Draft;
use crate::group::member::Member;
use crate::group::{Group, State};
use crate::request::{GroupResponse, RequestId, SyncGroup, Synced};
use crate::shard::RebalanceCause;

/// What a member is told that gets no assignment.
pub(crate) fn refused_sync(error_code: ErrorCode) -> Synced {
    Synced { error_code, protocol_type: None, protocol_name: None, assignment: Bytes::new() }
}

impl Draft<'_> {
    /// Plans a SyncGroup.
    pub(crate) fn sync(&mut self, id: RequestId, request: &SyncGroup) {
        if let Err(error) = self.group.check_sync(request) {
            return self.reply(id, GroupResponse::Sync(refused_sync(error)));
        }
        if self.group.state == State::Stable {
            return self.tell_assignment(id, request);
        }
        self.await_assignment(id, request);
        if self.group.is_led_by(&request.member_id) {
            self.assign(request);
        }
    }

    fn tell_assignment(&mut self, id: RequestId, request: &SyncGroup) {
        let member = self.group.members.get(request.member_id.as_str()).expect("checked before");
        let (member_id, has_synced) = (member.member_id.clone(), member.has_synced);
        let synced = self.group.synced(member);
        self.reply(id, GroupResponse::Sync(synced));
        if !has_synced {
            self.change(Change::Synced { member_id });
        }
    }

    fn await_assignment(&mut self, id: RequestId, request: &SyncGroup) {
        let member = self.group.members.get(request.member_id.as_str()).expect("checked before");
        let (member_id, superseded) = (member.member_id.clone(), member.sync);
        if let Some(superseded) = superseded {
            let refused = refused_sync(ErrorCode::RebalanceInProgress);
            self.reply(superseded, GroupResponse::Sync(refused));
        }
        self.change(Change::SyncAwaited { member_id, sync: id });
    }

    /// The leader has spoken: what it said is recorded, and told to all that wait.
    fn assign(&mut self, request: &SyncGroup) {
        let said = request.assignments.iter().map(|(member_id, said)| (member_id.as_str(), said));
        let said: BTreeMap<&str, &Bytes> = said.collect();
        // A copy: the request's frame can go.
        let assignment_of = |member: &Member| {
            said.get(&*member.member_id)
                .map(|said| Bytes::copy_from_slice(said))
                .unwrap_or_default()
        };
        let value = self.group.to_record(assignment_of, Some(self.now.wall_ms));
        if value.encoded_len() > self.settings.group_record_bytes_max {
            self.refuse_syncs(ErrorCode::UnknownServerError);
            return self.begin_rebalance(RebalanceCause::AssignmentTooLarge);
        }
        self.record(Some(value));
        for (member_id, id) in self.group.waiting_to_sync() {
            let synced = self.group.synced(&self.group.members[&member_id]);
            self.reply(id, GroupResponse::Sync(synced));
        }
        self.change(Change::SyncsAnswered { at: self.now.elapsed });
    }
}

impl Group {
    fn check_sync(&self, request: &SyncGroup) -> Result<(), ErrorCode> {
        check_group_id(&request.group_id)?;
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation_id {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |believed: &Option<String>, ours: Option<&str>| {
            believed.as_deref().is_some_and(|believed| ours.is_some_and(|ours| ours != believed))
        };
        if differs(&request.protocol_type, self.protocol_type.as_deref())
            || differs(&request.protocol_name, self.protocol_name.as_deref())
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance { .. } => Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    fn synced(&self, member: &Member) -> Synced {
        Synced {
            error_code: ErrorCode::None,
            protocol_type: self.protocol_type.as_deref().map(str::to_owned),
            protocol_name: self.protocol_name.as_deref().map(str::to_owned),
            assignment: member.assignment.clone(),
        }
    }
}
