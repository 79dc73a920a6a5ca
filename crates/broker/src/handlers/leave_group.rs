//! LeaveGroup: members go, or an administrator removes them (KIP-345).

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    LeaveGroupRequest, LeaveGroupResponse, leave_group_request::MemberIdentity,
    leave_group_response::MemberResponse,
};
use tidelog_coordinator::{
    GroupRequest, GroupResponse,
    request::{LeaveGroup, LeavingMember, Left},
};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::Broker,
    coordinator::reply::{PATIENCE, Question, Said, ask},
    handlers::groups::{optional, string, unexpected},
    request_context::RequestContext,
};

/// First version in which several members leave together.
const BATCHED_FROM: i16 = 3;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let mut request: LeaveGroupRequest = request::decode(context.version(), body)?;
    context.check_items(request.members.len())?;
    if context.version() < BATCHED_FROM {
        let alone = MemberIdentity::default().with_member_id(request.member_id.clone());
        request.members = vec![alone];
    }
    let question = match request.group_id.is_empty() {
        true => Question::Known(ErrorCode::InvalidGroupId),
        false => Question::Of(string(&request.group_id), leave(&request)),
    };
    let told = Arc::clone(broker);
    Ok(ask(broker, vec![question], Some(PATIENCE), move |mut said| {
        let left = left(said.pop().expect("one answer to one question"));
        context.encode(&told.metrics, &respond(&told, &context, &request, &left))
    }))
}

fn leave(request: &LeaveGroupRequest) -> GroupRequest {
    let member = |member: &MemberIdentity| LeavingMember {
        member_id: string(&member.member_id),
        group_instance_id: optional(member.group_instance_id.as_ref()),
        reason: optional(member.reason.as_ref()),
    };
    let members = request.members.iter().map(member).collect();
    GroupRequest::Leave(LeaveGroup { group_id: string(&request.group_id), members })
}

fn left(said: Said) -> Left {
    let error_code = match said {
        Ok(GroupResponse::Leave(left)) => return left,
        Ok(other) => unexpected(&other),
        Err(code) => code,
    };
    Left { error_code, members: Vec::new() }
}

fn respond(
    broker: &Broker,
    context: &RequestContext,
    request: &LeaveGroupRequest,
    left: &Left,
) -> LeaveGroupResponse {
    let metrics = &broker.metrics;
    let response = LeaveGroupResponse::default();
    if context.version() < BATCHED_FROM {
        let alone = left.members.first().copied().unwrap_or(ErrorCode::None);
        let code = if left.error_code == ErrorCode::None { alone } else { left.error_code };
        return response.with_error_code(context.error(metrics, code));
    }
    let members = request.members.iter().zip(&left.members).map(|(member, code)| {
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(context.error(metrics, *code))
    });
    let members = members.collect();
    response.with_error_code(context.error(metrics, left.error_code)).with_members(members)
}
