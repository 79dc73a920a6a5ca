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
    let known = known(broker, &request);
    let question = match request.group_id.is_empty() {
        true => Question::Known(ErrorCode::InvalidGroupId),
        false => Question::Of(string(&request.group_id), delete(&request, &known)),
    };
    let told = Arc::clone(broker);
    Ok(ask(broker, vec![question], Some(PATIENCE), move |mut said| {
        let deleted = codes(said.pop().expect("one answer to one question"));
        context.encode(&told.metrics, &respond(&told, &context, &request, &known, deleted))
    }))
}

/// Whether each partition exists, in the order of the request. Others are refused, as in Kafka.
fn known(broker: &Broker, request: &OffsetDeleteRequest) -> Vec<bool> {
    let image = broker.image.load();
    let topics = request.topics.iter().flat_map(|topic| {
        let count = image.topics().get(&topic.name).map_or(0, |known| known.partition_count());
        let partitions = topic.partitions.iter();
        partitions.map(move |partition| (0..count).contains(&partition.partition_index))
    });
    topics.collect()
}

fn delete(request: &OffsetDeleteRequest, known: &[bool]) -> GroupRequest {
    let partitions = request.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (string(&topic.name), partition.partition_index))
    });
    let partitions = partitions.zip(known).filter_map(|(named, known)| known.then_some(named));
    let (group_id, partitions) = (string(&request.group_id), partitions.collect());
    GroupRequest::DeleteOffsets(DeleteOffsets { group_id, partitions })
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
    known: &[bool],
    deleted: Result<Vec<ErrorCode>, ErrorCode>,
) -> OffsetDeleteResponse {
    let response = OffsetDeleteResponse::default();
    let mut codes = match deleted {
        Ok(codes) => codes.into_iter(),
        Err(code) => return response.with_error_code(context.error(&broker.metrics, code)),
    };
    let mut known = known.iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let code = match known.next() {
                Some(true) => codes.next().unwrap_or(ErrorCode::UnknownTopicOrPartition),
                Some(false) | None => ErrorCode::UnknownTopicOrPartition,
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(context.error(&broker.metrics, code))
        });
        let partitions = partitions.collect();
        let answer = OffsetDeleteResponseTopic::default().with_name(topic.name.clone());
        answer.with_partitions(partitions)
    });
    response.with_topics(topics.collect())
}
