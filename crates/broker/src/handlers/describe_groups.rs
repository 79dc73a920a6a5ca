//! DescribeGroups: groups, looked at closely.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
        describe_groups_response::{DescribedGroup as Told, DescribedGroupMember as ToldMember},
    },
    protocol::StrBytes,
};
use tidelog_coordinator::{
    GroupRequest, GroupResponse,
    request::{DescribedGroup, DescribedMember},
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

/// First version that tells of static members (KIP-345).
const INSTANCE_ID_FROM: i16 = 4;
/// First version in which an unknown group is an error, with words (KIP-1043).
const NOT_FOUND_FROM: i16 = 6;
/// Every operation on a group, as bits: all are allowed where nobody says otherwise.
const GROUP_OPERATIONS: i32 = 0b1101_0100_1000;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: DescribeGroupsRequest = request::decode(context.version(), body)?;
    context.check_items(request.groups.len())?;
    let mut seen = BTreeSet::new();
    let questions = request.groups.iter().map(|group_id| {
        let describe = GroupRequest::Describe { group_id: string(group_id) };
        // Each answer may be as large as a group.
        match seen.insert(group_id.as_str()) {
            true => Question::Of(string(group_id), describe),
            false => Question::Known(ErrorCode::InvalidRequest),
        }
    });
    let questions = questions.collect();
    let told = Arc::clone(broker);
    Ok(ask(broker, questions, Some(PATIENCE), move |said| {
        let groups = request.groups.iter().zip(said).map(|(group_id, said)| {
            let answer = answer(&told, &context, group_id.clone(), said);
            match request.include_authorized_operations && answer.error_code == 0 {
                true => answer.with_authorized_operations(GROUP_OPERATIONS),
                false => answer,
            }
        });
        let response = DescribeGroupsResponse::default().with_groups(groups.collect());
        context.encode(&told.metrics, &response)
    }))
}

fn answer(broker: &Broker, context: &RequestContext, group_id: GroupId, said: Said) -> Told {
    let described = match said {
        Ok(GroupResponse::Describe(described)) => described,
        Ok(other) => Err(unexpected(&other)),
        Err(code) => Err(code),
    };
    let answer = Told::default().with_group_id(group_id);
    match described {
        Ok(described) => found(context.version(), answer, described),
        Err(code) => missed(broker, context, answer, code),
    }
}

fn found(version: i16, answer: Told, described: DescribedGroup) -> Told {
    let members = described.members.into_iter().map(|described| member(version, described));
    answer
        .with_group_state(StrBytes::from_static_str(described.state))
        .with_protocol_type(text(described.protocol_type))
        .with_protocol_data(text(described.protocol_name))
        .with_members(members.collect())
}

/// Old versions tell of an unknown group as of one that is dead.
fn missed(broker: &Broker, context: &RequestContext, answer: Told, code: ErrorCode) -> Told {
    let dead = || StrBytes::from_static_str("Dead");
    if code != ErrorCode::GroupIdNotFound {
        return answer.with_error_code(context.error(&broker.metrics, code));
    }
    if context.version() < NOT_FOUND_FROM {
        return answer.with_group_state(dead());
    }
    let words = format!("Group {} not found.", answer.group_id.as_str());
    answer
        .with_group_state(dead())
        .with_error_code(context.error(&broker.metrics, code))
        .with_error_message(Some(crate::request_context::message(words)))
}

fn member(version: i16, described: DescribedMember) -> ToldMember {
    let instance_id = described.group_instance_id.filter(|_| version >= INSTANCE_ID_FROM);
    ToldMember::default()
        .with_member_id(text(described.member_id))
        .with_group_instance_id(instance_id.map(text))
        .with_client_id(text(described.client_id))
        .with_client_host(text(described.client_host))
        .with_member_metadata(described.metadata)
        .with_member_assignment(described.assignment)
}
