//! OffsetFetch: how far groups have come.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use kafka_protocol::messages::{
    GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName,
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
        OffsetFetchResponseTopic, OffsetFetchResponseTopics,
    },
};
use tidelog_coordinator::{
    GroupRequest, GroupResponse,
    request::{FetchOffsets, FetchedOffset},
};
use tidelog_metadata::MetadataImage;
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::{ErrorCode, LeaderEpoch, TopicId};

use crate::{
    broker::Broker,
    coordinator::reply::{PATIENCE, Question, Said, ask},
    handlers::{
        groups::{optional, string, text, topic_id, unexpected},
        metadata::uuid,
    },
    request_context::RequestContext,
};

/// First version with an error of the whole request.
const ERROR_FROM: i16 = 2;
/// First version with leader epochs (KIP-320).
const LEADER_EPOCH_FROM: i16 = 5;
/// First version that asks for several groups (KIP-709).
const BATCHED_FROM: i16 = 8;
/// First version that names topics by id (KIP-848).
const TOPIC_IDS_FROM: i16 = 10;

/// What one group is asked for.
struct Wanted {
    group: OffsetFetchRequestGroup,
    /// The names of its topics, in the group's order; `None` where an id is unknown. Empty where
    /// the group is asked for everything.
    names: Vec<Option<String>>,
}

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let mut request: OffsetFetchRequest = request::decode(context.version(), body)?;
    if context.version() < BATCHED_FROM {
        request.groups = vec![alone(&mut request)];
    }
    context.check_items(request.groups.iter().map(items).sum())?;
    let image = broker.image.load();
    let by_id = context.version() >= TOPIC_IDS_FROM;
    let wanted = request.groups.into_iter().map(|group| wanted(&image, by_id, group));
    let wanted: Vec<Wanted> = wanted.collect();
    let mut seen = BTreeSet::new();
    let questions = wanted.iter().map(|wanted| {
        // Each answer may be as large as all that a group has.
        match seen.insert(wanted.group.group_id.as_str()) {
            true => question(wanted, request.require_stable),
            false => Question::Known(ErrorCode::InvalidRequest),
        }
    });
    let questions = questions.collect();
    let told = Arc::clone(broker);
    Ok(ask(broker, questions, Some(PATIENCE), move |said| {
        let image = told.image.load();
        let groups = wanted.into_iter().zip(said);
        let groups = groups.map(|(wanted, said)| answer(&image, &context, wanted, said)).collect();
        context.encode(&told.metrics, &respond(&told, &context, groups))
    }))
}

/// The one group of an old version's request.
fn alone(request: &mut OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topics = request.topics.take().map(|topics| {
        let topic =
            |topic: kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
                OffsetFetchRequestTopics::default()
                    .with_name(topic.name)
                    .with_partition_indexes(topic.partition_indexes)
            };
        topics.into_iter().map(topic).collect()
    });
    let group = OffsetFetchRequestGroup::default();
    group.with_group_id(request.group_id.clone()).with_topics(topics).with_member_epoch(-1)
}

fn items(group: &OffsetFetchRequestGroup) -> usize {
    let topics = group.topics.iter().flatten();
    1 + topics.map(|topic| topic.partition_indexes.len()).sum::<usize>()
}

fn wanted(image: &MetadataImage, by_id: bool, group: OffsetFetchRequestGroup) -> Wanted {
    let name = |topic: &OffsetFetchRequestTopics| match by_id {
        true => {
            let known = image.topics().get_by_id(topic_id(topic.topic_id));
            known.map(|known| known.name().to_owned())
        }
        false => Some(string(&topic.name)),
    };
    let names = group.topics.iter().flatten().map(name).collect();
    Wanted { group, names }
}

