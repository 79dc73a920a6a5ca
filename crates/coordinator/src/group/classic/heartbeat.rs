//! Heartbeat: a member says that it lives, and hears whether it has to join again.

use tidelog_types::ErrorCode;

use super::check_group_id;
use crate::group::change::Change;
use crate::group::{Group, State};
use crate::request::{Heartbeat, Now};

/// What a member is told, and what it changes. The most frequent request of all: nothing is copied.
pub(crate) fn heartbeat(
    group: Option<&Group>,
    request: &Heartbeat,
    now: Now,
) -> (ErrorCode, Option<Change>) {
    match check(group, request) {
        Err(error) => (error, None),
        Ok(group) => (told(group.state), group.renewal(&request.member_id, now)),
    }
}

fn check<'a>(group: Option<&'a Group>, request: &Heartbeat) -> Result<&'a Group, ErrorCode> {
    check_group_id(&request.group_id)?;
    let group = group.ok_or(ErrorCode::UnknownMemberId)?;
    group.check_member(&request.member_id, request.group_instance_id.as_deref())?;
    if request.generation_id != group.generation_id {
        return Err(ErrorCode::IllegalGeneration);
    }
    Ok(group)
}

fn told(state: State) -> ErrorCode {
    match state {
        State::Empty => ErrorCode::UnknownMemberId,
        State::PreparingRebalance { .. } => ErrorCode::RebalanceInProgress,
        State::CompletingRebalance | State::Stable => ErrorCode::None,
    }
}
