//! DeleteTopics: by name, or from version 6 on by id as well.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
        delete_topics_request::DeleteTopicState, delete_topics_response::DeletableTopicResult,
    },
    protocol::StrBytes,
};
use tidelog_metadata::{DeleteTopicResult, DeletedTopic, TopicReference};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::{ErrorCode, Uuid};

use crate::{
    broker::Broker,
    handlers::metadata::uuid,
    pending::{park, timeout},
    request_context::{RequestContext, message},
};

/// First version that may name topics by id, and whose answer has both.
const TOPIC_ID_FROM: i16 = 6;
/// First version with a code of its own for deletion being switched off (KIP-322).
const DISABLED_CODE_FROM: i16 = 3;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: DeleteTopicsRequest = request::decode(context.version(), body)?;
    context.check_items(request.topics.len().max(request.topic_names.len()))?;
    let (references, unlawful) = references(&request, context.version());
    let mut responses = refuse(broker, &context, unlawful);
    if !broker.settings.broker.delete_topic_enable {
        let code = match context.version() {
            DISABLED_CODE_FROM.. => ErrorCode::TopicDeletionDisabled,
            _ => ErrorCode::InvalidRequest,
        };
        responses.extend(all_failed(broker, &context, &references, code));
        let response = DeleteTopicsResponse::default().with_responses(responses);
        return Ok(context.answer(&broker.metrics, &response));
    }
    let receiver = broker.controller.delete_topics(references.clone());
    let broker = Arc::clone(broker);
    Ok(park(receiver, Some(timeout(request.timeout_ms)), move |deleted| {
        responses.extend(match deleted.settled() {
            Ok(deleted) => {
                deleted.into_iter().map(|deleted| result(&broker, &context, deleted)).collect()
            }
            Err(code) => all_failed(&broker, &context, &references, code),
        });
        let response = DeleteTopicsResponse::default().with_responses(responses);
        context.encode(&broker.metrics, &response)
    }))
}

/// The topics that a request means, and what it names in a way that means none.
fn references(
    request: &DeleteTopicsRequest,
    version: i16,
) -> (Vec<TopicReference>, Vec<DeleteTopicState>) {
    if version < TOPIC_ID_FROM {
        let name = |name: &TopicName| TopicReference::Name(name.to_string());
        return (request.topic_names.iter().map(name).collect(), Vec::new());
    }
    let (mut references, mut unlawful) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        match (&topic.name, topic.topic_id.is_nil()) {
            (Some(name), true) => references.push(TopicReference::Name(name.to_string())),
            (None, false) => {
                references.push(TopicReference::Id(Uuid(topic.topic_id.into_bytes())));
            }
            (Some(_), false) | (None, true) => unlawful.push(topic.clone()),
        }
    }
    (references, unlawful)
}

fn refuse(
    broker: &Broker,
    context: &RequestContext,
    unlawful: Vec<DeleteTopicState>,
) -> Vec<DeletableTopicResult> {
    let text = StrBytes::from_static_str("a topic is named either by its name or by its id");
    let refused = unlawful.into_iter().map(|topic| {
        DeletableTopicResult::default()
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
            .with_error_code(context.error(&broker.metrics, ErrorCode::InvalidRequest))
            .with_error_message(Some(text.clone()))
    });
    refused.collect()
}

fn result(
    broker: &Broker,
    context: &RequestContext,
    deleted: DeleteTopicResult,
) -> DeletableTopicResult {
    let DeleteTopicResult { reference, result } = deleted;
    match result {
        Ok(DeletedTopic { name, topic_id }) => {
            let mut result = DeletableTopicResult::default()
                .with_name(Some(TopicName(StrBytes::from_string(name))))
                .with_error_message(None);
            if context.version() >= TOPIC_ID_FROM {
                result.topic_id = uuid(topic_id);
            }
            result
        }
        Err(error) => failed(broker, context, &reference, error.error_code(), error.to_string()),
    }
}

fn all_failed(
    broker: &Broker,
    context: &RequestContext,
    references: &[TopicReference],
    code: ErrorCode,
) -> Vec<DeletableTopicResult> {
    let failed = |reference| failed(broker, context, reference, code, code.text().to_owned());
    references.iter().map(failed).collect()
}

fn failed(
    broker: &Broker,
    context: &RequestContext,
    reference: &TopicReference,
    code: ErrorCode,
    text: String,
) -> DeletableTopicResult {
    let result = DeletableTopicResult::default()
        .with_error_code(context.error(&broker.metrics, code))
        .with_error_message(Some(message(text)));
    match reference {
        TopicReference::Name(name) => {
            result.with_name(Some(TopicName(StrBytes::from_string(name.clone()))))
        }
        TopicReference::Id(id) => result.with_name(None).with_topic_id(uuid(*id)),
    }
}
