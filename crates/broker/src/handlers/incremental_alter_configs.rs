//! IncrementalAlterConfigs: settings changed one by one (KIP-339).

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    incremental_alter_configs_response::AlterConfigsResourceResponse,
};
use tidelog_metadata::{Alteration, ConfigOperation};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::Broker,
    config_resource::{self, Named, Refusal, Told},
    request_context::RequestContext,
};

/// Operations, as the wire says them.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: IncrementalAlterConfigsRequest = request::decode(context.version(), body)?;
    context
        .check_items(request.resources.iter().map(|resource| 1 + resource.configs.len()).sum())?;
    let asked = request.resources.into_iter().map(named).collect();
    Ok(config_resource::alter(broker, context, asked, request.validate_only, respond))
}

fn named(resource: AlterConfigsResource) -> Named<Alteration> {
    let changes = resource.configs.iter().map(|config| {
        let operation = operation(config)?;
        Ok((config.name.to_string(), operation))
    });
    let wanted = changes.collect::<Result<Vec<_>, Refusal>>().map(Alteration::Each);
    Named { kind: resource.resource_type, name: resource.resource_name, wanted }
}

fn operation(config: &AlterableConfig) -> Result<ConfigOperation, Refusal> {
    let refuse = |text: String| Err((ErrorCode::InvalidRequest, text));
    let value = config.value.as_ref().map(ToString::to_string);
    match (config.config_operation, value) {
        (DELETE, _) => Ok(ConfigOperation::Delete),
        (SET, Some(value)) => Ok(ConfigOperation::Set(value)),
        (APPEND, Some(words)) => Ok(ConfigOperation::Append(words)),
        (SUBTRACT, Some(words)) => Ok(ConfigOperation::Subtract(words)),
        (SET | APPEND | SUBTRACT, None) => {
            refuse(format!("Null value not supported for : {}", config.name))
        }
        (other, _) => refuse(format!("Unknown operation type {other} for {}", config.name)),
    }
}

fn respond(told: Vec<Told>) -> IncrementalAlterConfigsResponse {
    let response = |told: Told| {
        AlterConfigsResourceResponse::default()
            .with_error_code(told.error_code)
            .with_error_message(told.error_message)
            .with_resource_type(told.kind)
            .with_resource_name(told.name)
    };
    let responses = told.into_iter().map(response).collect();
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}
