//! Fetch: read what is readable, wait where that is too little, answer.
//!
//! One machine for all of it: a round reads partitions in order, and may stop at one whose batches
//! lie on disk; between rounds the request waits to be told of its partitions. A request in a
//! session reads only those where anything happened, so that a long poll over thousands costs what
//! changed.
//!
//! Records take room of the bound on reply bytes before they are read. A request that is not its
//! connection's next holds none of it and never asks the disk.

mod round;
mod subject;

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidelog_net::{CloseReason, ConnectionInfo, Handled, PendingReply, Reply, ReplyBudget};
use tidelog_protocol::{
    Outgoing, RequestError,
    fetch::{FetchPartition, FetchRequest, FetchResponse},
};

use self::{
    round::Round,
    subject::{Subject, Wait},
};
use crate::{
    broker::Broker, leader_hints, partition::Partition, pending::timeout,
    replica_manager::LookupError, request_context::RequestContext,
};

/// Longest wait for records. An empty answer tells a client that asks for more to ask again.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a fetch waits for room for its reply, though its client would not: an answer without
/// records that are there would make it ask again at once.
const ROOM_WAIT: Duration = Duration::from_millis(100);
/// Partitions that a request may cost without naming them, before it is the connection's next: its
/// answer may be thousands of times as large as itself.
const UNASKED_MAX: usize = 1000;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    connection: &ConnectionInfo,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request = FetchRequest::decode(context.version(), body)?;
    let (subject, wanted) = match Subject::of(broker, &request, context.version()) {
        Ok(found) => found,
        Err(error) => {
            let refusal = FetchResponse::failed(error.error_code());
            let outgoing = encode(broker, &context, refusal);
            return Ok(Handled::Reply(Reply::Ready(outgoing)));
        }
    };
    let mut fetch = Fetch::new(broker, context, connection, &request, subject, wanted);
    if fetch.subject.unasked_len() > UNASKED_MAX {
        fetch.is_next = true; // when it is polled
        return Ok(Handled::Reply(Reply::Pending(Box::new(fetch))));
    }
    // Whoever answers later polls again with a waker of its own.
    let polled = fetch.poll(&mut Context::from_waker(Waker::noop()));
    fetch.is_next = true; // or will be, when it is polled again
    Ok(match polled {
        Poll::Ready(outgoing) => Handled::Reply(Reply::Ready(outgoing)),
        Poll::Pending => Handled::Reply(Reply::Pending(Box::new(fetch))),
    })
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
    subject: Subject,
    wanted: Vec<Wanted>,
    state: State,
    /// `None` once it has passed: whatever is there is the answer.
    deadline: Option<Instant>,
    /// Until when room is waited for beyond that; `None` once it has passed.
    patience: Option<Instant>,
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
    /// A round is to begin.
    Idle,
    Reading(Round),
    Waiting(Wait),
    Answered,
}

impl Fetch {
    fn new(
        broker: &Arc<Broker>,
        context: RequestContext,
        connection: &ConnectionInfo,
        request: &FetchRequest,
        subject: Subject,
        wanted: Vec<Wanted>,
    ) -> Fetch {
        let wait = timeout(request.max_wait_ms).min(WAIT_MAX);
        let deadline = context.started().checked_add(wait).filter(|_| !wait.is_zero());
        let patience = context.started().checked_add(ROOM_WAIT).filter(|_| wait < ROOM_WAIT);
        Fetch {
            limits: Limits::of(request, broker.settings.broker.fetch_max_bytes),
            replies: Arc::clone(&connection.replies),
            connection_id: connection.id,
            broker: Arc::clone(broker),
            context,
            is_next: false,
            subject,
            wanted,
            state: State::Idle,
            deadline,
            patience,
            waker: Waker::noop().clone(),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outgoing> {
        self.waker.clone_from(context.waker());
        loop {
            match mem::replace(&mut self.state, State::Answered) {
                State::Idle => match self.subject.begin_round(&self.broker) {
                    Ok(wanted) => {
                        self.wanted = wanted.unwrap_or_else(|| mem::take(&mut self.wanted));
                        let round = Round::new(&self.replies, self.connection_id);
                        self.state = State::Reading(round);
                    }
                    Err(_) => return Poll::Ready(self.encode(self.subject.refusal())),
                },
                State::Reading(mut round) => {
                    if self.read(&mut round, context).is_pending() {
                        // What others wait for is for the next reply only.
                        self.state = if self.is_next { State::Reading(round) } else { State::Idle };
                        return Poll::Pending;
                    }
                    self.broker.metrics.fetch.looks.inc_by(round.answers.len() as u64);
                    if self.is_answer(&round) {
                        return Poll::Ready(self.finish(round));
                    }
                    let missing = self.limits.min_bytes.saturating_sub(round.bytes) as u64;
                    let wait = self.subject.wait(&mut self.wanted, &round, missing);
                    self.state = wait.map_or(State::Idle, State::Waiting);
                }
                State::Waiting(wait) => {
                    if self.subject.poll(&wait, context).is_pending() {
                        self.state = State::Waiting(wait);
                        return Poll::Pending;
                    }
                    self.state = State::Idle;
                }
                State::Answered => unreachable!("a reply is polled until it is ready, once"),
            }
        }
    }

    fn is_answer(&self, round: &Round) -> bool {
        self.deadline.is_none()
            || round.is_urgent
            || round.bytes >= self.limits.min_bytes
            || self.subject.is_nothing()
    }

    fn finish(&self, round: Round) -> Outgoing {
        let answer = self.subject.answer(&self.broker, &self.wanted, round);
        self.encode(answer.unwrap_or_else(|_| self.subject.refusal()))
    }

    fn encode(&self, response: FetchResponse) -> Outgoing {
        encode(&self.broker, &self.context, response)
    }
}

impl PendingReply for Fetch {
    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Result<Outgoing, CloseReason>> {
        self.poll(context).map(Ok)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline.or(self.patience)
    }

    fn expire(&mut self) -> Poll<Result<Outgoing, CloseReason>> {
        if self.deadline.take().is_none() {
            self.patience = None;
        }
        if matches!(self.state, State::Waiting(..)) {
            self.state = State::Idle;
        }
        let waker = self.waker.clone();
        self.poll(&mut Context::from_waker(&waker)).map(Ok)
    }

    fn hurry(&mut self) {
        self.deadline = self.deadline.map(|_| self.context.started());
        self.patience = None;
    }
}

impl Limits {
    fn of(request: &FetchRequest, fetch_max_bytes: i32) -> Limits {
        let bytes = |count: i32| usize::try_from(count).unwrap_or(0);
        let max_bytes = bytes(request.max_bytes).min(bytes(fetch_max_bytes));
        let min_bytes = bytes(request.min_bytes).min(max_bytes);
        Limits { min_bytes, max_bytes, read_committed: request.read_committed }
    }
}

fn encode(broker: &Broker, context: &RequestContext, mut response: FetchResponse) -> Outgoing {
    context.error(&broker.metrics, response.error_code);
    let mut bytes = 0;
    for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
        context.error(&broker.metrics, partition.error_code);
        bytes += partition.records.len() as u64;
    }
    broker.metrics.fetch.bytes.inc_by(bytes);
    leader_hints::hint_fetch(broker, context, &mut response);
    let outgoing = response.encode(context.version(), context.header.correlation_id);
    context.finish(&broker.metrics, outgoing)
}
