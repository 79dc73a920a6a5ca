//! ListGroups: the groups that this broker looks after.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        GroupId, ListGroupsRequest, ListGroupsResponse, list_groups_response::ListedGroup as Told,
    },
    protocol::StrBytes,
};
use tidelog_coordinator::{
    GroupRequest, GroupResponse,
    request::{ListGroups, ListedGroup},
};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::Broker,
    coordinator::reply::{PATIENCE, Question, Said, ask},
    handlers::groups::{string, text, unexpected},
    request_context::RequestContext,
};

/// First version that tells a group's state (KIP-518).
const STATE_FROM: i16 = 4;
/// First version that tells a group's type (KIP-848).
const TYPE_FROM: i16 = 5;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: ListGroupsRequest = request::decode(context.version(), body)?;
    context.check_items(request.states_filter.len() + request.types_filter.len())?;
    let list = ListGroups {
        states: request.states_filter.iter().map(string).collect(),
        types: request.types_filter.iter().map(string).collect(),
    };
    let shards = 0..broker.groups.handle.partitions().unwrap_or(0);
    let questions = shards.map(|shard| Question::At(shard, GroupRequest::List(list.clone())));
    let questions = questions.collect();
    let told = Arc::clone(broker);
    Ok(ask(broker, questions, Some(PATIENCE), move |said| {
        context.encode(&told.metrics, &respond(&told, &context, said))
    }))
}

fn respond(broker: &Broker, context: &RequestContext, said: Vec<Said>) -> ListGroupsResponse {
    let response = ListGroupsResponse::default();
    let groups: Result<Vec<Vec<ListedGroup>>, ErrorCode> = said.into_iter().map(listed).collect();
    match groups {
        Ok(groups) => {
            let groups = groups.into_iter().flatten().map(|group| told(context.version(), group));
            response.with_groups(groups.collect())
        }
        Err(code) => response.with_error_code(context.error(&broker.metrics, code)),
    }
}

/// A shard that is another broker's has its groups listed there.
fn listed(said: Said) -> Result<Vec<ListedGroup>, ErrorCode> {
    match said {
        Ok(GroupResponse::List(groups)) => Ok(groups),
        Ok(other) => Err(unexpected(&other)),
        Err(ErrorCode::NotCoordinator) => Ok(Vec::new()),
        Err(code) => Err(code),
    }
}

fn told(version: i16, group: ListedGroup) -> Told {
    let since = |since: i16, word: &'static str| match version >= since {
        true => StrBytes::from_static_str(word),
        false => StrBytes::default(),
    };
    Told::default()
        .with_group_id(GroupId(text(group.group_id)))
        .with_protocol_type(text(group.protocol_type))
        .with_group_state(since(STATE_FROM, group.state))
        .with_group_type(since(TYPE_FROM, group.group_type))
}
