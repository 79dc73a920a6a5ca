//! CreateTopics: planned and committed by the metadata leader, answered once the topics serve.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, CreateTopicsResponse, TopicName,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
    protocol::StrBytes,
};
use tidelog_metadata::{CreateTopic, CreateTopicResult, CreatedTopic, ReplicaAssignment};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::{BrokerId, ErrorCode};

use crate::{
    broker::Broker,
    handlers::{describe_configs, metadata::uuid},
    pending::{park, timeout},
    request_context::{RequestContext, message},
};

/// First version whose answer says what was created (KIP-525).
const DETAILS_FROM: i16 = 5;
/// First version whose answer holds the topic's id (KIP-516).
const TOPIC_ID_FROM: i16 = 7;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: CreateTopicsRequest = request::decode(context.version(), body)?;
    context.check_items(request.topics.len())?;
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    let topics = request.topics.into_iter().map(create_topic).collect();
    let receiver = broker.controller.create_topics(topics, request.validate_only);
    let broker = Arc::clone(broker);
    Ok(park(receiver, Some(timeout(request.timeout_ms)), move |created| {
        let topics = match created.settled() {
            Ok(created) => {
                created.into_iter().map(|created| result(&broker, &context, created)).collect()
            }
            Err(code) => all_failed(&broker, &context, &names, code),
        };
        let response = CreateTopicsResponse::default().with_topics(topics);
        context.encode(&broker.metrics, &response)
    }))
}

fn create_topic(topic: CreatableTopic) -> CreateTopic {
    let assignment =
        |assigned: kafka_protocol::messages::create_topics_request::CreatableReplicaAssignment| {
            ReplicaAssignment {
                partition: assigned.partition_index,
                broker_ids: assigned.broker_ids.iter().map(|id| BrokerId(id.0)).collect(),
            }
        };
    CreateTopic {
        name: topic.name.to_string(),
        num_partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic.assignments.into_iter().map(assignment).collect(),
        configs: topic
            .configs
            .into_iter()
            .map(|config| (config.name.to_string(), config.value.map(|value| value.to_string())))
            .collect(),
        is_internal: false,
    }
}

fn result(
    broker: &Broker,
    context: &RequestContext,
    created: CreateTopicResult,
) -> CreatableTopicResult {
    let CreateTopicResult { name, result } = created;
    match result {
        Ok(topic) => succeeded(broker, context, name, &topic),
        Err(error) => failed(broker, context, &name, error.error_code(), error.to_string()),
    }
}

fn succeeded(
    broker: &Broker,
    context: &RequestContext,
    name: String,
    topic: &CreatedTopic,
) -> CreatableTopicResult {
    let mut result = CreatableTopicResult::default().with_error_message(None);
    if context.version() >= DETAILS_FROM {
        result.num_partitions = topic.num_partitions;
        result.replication_factor = topic.replication_factor;
        result.configs = Some(configs(broker, topic));
    }
    if context.version() >= TOPIC_ID_FROM {
        result.topic_id = uuid(topic.topic_id);
    }
    result.with_name(TopicName(StrBytes::from_string(name)))
}

/// What holds for the new topic, by the plan: in a dry run nothing of it is in the image.
fn configs(broker: &Broker, topic: &CreatedTopic) -> Vec<CreatableTopicConfigs> {
    let overrides = topic.configs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let image = broker.image.load();
    let described = describe_configs::topic(broker, &image, &overrides.collect::<Vec<_>>());
    let told = described.into_iter().map(|described| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(described.property.key))
            .with_value(Some(StrBytes::from_string(described.value)))
            .with_read_only(false)
            .with_config_source(described.source as i8)
    });
    told.collect()
}

fn all_failed(
    broker: &Broker,
    context: &RequestContext,
    names: &[String],
    code: ErrorCode,
) -> Vec<CreatableTopicResult> {
    let failed = |name: &String| failed(broker, context, name, code, code.text().to_owned());
    names.iter().map(failed).collect()
}

fn failed(
    broker: &Broker,
    context: &RequestContext,
    name: &str,
    code: ErrorCode,
    text: String,
) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(TopicName(StrBytes::from_string(name.to_owned())))
        .with_error_code(context.error(&broker.metrics, code))
        .with_error_message(Some(message(text)))
}
