//! DeleteRecords: moves a log's start, durably before it is answered (KIP-107).

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse,
    delete_records_request::DeleteRecordsPartition,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
};
use tidelog_metadata::is_internal_topic;
use tidelog_net::service::{CloseReason, Handled, PendingReply, Reply};
use tidelog_protocol::{Outgoing, RequestError, request};
use tidelog_types::{ErrorCode, Offset};

use crate::{
    broker::Broker,
    partition::Partition,
    pending::timeout,
    replica_manager::Topics,
    request_context::RequestContext,
    waits::{ProduceWait, ProduceWaiter},
};

/// The offset that asks for everything below the high watermark.
const HIGH_WATERMARK: i64 = -1;
/// The low watermark of a partition that nothing was deleted from.
const NO_LOW_WATERMARK: i64 = -1;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: DeleteRecordsRequest = request::decode(context.version(), body)?;
    let items = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    context.check_items(items)?;
    let topics = broker.replicas.topics();
    // What Produce waits with: one counter, and an outcome for each partition.
    let wait = ProduceWait::new(items);
    let mut partitions = Vec::with_capacity(items);
    for topic in &request.topics {
        for wanted in &topic.partitions {
            let waiter = ProduceWaiter { wait: Arc::clone(&wait), slot: partitions.len() };
            partitions.push(delete(&topics, &topic.name, wanted, waiter));
        }
    }
    let deadline = context.started().checked_add(timeout(request.timeout_ms));
    let broker = Arc::clone(broker);
    let reply = DeleteRecords { broker, context, request, partitions, wait, deadline };
    Ok(Handled::Reply(Reply::Pending(Box::new(reply))))
}

/// Begins to delete. `None` where that cannot be, which the waiter was told.
fn delete(
    topics: &Topics,
    topic: &str,
    wanted: &DeleteRecordsPartition,
    waiter: ProduceWaiter,
) -> Option<Arc<Partition>> {
    let partition = match find(topics, topic, wanted.partition_index) {
        Ok(partition) => partition,
        Err(code) => {
            waiter.complete(code);
            return None;
        }
    };
    let before = (wanted.offset != HIGH_WATERMARK).then_some(Offset(wanted.offset));
    let (wait, slot) = (Arc::clone(&waiter.wait), waiter.slot);
    let done = Box::new(move || waiter.complete(ErrorCode::None));
    match partition.delete_records(before, done) {
        Ok(()) => Some(partition),
        Err(error) => {
            ProduceWaiter { wait, slot }.complete(error.error_code());
            None
        }
    }
}

/// The partition that an administrator names, if records of it may be deleted.
pub(crate) fn find(topics: &Topics, topic: &str, index: i32) -> Result<Arc<Partition>, ErrorCode> {
    let topic = topics.named(topic).map_err(|error| error.error_code())?;
    if is_internal_topic(&topic.name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let partition = topic.partition(index).map_err(|error| error.error_code())?;
    // What is only compacted keeps each key's last record, whatever an administrator asks for.
    match topic.settings.is_deleted() {
        true => Ok(Arc::clone(partition)),
        false => Err(ErrorCode::PolicyViolation),
    }
}

/// A request whose partitions are being deleted from.
struct DeleteRecords {
    broker: Arc<Broker>,
    context: RequestContext,
    request: DeleteRecordsRequest,
    /// In the request's order; `None` for those that were refused.
    partitions: Vec<Option<Arc<Partition>>>,
    wait: Arc<ProduceWait>,
    deadline: Option<Instant>,
}

impl DeleteRecords {
    fn finish(&self) -> Result<Outgoing, CloseReason> {
        let metrics = &self.broker.metrics;
        let mut slots = self.partitions.iter().enumerate();
        let mut topics = Vec::with_capacity(self.request.topics.len());
        for topic in &self.request.topics {
            let slots = slots.by_ref().take(topic.partitions.len());
            let results = topic.partitions.iter().zip(slots).map(|(wanted, (slot, partition))| {
                let code = self.wait.outcome(slot);
                let deleted = partition.as_ref().filter(|_| code == ErrorCode::None);
                let low_watermark =
                    deleted.map_or(NO_LOW_WATERMARK, |p| p.log().log_start_offset().0);
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(wanted.partition_index)
                    .with_low_watermark(low_watermark)
                    .with_error_code(self.context.error(metrics, code))
            });
            let partitions = results.collect();
            let result = DeleteRecordsTopicResult::default().with_name(topic.name.clone());
            topics.push(result.with_partitions(partitions));
        }
        let response = DeleteRecordsResponse::default().with_topics(topics);
        self.context.encode(metrics, &response)
    }
}

impl PendingReply for DeleteRecords {
    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Result<Outgoing, CloseReason>> {
        self.wait.poll(context).map(|()| self.finish())
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn expire(&mut self) -> Poll<Result<Outgoing, CloseReason>> {
        Poll::Ready(self.finish())
    }
}
