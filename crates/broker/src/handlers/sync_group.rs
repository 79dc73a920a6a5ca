//! SyncGroup: a member asks for its assignment, the leader brings everybody's.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use tidelog_coordinator::{
    GroupRequest, GroupResponse,
    request::{SyncGroup, Synced},
};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::Broker,
    coordinator::reply::{Question, Said, ask},
    handlers::groups::{optional, string, text, unexpected},
    request_context::RequestContext,
};

/// First version in which a member says, and is told, what the group has chosen (KIP-559).
const PROTOCOL_FROM: i16 = 5;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: SyncGroupRequest = request::decode(context.version(), body)?;
    context.check_items(request.assignments.len())?;
    let question = match refusal(context.version(), &request) {
        Some(code) => Question::Known(code),
        None => Question::Of(string(&request.group_id), GroupRequest::Sync(sync(request))),
    };
    let told = Arc::clone(broker);
    Ok(ask(broker, vec![question], None, move |mut said| {
        let synced = synced(said.pop().expect("one answer to one question"));
        context.encode(&told.metrics, &respond(&told, &context, synced))
    }))
}

fn refusal(version: i16, request: &SyncGroupRequest) -> Option<ErrorCode> {
    let knows_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if version >= PROTOCOL_FROM && !knows_protocol {
        return Some(ErrorCode::InconsistentGroupProtocol);
    }
    request.group_id.is_empty().then_some(ErrorCode::InvalidGroupId)
}

fn sync(request: SyncGroupRequest) -> SyncGroup {
    let assignments = request.assignments.into_iter();
    SyncGroup {
        group_id: string(&request.group_id),
        generation_id: request.generation_id,
        member_id: string(&request.member_id),
        group_instance_id: optional(request.group_instance_id.as_ref()),
        protocol_type: optional(request.protocol_type.as_ref()),
        protocol_name: optional(request.protocol_name.as_ref()),
        assignments: assignments.map(|a| (string(&a.member_id), a.assignment)).collect(),
    }
}

fn synced(said: Said) -> Synced {
    let error_code = match said {
        Ok(GroupResponse::Sync(synced)) => return synced,
        Ok(other) => unexpected(&other),
        Err(code) => code,
    };
    Synced { error_code, protocol_type: None, protocol_name: None, assignment: Bytes::new() }
}

fn respond(broker: &Broker, context: &RequestContext, synced: Synced) -> SyncGroupResponse {
    let told = |said: Option<String>| said.filter(|_| context.version() >= PROTOCOL_FROM).map(text);
    SyncGroupResponse::default()
        .with_error_code(context.error(&broker.metrics, synced.error_code))
        .with_protocol_type(told(synced.protocol_type))
        .with_protocol_name(told(synced.protocol_name))
        .with_assignment(synced.assignment)
}
