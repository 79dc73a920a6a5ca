//! Produce: validate, reserve, append, wait until it is as safe as asked, answer.
//!
//! No task, channel or timer a request: one counter that the partitions count down.

use std::{
    borrow::Cow,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use tidelog_metadata::is_internal_topic;
use tidelog_net::service::{CloseReason, Handled, PendingReply, Reply};
use tidelog_protocol::{
    Outgoing, RequestError, TopicRef,
    produce::{
        PartitionRecords, ProducePartitionResponse, ProduceRequest, ProduceResponse,
        ProduceTopicResponse,
    },
    record_batch::{self, BatchRules, TimestampType},
};
use tidelog_types::{Acks, Entry, ErrorCode};
use tidelog_wal::{Reservation, ReserveTicket, StorageError};

use crate::{
    broker::Broker,
    errors, leader_hints,
    partition::{Partition, Placed},
    pending::timeout,
    replica_manager::{Topic, Topics},
    request_context::RequestContext,
    waits::{ProduceWait, ProduceWaiter},
};

/// Bytes of a frame that need not be reserved: one for so many that are.
const PINNED_DIVISOR: u64 = 8;

/// A request whose batches are checked and may be appended.
struct Plan {
    acks: Acks,
    timeout_ms: i32,
    topics: Vec<(TopicRef, Vec<PlannedPartition>)>,
    bytes: u64,
}

impl Plan {
    fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let partitions = self.topics.iter_mut().flat_map(|(_, partitions)| partitions);
        partitions.filter_map(|planned| planned.batch.as_mut().ok().map(|(_, entry)| entry))
    }
}

struct PlannedPartition {
    index: i32,
    batch: Result<(Arc<Partition>, Entry), Failure>,
}

/// Why a batch is not appended, and in which words the producer is told.
struct Failure {
    code: ErrorCode,
    message: Option<Cow<'static, str>>,
}

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let frame = body.clone();
    let request = ProduceRequest::decode(context.version(), body)?;
    let Some(acks) = Acks::from_wire(request.acks) else {
        return Ok(refuse_all(broker, context, &request, ErrorCode::InvalidRequiredAcks));
    };
    let mut plan = plan(broker, &context, &request, acks);
    if let Some(code) = refusal(&request, &plan) {
        return Ok(refuse_all(broker, context, &request, code));
    }
    if frame.len() as u64 > plan.bytes + plan.bytes / PINNED_DIVISOR {
        copy_out(plan.entries_mut(), &frame);
    }
    let broker = Arc::clone(broker);
    if plan.bytes == 0 {
        return Ok(act(broker, context, plan, None));
    }
    Ok(match broker.wal.try_reserve(plan.bytes) {
        Ok(Some(reservation)) => act(broker, context, plan, Some(reservation)),
        Ok(None) => Handled::Wait(Box::pin(reserve_and_act(broker, context, plan))),
        Err(error) => refuse_storage(broker, context, plan, &error),
    })
}

/// Checks every batch; nothing is changed and no lock is taken.
fn plan(broker: &Broker, context: &RequestContext, request: &ProduceRequest, acks: Acks) -> Plan {
    let topics = broker.replicas.topics();
    let now_ms = broker.clock.wall_ms();
    let mut plan = Plan { acks, timeout_ms: request.timeout_ms, topics: Vec::new(), bytes: 0 };
    for (topic, partitions) in request.topics() {
        let mut planned = Vec::with_capacity(partitions.len());
        for records in partitions {
            let batch = plan_partition(&topics, topic, records, context.version(), now_ms);
            plan.bytes += batch.as_ref().map_or(0, |(_, entry)| entry.memory_bytes());
            planned.push(PlannedPartition { index: records.index, batch });
        }
        plan.topics.push((topic.clone(), planned));
    }
    plan
}

fn plan_partition(
    topics: &Topics,
    topic: &TopicRef,
    records: &PartitionRecords,
    version: i16,
    now_ms: i64,
) -> Result<(Arc<Partition>, Entry), Failure> {
    let (topic, partition) = find(topics, topic, records.index).map_err(Failure::new)?;
    let bytes = records.records.clone().unwrap_or_default();
    let entry = record_batch::validate(bytes, &rules(topic, version, now_ms))
        .map_err(|error| Failure { code: error.code(), message: Some(error.to_string().into()) })?;
    Ok((Arc::clone(partition), entry))
}