fn question(Wanted { group, names }: &Wanted, require_stable: bool) -> Question {
    let partitions = group.topics.as_ref().map(|topics| {
        let known = topics.iter().zip(names).filter_map(|(topic, name)| {
            let name = name.clone()?;
            Some(topic.partition_indexes.iter().map(move |index| (name.clone(), *index)))
        });
        known.flatten().collect()
    });
    let fetch = FetchOffsets {
        group_id: string(&group.group_id),
        member_id: optional(group.member_id.as_ref()),
        member_epoch: group.member_epoch,
        partitions,
        require_stable,
    };
    Question::Of(fetch.group_id.clone(), GroupRequest::FetchOffsets(fetch))
}

/// One group's answer, free of versions.
struct Answered {
    group_id: GroupId,
    topics: Vec<AnsweredTopic>,
    code: ErrorCode,
}

struct AnsweredTopic {
    name: TopicName,
    topic_id: TopicId,
    partitions: Vec<(i32, Result<FetchedOffset, ErrorCode>)>,
}

fn answer(image: &MetadataImage, context: &RequestContext, wanted: Wanted, said: Said) -> Answered {
    let Wanted { group, names } = wanted;
    let group_id = group.group_id;
    let (fetched, code) = match said {
        Ok(GroupResponse::FetchOffsets(Ok(fetched))) => (fetched, ErrorCode::None),
        Ok(GroupResponse::FetchOffsets(Err(code))) | Err(code) => (Vec::new(), code),
        Ok(other) => (Vec::new(), unexpected(&other)),
    };
    let by_id = context.version() >= TOPIC_IDS_FROM;
    let topics = match group.topics {
        // Version 1 has nowhere to say it but at the partitions.
        Some(topics) if code == ErrorCode::None || context.version() < ERROR_FROM => {
            asked_for(topics, names, fetched, code)
        }
        None if code == ErrorCode::None => everything(image, by_id, fetched),
        Some(_) | None => Vec::new(),
    };
    Answered { group_id, topics, code }
}

/// The topics that a request names, in its order.
fn asked_for(
    topics: Vec<OffsetFetchRequestTopics>,
    names: Vec<Option<String>>,
    fetched: Vec<FetchedOffset>,
    code: ErrorCode,
) -> Vec<AnsweredTopic> {
    let mut fetched = fetched.into_iter();
    let answered = topics.into_iter().zip(names).map(|(topic, name)| {
        let wanted_id = topic_id(topic.topic_id);
        let partitions = topic.partition_indexes.into_iter().map(|index| {
            let answer = match (&name, code) {
                (None, _) => Err(ErrorCode::UnknownTopicId),
                (Some(_), ErrorCode::None) => {
                    let offset = fetched.next().ok_or(ErrorCode::UnknownServerError);
                    offset.map(|offset| of_this_topic(offset, wanted_id))
                }
                (Some(_), code) => Err(code),
            };
            (index, answer)
        });
        let partitions = partitions.collect();
        AnsweredTopic { name: topic.name, topic_id: wanted_id, partitions }
    });
    answered.collect()
}

/// A topic that was created again under its name does not inherit what was committed before.
fn of_this_topic(fetched: FetchedOffset, wanted_id: TopicId) -> FetchedOffset {
    let is_other =
        !wanted_id.is_zero() && !fetched.topic_id.is_zero() && fetched.topic_id != wanted_id;
    match is_other {
        true => FetchedOffset {
            offset: None,
            leader_epoch: LeaderEpoch::NONE,
            metadata: String::new(),
            ..fetched
        },
        false => fetched,
    }
}

