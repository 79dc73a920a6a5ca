//! DescribeProducers: which idempotent producers a partition remembers (KIP-664).

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        DescribeProducersRequest, DescribeProducersResponse,
        describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    },
    protocol::StrBytes,
};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_replica::ActiveProducer;
use tidelog_types::{ErrorCode, LeaderEpoch};

use crate::{broker::Broker, replica_manager::Topics, request_context::RequestContext};

/// Producers of one answer; partitions behind them are refused. Each takes 37 bytes.
const PRODUCERS_MAX: usize = 500_000;
/// There are no transactions: no coordinator wrote, and nothing is open.
const NO_COORDINATOR_EPOCH: i32 = -1;
const NO_TRANSACTION: i64 = -1;

pub(crate) fn handle(
    broker: &Broker,
    context: &RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: DescribeProducersRequest = request::decode(context.version(), body)?;
    let items = request.topics.iter().map(|topic| 1 + topic.partition_indexes.len()).sum();
    context.check_items(items)?;
    let topics = broker.replicas.topics();
    let mut room = PRODUCERS_MAX;
    let mut answers = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let answer = PartitionResponse::default().with_partition_index(index);
            partitions.push(match producers(&topics, &topic.name, index, &mut room) {
                Ok(producers) => answer
                    .with_error_message(None)
                    .with_active_producers(producers.into_iter().map(told).collect()),
                Err(code) => answer
                    .with_error_code(context.error(&broker.metrics, code))
                    .with_error_message(Some(StrBytes::from_static_str(code.text()))),
            });
        }
        answers.push(TopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    let response = DescribeProducersResponse::default().with_topics(answers);
    Ok(context.answer(&broker.metrics, &response))
}

fn producers(
    topics: &Topics,
    topic: &str,
    index: i32,
    room: &mut usize,
) -> Result<Vec<ActiveProducer>, ErrorCode> {
    let partition = topics.named(topic).and_then(|topic| topic.partition(index));
    let partition = partition.map_err(|error| error.error_code())?;
    partition.view(LeaderEpoch::NONE).map_err(|error| error.error_code())?;
    let producers = partition.producers();
    *room = room.checked_sub(producers.len()).ok_or(ErrorCode::PolicyViolation)?;
    Ok(producers)
}

fn told(producer: ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(producer.producer_id.0.into())
        .with_producer_epoch(i32::from(producer.producer_epoch.0))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(NO_COORDINATOR_EPOCH)
        .with_current_txn_start_offset(NO_TRANSACTION)
}
