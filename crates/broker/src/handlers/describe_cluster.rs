//! DescribeCluster: who is in the cluster (KIP-700).

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        BrokerId as WireBrokerId, DescribeClusterRequest, DescribeClusterResponse,
        describe_cluster_response::DescribeClusterBroker,
    },
    protocol::StrBytes,
};
use tidelog_metadata::MetadataImage;
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{broker::Broker, request_context::RequestContext};

/// Clients ask for the brokers, or, on a listener of its own, for the controllers (KIP-919).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;
/// First version that tells of fenced brokers.
const FENCED_FROM: i16 = 2;
/// Every operation on a cluster, as bits: all are allowed where nobody says otherwise.
pub(crate) const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

pub(crate) fn handle(
    broker: &Broker,
    context: &RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: DescribeClusterRequest = request::decode(context.version(), body)?;
    let code = match request.endpoint_type {
        BROKERS => ErrorCode::None,
        CONTROLLERS => ErrorCode::MismatchedEndpointType,
        _ => ErrorCode::UnsupportedEndpointType,
    };
    if code != ErrorCode::None {
        let response = DescribeClusterResponse::default()
            .with_error_code(context.error(&broker.metrics, code))
            .with_error_message(Some(StrBytes::from_static_str(code.text())));
        return Ok(context.answer(&broker.metrics, &response));
    }
    let image = broker.image.load();
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(broker.cluster_id())
        .with_controller_id(broker.some_controller(&image))
        .with_brokers(brokers(&image, context, request.include_fenced_brokers));
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Ok(context.answer(&broker.metrics, &response))
}

fn brokers(
    image: &MetadataImage,
    context: &RequestContext,
    include_fenced: bool,
) -> Vec<DescribeClusterBroker> {
    let wanted = image.cluster().brokers().filter(|broker| !broker.fenced || include_fenced);
    let described = wanted.filter_map(|broker| {
        let endpoint = broker.endpoint(&context.listener)?;
        let described = DescribeClusterBroker::default()
            .with_broker_id(WireBrokerId(broker.broker_id.0))
            .with_host(StrBytes::from_string(endpoint.host.clone()))
            .with_port(i32::from(endpoint.port))
            .with_rack(broker.rack.clone().map(StrBytes::from_string))
            .with_is_fenced(broker.fenced && context.version() >= FENCED_FROM);
        Some(described)
    });
    described.collect()
}
