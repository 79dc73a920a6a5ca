//! Fetch: read what is readable, wait where that is too little, answer.
//!
//! One machine for all of it: a round reads the partitions in the request's order, and may stop at
//! one whose batches lie on disk; between rounds the request waits in its partitions' purgatories.
//!
//! Records take room of the bound on reply bytes before they are read. A request that is not its
//! connection's next holds none of it and never asks the disk.

use std::{
    collections::BTreeSet,
    future::Future as _,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidelog_net::{
    CloseReason, ConnectionInfo, Handled, PendingReply, Reply, ReplyBudget, ReplyRoom,
};
use tidelog_protocol::{
    Outgoing, RecordChunks, RequestError, TopicRef,
    fetch::{
        EpochEndOffset, FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse,
        FetchTopicResponse,
    },
};
use tidelog_replica::EpochEnd;
use tidelog_types::{ErrorCode, LeaderEpoch, Offset};
use tidelog_wal::{ColdRead, ColdReply, ReadError, ReadOutcome};
use tokio::sync::oneshot;

use crate::{
    broker::Broker,
    errors, leader_hints,
    partition::{FetchRegistration, Partition, View},
    pending::timeout,
    replica_manager::LookupError,
    request_context::RequestContext,
    waits::FetchWait,
};

/// Longest wait for records. An empty answer tells a client that asks for more to ask again.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Room that a first batch, sent whole whatever its size, is expected to need, in bytes.
const FIRST_BATCH_BYTES: u64 = 1 << 20;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    connection: &ConnectionInfo,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request = FetchRequest::decode(context.version(), body)?;
    if let Some(code) = session_error(&request) {
        context.error(&broker.metrics, code);
        let response = FetchResponse::failed(code);
        let outgoing = response.encode(context.version(), context.header.correlation_id);
        let outgoing = context.finish(&broker.metrics, outgoing);
        return Ok(Handled::Reply(Reply::Ready(outgoing)));
    }
    let mut fetch = Fetch::new(Arc::clone(broker), context, connection, &request);
    // Whoever answers later polls again with a waker of its own.
    let polled = fetch.poll(&mut Context::from_waker(Waker::noop()));
    fetch.is_next = true; // or will be, when it is polled again
    Ok(match polled {
        Poll::Ready(Ok(outgoing)) => Handled::Reply(Reply::Ready(outgoing)),
        Poll::Ready(Err(reason)) => Handled::Close(reason),
        Poll::Pending => Handled::Reply(Reply::Pending(Box::new(fetch))),
    })
}

/// Every full fetch is answered without a session, so nobody can continue one (KIP-227).
fn session_error(request: &FetchRequest) -> Option<ErrorCode> {
    (request.session_epoch > 0).then_some(ErrorCode::FetchSessionIdNotFound)
}

/// A fetch on its way to an answer.
struct Fetch {
    broker: Arc<Broker>,
    context: RequestContext,
    limits: Limits,
    replies: Arc<ReplyBudget>,
    connection_id: u64,
    /// Whether it is its connection's next reply, so that it may hold what others wait for.
    is_next: bool,
    topics: Vec<(TopicRef, usize)>,
    wanted: Vec<Wanted>,
    state: State,
    /// `None` once it has passed: whatever is there is the answer.
    deadline: Option<Instant>,
    waker: Waker,
}

/// What a client asks for, within what this broker allows.
#[derive(Debug, Clone, Copy)]
struct Limits {
    min_bytes: usize,
    max_bytes: usize,
    read_committed: bool,
}

struct Wanted {
    partition: Result<Arc<Partition>, LookupError>,
    request: FetchPartition,
}

