//! AlterConfigs: a resource's settings replaced all together. Clients of Kafka 2.3 and later send
//! IncrementalAlterConfigs instead.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, alter_configs_request::AlterConfigsResource,
    alter_configs_response::AlterConfigsResourceResponse,
};
use tidelog_metadata::Alteration;
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::Broker,
    config_resource::{self, Named, Refusal, Told},
    request_context::RequestContext,
};

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: AlterConfigsRequest = request::decode(context.version(), body)?;
    context
        .check_items(request.resources.iter().map(|resource| 1 + resource.configs.len()).sum())?;
    let asked = request.resources.into_iter().map(named).collect();
    Ok(config_resource::alter(broker, context, asked, request.validate_only, respond))
}

fn named(resource: AlterConfigsResource) -> Named<Alteration> {
    let wanted = alteration(&resource);
    Named { kind: resource.resource_type, name: resource.resource_name, wanted }
}

fn alteration(resource: &AlterConfigsResource) -> Result<Alteration, Refusal> {
    let mut values = Vec::with_capacity(resource.configs.len());
    for config in &resource.configs {
        let Some(value) = &config.value else {
            let text = format!("Null value not supported for : {}", config.name);
            return Err((ErrorCode::InvalidRequest, text));
        };
        values.push((config.name.to_string(), value.to_string()));
    }
    Ok(Alteration::ReplaceAll(values))
}

fn respond(told: Vec<Told>) -> AlterConfigsResponse {
    let response = |told: Told| {
        AlterConfigsResourceResponse::default()
            .with_error_code(told.error_code)
            .with_error_message(told.error_message)
            .with_resource_type(told.kind)
            .with_resource_name(told.name)
    };
    AlterConfigsResponse::default().with_responses(told.into_iter().map(response).collect())
}
