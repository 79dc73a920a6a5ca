//! From a frame to the handler of its API: one exhaustive match.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_net::service::{ConnectionInfo, Handled, Service};
use tidelog_protocol::{ApiKey, RequestError, header::decode_request_header, request};
use tracing::debug;

use crate::{
    broker::Broker,
    handlers::{
        api_versions, create_topics, delete_topics, describe_cluster, describe_configs, fetch,
        find_coordinator, init_producer_id, list_offsets, metadata, offset_for_leader_epoch,
        produce,
    },
    request_context::{RequestContext, close_reason},
};

/// A broker as a listener's connections see it.
pub struct BrokerService(pub Arc<Broker>);

impl Service for BrokerService {
    fn cost(&self, frame: &Bytes) -> u64 {
        request::cost(frame)
    }

    fn handle(&self, connection: &ConnectionInfo, frame: Bytes) -> Handled {
        match dispatch(&self.0, connection, frame) {
            Ok(handled) => handled,
            Err(error) => {
                debug!(peer = %connection.peer, %error, "closing a connection");
                Handled::Close(close_reason(&error))
            }
        }
    }
}

fn dispatch(
    broker: &Arc<Broker>,
    connection: &ConnectionInfo,
    frame: Bytes,
) -> Result<Handled, RequestError> {
    let (header, body) = decode_request_header(frame)?;
    let api_key = header.api_key;
    let context = RequestContext::new(header, Arc::clone(&connection.listener));
    let peer = connection.peer;
    match api_key {
        ApiKey::Produce => produce::handle(broker, context, body),
        ApiKey::Fetch => fetch::handle(broker, context, connection, body),
        ApiKey::ListOffsets => list_offsets::handle(broker, context, body),
        ApiKey::Metadata => metadata::handle(broker, context, body),
        ApiKey::FindCoordinator => find_coordinator::handle(broker, &context, peer, body),
        ApiKey::ApiVersions => api_versions::handle(broker, &context, body),
        ApiKey::CreateTopics => create_topics::handle(broker, context, body),
        ApiKey::DeleteTopics => delete_topics::handle(broker, context, body),
        ApiKey::InitProducerId => init_producer_id::handle(broker, context, peer, body),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch::handle(broker, &context, body),
        ApiKey::DescribeConfigs => describe_configs::handle(broker, &context, body),
        ApiKey::DescribeCluster => describe_cluster::handle(broker, &context, body),
    }
}