enum State {
    Reading(Round),
    Waiting(Arc<FetchWait>, #[allow(dead_code, reason = "dropping it leaves")] Registrations),
    Answered,
}

type Registrations = Vec<FetchRegistration>;

/// One pass over the partitions.
struct Round {
    /// Holds `bytes`, and what the disk was asked for.
    room: ReplyRoom,
    answers: Vec<FetchPartitionResponse>,
    /// What was seen of each partition, to notice what changes before a wait is registered.
    seen: Vec<(LeaderEpoch, Offset)>,
    bytes: usize,
    /// Something other than records makes the answer worth sending.
    is_urgent: bool,
    cold: Option<Cold>,
}

/// Tells a fetch what the disk gave.
struct Told(oneshot::Sender<Result<Vec<Bytes>, ReadError>>);

/// A partition whose batches the disk is asked for.
struct Cold {
    view: View,
    receiver: oneshot::Receiver<Result<Vec<Bytes>, ReadError>>,
}

/// What one partition gives at once.
enum Read {
    /// With the leader epoch it was read in, if it could be read.
    Answer(FetchPartitionResponse, LeaderEpoch),
    Cold(Cold),
    /// Nothing: it is to be read once the fetch is the next, and there is room.
    Later,
}

impl Fetch {
    fn new(
        broker: Arc<Broker>,
        context: RequestContext,
        connection: &ConnectionInfo,
        request: &FetchRequest,
    ) -> Fetch {
        let found = broker.replicas.topics();
        let (mut topics, mut wanted) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for (topic, partitions) in request.topics() {
            let hosted = found.find(topic);
            for partition in partitions {
                let hosted = hosted.and_then(|topic| topic.partition(partition.partition));
                let hosted = hosted.and_then(|found| match seen.insert(found.id()) {
                    true => Ok(found),
                    false => Err(LookupError::Twice),
                });
                wanted.push(Wanted { partition: hosted.cloned(), request: *partition });
            }
            topics.push((topic.clone(), partitions.len()));
        }
        drop(found);
        let bytes = |count: i32| usize::try_from(count).unwrap_or(0);
        let max_bytes = bytes(request.max_bytes).min(bytes(broker.settings.broker.fetch_max_bytes));
        let min_bytes = bytes(request.min_bytes).min(max_bytes);
        let limits = Limits { min_bytes, max_bytes, read_committed: request.read_committed };
        let wait = timeout(request.max_wait_ms).min(WAIT_MAX);
        let deadline = context.started().checked_add(wait).filter(|_| !wait.is_zero());
        let (replies, connection_id) = (Arc::clone(&connection.replies), connection.id);
        Fetch {
            state: State::Reading(Round::new(&replies, connection_id)),
            broker,
            context,
            limits,
            replies,
            connection_id,
            is_next: false,
            topics,
            wanted,
            deadline,
            waker: Waker::noop().clone(),
        }
    }

    fn new_round(&self) -> State {
        State::Reading(Round::new(&self.replies, self.connection_id))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Outgoing, CloseReason>> {
        self.waker.clone_from(context.waker());
        loop {
            match mem::replace(&mut self.state, State::Answered) {
                State::Reading(mut round) => {
                    if self.read(&mut round, context).is_pending() {
                        // What others wait for is for the next reply only.
                        let reading = State::Reading(round);
                        self.state = if self.is_next { reading } else { self.new_round() };
                        return Poll::Pending;
                    }
                    if self.is_answer(&round) {
                        return Poll::Ready(Ok(self.finish(round.answers)));
                    }
                    self.state = match self.wait(&round) {
                        Some((wait, registrations)) => State::Waiting(wait, registrations),
                        None => self.new_round(),
                    };
                }
                State::Waiting(wait, registrations) => {
                    if wait.poll(context).is_pending() {
                        self.state = State::Waiting(wait, registrations);
                        return Poll::Pending;
                    }
                    self.state = self.new_round();
                }
                State::Answered => unreachable!("a reply is polled until it is ready, once"),
            }
        }
    }

    /// Reads on from where the round stopped. Pending where the disk is asked, or room is wanting.
    fn read(&self, round: &mut Round, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(cold) = &mut round.cold {
                let Poll::Ready(outcome) = Pin::new(&mut cold.receiver).poll(context) else {
                    return Poll::Pending;
                };
                let view = cold.view;
                round.cold = None;
                self.finish_cold(round, view, outcome.unwrap_or(Err(ReadError::Closed)));
            }
            let Some(wanted) = self.wanted.get(round.answers.len()) else {
                return Poll::Ready(());
            };
            match self.read_partition(round, wanted) {
                Read::Answer(answer, leader_epoch) => round.take(answer, leader_epoch),
                Read::Cold(cold) => round.cold = Some(cold),
                Read::Later if self.is_next && !round.room.wait(context.waker()) => {}
                Read::Later => return Poll::Pending,
            }
        }
    }

