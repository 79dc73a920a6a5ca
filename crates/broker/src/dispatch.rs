//! From a frame to the handler of its API: one exhaustive match.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_net::service::{ConnectionInfo, Handled, Service};
use tidelog_protocol::{ApiKey, RequestError, header::decode_request_header, request};
use tracing::debug;

use crate::{
    broker::Broker,
    handlers::{
        alter_configs, api_versions, create_partitions, create_topics, delete_groups,
        delete_records, delete_topics, describe_cluster, describe_configs, describe_groups,
        describe_log_dirs, describe_producers, describe_quorum, describe_topic_partitions, fetch,
        find_coordinator, heartbeat, incremental_alter_configs, init_producer_id, join_group,
        leave_group, list_config_resources, list_groups, list_offsets, metadata, offset_commit,
        offset_delete, offset_fetch, offset_for_leader_epoch, produce, sync_group, update_features,
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
        ApiKey::OffsetCommit => offset_commit::handle(broker, context, body),
        ApiKey::OffsetFetch => offset_fetch::handle(broker, context, body),
        ApiKey::FindCoordinator => find_coordinator::handle(broker, context, peer, body),
        ApiKey::JoinGroup => join_group::handle(broker, context, peer, body),
        ApiKey::Heartbeat => heartbeat::handle(broker, context, body),
        ApiKey::LeaveGroup => leave_group::handle(broker, context, body),
        ApiKey::SyncGroup => sync_group::handle(broker, context, body),
        ApiKey::DescribeGroups => describe_groups::handle(broker, context, body),
        ApiKey::ListGroups => list_groups::handle(broker, context, body),
        ApiKey::ApiVersions => api_versions::handle(broker, &context, body),
        ApiKey::CreateTopics => create_topics::handle(broker, context, body),
        ApiKey::DeleteTopics => delete_topics::handle(broker, context, body),
        ApiKey::InitProducerId => init_producer_id::handle(broker, context, peer, body),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch::handle(broker, &context, body),
        ApiKey::DescribeConfigs => describe_configs::handle(broker, &context, body),
        ApiKey::DescribeCluster => describe_cluster::handle(broker, &context, body),
        ApiKey::DeleteRecords => delete_records::handle(broker, context, body),
        ApiKey::AlterConfigs => alter_configs::handle(broker, context, body),
        ApiKey::DescribeLogDirs => describe_log_dirs::handle(broker, &context, body),
        ApiKey::CreatePartitions => create_partitions::handle(broker, context, body),
        ApiKey::DeleteGroups => delete_groups::handle(broker, context, body),
        ApiKey::IncrementalAlterConfigs => incremental_alter_configs::handle(broker, context, body),
        ApiKey::OffsetDelete => offset_delete::handle(broker, context, body),
        ApiKey::DescribeQuorum => describe_quorum::handle(broker, &context, body),
        ApiKey::UpdateFeatures => update_features::handle(broker, context, body),
        ApiKey::DescribeProducers => describe_producers::handle(broker, &context, body),
        ApiKey::ListConfigResources => list_config_resources::handle(broker, &context, body),
        ApiKey::DescribeTopicPartitions => {
            describe_topic_partitions::handle(broker, &context, body)
        }
    }
}
