//! One socket: reads requests while there is room, and writes their replies in order.
//!
//! Each wake-up answers what has become known, writes it in one call, reads once and hands over
//! every whole request in what was read. A connection that waits holds no read buffer: a thread
//! has one, and what is left of it is copied out, exactly.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes};
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, poll},
};
use tidelog_protocol::frame::{FrameDecoder, FrameError};
use tokio::{io::Interest, net::TcpStream};

use crate::{
    config::NetConfig,
    deadlines::{Alarm, Deadlines, Doing, PROGRESS_BYTES},
    limits::{Account, Limits},
    listener::ListenerState,
    registry::{Handle, Order},
    replies::{Front, Replies, Spent, Taken, Timed},
    reply_budget::ReplyRoom,
    service::{CloseReason, ConnectionInfo, Handled, Phase, Reply, Service},
};

/// Bytes that one read takes at most, unless they belong to one request.
const SCRATCH_BYTES: usize = 256 * 1024;
/// A request of which so many bytes are missing is read straight into its own memory.
const DIRECT_BYTES_MIN: usize = 64 * 1024;
/// A request that costs less, in bytes, need not wait for room.
const COSTLY_BYTES: u64 = 64 * 1024;
/// How often a connection that reads nothing looks whether its client is still there.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Rounds before others on this thread get their turn.
const ROUNDS_MAX: usize = 8;

