//! OffsetForLeaderEpoch: how far an earlier leader epoch reaches (KIP-101, KIP-320).

use bytes::Bytes;
use kafka_protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    offset_for_leader_epoch_request::OffsetForLeaderPartition,
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_replica::EpochEnd;
use tidelog_types::{ErrorCode, LeaderEpoch};

use crate::{broker::Broker, replica_manager::Topics, request_context::RequestContext};

pub(crate) fn handle(
    broker: &Broker,
    context: &RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: OffsetForLeaderEpochRequest = request::decode(context.version(), body)?;
    context.check_items(request.topics.iter().map(|topic| topic.partitions.len()).sum())?;
    let topics = broker.replicas.topics();
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let answer = EpochEndOffset::default().with_partition(wanted.partition);
            partitions.push(match epoch_end(&topics, &topic.topic, wanted) {
                Ok(end) => {
                    answer.with_leader_epoch(end.leader_epoch.0).with_end_offset(end.end_offset.0)
                }
                Err(code) => answer.with_error_code(context.error(&broker.metrics, code)),
            });
        }
        let result = OffsetForLeaderTopicResult::default();
        results.push(result.with_topic(topic.topic).with_partitions(partitions));
    }
    let response = OffsetForLeaderEpochResponse::default().with_topics(results);
    Ok(context.answer(&broker.metrics, &response))
}

fn epoch_end(
    topics: &Topics,
    topic: &str,
    wanted: &OffsetForLeaderPartition,
) -> Result<EpochEnd, ErrorCode> {
    let topic = topics.named(topic).map_err(|error| error.error_code())?;
    let partition = topic.partition(wanted.partition).map_err(|error| error.error_code())?;
    let client_epoch = LeaderEpoch(wanted.current_leader_epoch);
    partition.view(client_epoch).map_err(|error| error.error_code())?;
    Ok(partition.epoch_end(LeaderEpoch(wanted.leader_epoch)))
}