/// Everything that a group has. Where topics have ids, one that is gone cannot be named.
fn everything(
    image: &MetadataImage,
    by_id: bool,
    fetched: Vec<FetchedOffset>,
) -> Vec<AnsweredTopic> {
    let mut topics: Vec<AnsweredTopic> = Vec::new();
    for offset in fetched {
        let id = image.topics().get(&offset.topic).map(|topic| topic.topic_id());
        let topic_id = match (by_id, id) {
            (true, None) => continue,
            (true, Some(id)) => id,
            (false, _) => TopicId::ZERO,
        };
        let offset = of_this_topic(offset, topic_id);
        if topics.last().is_none_or(|last| *last.name.0 != *offset.topic) {
            let name = TopicName(text(offset.topic.clone()));
            topics.push(AnsweredTopic { name, topic_id, partitions: Vec::new() });
        }
        let topic = topics.last_mut().expect("one was pushed");
        topic.partitions.push((offset.partition, Ok(offset)));
    }
    topics
}

fn respond(
    broker: &Broker,
    context: &RequestContext,
    groups: Vec<Answered>,
) -> OffsetFetchResponse {
    let response = OffsetFetchResponse::default();
    if context.version() >= BATCHED_FROM {
        let groups = groups.into_iter().map(|answered| group(broker, context, answered));
        return response.with_groups(groups.collect());
    }
    let answered = groups.into_iter().next().expect("one group was asked for");
    let topics = answered.topics.into_iter().map(|topic| old_topic(broker, context, topic));
    let response = response.with_topics(topics.collect());
    let error_code = context.error(&broker.metrics, answered.code);
    match context.version() {
        ERROR_FROM.. => response.with_error_code(error_code),
        _ => response,
    }
}

fn group(
    broker: &Broker,
    context: &RequestContext,
    answered: Answered,
) -> OffsetFetchResponseGroup {
    let topics = answered.topics.into_iter().map(|answered| {
        let partitions = answered.partitions.into_iter().map(|(index, answer)| {
            let said = Told::of(broker, context, answer);
            OffsetFetchResponsePartitions::default()
                .with_partition_index(index)
                .with_committed_offset(said.offset)
                .with_committed_leader_epoch(said.leader_epoch)
                .with_metadata(Some(text(said.metadata)))
                .with_error_code(said.error_code)
        });
        let partitions = partitions.collect();
        let topic = OffsetFetchResponseTopics::default().with_partitions(partitions);
        match context.version() {
            TOPIC_IDS_FROM.. => topic.with_topic_id(uuid(answered.topic_id)),
            _ => topic.with_name(answered.name),
        }
    });
    OffsetFetchResponseGroup::default()
        .with_group_id(answered.group_id)
        .with_topics(topics.collect())
        .with_error_code(context.error(&broker.metrics, answered.code))
}

fn old_topic(
    broker: &Broker,
    context: &RequestContext,
    answered: AnsweredTopic,
) -> OffsetFetchResponseTopic {
    let partitions = answered.partitions.into_iter().map(|(index, answer)| {
        let said = Told::of(broker, context, answer);
        let leader_epoch = match context.version() {
            LEADER_EPOCH_FROM.. => said.leader_epoch,
            _ => LeaderEpoch::NONE.0,
        };
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(said.offset)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(Some(text(said.metadata)))
            .with_error_code(said.error_code)
    });
    let partitions = partitions.collect();
    OffsetFetchResponseTopic::default().with_name(answered.name).with_partitions(partitions)
}

/// What is told of one partition.
struct Told {
    offset: i64,
    leader_epoch: i32,
    metadata: String,
    error_code: i16,
}

impl Told {
    fn of(
        broker: &Broker,
        context: &RequestContext,
        answer: Result<FetchedOffset, ErrorCode>,
    ) -> Told {
        let none = (-1, LeaderEpoch::NONE.0, String::new());
        let ((offset, leader_epoch, metadata), code) = match answer {
            Err(code) => (none, code),
            Ok(FetchedOffset { offset: None, error_code, .. }) => (none, error_code),
            Ok(FetchedOffset {
                offset: Some(offset), leader_epoch, metadata, error_code, ..
            }) => ((offset.0, leader_epoch.0, metadata), error_code),
        };
        let error_code = context.error(&broker.metrics, code);
        Told { offset, leader_epoch, metadata, error_code }
    }
}
