//! DescribeTopicPartitions: topics page by page, each page ended by a cursor (KIP-966).

use std::{collections::BTreeSet, ops::Bound};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition as PartitionResponse,
            DescribeTopicPartitionsResponseTopic as TopicResponse,
        },
    },
    protocol::StrBytes,
};
use tidelog_metadata::{
    MetadataImage, image::TopicImage, is_internal_topic, record::PartitionRegistration,
};
use tidelog_net::service::{CloseReason, Handled};
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::Broker,
    handlers::metadata::{TOPIC_OPERATIONS, is_lawful_name, uuid},
    partition_state::{PartitionState, wire_ids},
    request_context::RequestContext,
};

/// Partitions of one answer at most. Kafka's `max.request.partition.size.limit`
const PARTITIONS_MAX: i32 = 2000;

/// One answer while it is filled.
struct Page<'a> {
    image: &'a MetadataImage,
    listener: &'a str,
    topics: Vec<TopicResponse>,
    /// Partitions that still fit.
    room: i32,
    next_cursor: Option<Cursor>,
}

pub(crate) fn handle(
    broker: &Broker,
    context: &RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: DescribeTopicPartitionsRequest = request::decode(context.version(), body)?;
    context.check_items(request.topics.len())?;
    let (from, first_partition) = match &request.cursor {
        None => ("", 0),
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
    };
    if first_partition < 0 {
        // The answer has no place for an error of the request as a whole.
        return Ok(Handled::Close(CloseReason::Malformed));
    }
    let image = broker.image.load();
    let mut page = Page {
        image: &image,
        listener: &context.listener,
        topics: Vec::new(),
        room: request.response_partition_limit.clamp(1, PARTITIONS_MAX),
        next_cursor: None,
    };
    let first = |name: &str| if name == from { first_partition } else { 0 };
    if request.topics.is_empty() {
        let mut topics = image.topics().iter_from(from);
        let _ = topics.try_for_each(|topic| page.add(topic, first(topic.name())));
    } else {
        let mut names: BTreeSet<&str> = request.topics.iter().map(|t| t.name.as_str()).collect();
        names.extend(request.cursor.as_ref().map(|_| from));
        let from_there = (Bound::Included(from), Bound::Unbounded);
        let mut names = names.range::<str, _>(from_there);
        let _ = names.try_for_each(|name| page.add_named(name, first(name)));
    }
    for topic in &page.topics {
        let code = ErrorCode::from_wire(topic.error_code).expect("a code of ours");
        context.error(&broker.metrics, code);
    }
    let response = DescribeTopicPartitionsResponse::default()
        .with_topics(page.topics)
        .with_next_cursor(page.next_cursor);
    Ok(context.answer(&broker.metrics, &response))
}

/// The page is full.
struct Full;

impl Page<'_> {
    fn add_named(&mut self, name: &str, first: i32) -> Result<(), Full> {
        if let Some(topic) = self.image.topics().get(name) {
            return self.add(topic, first);
        }
        if self.room == 0 {
            return self.end_at(name, 0);
        }
        let code = match is_lawful_name(name) {
            true => ErrorCode::UnknownTopicOrPartition,
            false => ErrorCode::InvalidTopicException,
        };
        let unknown =
            TopicResponse::default().with_error_code(code.code()).with_name(Some(topic_name(name)));
        self.topics.push(unknown);
        Ok(())
    }

    /// Adds a topic's partitions from `first` on, as far as there is room.
    fn add(&mut self, topic: &TopicImage, first: i32) -> Result<(), Full> {
        if self.room == 0 {
            return self.end_at(topic.name(), 0);
        }
        let skipped = usize::try_from(first).expect("it was checked before");
        let room = usize::try_from(self.room).expect("room is never negative");
        let partitions: Vec<_> = topic
            .partitions()
            .skip(skipped)
            .take(room)
            .map(|(index, registration)| self.partition(index, registration))
            .collect();
        let added = i32::try_from(partitions.len()).expect("no more than there was room for");
        self.room -= added;
        let told = TopicResponse::default()
            .with_name(Some(topic_name(topic.name())))
            .with_topic_id(uuid(topic.topic_id()))
            .with_is_internal(is_internal_topic(topic.name()))
            .with_topic_authorized_operations(TOPIC_OPERATIONS)
            .with_partitions(partitions);
        self.topics.push(told);
        match first.saturating_add(added) {
            next if next < topic.partition_count() => self.end_at(topic.name(), next),
            _ => Ok(()),
        }
    }

    fn partition(&self, index: i32, registration: &PartitionRegistration) -> PartitionResponse {
        let state = PartitionState::of(self.image, registration, self.listener);
        PartitionResponse::default()
            .with_error_code(state.code.code())
            .with_partition_index(index)
            .with_leader_id(state.leader)
            .with_leader_epoch(registration.leader_epoch.0)
            .with_replica_nodes(wire_ids(&registration.replicas))
            .with_isr_nodes(wire_ids(&registration.isr))
            .with_eligible_leader_replicas(Some(wire_ids(&registration.elr)))
            .with_last_known_elr(Some(wire_ids(&registration.last_known_elr)))
            .with_offline_replicas(state.offline)
    }

    /// The next page begins with this partition.
    fn end_at(&mut self, topic: &str, partition: i32) -> Result<(), Full> {
        let cursor = Cursor::default().with_topic_name(topic_name(topic));
        self.next_cursor = Some(cursor.with_partition_index(partition));
        Err(Full)
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
