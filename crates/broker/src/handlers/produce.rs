//! Produce: validate, open and recompress if the topic asks, reserve, append, wait for safety,
//! answer.
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
        ProduceTopicResponse, RecordError,
    },
    recompression::{StoredCodec, check_opened, recompress},
    record_batch::{self, BatchError, BatchRules, TimestampType},
};
use tidelog_types::{Acks, Compression, Entry, ErrorCode};
use tidelog_wal::{Reservation, ReserveTicket, StorageError};

use crate::{
    broker::Broker,
    errors, leader_hints,
    partition::{Partition, Placed},
    pending::timeout,
    record_walker::{OPENED_BYTES_MAX, OPENED_FACTOR, opened_bytes_max},
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
    fn partitions(&self) -> impl Iterator<Item = &PlannedPartition> {
        self.topics.iter().flat_map(|(_, partitions)| partitions)
    }

    fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let partitions = self.topics.iter_mut().flat_map(|(_, partitions)| partitions);
        partitions.filter_map(|planned| planned.batch.as_mut().ok().map(|(_, entry)| entry))
    }
}

struct PlannedPartition {
    index: i32,
    batch: Result<(Arc<Partition>, Entry), Failure>,
    /// What the batch must be opened for before it is appended.
    opening: Option<Opening>,
}

/// How a batch's records are checked, and how it becomes one of its topic's codec, if it is not.
#[derive(Clone, Copy)]
struct Opening {
    stored: Option<StoredCodec>,
    rules: BatchRules,
    opened_bytes_max: usize,
}

/// Why a batch is not appended, and in which words the producer is told.
struct Failure {
    code: ErrorCode,
    message: Option<Cow<'static, str>>,
    record_errors: Vec<RecordError>,
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
    let broker = Arc::clone(broker);
    if plan.partitions().any(|planned| planned.opening.is_some()) {
        return Ok(Handled::Wait(Box::pin(open_and_act(broker, context, plan, frame))));
    }
    copy_out_of(&mut plan, &frame);
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
            let one = plan_partition(&topics, topic, records, context.version(), now_ms);
            plan.bytes += one.memory_bytes();
            planned.push(one);
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
) -> PlannedPartition {
    let index = records.index;
    let (topic, partition) = match find(topics, topic, index) {
        Ok(found) => found,
        Err(code) => return PlannedPartition::failed(index, Failure::new(code)),
    };
    let rules = rules(topic, version, now_ms);
    match record_batch::validate(records.records.clone().unwrap_or_default(), &rules) {
        Ok(entry) => {
            let opening = opening(topic, rules, &entry);
            let batch = Ok((Arc::clone(partition), entry));
            PlannedPartition { index, batch, opening }
        }
        Err(error) => PlannedPartition::failed(index, Failure::of(&error)),
    }
}

/// What a batch must be opened for; `None` where it is stored as its producer sent it, unseen.
fn opening(topic: &Topic, rules: BatchRules, entry: &Entry) -> Option<Opening> {
    let sent = entry.facts().compression();
    let codec = topic.settings.codec().filter(|codec| sent != Some(*codec));
    if codec.is_none() && !(rules.needs_keys && sent != Some(Compression::None)) {
        return None;
    }
    let level = topic.settings.compression_level();
    let stored = codec.map(|codec| StoredCodec { codec, level });
    let opened_bytes_max = opened_bytes_max(topic.settings.max_message_bytes);
    Some(Opening { stored, rules, opened_bytes_max })
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
        needs_keys: settings.is_compacted(),
    }
}

