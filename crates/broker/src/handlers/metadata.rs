//! Metadata: which topics there are, who leads them, and where to find who leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        BrokerId as WireBrokerId, MetadataRequest, MetadataResponse, TopicName,
        metadata_response::{
            MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
        },
    },
    protocol::StrBytes,
};
use tidelog_metadata::{
    CreateTopic, CreateTopicResult, MetadataImage, image::TopicImage, is_internal_topic,
    record::PartitionRegistration,
};
use tidelog_net::service::{CloseReason, Handled};
use tidelog_protocol::{Outgoing, RequestError, request};
use tidelog_types::{ErrorCode, TopicId, Uuid};

use crate::{
    broker::Broker,
    handlers::describe_cluster::CLUSTER_OPERATIONS,
    partition_state::{PartitionState, wire_ids},
    pending::{Answer, park},
    request_context::RequestContext,
};

/// First version with a code of its own for a leader without the client's listener.
const LISTENER_NOT_FOUND_FROM: i16 = 6;
/// How long creating a topic may take before the client is told to ask again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Topics that one request may create by asking. The others are unknown: a client that asks again
/// gets the next ones.
const CREATED_MAX: usize = 100;
/// Every operation on a topic, as bits: all are allowed where nobody says otherwise.
pub(crate) const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;

/// Why topics that asking should have created were not, by name.
type Refusals = BTreeMap<String, ErrorCode>;

/// One topic that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Name(StrBytes),
    Id(TopicId),
}

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: MetadataRequest = request::decode(context.version(), body)?;
    context.check_items(request.topics.as_ref().map_or(0, Vec::len))?;
    let wanted = wanted(&request, context.version());
    let creatable = creatable(broker, &request, wanted.as_ref());
    if creatable.is_empty() {
        let refusals = Refusals::new();
        let response = respond(broker, &context, &request, wanted.as_ref(), &refusals);
        return Ok(context.answer(&broker.metrics, &response));
    }
    let receiver = broker.controller.create_topics(creatable, false);
    let broker = Arc::clone(broker);
    Ok(park(receiver, Some(PATIENCE), move |created| {
        answer_created(&broker, &context, &request, wanted.as_ref(), created)
    }))
}

/// `None` asks for all topics: no list, or in version 0 an empty one.
fn wanted(request: &MetadataRequest, version: i16) -> Option<BTreeSet<Wanted>> {
    let topics = request.topics.as_ref()?;
    if version == 0 && topics.is_empty() {
        return None;
    }
    let name = |topic: &kafka_protocol::messages::metadata_request::MetadataRequestTopic| {
        match &topic.name {
            Some(name) => Wanted::Name(name.0.clone()),
            None => Wanted::Id(Uuid(topic.topic_id.into_bytes())),
        }
    };
    Some(topics.iter().map(name).collect())
}

/// Topics that asking for creates: only by name, only where both sides allow it, and never those
/// that asking for all topics would have shown.
fn creatable(
    broker: &Broker,
    request: &MetadataRequest,
    wanted: Option<&BTreeSet<Wanted>>,
) -> Vec<CreateTopic> {
    let image = broker.image.load();
    let allowed = request.allow_auto_topic_creation
        && broker.settings_now(&image).broker.auto_create_topics_enable;
    let Some(wanted) = wanted.filter(|_| allowed) else { return Vec::new() };
    let missing = wanted.iter().filter_map(|wanted| match wanted {
        Wanted::Name(name) => Some(name.as_str()),
        Wanted::Id(_) => None,
    });
    missing
        .filter(|name| image.topics().get(name).is_none())
        .filter(|name| is_lawful_name(name) && !is_internal_topic(name))
        .take(CREATED_MAX)
        .map(CreateTopic::with_defaults)
        .collect()
}

/// Kafka answers first and creates behind the client's back, so that it must ask again; the
/// finished topic is as good an answer to every client, and a better one.
fn answer_created(
    broker: &Broker,
    context: &RequestContext,
    request: &MetadataRequest,
    wanted: Option<&BTreeSet<Wanted>>,
    created: Answer<Result<Vec<CreateTopicResult>, ErrorCode>>,
) -> Result<Outgoing, CloseReason> {
    let refusals = match created {
        Answer::Got(Ok(created)) => created.into_iter().filter_map(refusal).collect(),
        // What could not be created now is unknown: the client asks again.
        Answer::Got(Err(_)) | Answer::TimedOut | Answer::Lost => Refusals::new(),
    };
    let response = respond(broker, context, request, wanted, &refusals);
    context.encode(&broker.metrics, &response)
}

