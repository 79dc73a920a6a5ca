//! DeleteGroups: groups without members go, with their offsets (KIP-229).

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
};
use tidelog_coordinator::{GroupRequest, GroupResponse};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::Broker,
    coordinator::reply::{PATIENCE, Question, Said, ask},
    handlers::groups::{string, unexpected},
    request_context::RequestContext,
};

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: DeleteGroupsRequest = request::decode(context.version(), body)?;
    context.check_items(request.groups_names.len())?;
    let questions = request.groups_names.iter().map(|group_id| {
        let delete = GroupRequest::Delete { group_id: string(group_id) };
        Question::Of(string(group_id), delete)
    });
    let questions = questions.collect();
    let told = Arc::clone(broker);
    Ok(ask(broker, questions, Some(PATIENCE), move |said| {
        let results = request.groups_names.iter().zip(said).map(|(group_id, said)| {
            DeletableGroupResult::default()
                .with_group_id(group_id.clone())
                .with_error_code(context.error(&told.metrics, code(said)))
        });
        let response = DeleteGroupsResponse::default().with_results(results.collect());
        context.encode(&told.metrics, &response)
    }))
}

fn code(said: Said) -> ErrorCode {
    match said {
        Ok(GroupResponse::Delete(code)) => code,
        Ok(other) => unexpected(&other),
        Err(code) => code,
    }
}