    fn read_partition(&self, round: &mut Round, wanted: &Wanted) -> Read {
        let request = &wanted.request;
        let failed = |code| Read::failed(request, code);
        let partition = match &wanted.partition {
            Ok(partition) => partition,
            Err(error) => return failed(error.error_code()),
        };
        let view = match partition.view(request.current_leader_epoch) {
            Ok(view) => view,
            Err(error) => return failed(error.error_code()),
        };
        if request.fetch_offset < view.log_start_offset {
            return failed(ErrorCode::OffsetOutOfRange);
        }
        match diverging(partition, request) {
            Ok(None) => {}
            Ok(Some(end)) => {
                let diverging_epoch = Some(end);
                let answer = answer(&view, request, self.limits, RecordChunks::None);
                let answer = FetchPartitionResponse { diverging_epoch, ..answer };
                return Read::Answer(answer, view.leader_epoch);
            }
            Err(code) => return failed(code),
        }
        // A client that is past the end because its log parted from this one was told where.
        if request.fetch_offset > view.log_end_offset {
            return failed(ErrorCode::OffsetOutOfRange);
        }
        self.read_log(round, partition, &view, request)
    }

    /// The at-least-one rule (KIP-74): the first batch of a response is sent whole, however large.
    fn read_log(
        &self,
        round: &mut Round,
        partition: &Partition,
        view: &View,
        request: &FetchPartition,
    ) -> Read {
        let upper = self.limits.readable_end(view);
        let is_first = round.bytes == 0;
        let budget = self.limits.max_bytes.saturating_sub(round.bytes);
        let budget = budget.min(usize::try_from(request.partition_max_bytes).unwrap_or(0));
        let nothing = || {
            let answer = answer(view, request, self.limits, RecordChunks::None);
            Read::Answer(answer, view.leader_epoch)
        };
        if request.fetch_offset >= upper || (budget == 0 && !is_first) {
            return nothing();
        }
        let Some(budget) = round.make_room(budget) else {
            // Who holds room does not wait for more, and who may not wait any longer has to ask
            // again: else all could wait for each other.
            return if is_first && self.deadline.is_some() { Read::Later } else { nothing() };
        };
        match partition.read(request.fetch_offset, upper, budget, is_first) {
            Ok(ReadOutcome::Entries(entries)) => {
                let records = RecordChunks::Entries(entries);
                Read::Answer(answer(view, request, self.limits, records), view.leader_epoch)
            }
            Ok(ReadOutcome::Cold(_)) if !self.is_next => Read::Later,
            Ok(ReadOutcome::Cold(read)) => ask_the_disk(partition, *view, read, request),
            Err(error) => Read::failed(request, errors::read(&error)),
        }
    }

    fn finish_cold(&self, round: &mut Round, view: View, outcome: Result<Vec<Bytes>, ReadError>) {
        let wanted = &self.wanted[round.answers.len()];
        let records = match outcome {
            Ok(pieces) => RecordChunks::Bytes(pieces),
            Err(error) => {
                let code = errors::read(&error);
                let failed = FetchPartitionResponse::failed(wanted.request.partition, code);
                return round.take(failed, LeaderEpoch::NONE);
            }
        };
        round.take(answer(&view, &wanted.request, self.limits, records), view.leader_epoch);
    }

    /// Registers the request with its partitions. `None` if something came in between, so that it
    /// must be read again.
    fn wait(&self, round: &Round) -> Option<(Arc<FetchWait>, Registrations)> {
        let wait = Arc::new(FetchWait::default());
        let mut registrations = Vec::with_capacity(self.wanted.len());
        // Several partitions make up the bytes together: each tells of any, and they are summed.
        let missing = match self.wanted.len() {
            1 => self.limits.min_bytes.saturating_sub(round.bytes) as u64,
            _ => 1,
        };
        for (wanted, seen) in self.wanted.iter().zip(&round.seen) {
            let partition = wanted.partition.as_ref().ok()?;
            let offset = wanted.request.fetch_offset;
            let registration = partition.wait_for_records(offset, missing, &wait)?;
            if (registration.leader_epoch, registration.high_watermark) != *seen {
                return None;
            }
            registrations.push(registration);
        }
        Some((wait, registrations))
    }

    fn is_answer(&self, round: &Round) -> bool {
        self.deadline.is_none()
            || round.is_urgent
            || round.bytes >= self.limits.min_bytes
            || self.wanted.is_empty()
    }

