//! ListConfigResources: what there is that has settings (KIP-1142). Version 0 is called
//! ListClientMetricsResources and asks for client metrics alone (KIP-714).

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ListConfigResourcesRequest, ListConfigResourcesResponse,
        list_config_resources_response::ConfigResource,
    },
    protocol::StrBytes,
};
use tidelog_metadata::MetadataImage;
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::Broker,
    config_resource::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC},
    request_context::RequestContext,
};

/// Every type, in the order of the answer.
const TYPES: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
/// First version that names types, and whose answer does.
const TYPES_FROM: i16 = 1;

pub(crate) fn handle(
    broker: &Broker,
    context: &RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: ListConfigResourcesRequest = request::decode(context.version(), body)?;
    let wanted: BTreeSet<i8> = match request.resource_types.as_slice() {
        [] if context.version() < TYPES_FROM => [CLIENT_METRICS].into(),
        [] => TYPES.into(),
        types => types.iter().copied().collect(),
    };
    if !wanted.iter().all(|kind| TYPES.contains(kind)) {
        let code = context.error(&broker.metrics, ErrorCode::UnsupportedVersion);
        let response = ListConfigResourcesResponse::default().with_error_code(code);
        return Ok(context.answer(&broker.metrics, &response));
    }
    let image = broker.image.load();
    let mut resources = Vec::new();
    for kind in TYPES.into_iter().filter(|kind| wanted.contains(kind)) {
        resources.extend(names(&image, kind).into_iter().map(|name| {
            let resource = ConfigResource::default().with_resource_name(name);
            match context.version() {
                ..TYPES_FROM => resource,
                TYPES_FROM.. => resource.with_resource_type(kind),
            }
        }));
    }
    let response = ListConfigResourcesResponse::default().with_config_resources(resources);
    Ok(context.answer(&broker.metrics, &response))
}

/// Everything of one type that has settings: those of loggers, client metrics and groups cannot be
/// set yet.
fn names(image: &MetadataImage, kind: i8) -> Vec<StrBytes> {
    let brokers = image.cluster().brokers().map(|broker| broker.broker_id.to_string());
    let topics = image.topics().iter().map(|topic| topic.name().to_owned());
    match kind {
        TOPIC => topics.map(StrBytes::from_string).collect(),
        BROKER => brokers.map(StrBytes::from_string).collect(),
        _ => Vec::new(),
    }
}