/// The partition that a producer names, if it may write there.
pub(crate) fn find<'a>(
    topics: &'a Topics,
    topic: &TopicRef,
    index: i32,
) -> Result<(&'a Topic, &'a Arc<Partition>), ErrorCode> {
    let topic = topics.find(topic).map_err(|error| error.error_code())?;
    if is_internal_topic(&topic.name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let partition = topic.partition(index).map_err(|error| error.error_code())?;
    Ok((topic, partition))
}

fn rules(topic: &Topic, produce_version: i16, now_ms: i64) -> BatchRules {
    let settings = &topic.settings;
    BatchRules {
        batch_bytes_max: u64::from(settings.max_message_bytes),
        segment_bytes: u64::from(settings.segment_bytes),
        timestamp_type: match settings.is_log_append_time() {
            true => TimestampType::LogAppendTime,
            false => TimestampType::CreateTime,
        },
        timestamp_before_max_ms: settings.message_timestamp_before_max_ms,
        timestamp_after_max_ms: settings.message_timestamp_after_max_ms,
        now_ms,
        produce_version,
    }
}

/// Lets go of a frame much of which is not appended: what its batches keep in memory would be more
/// than what is reserved for them.
fn copy_out<'a>(entries: impl Iterator<Item = &'a mut Entry>, frame: &Bytes) {
    let place = frame.as_ptr_range();
    for entry in entries.filter(|entry| place.contains(&entry.records.as_ptr())) {
        entry.records = Bytes::copy_from_slice(&entry.records);
    }
}

/// Transactions are not served: their batches have no coordinator that could have begun one.
fn refusal(request: &ProduceRequest, plan: &Plan) -> Option<ErrorCode> {
    let batches = plan.topics.iter().flat_map(|(_, partitions)| partitions);
    let mut appended = batches.filter_map(|planned| planned.batch.as_ref().ok());
    let transactional = appended.any(|(_, entry)| entry.facts().is_transactional());
    match (transactional, &request.transactional_id) {
        (false, _) => None,
        (true, None) => Some(ErrorCode::TransactionalIdAuthorizationFailed),
        (true, Some(_)) => Some(ErrorCode::InvalidTxnState),
    }
}

/// Waits in line for room in the log's queue; meanwhile the connection reads nothing.
async fn reserve_and_act(broker: Arc<Broker>, context: RequestContext, plan: Plan) -> Handled {
    let mut ticket = ReserveTicket::default();
    let reserved =
        poll_fn(|context| broker.wal.poll_reserve(&mut ticket, plan.bytes, context.waker()));
    match reserved.await {
        Ok(reservation) => act(broker, context, plan, Some(reservation)),
        Err(error) => refuse_storage(broker, context, plan, &error),
    }
}

/// Appends every batch that was planned, and answers or parks the answer. There is a reservation
/// wherever there is a batch.
fn act(
    broker: Arc<Broker>,
    context: RequestContext,
    plan: Plan,
    mut reservation: Option<Reservation>,
) -> Handled {
    let count = plan.topics.iter().map(|(_, partitions)| partitions.len()).sum();
    let wait = ProduceWait::new(count);
    let mut response = ProduceResponse::default();
    let mut slot = 0;
    for (topic, planned) in plan.topics {
        let mut partitions = Vec::with_capacity(planned.len());
        for PlannedPartition { index, batch } in planned {
            let waiter = ProduceWaiter { wait: Arc::clone(&wait), slot };
            let placed = batch.and_then(|(partition, entry)| {
                let reservation = reservation.as_mut().expect("what is appended was reserved");
                append(&broker, &partition, entry, plan.acks, waiter, reservation)
            });
            partitions.push(placed.map_or_else(
                |failure| failed(index, failure, &wait, slot),
                |placed| appended(index, placed),
            ));
            slot += 1;
        }
        response.topics.push(ProduceTopicResponse { topic, partitions });
    }
    drop(reservation);
    let deadline = match plan.acks {
        Acks::All => context.started().checked_add(timeout(plan.timeout_ms)),
        Acks::None | Acks::Leader => None,
    };
    answer(ProduceReply { broker, context, response, wait, deadline }, plan.acks)
}

fn append(
    broker: &Broker,
    partition: &Partition,
    entry: Entry,
    acks: Acks,
    waiter: ProduceWaiter,
    reservation: &mut Reservation,
) -> Result<Placed, Failure> {
    let (bytes, records) = (entry.len() as u64, entry.facts().records_count);
    let placed = partition.append(entry, acks, Some(waiter), reservation);
    let placed = placed.map_err(|error| Failure {
        code: error.error_code(),
        message: Some(error.to_string().into()),
    })?;
    if placed.duplicate {
        broker.metrics.produce_duplicates.inc();
    } else {
        broker.metrics.produce_bytes.inc_by(bytes);
        broker.metrics.produce_records.inc_by(u64::try_from(records).unwrap_or(0));
    }
    Ok(placed)
}

fn appended(index: i32, placed: Placed) -> ProducePartitionResponse {
    ProducePartitionResponse {
        base_offset: placed.base_offset,
        log_append_time_ms: placed.log_append_time_ms,
        log_start_offset: placed.log_start_offset,
        ..ProducePartitionResponse::failed(index, ErrorCode::None)
    }
}

