//! JoinGroup: a client becomes, or stays, a member; answered when the rebalance lets it in.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use kafka_protocol::{
    messages::{JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember},
    protocol::StrBytes,
};
use tidelog_coordinator::{
    GroupRequest, GroupResponse,
    request::{JoinGroup, Joined, JoinedMember},
};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::{Broker, random_uuid},
    coordinator::reply::{Question, Said, ask},
    handlers::groups::{duration, optional, string, text, unexpected},
    request_context::RequestContext,
};

/// First version with a rebalance timeout of its own; before, the session's holds.
const REBALANCE_TIMEOUT_FROM: i16 = 1;
/// First version whose clients join with the member id they are given (KIP-394).
const KNOWN_MEMBER_ID_FROM: i16 = 4;
/// First version that tells the protocol's type, and may tell no protocol (KIP-559).
const PROTOCOL_TYPE_FROM: i16 = 7;
/// First version whose leader understands that there is nothing to assign (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    peer: SocketAddr,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: JoinGroupRequest = request::decode(context.version(), body)?;
    context.check_items(request.protocols.len())?;
    let member_id = request.member_id.clone();
    let question = match request.group_id.is_empty() {
        true => Question::Known(ErrorCode::InvalidGroupId),
        false => {
            let join = join(&context, peer, request);
            Question::Of(join.group_id.clone(), GroupRequest::Join(join))
        }
    };
    let told = Arc::clone(broker);
    Ok(ask(broker, vec![question], None, move |mut said| {
        let joined = joined(said.pop().expect("one answer to one question"), &member_id);
        context.encode(&told.metrics, &respond(&told, &context, joined))
    }))
}

fn join(context: &RequestContext, peer: SocketAddr, request: JoinGroupRequest) -> JoinGroup {
    let version = context.version();
    let rebalance_timeout_ms = match version {
        REBALANCE_TIMEOUT_FROM.. => request.rebalance_timeout_ms,
        _ => request.session_timeout_ms,
    };
    let protocols = request.protocols.into_iter().map(|p| (string(&p.name), p.metadata));
    JoinGroup {
        group_id: string(&request.group_id),
        member_id: string(&request.member_id),
        group_instance_id: optional(request.group_instance_id.as_ref()),
        client_id: optional(context.header.client_id.as_ref()).unwrap_or_default(),
        client_host: format!("/{}", peer.ip()),
        new_member: random_uuid(),
        session_timeout: duration(request.session_timeout_ms),
        rebalance_timeout: duration(rebalance_timeout_ms),
        protocol_type: string(&request.protocol_type),
        protocols: protocols.collect(),
        requires_known_member_id: version >= KNOWN_MEMBER_ID_FROM,
        supports_skipping_assignment: version >= SKIP_ASSIGNMENT_FROM,
        reason: optional(request.reason.as_ref()),
    }
}

fn joined(said: Said, member_id: &str) -> Joined {
    let code = match said {
        Ok(GroupResponse::Join(joined)) => return joined,
        Ok(other) => unexpected(&other),
        Err(code) => code,
    };
    Joined {
        error_code: code,
        generation_id: -1,
        protocol_type: None,
        protocol_name: None,
        leader: String::new(),
        skip_assignment: false,
        member_id: member_id.to_owned(),
        members: Vec::new(),
    }
}

fn respond(broker: &Broker, context: &RequestContext, joined: Joined) -> JoinGroupResponse {
    let version = context.version();
    let told = |since: i16, said: Option<String>| said.filter(|_| version >= since).map(text);
    // Before version 7 there was no way to say "none" but in nothing.
    let none = (version < PROTOCOL_TYPE_FROM).then(StrBytes::default);
    JoinGroupResponse::default()
        .with_error_code(context.error(&broker.metrics, joined.error_code))
        .with_generation_id(joined.generation_id)
        .with_protocol_type(told(PROTOCOL_TYPE_FROM, joined.protocol_type))
        .with_protocol_name(joined.protocol_name.map(text).or(none))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment && version >= SKIP_ASSIGNMENT_FROM)
        .with_member_id(text(joined.member_id))
        .with_members(joined.members.into_iter().map(|m| member(version, m)).collect())
}

/// First version that tells of static members (KIP-345).
const INSTANCE_ID_FROM: i16 = 5;

fn member(version: i16, joined: JoinedMember) -> JoinGroupResponseMember {
    let instance_id = joined.group_instance_id.filter(|_| version >= INSTANCE_ID_FROM);
    JoinGroupResponseMember::default()
        .with_member_id(text(joined.member_id))
        .with_group_instance_id(instance_id.map(text))
        .with_metadata(joined.metadata)
}
