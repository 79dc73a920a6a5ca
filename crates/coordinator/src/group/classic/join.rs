//! JoinGroup: a client asks to become, or to stay, a member.

use std::sync::Arc;
use std::time::Duration;

use tidelog_types::{ErrorCode, Uuid};

use super::check_group_id;
use crate::group::State;
use crate::group::change::{Change, Rejoined};
use crate::group::draft::Draft;
use crate::group::member::{Member, protocols_of};
use crate::record::STRING_BYTES_MAX;
use crate::request::{GroupResponse, JoinGroup, Joined, RequestId};
use crate::settings::GroupSettings;
use crate::shard::RebalanceCause;

/// How long a member may wait for its first generation before we take its client for gone.
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);
/// Clients that were told their id and have not joined yet, in one group.
pub(crate) const RESERVED_IDS_MAX: usize = 10_000;
/// Protocols that one member can do.
pub(crate) const PROTOCOLS_MAX: usize = 100;
/// Bytes of a member id that tell whose it is; the rest is random.
const MEMBER_ID_NAME_BYTES_MAX: usize = 255;

/// What a client is told that does not get in.
pub(crate) fn refused_join(error_code: ErrorCode, member_id: &str) -> Joined {
    Joined {
        error_code,
        generation_id: -1,
        protocol_type: None,
        protocol_name: None,
        leader: String::new(),
        skip_assignment: false,
        member_id: member_id.to_owned(),
        members: Vec::new(),
    }
}

/// What can be said against a request without looking at its group.
pub(crate) fn check_join(settings: &GroupSettings, request: &JoinGroup) -> Result<(), ErrorCode> {
    check_group_id(&request.group_id)?;
    let allowed = settings.session_timeout_min..=settings.session_timeout_max;
    if !allowed.contains(&request.session_timeout) {
        return Err(ErrorCode::InvalidSessionTimeout);
    }
    let names = request.protocols.iter().map(|(name, _)| name);
    let mut texts = names
        .chain([&request.protocol_type, &request.client_id, &request.client_host])
        .chain(request.group_instance_id.iter());
    let metadata: usize = request.protocols.iter().map(|(_, metadata)| metadata.len()).sum();
    if texts.any(|text| text.len() > STRING_BYTES_MAX)
        || request.protocols.len() > PROTOCOLS_MAX
        || metadata > settings.group_record_bytes_max
    {
        return Err(ErrorCode::InvalidRequest);
    }
    Ok(())
}

