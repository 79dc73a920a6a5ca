//! DescribeQuorum: who keeps the metadata, and how far each has come (KIP-595, KIP-836).
//!
//! Kafka counts the metadata log in offsets, Raft in indexes that start at 1: an entry's index is
//! told as its offset, and what comes after it as the end.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        BrokerId as WireBrokerId, DescribeQuorumRequest, DescribeQuorumResponse,
        describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData},
    },
    protocol::StrBytes,
};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_raft::{RaftStatus, Role};
use tidelog_types::ErrorCode;

use crate::{broker::Broker, handlers::metadata::uuid, request_context::RequestContext};

/// Kafka's name of the metadata log, which has one partition.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// First version with times (KIP-836).
const TIMES_FROM: i16 = 1;
/// First version with messages, directories and addresses (KIP-853).
const DIRECTORIES_FROM: i16 = 2;

pub(crate) fn handle(
    broker: &Broker,
    context: &RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: DescribeQuorumRequest = request::decode(context.version(), body)?;
    context.check_items(request.topics.iter().map(|topic| 1 + topic.partitions.len()).sum())?;
    let status = broker.raft.status();
    let mut response = DescribeQuorumResponse::default().with_error_message(None);
    if status.role != Role::Leader {
        let code = ErrorCode::NotLeaderOrFollower;
        response = response.with_error_code(context.error(&broker.metrics, code));
        if context.version() >= DIRECTORIES_FROM {
            response = response.with_error_message(Some(StrBytes::from_static_str(code.text())));
        }
        return Ok(context.answer(&broker.metrics, &response));
    }
    for topic in request.topics {
        let is_metadata = topic.topic_name.as_str() == METADATA_TOPIC;
        let partitions = topic.partitions.iter().map(|wanted| {
            match is_metadata && wanted.partition_index == 0 {
                true => described(broker, context, &status),
                false => PartitionData::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_message(None)
                    .with_error_code(
                        context.error(&broker.metrics, ErrorCode::UnknownTopicOrPartition),
                    ),
            }
        });
        let partitions = partitions.collect();
        let topic = TopicData::default().with_topic_name(topic.topic_name);
        response.topics.push(topic.with_partitions(partitions));
    }
    if context.version() >= DIRECTORIES_FROM {
        response.nodes.push(this_node(broker));
    }
    Ok(context.answer(&broker.metrics, &response))
}

/// The metadata log as its leader sees it, who is its only voter.
fn described(broker: &Broker, context: &RequestContext, status: &RaftStatus) -> PartitionData {
    let me = WireBrokerId(broker.identity.node_id.0);
    let mut voter = ReplicaState::default()
        .with_replica_id(me)
        .with_log_end_offset(end_offset(status.last_index));
    if context.version() >= TIMES_FROM {
        // The leader has always just fetched from itself.
        let now_ms = broker.clock.wall_ms();
        voter = voter.with_last_fetch_timestamp(now_ms).with_last_caught_up_timestamp(now_ms);
    }
    if context.version() >= DIRECTORIES_FROM {
        voter = voter.with_replica_directory_id(uuid(broker.identity.directory_id));
    }
    PartitionData::default()
        .with_error_message(None)
        .with_leader_id(me)
        .with_leader_epoch(i32::try_from(status.term).unwrap_or(i32::MAX))
        .with_high_watermark(end_offset(status.commit_index))
        .with_current_voters(vec![voter])
}

/// The offset after the entry of this index.
fn end_offset(index: u64) -> i64 {
    i64::try_from(index + 1).unwrap_or(i64::MAX)
}

fn this_node(broker: &Broker) -> Node {
    let listener = |endpoint: &tidelog_metadata::record::Endpoint| {
        Listener::default()
            .with_name(StrBytes::from_string(endpoint.listener.clone()))
            .with_host(StrBytes::from_string(endpoint.host.clone()))
            .with_port(endpoint.port)
    };
    let listeners = broker.identity.endpoints.iter().map(listener).collect();
    let me = WireBrokerId(broker.identity.node_id.0);
    Node::default().with_node_id(me).with_listeners(listeners)
}
