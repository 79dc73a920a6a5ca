//! OffsetDelete: offsets of a group are forgotten (KIP-496).

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    OffsetDeleteRequest, OffsetDeleteResponse,
    offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
};
use tidelog_coordinator::{GroupRequest, GroupResponse, request::DeleteOffsets};
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
    let request: OffsetDeleteRequest = request::decode(context.version(), body)?;
    context.check_items(request.topics.iter().map(|topic| topic.partitions.len()).sum())?;
    let question = match request.group_id.is_empty() {
        true => Question::Known(ErrorCode::InvalidGroupId),
        false => Question::Of(string(&request.group_id), delete(broker, &request)),
    };
    let told = Arc::clone(broker);
    Ok(ask(broker, vec![question], Some(PATIENCE), move |mut said| {
        let deleted = codes(said.pop().expect("one answer to one question"));
        context.encode(&told.metrics, &respond(&told, &context, &request, deleted))
    }))
}

/// Whether there is such a partition. Others are refused, as in Kafka.
fn is_known(broker: &Broker, topic: &str, partition: i32) -> bool {
    let image = broker.image.load();
    let topic = image.topics().get(topic);
    topic.is_some_and(|topic| (0..topic.partition_count()).contains(&partition))
}

fn delete(broker: &Broker, request: &OffsetDeleteRequest) -> GroupRequest {
    let partitions = request.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| partition.partition_index);
        let known = partitions.filter(|index| is_known(broker, &topic.name, *index));
        known.map(|index| (string(&topic.name), index))
    });
    let partitions = partitions.collect();
    GroupRequest::DeleteOffsets(DeleteOffsets { group_id: string(&request.group_id), partitions })
}

fn codes(said: Said) -> Result<Vec<ErrorCode>, ErrorCode> {
    match said? {
        GroupResponse::DeleteOffsets(codes) => codes,
        other => Err(unexpected(&other)),
    }
}

fn respond(
    broker: &Broker,
    context: &RequestContext,
    request: &OffsetDeleteRequest,
    deleted: Result<Vec<ErrorCode>, ErrorCode>,
) -> OffsetDeleteResponse {
    let response = OffsetDeleteResponse::default();
    let mut codes = match deleted {
        Ok(codes) => codes.into_iter(),
        Err(code) => return response.with_error_code(context.error(&broker.metrics, code)),
    };
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let code = match is_known(broker, &topic.name, index) {
                true => codes.next().unwrap_or(ErrorCode::UnknownTopicOrPartition),
                false => ErrorCode::UnknownTopicOrPartition,
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(context.error(&broker.metrics, code))
        });
        let partitions = partitions.collect();
        let answer = OffsetDeleteResponseTopic::default().with_name(topic.name.clone());
        answer.with_partitions(partitions)
    });
    response.with_topics(topics.collect())
}