impl Draft<'_> {
    /// Plans a JoinGroup that [`check_join`] has nothing against.
    pub(crate) fn join(&mut self, id: RequestId, request: &JoinGroup) {
        if !self.has_room_for(&request.member_id) {
            self.refuse_join(id, ErrorCode::GroupMaxSizeReached, "");
            self.drop_for_room(&request.member_id);
        } else if !self.can_do(request) {
            self.refuse_join(id, ErrorCode::InconsistentGroupProtocol, &request.member_id);
        } else if request.member_id.is_empty() {
            self.join_unknown(id, request);
        } else if self.group.reserved.contains_key(request.member_id.as_str()) {
            self.join_reserved(id, request);
        } else {
            self.join_again(id, request);
        }
    }

    fn refuse_join(&mut self, id: RequestId, error: ErrorCode, member_id: &str) {
        self.reply(id, GroupResponse::Join(refused_join(error, member_id)));
    }

    /// While members join, it counts who has: the last to come of too many is left out.
    fn has_room_for(&self, member_id: &str) -> bool {
        let member = self.group.members.get(member_id);
        let size_max = self.settings.group_size_max;
        match self.group.state {
            State::Empty => true,
            State::PreparingRebalance { .. } => {
                member.is_some_and(|member| member.join.is_some())
                    || self.group.joins_waiting() < size_max
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.group.members.len() < size_max
            }
        }
    }

    fn drop_for_room(&mut self, member_id: &str) {
        if let Some((member_id, _)) = self.group.reserved.get_key_value(member_id) {
            self.change(Change::IdTakenBack { member_id: member_id.clone() });
        } else if let Some((member_id, _)) = self.group.members.get_key_value(member_id) {
            self.change(Change::Removed { member_id: member_id.clone() });
        }
        self.complete_join_if_all_are_there();
    }

    fn can_do(&self, request: &JoinGroup) -> bool {
        let names = request.protocols.iter().map(|(name, _)| name.as_str());
        self.group.can_do(&request.protocol_type, names)
    }

    fn join_unknown(&mut self, id: RequestId, request: &JoinGroup) {
        let instance_id = request.group_instance_id.as_deref();
        let known = instance_id.and_then(|id| self.group.static_members.get(id)).cloned();
        if let Some(member_id) = known {
            self.replace_static_member(id, request, &member_id);
        } else if request.requires_known_member_id && instance_id.is_none() {
            self.reserve_id(id, request);
        } else {
            self.add_member(id, request, new_member_id(request));
        }
    }

    fn reserve_id(&mut self, id: RequestId, request: &JoinGroup) {
        if self.group.reserved.len() >= RESERVED_IDS_MAX {
            return self.refuse_join(id, ErrorCode::GroupMaxSizeReached, "");
        }
        let member_id = new_member_id(request);
        let until = self.after(request.session_timeout);
        self.refuse_join(id, ErrorCode::MemberIdRequired, &member_id);
        self.change(Change::IdGiven { member_id, until });
    }

    /// An id is reserved for a client without an instance id, so one that has it is another.
    fn join_reserved(&mut self, id: RequestId, request: &JoinGroup) {
        if request.group_instance_id.is_some() {
            return self.refuse_join(id, ErrorCode::UnknownMemberId, &request.member_id);
        }
        self.add_member(id, request, request.member_id.as_str().into());
    }

    fn add_member(&mut self, id: RequestId, request: &JoinGroup, member_id: Arc<str>) {
        let deadline = self.after(NEW_MEMBER_JOIN_TIMEOUT);
        let member = Arc::new(Member::joining(member_id, request, id, deadline));
        let protocol_type = request.protocol_type.as_str().into();
        self.change(Change::Joined { member, protocol_type });
        self.rebalance_or_complete(RebalanceCause::MemberJoined);
    }

    fn join_again(&mut self, id: RequestId, request: &JoinGroup) {
        let instance_id = request.group_instance_id.as_deref();
        if let Err(error) = self.group.check_member(&request.member_id, instance_id) {
            return self.refuse_join(id, error, &request.member_id);
        }
        let member = self.group.members.get(request.member_id.as_str()).expect("checked above");
        let must_agree = match self.group.state {
            State::Empty | State::PreparingRebalance { .. } => true,
            State::CompletingRebalance => !member.says_the_same(request),
            // A leader joins when what it assigns has changed, not what it said.
            State::Stable => {
                self.group.is_led_by(&request.member_id) || !member.says_the_same(request)
            }
        };
        if !must_agree {
            let joined = self.group.joined(&request.member_id);
            return self.reply(id, GroupResponse::Join(joined));
        }
        self.answer_superseded_join(&request.member_id);
        self.update_member(request.member_id.as_str().into(), request, Some(id));
        self.rebalance_or_complete(RebalanceCause::MemberRejoined);
    }

    /// A client that asks again does not listen to its first request any more.
    fn answer_superseded_join(&mut self, member_id: &str) {
        let waiting = self.group.members.get(member_id).and_then(|member| member.join);
        if let Some(id) = waiting {
            self.refuse_join(id, ErrorCode::RebalanceInProgress, member_id);
        }
    }

    fn update_member(&mut self, member_id: Arc<str>, request: &JoinGroup, join: Option<RequestId>) {
        self.change(Change::Rejoined(Rejoined {
            member_id,
            protocols: protocols_of(request),
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout,
            join,
        }));
    }

    /// A static member was started again. Its old self is fenced; it takes over the place, and in
    /// a stable group the assignment, without a rebalance (KIP-345).
    fn replace_static_member(&mut self, id: RequestId, request: &JoinGroup, old: &Arc<str>) {
        self.fence_waiting(old);
        let new = new_member_id(request);
        let old_leader = self.group.leader.clone();
        let until = self.after(request.session_timeout);
        let (member_id, by) = (old.clone(), new.clone());
        self.change(Change::Replaced { member_id, by, until });
        if self.group.state != State::Stable {
            self.update_member(new, request, Some(id));
            return self.agree_on_replaced();
        }
        self.update_member(new.clone(), request, None);
        let state_ms = self.group.state_ms;
        let value = self.group.to_record(|member| member.assignment.clone(), state_ms);
        if self.group.protocol_name == Some(self.group.most_voted_protocol())
            && value.encoded_len() <= self.settings.group_record_bytes_max
        {
            let joined = self.took_over(request, &new, old_leader.as_deref());
            self.reply(id, GroupResponse::Join(joined));
            self.record(Some(value));
        } else {
            self.update_member(new, request, Some(id));
            self.begin_rebalance(RebalanceCause::StaticMemberReplaced);
        }
    }

    fn fence_waiting(&mut self, member_id: &Arc<str>) {
        let member = self.group.members.get(member_id).expect("an instance id has a member");
        let (join, sync) = (member.join, member.sync);
        if let Some(id) = join {
            self.refuse_join(id, ErrorCode::FencedInstanceId, member_id);
        }
        if let Some(id) = sync {
            let refused = super::refused_sync(ErrorCode::FencedInstanceId);
            self.reply(id, GroupResponse::Sync(refused));
        }
    }

    /// The leader may be assigning to the old id right now: then all has to begin again.
    fn agree_on_replaced(&mut self) {
        if self.group.state == State::CompletingRebalance {
            self.begin_rebalance(RebalanceCause::StaticMemberReplaced);
        } else {
            self.complete_join_if_all_are_there();
        }
    }

    /// The group goes on as it is, under a new member id. A leader that does not understand that
    /// there is nothing to assign is not told that it leads.
    fn took_over(&self, request: &JoinGroup, member_id: &str, old_leader: Option<&str>) -> Joined {
        let mut joined = self.group.joined(member_id);
        if request.supports_skipping_assignment {
            joined.skip_assignment = self.group.is_led_by(member_id);
        } else {
            joined.leader = old_leader.unwrap_or_default().to_owned();
            joined.members.clear();
        }
        joined
    }
}

/// Who it is, as far as its client tells, and something that no other member has.
fn new_member_id(request: &JoinGroup) -> Arc<str> {
    let name = request.group_instance_id.as_deref().unwrap_or(&request.client_id);
    let name = &name[..name.floor_char_boundary(MEMBER_ID_NAME_BYTES_MAX)];
    format!("{name}-{}", in_groups(request.new_member)).into()
}

/// As Java writes a UUID.
fn in_groups(uuid: Uuid) -> String {
    let number = u128::from_be_bytes(uuid.0);
    let group = |shift: u32, digits: u32| (number >> shift) & ((1 << (4 * digits)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        group(96, 8),
        group(80, 4),
        group(64, 4),
        group(48, 4),
        group(0, 12),
    )
}