fn copy_out_of(plan: &mut Plan, frame: &Bytes) {
    if frame.len() as u64 > plan.bytes + plan.bytes / PINNED_DIVISOR {
        copy_out(plan.entries_mut(), frame);
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

/// Has the batches opened, then goes on as with any others. What they became stays in turn until it
/// is counted in the log's queue.
async fn open_and_act(
    broker: Arc<Broker>,
    context: RequestContext,
    mut plan: Plan,
    frame: Bytes,
) -> Handled {
    let opened_bytes_max = opened_by_request_max(frame.len());
    let opened = broker.recompressor.run(move || {
        open_all(&mut plan, opened_bytes_max);
        copy_out_of(&mut plan, &frame);
        plan
    });
    let Some((plan, _turn)) = opened.await else {
        return Handled::Close(CloseReason::ProduceFailed); // a thread is gone
    };
    let is_recompressed = |p: &&PlannedPartition| {
        p.batch.is_ok() && p.opening.is_some_and(|opening| opening.stored.is_some())
    };
    let count = plan.partitions().filter(is_recompressed).count();
    broker.metrics.produce.recompressed.inc_by(count as u64);
    if plan.bytes == 0 {
        return act(broker, context, plan, None);
    }
    reserve_and_act(broker, context, plan).await
}

/// Bytes that the batches of one request may take in all once they are open: what honest ones do.
fn opened_by_request_max(frame_bytes: usize) -> usize {
    let honest = frame_bytes.saturating_mul(OPENED_FACTOR).min(2 * OPENED_BYTES_MAX);
    honest.max(OPENED_BYTES_MAX).max(frame_bytes)
}

/// One batch after the other, so that no more than one is open.
fn open_all(plan: &mut Plan, opened_bytes_max: usize) {
    let mut left = opened_bytes_max;
    let partitions = plan.topics.iter_mut().flat_map(|(_, partitions)| partitions);
    for planned in partitions {
        if let (Some(how), Ok((_, entry))) = (planned.opening, &mut planned.batch) {
            match how.open(entry, left) {
                Ok(opened) => left -= opened,
                Err(error) => planned.batch = Err(Failure::of(&error)),
            }
        }
    }
    plan.bytes = plan.partitions().map(PlannedPartition::memory_bytes).sum();
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
        for PlannedPartition { index, batch, .. } in planned {
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
    let placed =
        placed.map_err(|error| Failure::new(error.error_code()).because(error.to_string()))?;
    if placed.duplicate {
        broker.metrics.produce.duplicates.inc();
    } else {
        broker.metrics.produce.bytes.inc_by(bytes);
        broker.metrics.produce.records.inc_by(u64::try_from(records).unwrap_or(0));
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
    let Failure { message, record_errors, .. } = failure;
    ProducePartitionResponse { error_message: message, record_errors, ..answer }
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

impl PlannedPartition {
    fn failed(index: i32, failure: Failure) -> PlannedPartition {
        PlannedPartition { index, batch: Err(failure), opening: None }
    }

    fn memory_bytes(&self) -> u64 {
        self.batch.as_ref().map_or(0, |(_, entry)| entry.memory_bytes())
    }
}

impl Failure {
    fn new(code: ErrorCode) -> Failure {
        Failure { code, message: None, record_errors: Vec::new() }
    }

    fn because(self, message: String) -> Failure {
        Failure { message: Some(message.into()), ..self }
    }

    fn of(error: &BatchError) -> Failure {
        let places = match error {
            BatchError::NoKeys { places, .. } => &places[..],
            _ => &[],
        };
        let message = Some(Cow::Borrowed("a record of a compacted topic needs a key"));
        let named = |place: &i32| RecordError { batch_index: *place, message: message.clone() };
        let record_errors = places.iter().map(named).collect();
        Failure { record_errors, ..Failure::new(error.code()).because(error.to_string()) }
    }
}

impl Opening {
    /// Checks a batch's records and has it become what is stored; returns the bytes that they took.
    fn open(&self, entry: &mut Entry, opened_bytes_max: usize) -> Result<usize, BatchError> {
        let opened_bytes_max = self.opened_bytes_max.min(opened_bytes_max);
        let Some(stored) = self.stored else {
            return check_opened(entry, &self.rules, opened_bytes_max);
        };
        let (recompressed, opened) = recompress(entry, stored, &self.rules, opened_bytes_max)?;
        *entry = recompressed;
        Ok(opened)
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
        let refused = |records: &PartitionRecords| {
            PlannedPartition::failed(records.index, Failure::new(code))
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
            planned.batch = Err(Failure::new(errors::storage(error)).because(error.to_string()));
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