    fn finish(&self, answers: Vec<FetchPartitionResponse>) -> Outgoing {
        let metrics = &self.broker.metrics;
        let mut response = FetchResponse::failed(ErrorCode::None);
        let mut answers = answers.into_iter();
        let mut bytes = 0;
        for (topic, count) in &self.topics {
            let partitions: Vec<_> = answers.by_ref().take(*count).collect();
            for partition in &partitions {
                self.context.error(metrics, partition.error_code);
                bytes += partition.records.len() as u64;
            }
            response.topics.push(FetchTopicResponse { topic: topic.clone(), partitions });
        }
        metrics.fetch_bytes.inc_by(bytes);
        leader_hints::hint_fetch(&self.broker, &self.context, &mut response);
        let outgoing = response.encode(self.context.version(), self.context.header.correlation_id);
        self.context.finish(metrics, outgoing)
    }
}

impl PendingReply for Fetch {
    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Result<Outgoing, CloseReason>> {
        self.poll(context)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn expire(&mut self) -> Poll<Result<Outgoing, CloseReason>> {
        self.deadline = None;
        if matches!(self.state, State::Waiting(..)) {
            self.state = self.new_round();
        }
        let waker = self.waker.clone();
        self.poll(&mut Context::from_waker(&waker))
    }

    fn hurry(&mut self) {
        self.deadline = self.deadline.map(|_| self.context.started());
    }
}

impl Round {
    fn new(replies: &Arc<ReplyBudget>, connection_id: u64) -> Round {
        Round {
            room: ReplyRoom::new(replies, connection_id),
            answers: Vec::new(),
            seen: Vec::new(),
            bytes: 0,
            is_urgent: false,
            cold: None,
        }
    }

    /// Room for up to so many bytes more, `None` where there is none. The first batch of a
    /// response is sent whole, so it gets room in any case where there is some.
    fn make_room(&mut self, bytes: usize) -> Option<usize> {
        let wanted = match self.bytes {
            0 => FIRST_BATCH_BYTES.max(bytes as u64),
            _ => bytes as u64,
        };
        let taken = usize::try_from(self.room.take(wanted)?).unwrap_or(usize::MAX);
        Some(bytes.min(taken))
    }

    fn take(&mut self, answer: FetchPartitionResponse, leader_epoch: LeaderEpoch) {
        self.bytes += answer.records.len();
        self.room.settle(self.bytes as u64);
        self.is_urgent |= answer.error_code != ErrorCode::None || answer.diverging_epoch.is_some();
        self.seen.push((leader_epoch, answer.high_watermark));
        self.answers.push(answer);
    }
}

impl Read {
    fn failed(request: &FetchPartition, code: ErrorCode) -> Read {
        let answer = FetchPartitionResponse::failed(request.partition, code);
        Read::Answer(answer, LeaderEpoch::NONE)
    }
}

impl ColdReply for Told {
    fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }

    fn done(self: Box<Self>, outcome: Result<Vec<Bytes>, ReadError>) {
        // The client may have gone while the disk was read.
        let _ = self.0.send(outcome);
    }
}

impl Limits {
    fn readable_end(self, view: &View) -> Offset {
        if self.read_committed { view.last_stable_offset } else { view.high_watermark }
    }
}

/// Where the client's log and this one part, for a client that says what it read last (KIP-595).
fn diverging(
    partition: &Partition,
    request: &FetchPartition,
) -> Result<Option<EpochEndOffset>, ErrorCode> {
    if request.last_fetched_epoch.0 < 0 {
        return Ok(None);
    }
    let end = partition.epoch_end(request.last_fetched_epoch);
    if end == EpochEnd::UNDEFINED {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let EpochEnd { leader_epoch: epoch, end_offset } = end;
    let parts = epoch < request.last_fetched_epoch || end_offset < request.fetch_offset;
    Ok(parts.then_some(EpochEndOffset { epoch, end_offset }))
}

fn ask_the_disk(
    partition: &Partition,
    view: View,
    read: ColdRead,
    request: &FetchPartition,
) -> Read {
    let (sender, receiver) = oneshot::channel();
    match partition.log().read_cold(read, Box::new(Told(sender))) {
        Ok(()) => Read::Cold(Cold { view, receiver }),
        Err(error) => Read::failed(request, errors::read(&error)),
    }
}

fn answer(
    view: &View,
    request: &FetchPartition,
    limits: Limits,
    records: RecordChunks,
) -> FetchPartitionResponse {
    FetchPartitionResponse {
        high_watermark: view.high_watermark,
        last_stable_offset: view.last_stable_offset,
        log_start_offset: view.log_start_offset,
        aborted_transactions: limits.read_committed.then(Vec::new),
        records,
        ..FetchPartitionResponse::failed(request.partition, ErrorCode::None)
    }
}
