//! CreatePartitions: planned and committed by the metadata leader, answered once they serve.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, TopicName,
        create_partitions_request::CreatePartitionsTopic,
        create_partitions_response::CreatePartitionsTopicResult,
    },
    protocol::StrBytes,
};
use tidelog_metadata::{CreatePartitions, CreatePartitionsResult};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::{BrokerId, ErrorCode};

use crate::{
    broker::Broker,
    pending::{park, timeout},
    request_context::{RequestContext, message},
};

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: CreatePartitionsRequest = request::decode(context.version(), body)?;
    context.check_items(request.topics.len())?;
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    let topics = request.topics.into_iter().map(create_partitions).collect();
    let receiver = broker.controller.create_partitions(topics, request.validate_only);
    let broker = Arc::clone(broker);
    Ok(park(receiver, Some(timeout(request.timeout_ms)), move |created| {
        let results = match created.settled() {
            Ok(created) => created.into_iter().map(|c| result(&broker, &context, c)).collect(),
            Err(code) => {
                let text = || Some(code.text().to_owned());
                names.into_iter().map(|n| answer(&broker, &context, n, code, text())).collect()
            }
        };
        let response = CreatePartitionsResponse::default().with_results(results);
        context.encode(&broker.metrics, &response)
    }))
}

fn create_partitions(topic: CreatePartitionsTopic) -> CreatePartitions {
    let assignments = topic.assignments.map(|assignments| {
        let ids = assignments.into_iter().map(|assigned| assigned.broker_ids);
        ids.map(|ids| ids.iter().map(|id| BrokerId(id.0)).collect()).collect()
    });
    CreatePartitions { name: topic.name.to_string(), count: topic.count, assignments }
}

fn result(
    broker: &Broker,
    context: &RequestContext,
    created: CreatePartitionsResult,
) -> CreatePartitionsTopicResult {
    let CreatePartitionsResult { name, result } = created;
    match result {
        Ok(()) => answer(broker, context, name, ErrorCode::None, None),
        Err(error) => answer(broker, context, name, error.error_code(), Some(error.to_string())),
    }
}

fn answer(
    broker: &Broker,
    context: &RequestContext,
    name: String,
    code: ErrorCode,
    text: Option<String>,
) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult::default()
        .with_name(TopicName(StrBytes::from_string(name)))
        .with_error_code(context.error(&broker.metrics, code))
        .with_error_message(text.map(message))
}
