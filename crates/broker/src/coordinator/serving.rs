//! One loaded shard: plans at once, appends what has gathered when the log is free, and answers
//! once everything that a plan could have seen is on all in-sync replicas.

use std::{
    collections::BTreeMap,
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tidelog_coordinator::{Now, RequestId};
use tidelog_types::{Acks, Entry, ErrorCode, Offset};
use tidelog_wal::{Reservation, ReserveTicket, Wal};
use tracing::debug;

use super::{
    commands::ReplyTo,
    gathered::{Gathered, fits},
    shard::{Plan, Shard},
};
use crate::{
    coordinator::metrics::CoordinatorMetrics,
    errors,
    partition::{AppendError, Partition},
    waits::{ProduceWait, ProduceWaiter},
};

/// Bytes of records that may be planned and not yet appended.
const GATHERED_BYTES_MAX: usize = 4 << 20;
/// Replies that may wait for the log.
const PARKED_MAX: usize = 16_384;

/// Why a shard cannot go on: what it planned is not what the log says. It is loaded again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// The log did not take what was planned.
    #[error("its records could not be appended: {0}")]
    Append(#[from] AppendError),
    /// What was appended did not become safe.
    #[error("its records did not become safe: {0:?}")]
    NotSafe(ErrorCode),
    /// Somebody else appended: this shard has not seen it all.
    #[error("its log ends at {found}, not at {expected}")]
    Overtaken {
        /// Where its records should have gone.
        expected: Offset,
        /// Where they went.
        found: Offset,
    },
}

/// A shard and whoever waits for it.
pub(crate) struct Serving<S: Shard> {
    shard: S,
    partition: Arc<Partition>,
    /// Bytes of the largest batch. `max.message.bytes`
    batch_bytes_max: usize,
    /// Where the next record goes, if nobody else appends.
    end_offset: Offset,
    next_request: u64,
    /// Clients that have no answer yet, some of them for as long as a rebalance takes.
    waiting: BTreeMap<RequestId, ReplyTo<S::Response>>,
    /// Planned and replayed, not yet appended; and who is answered once that is safe.
    gathered: Gathered,
    gathered_replies: Vec<(RequestId, S::Response)>,
    /// Appended, not yet safe.
    in_flight: Option<InFlight<S::Response>>,
    /// The place in line for room in the log.
    ticket: ReserveTicket,
    metrics: Arc<CoordinatorMetrics>,
}

struct InFlight<R> {
    wait: Arc<ProduceWait>,
    batches: usize,
    replies: Vec<(RequestId, R)>,
}

impl<S: Shard> Serving<S> {
    /// Takes over a shard that knows everything below `end_offset`.
    pub fn new(
        shard: S,
        partition: Arc<Partition>,
        batch_bytes_max: usize,
        end_offset: Offset,
        metrics: Arc<CoordinatorMetrics>,
    ) -> Serving<S> {
        Serving {
            shard,
            partition,
            batch_bytes_max,
            end_offset,
            next_request: 0,
            waiting: BTreeMap::new(),
            gathered: Gathered::default(),
            gathered_replies: Vec::new(),
            in_flight: None,
            ticket: ReserveTicket::default(),
            metrics,
        }
    }

    /// The largest batch is another. `max.message.bytes`
    pub fn limit(&mut self, batch_bytes_max: usize) {
        self.batch_bytes_max = batch_bytes_max;
    }

    /// The shard, to be looked at.
    pub fn shard(&self) -> &S {
        &self.shard
    }

    /// When there is something to do though nobody asks.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.shard.next_deadline()
    }

    /// Whether it takes more requests before the log has caught up.
    pub fn has_room(&self) -> bool {
        let parked = self.in_flight.as_ref().map_or(0, |in_flight| in_flight.replies.len());
        self.gathered.bytes() < GATHERED_BYTES_MAX
            && parked + self.gathered_replies.len() < PARKED_MAX
    }

    /// Whether anything waits for the log.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some() || !self.gathered.is_empty()
    }

    /// Takes a request. `refusal` says why the log takes nothing now: what would have to be
    /// written is refused, and everything else goes on.
    pub fn ask(
        &mut self,
        request: &S::Request,
        reply: ReplyTo<S::Response>,
        now: Now,
        refusal: Option<ErrorCode>,
    ) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let plan = self.shard.plan(id, request, now);
        if let Some(code) = self.refusal(request, &plan, refusal) {
            return reply.answer(Err(code));
        }
        self.waiting.insert(id, reply);
        self.take(plan, now.wall_ms);
    }

    /// Does what it leads to that the log was read. What was read may not be safe yet, if this very
    /// process appended it: until it is, nobody is answered.
    pub fn begin(&mut self, now: Now) {
        assert!(self.in_flight.is_none(), "a shard begins once");
        let wait = ProduceWait::new(1);
        self.partition.await_safe(ProduceWaiter { wait: Arc::clone(&wait), slot: 0 });
        self.in_flight = Some(InFlight { wait, batches: 1, replies: Vec::new() });
        self.take(self.shard.plan_loaded(now), now.wall_ms);
    }

    /// Does what time leads to.
    pub fn advance(&mut self, now: Now) {
        self.take(self.shard.plan_due(now), now.wall_ms);
    }

    /// Has a request done that nobody waits for.
    pub fn tell(&mut self, request: &S::Request, now: Now) {
        let plan = self.shard.plan(RequestId(self.next_request), request, now);
        self.next_request += 1;
        self.take(plan, now.wall_ms);
    }

    /// Moves on by a step, as soon as the log allows: what is in flight lands, or what has gathered
    /// is appended.
    pub fn poll(&mut self, wal: &Wal, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        assert!(self.is_busy(), "a shard is polled while it waits for the log");
        if let Some(in_flight) = &self.in_flight {
            ready!(in_flight.wait.poll(context));
            return Poll::Ready(self.land());
        }
        let bytes = self.gathered.memory_bytes();
        let reserved = ready!(wal.poll_reserve(&mut self.ticket, bytes, context.waker()));
        Poll::Ready(match reserved {
            Ok(reservation) => self.append(reservation),
            Err(error) => Err(AppendError::Storage(error).into()),
        })
    }

    /// Ends: whoever waits is told `code`.
    pub fn end(self, code: ErrorCode) {
        self.waiting.into_values().for_each(|reply| reply.answer(Err(code)));
    }

    /// Why a plan is not carried out: the log takes nothing now, or not a record of this size.
    fn refusal(
        &self,
        request: &S::Request,
        plan: &Plan<S>,
        refusal: Option<ErrorCode>,
    ) -> Option<ErrorCode> {
        let mut records = plan.events.iter().filter_map(S::logged);
        match refusal {
            Some(code) => records.next().map(|_| code),
            None => {
                let too_large = records.any(|record| !fits(&record, self.batch_bytes_max));
                too_large.then(|| S::too_large(request))
            }
        }
    }

    /// Replays a plan and parks its replies behind everything that it could have seen.
    fn take(&mut self, plan: Plan<S>, now_ms: i64) {
        for event in &plan.events {
            if let Some(record) = S::logged(event) {
                self.gathered.push(&record, now_ms, self.batch_bytes_max);
            }
            self.shard.replay(event);
        }
        self.metrics.count_rebalances(&plan.rebalances);
        if !self.gathered.is_empty() {
            self.gathered_replies.extend(plan.replies);
        } else if let Some(in_flight) = &mut self.in_flight {
            in_flight.replies.extend(plan.replies);
        } else {
            self.answer(plan.replies);
        }
    }

    fn append(&mut self, mut reservation: Reservation) -> Result<(), Lost> {
        assert!(self.in_flight.is_none(), "one append after the other");
        self.metrics.records.inc_by(self.gathered.records());
        let entries = mem::take(&mut self.gathered).into_entries();
        self.metrics.batches.inc_by(entries.len() as u64);
        let replies = mem::take(&mut self.gathered_replies);
        let wait = ProduceWait::new(entries.len());
        let batches = entries.len();
        for (slot, entry) in entries.into_iter().enumerate() {
            let waiter = ProduceWaiter { wait: Arc::clone(&wait), slot };
            self.append_one(entry, waiter, &mut reservation)?;
        }
        self.in_flight = Some(InFlight { wait, batches, replies });
        Ok(())
    }

    fn append_one(
        &mut self,
        entry: Entry,
        waiter: ProduceWaiter,
        reservation: &mut Reservation,
    ) -> Result<(), Lost> {
        let next = i64::from(entry.facts().last_offset_delta) + 1;
        let placed = self.partition.append(entry, Acks::All, Some(waiter), reservation)?;
        let (expected, found) = (self.end_offset, placed.base_offset);
        if expected != found {
            return Err(Lost::Overtaken { expected, found });
        }
        self.end_offset = found.plus(next);
        Ok(())
    }

    /// What was in flight has landed, safely or not.
    fn land(&mut self) -> Result<(), Lost> {
        let InFlight { wait, batches, replies } = self.in_flight.take().expect("it was polled");
        let mut outcomes = (0..batches).map(|slot| wait.outcome(slot));
        if let Some(code) = outcomes.find(|code| *code != ErrorCode::None) {
            return Err(Lost::NotSafe(code));
        }
        self.answer(replies);
        Ok(())
    }

    fn answer(&mut self, replies: Vec<(RequestId, S::Response)>) {
        for (id, response) in replies {
            // Nobody waits for the answer to what the loop itself asked.
            match self.waiting.remove(&id) {
                Some(reply) => reply.answer(Ok(response)),
                None => debug!(request = id.0, "an answer that nobody waits for"),
            }
        }
    }
}

impl Lost {
    /// What clients are told whose requests were not done: all of them ask again.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Lost::Append(error) => errors::coordinator(error),
            Lost::NotSafe(_) | Lost::Overtaken { .. } => ErrorCode::NotCoordinator,
        }
    }
}
