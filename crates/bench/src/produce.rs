//! One producing connection: requests in flight, answers checked, latencies noted.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ProduceRequest, TopicName,
    produce_request::{PartitionProduceData, TopicProduceData},
};
use tidelog_net::client::{Wire, encode_request};

use crate::{
    args::{AcksArg, ProduceArgs},
    codec::{PRODUCE_VERSION, correlation_id, produce_answer},
    pacer::Due,
    stats::Stats,
};

/// Rounds before other connections get their turn.
const ROUNDS_MAX: usize = 8;
/// A frame's length, API key and version stand before the correlation id.
const CORRELATION_ID_START: usize = 8;
const CORRELATION_ID_END: usize = 12;

/// What is measured when: the same for all connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Measuring begins.
    pub start: Instant,
    /// Measuring ends and nothing more is sent.
    pub end: Instant,
}

impl Window {
    pub fn contains(&self, time: Instant) -> bool {
        (self.start..self.end).contains(&time)
    }
}

/// A request of which only the correlation id changes.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    start: [u8; CORRELATION_ID_START],
    rest: Bytes,
    pub records: u64,
    pub value_bytes: u64,
}

impl Template {
    pub fn new(
        args: &ProduceArgs,
        topic: TopicName,
        partition: i32,
        batch: Bytes,
    ) -> Result<Template> {
        let partition =
            PartitionProduceData::default().with_index(partition).with_records(Some(batch));
        let topic =
            TopicProduceData::default().with_name(topic).with_partition_data(vec![partition]);
        let request = ProduceRequest::default()
            .with_acks(args.acks.wire())
            .with_timeout_ms(args.timeout_ms)
            .with_topic_data(vec![topic]);
        let frame = encode_request(&request, PRODUCE_VERSION, 0, "tidelog-bench")?;
        Ok(Template {
            start: frame[..CORRELATION_ID_START].try_into()?,
            rest: frame.slice(CORRELATION_ID_END..),
            records: args.batch_records as u64,
            value_bytes: (args.batch_records * args.message_size) as u64,
        })
    }

    /// Bytes of one request.
    pub fn frame_bytes(&self) -> usize {
        CORRELATION_ID_END + self.rest.len()
    }
}

/// A connection that produces to one partition until the window ends.
pub(crate) struct Producer {
    pub wire: Wire,
    pub template: Template,
    pub partition: i32,
    pub acks: AcksArg,
    pub in_flight_max: usize,
    /// `None` in a closed loop.
    pub due: Option<Rc<Due>>,
    pub window: Window,
    pub stats: Rc<RefCell<Stats>>,
    pub in_flight: VecDeque<(i32, Instant)>,
    pub next_correlation_id: i32,
    /// No offset below may be acknowledged any more.
    pub next_offset: i64,
}

impl Producer {
    /// Sends what may be sent and takes the answers that have come.
    fn advance(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>> {
        if let Some(due) = &self.due {
            due.register(cx);
        }
        for _ in 0..ROUNDS_MAX {
            let now = Instant::now();
            self.send_due(now);
            let flushed = self.wire.poll_flush(cx).map_err(gone)?.is_ready();
            if self.acks == AcksArg::None && flushed {
                self.count_sent();
                if now < self.window.end && self.due.is_none() {
                    continue;
                }
            }
            let nothing_due = self.due.as_ref().is_none_or(|due| due.waiting() == 0);
            if now >= self.window.end && self.in_flight.is_empty() && nothing_due {
                return Ok(Poll::Ready(()));
            }
            if !self.receive(cx)? {
                return Ok(Poll::Pending);
            }
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    fn send_due(&mut self, now: Instant) {
        while self.in_flight.len() < self.in_flight_max {
            let intended = match &self.due {
                None => Some(now).filter(|now| *now < self.window.end),
                // What was due within the window is sent, however late.
                Some(due) => due.next(),
            };
            let Some(intended) = intended else { return };
            let id = self.next_correlation_id;
            self.next_correlation_id = id.wrapping_add(1);
            let mut start = BytesMut::with_capacity(CORRELATION_ID_END);
            start.extend_from_slice(&self.template.start);
            start.extend_from_slice(&id.to_be_bytes());
            self.wire.push(start.freeze());
            self.wire.push(self.template.rest.clone());
            self.in_flight.push_back((id, intended));
        }
    }

    /// Says whether anything was there to be received.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        let now = Instant::now();
        let Producer { wire, in_flight, stats, template, next_offset, window, partition, .. } =
            self;
        let mut stats = stats.borrow_mut();
        let mut outcome = Ok(());
        let polled = wire.poll_frames(cx, |frame| {
            if outcome.is_ok() {
                let facts = Facts { template, window, now, partition: *partition };
                outcome = facts.take_answer(frame, in_flight, next_offset, &mut stats);
            }
        });
        outcome?;
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(_)) => Ok(true),
            Poll::Ready(Err(error)) => Err(gone(error)),
        }
    }

    /// Without acknowledgements a request is done once the kernel has it.
    fn count_sent(&mut self) {
        let now = Instant::now();
        let mut stats = self.stats.borrow_mut();
        for (_, intended) in self.in_flight.drain(..) {
            let facts = Facts {
                template: &self.template,
                window: &self.window,
                now,
                partition: self.partition,
            };
            facts.count(intended, &mut stats);
        }
    }
}

impl Future for Producer {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut().advance(cx) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let unanswered = self.in_flight.len() as u64;
        let unsent = self.due.as_ref().map_or(0, |due| due.waiting()) as u64;
        let mut stats = self.stats.borrow_mut();
        if unanswered > 0 {
            stats.error("NO_ANSWER".to_owned(), unanswered);
            *stats.unknown.entry(self.partition).or_default() += unanswered;
        }
        if unsent > 0 {
            stats.error("NOT_SENT".to_owned(), unsent);
        }
    }
}

struct Facts<'a> {
    template: &'a Template,
    window: &'a Window,
    now: Instant,
    partition: i32,
}

impl Facts<'_> {
    fn take_answer(
        &self,
        frame: &[u8],
        in_flight: &mut VecDeque<(i32, Instant)>,
        next_offset: &mut i64,
        stats: &mut Stats,
    ) -> Result<()> {
        let id = correlation_id(frame)?;
        let (expected, intended) = in_flight.pop_front().context("an answer nobody asked for")?;
        ensure!(id == expected, "an answer to request {id} where {expected} was next");
        let answer = produce_answer(frame)?;
        if answer.error_code != 0 {
            stats.error_code(answer.error_code);
            return Ok(());
        }
        let base = answer.base_offset;
        ensure!(base >= *next_offset, "offset {base} is acknowledged after {next_offset}");
        *next_offset = base + self.template.records as i64;
        *stats.acknowledged.entry(self.partition).or_default() += self.template.records;
        self.count(intended, stats);
        Ok(())
    }

    /// Throughput counts what ends within the window, latency what was meant to begin in it.
    fn count(&self, intended: Instant, stats: &mut Stats) {
        if self.window.contains(self.now) {
            stats.answered(self.template.records, self.template.value_bytes);
        }
        if self.window.contains(intended) {
            let latency = self.now.saturating_duration_since(intended).as_micros();
            stats.latency_us.saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
        }
    }
}

fn gone(error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context("the connection to the broker is gone")
}
