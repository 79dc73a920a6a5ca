//! Heartbeat: a member says that it lives, and hears whether its group rebalances.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use tidelog_coordinator::{GroupRequest, GroupResponse, request::Heartbeat};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::Broker,
    coordinator::reply::{PATIENCE, Question, Said, ask},
    handlers::groups::{optional, string, unexpected},
    request_context::RequestContext,
};

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: HeartbeatRequest = request::decode(context.version(), body)?;
    let question = match request.group_id.is_empty() {
        true => Question::Known(ErrorCode::InvalidGroupId),
        false => Question::Of(string(&request.group_id), heartbeat(&request)),
    };
    let told = Arc::clone(broker);
    Ok(ask(broker, vec![question], Some(PATIENCE), move |mut said| {
        let code = code(said.pop().expect("one answer to one question"));
        let response = HeartbeatResponse::default();
        let error_code = context.error(&told.metrics, code);
        context.encode(&told.metrics, &response.with_error_code(error_code))
    }))
}

fn heartbeat(request: &HeartbeatRequest) -> GroupRequest {
    GroupRequest::Heartbeat(Heartbeat {
        group_id: string(&request.group_id),
        generation_id: request.generation_id,
        member_id: string(&request.member_id),
        group_instance_id: optional(request.group_instance_id.as_ref()),
    })
}

/// A heartbeat that finds a loading coordinator is fine: the member is no less alive.
fn code(said: Said) -> ErrorCode {
    match said {
        Ok(GroupResponse::Heartbeat(code)) => code,
        Ok(other) => unexpected(&other),
        Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
        Err(code) => code,
    }
}