thread_local! {
    /// What was just read. Empty again before anything else runs on this thread.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

type Waiting = Pin<Box<dyn Future<Output = Handled> + Send>>;

/// The task of one connection. Ends when the connection has.
pub(crate) struct Connection<S: Service> {
    socket: TcpStream,
    info: ConnectionInfo,
    service: Arc<S>,
    listener: Arc<ListenerState>,
    handle: Arc<Handle>,
    account: Account,
    decoder: FrameDecoder,
    /// When what is not handled yet was read.
    arrived: Instant,
    /// Read, charged and not handled, because a bound was reached.
    carried: Bytes,
    /// Memory that `carried` keeps as long as any of it is left.
    carried_bytes: u64,
    /// A request that nothing may overtake.
    waiting: Option<(Waiting, Taken)>,
    /// A request for whose cost there is no room yet, and that cost.
    costly: Option<(Bytes, u64)>,
    replies: Replies,
    /// What the replies hold that are complete and could not be written yet.
    reply_room: ReplyRoom,
    /// Nothing more is read or handled.
    input_ended: bool,
    closing: Option<CloseReason>,
    waker: Option<Waker>,
    deadlines: Deadlines,
    alarm: Alarm,
    /// When the client was last seen to be there, as long as nothing is read.
    looked: Instant,
    counted: Counted,
}

/// What the metrics have been told.
#[derive(Default)]
struct Counted {
    requests: u64,
    received: u64,
    in_flight: usize,
}

impl<S: Service> Connection<S> {
    pub fn new(
        socket: TcpStream,
        info: ConnectionInfo,
        service: Arc<S>,
        listener: Arc<ListenerState>,
        handle: Arc<Handle>,
    ) -> Connection<S> {
        let limits = &listener.limits;
        let request_bytes_max = usize::try_from(limits.config.request_bytes_max);
        let decoder = FrameDecoder::new(request_bytes_max.unwrap_or(usize::MAX));
        let account = Account::new(Arc::clone(limits), Arc::clone(&handle));
        let reply_room = ReplyRoom::new(&limits.replies, handle.id);
        let now = Instant::now();
        listener.opened();
        Connection {
            socket,
            info,
            service,
            listener,
            handle,
            account,
            decoder,
            arrived: now,
            carried: Bytes::new(),
            carried_bytes: 0,
            waiting: None,
            costly: None,
            replies: Replies::default(),
            reply_room,
            input_ended: false,
            closing: None,
            waker: None,
            deadlines: Deadlines::new(now),
            alarm: Alarm::new(now),
            looked: now,
            counted: Counted::default(),
        }
    }

    /// Does all that can be done now.
    fn advance(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), CloseReason> {
        self.obey(cx)?;
        self.replies.woken();
        for _ in 0..ROUNDS_MAX {
            self.answer(cx, now)?;
            let went_on = self.take_input(cx, now)?;
            self.settle();
            if !went_on {
                return self.check_deadlines(cx, now);
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Makes this task known to those who give orders, and follows theirs.
    fn obey(&mut self, cx: &Context<'_>) -> Result<(), CloseReason> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.handle.set_waker(cx.waker());
            self.waker = Some(cx.waker().clone());
        }
        match self.handle.ordered() {
            Order::None => {}
            Order::Evict if self.unfinished_bytes() > 0 => {
                self.close(CloseReason::Evicted);
                self.settle();
                self.account.evicted();
            }
            Order::Evict => {
                self.handle.pardon();
                self.account.evicted();
            }
            Order::Drain => {
                self.end_input();
                self.replies.hurry();
            }
            Order::Abort => return Err(CloseReason::Shutdown),
        }
        Ok(())
    }

    /// Writes every reply that is complete and in turn, and charges those that have to wait.
    fn answer(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), CloseReason> {
        let blocked = self.write_replies(cx, now)?;
        self.reply_room.settle(self.replies.output_bytes() as u64);
        let drained = self.input_ended && self.replies.is_empty() && self.waiting.is_none();
        match self.closing {
            _ if blocked => Ok(()),
            Some(reason) => Err(reason),
            None if drained => Err(CloseReason::Shutdown),
            None => Ok(()),
        }
    }

    /// Writes until there is nothing more to write, or the client takes no more: then true.
    fn write_replies(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, CloseReason> {
        loop {
            self.complete_replies(cx, now);
            if !self.replies.writable() {
                return Ok(false);
            }
            let spent: Spent<'_> = &|key, phase, time| self.service.spent(key, phase, time);
            let written = self.replies.flush(&self.socket, cx, spent);
            let written = written.map_err(|_| CloseReason::Disconnected)?;
            self.listener.metrics.sent_bytes.inc_by(written.bytes as u64);
            self.deadlines.on_written(now, written.bytes as u64, written.blocked);
            if written.blocked {
                return Ok(true);
            }
        }
    }

    fn complete_replies(&mut self, cx: &mut Context<'_>, now: Instant) {
        if self.closing.is_some() {
            return;
        }
        let bytes_max = self.output_bytes_max();
        let spent: Spent<'_> = &|key, phase, time| self.service.spent(key, phase, time);
        if let Front::Closing(reason) = self.replies.complete(cx, now, bytes_max, spent) {
            self.end_input();
            self.closing = Some(reason);
        }
    }

    /// Hands over requests, from what was carried over or from one read. Says whether anything
    /// changed, so that another round may find more to do.
    fn take_input(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, CloseReason> {
        if let Some((waiting, request)) = &mut self.waiting {
            let Poll::Ready(handled) = waiting.as_mut().poll(cx) else { return Ok(false) };
            let mut request = *request;
            self.waiting = None;
            if let Handled::Reply(Reply::Ready(_)) | Handled::NoReply = handled {
                let service = &self.service;
                request.timed.end(Phase::Wait, now, &|k, p, time| service.spent(k, p, time));
            }
            self.accept(handled, request);
            return Ok(true);
        }
        if let Some((frame, cost)) = self.costly.take() {
            self.handle_request(frame, cost);
            return Ok(self.costly.is_none());
        }
        if !self.may_handle() {
            return Ok(false);
        }
        if self.carried.is_empty() {
            return self.read(cx, now);
        }
        let carried = std::mem::take(&mut self.carried);
        let mut rest = carried.as_ref();
        self.handle_requests(&mut rest);
        if self.input_ended {
            rest = &[];
        }
        self.carried = carried.slice(carried.len() - rest.len()..);
        Ok(true)
    }

    fn may_handle(&self) -> bool {
        !self.input_ended
            && self.waiting.is_none()
            && self.costly.is_none()
            && self.replies.len() < self.limits().config.requests_in_flight_max as usize
            && self.replies.output_bytes() < self.output_bytes_max()
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, CloseReason> {
        // Whoever has sent nothing more waits for nobody's room, and may have to give way: a spent
        // bound is asked only for bytes that are there.
        match self.socket.poll_read_ready(cx) {
            Poll::Pending => {
                self.account.wait_no_more();
                return Ok(false);
            }
            Poll::Ready(ready) => ready.map_err(|_| CloseReason::Disconnected)?,
        }
        let Connection { socket, decoder, account, listener, .. } = self;
        let config = &listener.limits.config;
        let trickles = || decoder.held_bytes() > 0 && trickles(socket, decoder.wanted(), config);
        if !account.may_read(trickles) {
            // What was sent last never comes to its end, so room would be waited for in vain.
            let is_over = trickles() && has_left(socket);
            return if is_over { Err(CloseReason::Disconnected) } else { Ok(false) };
        }
        self.arrived = now;
        let direct = self.decoder.wanted() >= DIRECT_BYTES_MIN;
        let read = if direct { self.read_direct() } else { self.read_scratch() };
        let count = match read {
            Ok(0) => return Err(CloseReason::Disconnected),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(_) => return Err(CloseReason::Disconnected),
        };
        self.counted.received += count as u64;
        self.deadlines.on_received(now, count as u64);
        if self.unfinished_bytes() == 0 {
            self.handle.set_stalled_since(0);
        } else if self.deadlines.has_progressed() {
            self.handle.set_stalled_since(self.limits().clock(now));
        }
        Ok(true)
    }

    fn read_direct(&mut self) -> io::Result<usize> {
        let mut room = self.decoder.body_mut().expect("a request that misses bytes has begun");
        let asked = room.remaining_mut();
        let body = room.get_mut();
        let read = || Ok(rustix::io::read(&self.socket, spare_capacity(body))?);
        let count = try_read(&self.socket, asked, read)?;
        if let Some(frame) = self.decoder.take_frame() {
            let cost = self.service.cost(&frame);
            self.handle_request(frame, cost);
        }
        Ok(count)
    }

    fn read_scratch(&mut self) -> io::Result<usize> {
        SCRATCH.with_borrow_mut(|scratch| {
            let read = || Ok(rustix::io::read(&self.socket, scratch.as_mut_slice())?);
            let count = try_read(&self.socket, SCRATCH_BYTES, read)?;
            let mut rest = &scratch[..count];
            self.handle_requests(&mut rest);
            if !rest.is_empty() && !self.input_ended {
                self.carried = Bytes::copy_from_slice(rest);
                self.carried_bytes = rest.len() as u64;
            }
            Ok(count)
        })
    }

    /// Handles whole requests until a bound is reached or bytes are missing.
    fn handle_requests(&mut self, rest: &mut &[u8]) {
        while !rest.is_empty() && self.may_handle() {
            match self.decoder.decode(rest) {
                Ok(Some(frame)) => {
                    let cost = self.service.cost(&frame);
                    self.handle_request(frame, cost);
                }
                Ok(None) => assert!(rest.is_empty(), "a decoder that asks for more took all"),
                Err(error) => {
                    let log = &self.listener.refusal_log;
                    log.tell(self.info.peer, &error, Instant::now());
                    self.close(reason_of(error));
                }
            }
        }
    }

    fn handle_request(&mut self, frame: Bytes, cost: u64) {
        self.deadlines.on_request();
        if cost >= COSTLY_BYTES && !self.account.may_decode(cost) {
            self.costly = Some((frame, cost));
            return;
        }
        let bytes = frame.len() as u64 + cost;
        let api_key = api_key_of(&frame);
        self.counted.requests += 1;
        let spent: Spent<'_> = &|key, phase, time| self.service.spent(key, phase, time);
        let mut timed = Timed { api_key, since: self.arrived };
        let now = Instant::now();
        timed.end(Phase::Queue, now, spent);
        let handled = self.service.handle(&self.info, frame, now);
        timed.end(Phase::Handle, Instant::now(), spent);
        self.account.decoded();
        self.accept(handled, Taken { timed, bytes });
    }

    fn accept(&mut self, handled: Handled, request: Taken) {
        match handled {
            Handled::Reply(reply) => self.replies.push(reply, request),
            Handled::NoReply => {}
            Handled::Close(reason) => self.close(reason),
            Handled::Wait(waiting) => self.waiting = Some((waiting, request)),
        }
    }

    /// Ends the connection behind the replies to what was handled before.
    fn close(&mut self, reason: CloseReason) {
        self.end_input();
        self.replies.push_close(reason);
    }

    fn end_input(&mut self) {
        if !self.input_ended {
            self.input_ended = true;
            self.carried.clear();
            self.costly = None;
            let request_bytes_max = self.limits().config.request_bytes_max;
            self.decoder = FrameDecoder::new(request_bytes_max as usize);
            self.handle.set_stalled_since(0);
        }
    }

    /// Brings bounds and metrics up to date.
    fn settle(&mut self) {
        let unfinished = self.unfinished_bytes();
        let waiting = self.waiting.as_ref().map_or(0, |(_, request)| request.bytes);
        let carried = if self.carried.is_empty() { 0 } else { self.carried_bytes };
        let costly = self.costly.as_ref().map_or(0, |(frame, _)| frame.len() as u64);
        let finished = self.replies.request_bytes() + waiting + costly + carried;
        self.account.settle(finished + unfinished, unfinished);
        let metrics = &self.listener.metrics;
        if self.counted.received > 0 {
            metrics.received_bytes.inc_by(std::mem::take(&mut self.counted.received));
        }
        if self.counted.requests > 0 {
            metrics.requests.inc_by(std::mem::take(&mut self.counted.requests));
        }
        self.counted.in_flight(&self.listener, self.replies.len());
    }

    /// Memory of the request that has begun and is not whole.
    fn unfinished_bytes(&self) -> u64 {
        self.decoder.held_bytes() as u64
    }

    /// Closes a connection whose time is up; else makes sure to be woken when it may be.
    fn check_deadlines(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), CloseReason> {
        let look = self.look(now)?;
        let doing = Doing {
            is_quiet: self.replies.is_empty() && self.waiting.is_none() && self.costly.is_none(),
            half_sent: self.decoder.is_mid_frame().then(|| self.deadlines.request()),
            is_read: self.may_handle() && !self.account.waits(),
            replies_spent: self.limits().replies.is_spent(),
        };
        let closing = self.deadlines.check(doing, &self.listener.limits.timeouts, now)?;
        let next = [self.replies.deadline(now), self.account.retry(now), look, closing];
        self.alarm.arm(next.into_iter().flatten().min(), cx, now);
        Ok(())
    }

    /// Reading tells that a client has left. Where the replies leave no room to read, the socket is
    /// asked now and then, and so is, whenever the client takes nothing, whether it still may.
    fn look(&mut self, now: Instant) -> Result<Option<Instant>, CloseReason> {
        let is_deaf = !self.may_handle() && self.waiting.is_none() && self.costly.is_none();
        if !is_deaf && !self.deadlines.is_write_stalled() {
            self.looked = now;
            return Ok(None);
        }
        if now >= self.looked + LOOK_PAUSE {
            self.looked = now;
            if is_deaf && has_left(&self.socket) {
                return Err(CloseReason::Disconnected);
            }
        }
        Ok(Some(self.looked + LOOK_PAUSE))
    }

    fn limits(&self) -> &Limits {
        &self.listener.limits
    }

    fn output_bytes_max(&self) -> usize {
        self.limits().config.output_bytes_max as usize
    }
}

impl<S: Service> Future for Connection<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let connection = self.get_mut();
        match connection.advance(cx, Instant::now()) {
            Ok(()) => Poll::Pending,
            Err(reason) => {
                connection.closing = Some(reason);
                Poll::Ready(())
            }
        }
    }
}

impl<S: Service> Drop for Connection<S> {
    fn drop(&mut self) {
        // A task that is dropped before its end is dropped with its runtime.
        let reason = self.closing.unwrap_or(CloseReason::Shutdown);
        self.counted.in_flight(&self.listener, 0);
        self.account.release();
        self.service.closed(&self.info);
        self.listener.closed(self.info.peer, reason);
    }
}

impl Counted {
    fn in_flight(&mut self, listener: &ListenerState, in_flight: usize) {
        if in_flight != self.in_flight {
            listener.metrics.in_flight.add(in_flight as i64 - self.in_flight as i64);
            self.in_flight = in_flight;
        }
    }
}

/// The API that a request names, the first that stands in its frame.
fn api_key_of(frame: &Bytes) -> i16 {
    let key = frame.first_chunk().expect("a frame that was cut out holds a request's header");
    i16::from_be_bytes(*key)
}

/// Whether less has arrived of a half-sent request than an honest client would have sent.
fn trickles(socket: &TcpStream, wanted: usize, config: &NetConfig) -> bool {
    let arrived = rustix::io::ioctl_fionread(socket).unwrap_or(0);
    // More than the kernel takes nobody can send. Half of it is for the kernel's own account.
    let taken = u64::try_from(config.receive_buffer_bytes).map_or(u64::MAX, |bytes| bytes / 2);
    arrived < PROGRESS_BYTES.min(wanted as u64).min(taken)
}

/// Whether the client has closed its end, or reset the connection, behind what is not read yet.
fn has_left(socket: &TcpStream) -> bool {
    let mut asked = [PollFd::new(socket, PollFlags::RDHUP)];
    // A reset is told without being asked for.
    poll(&mut asked, Some(&Timespec::default())).is_ok() && !asked[0].revents().is_empty()
}

/// Reads once. A read that got less than it asked for has emptied the socket: saying so to the
/// runtime spares the call that would find nothing.
fn try_read(
    socket: &TcpStream,
    asked: usize,
    read: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut outcome = Err(io::ErrorKind::WouldBlock.into());
    let told = socket.try_io(Interest::READABLE, || {
        outcome = read();
        match outcome {
            Ok(count) if count == 0 || count == asked => Ok(()),
            Ok(_) => Err(io::ErrorKind::WouldBlock.into()),
            Err(ref error) => Err(error.kind().into()),
        }
    });
    match told {
        Ok(()) | Err(_) => outcome,
    }
}

fn reason_of(error: FrameError) -> CloseReason {
    match error {
        FrameError::TooSmall { .. } => CloseReason::Malformed,
        FrameError::TooLargeForApi { bytes_max: 0, .. } => CloseReason::Unsupported,
        FrameError::TooLarge { .. } | FrameError::TooLargeForApi { .. } => CloseReason::Oversized,
    }
}
