//! LeaveGroup: members go, by themselves or by an administrator's hand.

use std::sync::Arc;

use tidelog_types::ErrorCode;

use super::{refused_join, refused_sync};
use crate::group::State;
use crate::group::change::Change;
use crate::group::draft::Draft;
use crate::request::{GroupResponse, LeaveGroup, LeavingMember, Left, RequestId};
use crate::shard::RebalanceCause;

/// What is told of a group that nobody is in.
pub(crate) fn left_nothing(request: &LeaveGroup) -> Left {
    let members = vec![ErrorCode::UnknownMemberId; request.members.len()];
    Left { error_code: ErrorCode::None, members }
}

impl Draft<'_> {
    /// Plans a LeaveGroup of a group with a valid id.
    pub(crate) fn leave(&mut self, id: RequestId, request: &LeaveGroup) {
        let leaving = request.members.iter();
        let members: Vec<ErrorCode> =
            leaving.map(|member| self.leave_one(member).err().unwrap_or(ErrorCode::None)).collect();
        let has_anyone_left = members.contains(&ErrorCode::None);
        self.reply(id, GroupResponse::Leave(Left { error_code: ErrorCode::None, members }));
        if has_anyone_left && self.group.state != State::Empty {
            self.rebalance_or_complete(RebalanceCause::MemberLeft);
        }
    }

    /// Removes a member. What it still waits for tells it that it is none any more.
    pub(crate) fn remove_member(&mut self, member_id: Arc<str>) {
        let member = self.group.members.get(&member_id).expect("a member that is there");
        let (join, sync) = (member.join, member.sync);
        if let Some(id) = join {
            let refused = refused_join(ErrorCode::UnknownMemberId, "");
            self.reply(id, GroupResponse::Join(refused));
        }
        if let Some(id) = sync {
            self.reply(id, GroupResponse::Sync(refused_sync(ErrorCode::UnknownMemberId)));
        }
        self.change(Change::Removed { member_id });
    }

    /// An administrator knows a static member by its instance id alone.
    fn leave_one(&mut self, leaving: &LeavingMember) -> Result<(), ErrorCode> {
        let instance_id = leaving.group_instance_id.as_deref();
        if leaving.member_id.is_empty() {
            let owner = instance_id.and_then(|id| self.group.static_members.get(id));
            let owner = owner.ok_or(ErrorCode::UnknownMemberId)?.clone();
            self.remove_member(owner);
        } else if self.group.reserved.contains_key(leaving.member_id.as_str()) {
            self.change(Change::IdTakenBack { member_id: leaving.member_id.as_str().into() });
        } else {
            self.group.check_member(&leaving.member_id, instance_id)?;
            self.remove_member(leaving.member_id.as_str().into());
        }
        Ok(())
    }
}
