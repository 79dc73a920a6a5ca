//! OffsetCommit: how far a group has come, synced before it is answered.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, TopicName,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
};
use tidelog_coordinator::{
    GroupRequest, GroupResponse,
    request::{CommitOffsets, OffsetToCommit},
};
use tidelog_metadata::{MetadataImage, image::TopicImage};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::{ErrorCode, LeaderEpoch, Offset, TopicId};

use crate::{
    broker::Broker,
    coordinator::reply::{PATIENCE, Question, Said, ask},
    handlers::groups::{optional, string, topic_id, unexpected},
    request_context::RequestContext,
};

/// First version whose clients understand GROUP_ID_NOT_FOUND (KIP-848).
const GROUP_ID_NOT_FOUND_FROM: i16 = 9;
/// First version that names topics by id (KIP-848).
const TOPIC_IDS_FROM: i16 = 10;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: OffsetCommitRequest = request::decode(context.version(), body)?;
    context.check_items(request.topics.iter().map(|topic| topic.partitions.len()).sum())?;
    let (refused, offsets) = check(&broker.image.load(), context.version(), &request.topics);
    if offsets.is_empty() {
        let response = respond(broker, &context, &request, refused, &[]);
        return Ok(context.answer(&broker.metrics, &response));
    }
    let count = offsets.len();
    let commit = commit(&context, &request, offsets);
    let question = Question::Of(commit.group_id.clone(), GroupRequest::CommitOffsets(commit));
    let told = Arc::clone(broker);
    Ok(ask(broker, vec![question], Some(PATIENCE), move |mut said| {
        let codes = codes(said.pop().expect("one answer to one question"), count);
        let committed = codes.iter().filter(|code| **code == ErrorCode::None).count();
        told.metrics.coordinator.offset_commits.inc_by(committed as u64);
        let response = respond(&told, &context, &request, refused, &codes);
        context.encode(&told.metrics, &response)
    }))
}

/// What every partition of a request is refused with, in its order, and what may be committed.
fn check(
    image: &MetadataImage,
    version: i16,
    topics: &[OffsetCommitRequestTopic],
) -> (Vec<Option<ErrorCode>>, Vec<OffsetToCommit>) {
    let (mut refused, mut offsets) = (Vec::new(), Vec::new());
    for wanted in topics {
        let (topic, unknown) = match version {
            TOPIC_IDS_FROM.. => {
                let topic = image.topics().get_by_id(topic_id(wanted.topic_id));
                (topic, ErrorCode::UnknownTopicId)
            }
            _ => (image.topics().get(&wanted.name), ErrorCode::UnknownTopicOrPartition),
        };
        for partition in &wanted.partitions {
            let checked = match topic {
                None => Err(unknown),
                Some(topic) => offset(topic, topic_id(wanted.topic_id), partition),
            };
            refused.push(checked.as_ref().err().copied());
            offsets.extend(checked);
        }
    }
    (refused, offsets)
}

/// `named_by` is the id that the client knows the topic by, zero if it knows the name. Only an id
/// is kept: older tools do not read offsets that are kept with one.
fn offset(
    topic: &TopicImage,
    named_by: TopicId,
    partition: &OffsetCommitRequestPartition,
) -> Result<OffsetToCommit, ErrorCode> {
    if !(0..topic.partition_count()).contains(&partition.partition_index) {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    Ok(OffsetToCommit {
        topic: topic.name().to_owned(),
        topic_id: named_by,
        partition: partition.partition_index,
        offset: Offset(partition.committed_offset),
        leader_epoch: LeaderEpoch(partition.committed_leader_epoch),
        metadata: optional(partition.committed_metadata.as_ref()).unwrap_or_default(),
    })
}

fn commit(
    context: &RequestContext,
    request: &OffsetCommitRequest,
    offsets: Vec<OffsetToCommit>,
) -> CommitOffsets {
    let retention_ms = u64::try_from(request.retention_time_ms).ok();
    CommitOffsets {
        group_id: string(&request.group_id),
        generation_id: request.generation_id_or_member_epoch,
        member_id: string(&request.member_id),
        group_instance_id: optional(request.group_instance_id.as_ref()),
        retention: retention_ms.map(Duration::from_millis),
        unknown_group: match context.version() {
            GROUP_ID_NOT_FOUND_FROM.. => ErrorCode::GroupIdNotFound,
            _ => ErrorCode::IllegalGeneration,
        },
        offsets,
    }
}

fn codes(said: Said, count: usize) -> Vec<ErrorCode> {
    match said {
        Ok(GroupResponse::CommitOffsets(codes)) => codes,
        Ok(other) => vec![unexpected(&other); count],
        Err(code) => vec![code; count],
    }
}

/// Every partition gets what it was refused with, or else the next of the group's codes.
fn respond(
    broker: &Broker,
    context: &RequestContext,
    request: &OffsetCommitRequest,
    refused: Vec<Option<ErrorCode>>,
    codes: &[ErrorCode],
) -> OffsetCommitResponse {
    let (mut refused, mut codes) = (refused.into_iter(), codes.iter());
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|partition| {
            let refusal = refused.next().expect("every partition was checked");
            let code = refusal
                .unwrap_or_else(|| codes.next().copied().unwrap_or(ErrorCode::UnknownServerError));
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(context.error(&broker.metrics, code))
        });
        let partitions = partitions.collect();
        let answer = OffsetCommitResponseTopic::default().with_partitions(partitions);
        topics.push(match context.version() {
            TOPIC_IDS_FROM.. => answer.with_topic_id(topic.topic_id),
            _ => answer.with_name(TopicName(topic.name.0.clone())),
        });
    }
    OffsetCommitResponse::default().with_topics(topics)
}