fn failed(
    index: i32,
    failure: Failure,
    wait: &Arc<ProduceWait>,
    slot: usize,
) -> ProducePartitionResponse {
    ProduceWaiter { wait: Arc::clone(wait), slot }.complete(failure.code);
    let answer = ProducePartitionResponse::failed(index, failure.code);
    ProducePartitionResponse { error_message: failure.message, ..answer }
}

fn answer(mut reply: ProduceReply, acks: Acks) -> Handled {
    if acks == Acks::None {
        return reply.close_on_error();
    }
    if reply.wait.is_complete() {
        return Handled::Reply(Reply::Ready(reply.finish()));
    }
    Handled::Reply(Reply::Pending(Box::new(reply)))
}

/// A response that is complete but for its partitions' word that the batches are safe.
struct ProduceReply {
    broker: Arc<Broker>,
    context: RequestContext,
    response: ProduceResponse,
    wait: Arc<ProduceWait>,
    deadline: Option<Instant>,
}

impl ProduceReply {
    /// Fills in each partition's outcome and encodes the answer.
    fn finish(&mut self) -> Outgoing {
        let metrics = &self.broker.metrics;
        let partitions = self.response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        for (slot, partition) in partitions.enumerate() {
            let code = self.wait.outcome(slot);
            self.context.error(metrics, code);
            if code != ErrorCode::None && partition.error_code == ErrorCode::None {
                // What was appended may still become safe: the client asks again.
                *partition = ProducePartitionResponse::failed(partition.index, code);
            }
        }
        leader_hints::hint_produce(&self.broker, &self.context, &mut self.response);
        let RequestContext { header, .. } = &self.context;
        let outgoing = self.response.encode(header.api_version, header.correlation_id);
        self.context.finish(metrics, outgoing)
    }

    /// With acks=0 nobody reads an answer: closing the connection is the only way to tell.
    fn close_on_error(&mut self) -> Handled {
        self.finish();
        let mut partitions = self.response.topics.iter().flat_map(|topic| &topic.partitions);
        match partitions.all(|partition| partition.error_code == ErrorCode::None) {
            true => Handled::NoReply,
            false => Handled::Close(CloseReason::ProduceFailed),
        }
    }
}

impl PendingReply for ProduceReply {
    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Result<Outgoing, CloseReason>> {
        match self.wait.poll(context) {
            Poll::Ready(()) => Poll::Ready(Ok(self.finish())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn expire(&mut self) -> Poll<Result<Outgoing, CloseReason>> {
        Poll::Ready(Ok(self.finish()))
    }
}

impl Failure {
    fn new(code: ErrorCode) -> Failure {
        Failure { code, message: None }
    }
}

/// Answers every partition of a request with one error.
fn refuse_all(
    broker: &Arc<Broker>,
    context: RequestContext,
    request: &ProduceRequest,
    code: ErrorCode,
) -> Handled {
    let topics = request.topics().map(|(topic, partitions)| {
        let refused = |records: &PartitionRecords| PlannedPartition {
            index: records.index,
            batch: Err(Failure::new(code)),
        };
        (topic.clone(), partitions.iter().map(refused).collect())
    });
    let acks = Acks::from_wire(request.acks).unwrap_or(Acks::Leader);
    let plan = Plan { acks, timeout_ms: 0, topics: topics.collect(), bytes: 0 };
    act(Arc::clone(broker), context, plan, None)
}

/// Answers with the errors that were found, and with the log's for every other partition.
fn refuse_storage(
    broker: Arc<Broker>,
    context: RequestContext,
    mut plan: Plan,
    error: &StorageError,
) -> Handled {
    for planned in plan.topics.iter_mut().flat_map(|(_, partitions)| partitions) {
        if planned.batch.is_ok() {
            let message = Some(error.to_string().into());
            planned.batch = Err(Failure { code: errors::storage(error), message });
        }
    }
    act(broker, context, plan, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_types::BATCH_HEADER_LEN;

    #[test]
    fn a_batch_that_is_copied_out_lets_go_of_its_frame() {
        let frame = Bytes::from(vec![7; 1000]);
        let entry = |records| Entry { header: [0; BATCH_HEADER_LEN], records };
        let mut entries = [entry(frame.slice(100..300)), entry(Bytes::from(vec![8; 10]))];
        let copied_before = entries[1].records.as_ptr();
        copy_out(entries.iter_mut(), &frame);
        assert!(frame.is_unique(), "nobody else has the frame");
        assert_eq!(entries[0].records, vec![7; 200]);
        assert_eq!(entries[1].records.as_ptr(), copied_before);
    }
}