fn refusal(created: CreateTopicResult) -> Option<(String, ErrorCode)> {
    let CreateTopicResult { name, result } = created;
    result.err().map(|error| (name, error.error_code()))
}

fn respond(
    broker: &Broker,
    context: &RequestContext,
    request: &MetadataRequest,
    wanted: Option<&BTreeSet<Wanted>>,
    refusals: &Refusals,
) -> MetadataResponse {
    let image = broker.image.load();
    let mut topics: Vec<MetadataResponseTopic> = match wanted {
        None => image.topics().iter().map(|topic| known(&image, context, topic)).collect(),
        Some(wanted) => {
            wanted.iter().map(|wanted| one(&image, context, wanted, refusals)).collect()
        }
    };
    for topic in &mut topics {
        broker.metrics.api(context.header.api_key).error(code_of(topic));
        if request.include_topic_authorized_operations && topic.error_code == 0 {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let mut response = MetadataResponse::default()
        .with_brokers(brokers(&image, context))
        .with_cluster_id(Some(broker.cluster_id()))
        .with_controller_id(broker.some_controller(&image))
        .with_topics(topics);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

fn brokers(image: &MetadataImage, context: &RequestContext) -> Vec<MetadataResponseBroker> {
    let brokers = image.cluster().alive().filter_map(|broker| {
        let endpoint = broker.endpoint(&context.listener)?;
        let told = MetadataResponseBroker::default()
            .with_node_id(WireBrokerId(broker.broker_id.0))
            .with_host(StrBytes::from_string(endpoint.host.clone()))
            .with_port(i32::from(endpoint.port))
            .with_rack(broker.rack.clone().map(StrBytes::from_string));
        Some(told)
    });
    brokers.collect()
}

fn one(
    image: &MetadataImage,
    context: &RequestContext,
    wanted: &Wanted,
    refusals: &Refusals,
) -> MetadataResponseTopic {
    let (found, name, topic_id) = match wanted {
        Wanted::Name(name) => (image.topics().get(name), Some(name), TopicId::ZERO),
        Wanted::Id(id) => (image.topics().get_by_id(*id), None, *id),
    };
    if let Some(topic) = found {
        return known(image, context, topic);
    }
    let code = match name {
        None => ErrorCode::UnknownTopicId,
        Some(name) if !is_lawful_name(name) => ErrorCode::InvalidTopicException,
        Some(name) => {
            let refused = refusals.get(name.as_str()).copied();
            refused.unwrap_or(ErrorCode::UnknownTopicOrPartition)
        }
    };
    MetadataResponseTopic::default()
        .with_error_code(code.code())
        .with_name(name.map(|name| TopicName(name.clone())))
        .with_topic_id(uuid(topic_id))
}

fn known(
    image: &MetadataImage,
    context: &RequestContext,
    topic: &TopicImage,
) -> MetadataResponseTopic {
    let partitions = topic
        .partitions()
        .map(|(index, registration)| partition(image, context, index, registration))
        .collect();
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name().to_owned()))))
        .with_topic_id(uuid(topic.topic_id()))
        .with_is_internal(is_internal_topic(topic.name()))
        .with_partitions(partitions)
}

fn partition(
    image: &MetadataImage,
    context: &RequestContext,
    index: i32,
    registration: &PartitionRegistration,
) -> MetadataResponsePartition {
    let state = PartitionState::of(image, registration, &context.listener);
    let code = match state.code {
        ErrorCode::ListenerNotFound if context.version() < LISTENER_NOT_FOUND_FROM => {
            ErrorCode::LeaderNotAvailable
        }
        code => code,
    };
    MetadataResponsePartition::default()
        .with_error_code(code.code())
        .with_partition_index(index)
        .with_leader_id(state.leader)
        .with_leader_epoch(registration.leader_epoch.0)
        .with_replica_nodes(wire_ids(&registration.replicas))
        .with_isr_nodes(wire_ids(&registration.isr))
        .with_offline_replicas(state.offline)
}

/// 1 to 249 letters, digits, dots, underscores and dashes, but not `.` or `..`.
pub(crate) fn is_lawful_name(name: &str) -> bool {
    let lawful = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=249).contains(&name.len()) && name.chars().all(lawful) && name != "." && name != ".."
}

fn code_of(topic: &MetadataResponseTopic) -> ErrorCode {
    ErrorCode::from_wire(topic.error_code).expect("a code of ours")
}

pub(crate) fn uuid(id: Uuid) -> uuid::Uuid {
    uuid::Uuid::from_bytes(id.0)
}
