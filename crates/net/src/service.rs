//! What a connection asks of whoever answers requests.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidelog_protocol::outgoing::Outgoing;

use crate::reply_budget::ReplyBudget;

/// Answers the requests of all connections of a listener.
pub trait Service: Send + Sync + 'static {
    /// Takes one request, header included, length prefix not. Called in the order of arrival, on
    /// the connection's own task: it must not block and should not compute for long.
    ///
    /// `frame` owns exactly its bytes, so that keeping a slice of it keeps nothing else. `now` is
    /// when it was taken.
    fn handle(&self, connection: &ConnectionInfo, frame: Bytes, now: Instant) -> Handled;

    /// Bytes that handling this request will allocate and its reply may keep, the frame not
    /// counted. What costs much is handled only once there is room for it.
    fn cost(&self, frame: &Bytes) -> u64 {
        let _ = frame;
        0
    }

    /// Called when a request ends a phase that took so long. `api_key` is as its frame says.
    fn spent(&self, api_key: i16, phase: Phase, time: Duration) {
        let _ = (api_key, phase, time);
    }

    /// Called once when a connection has ended, whatever the reason.
    fn closed(&self, connection: &ConnectionInfo) {
        let _ = connection;
    }
}

/// What a request that has arrived spends its time on, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Those before it are handled, or it waits for room.
    Queue,
    /// It is handled.
    Handle,
    /// What its answer needs is waited for. A request that waits for nothing has no such phase.
    Wait,
    /// Its answer is known and not all of it written: answers before it, or a slow client.
    Write,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Phase; 4] = [Phase::Queue, Phase::Handle, Phase::Wait, Phase::Write];

    /// The phase as metrics name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Queue => "queue",
            Phase::Handle => "handle",
            Phase::Wait => "wait",
            Phase::Write => "write",
        }
    }
}

/// One connection, as a service sees it.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Unique in this process, never used again.
    pub id: u64,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The client's address.
    pub peer: SocketAddr,
    /// Our address, as the client reached it.
    pub local: SocketAddr,
    /// Where a reply that needs much memory finds room before it takes any.
    pub replies: Arc<ReplyBudget>,
}

/// What became of one request.
pub enum Handled {
    /// It is answered, now or later, after the replies to the requests before it.
    Reply(Reply),
    /// It gets no answer at all (a produce request with `acks=0`).
    NoReply,
    /// The connection ends after the replies to the requests before it.
    Close(CloseReason),
    /// The connection handles and reads nothing more until this resolves. Replies to requests
    /// before it still go out.
    Wait(Pin<Box<dyn Future<Output = Handled> + Send>>),
}

/// An answer.
pub enum Reply {
    /// Complete.
    Ready(Outgoing),
    /// Not known yet. Polled only when it is the connection's next reply.
    Pending(Box<dyn PendingReply>),
}

/// An answer that waits for something: an offset, a deadline, another broker.
///
/// Dropped without a further call when its connection ends first.
pub trait PendingReply: Send {
    /// The answer, once it is known. Register the waker before looking, so that no event between
    /// the two is missed. Called only for the connection's next reply.
    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outgoing, CloseReason>>;

    /// When the wait ends by itself. May change between polls; `None` is never.
    fn deadline(&self) -> Option<Instant>;

    /// Called instead of [`PendingReply::poll_reply`] once the deadline has passed and polling
    /// gave nothing. `Pending` keeps waiting for the waker registered by the last poll.
    fn expire(&mut self) -> Poll<Result<Outgoing, CloseReason>>;

    /// The process stops. A reply that waits for nothing but what may never come brings its
    /// deadline forward. May be called again.
    fn hurry(&mut self) {}
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseReason {
    /// The client closed it, or the network did.
    Disconnected,
    /// Bytes that are no request: bad length, undecodable header or body.
    Malformed,
    /// A request longer than `socket.request.max.bytes`.
    Oversized,
    /// An API key or version that is not served.
    Unsupported,
    /// A produce request with `acks=0` failed: there is no other way to tell.
    ProduceFailed,
    /// The client may not do this, or did not say who it is.
    Unauthorized,
    /// Answering failed for a reason of our own, which was logged.
    Internal,
    /// No traffic within `connections.max.idle.ms`.
    Idle,
    /// No whole request within `connection.first.request.timeout.ms`.
    NoRequest,
    /// The client took too little of its replies within `connection.write.stall.timeout.ms`.
    SlowReader,
    /// A request took longer to arrive than `connection.request.timeout.ms` allows.
    SlowSender,
    /// `queued.max.request.bytes` was spent and this was the request longest without progress.
    Evicted,
    /// The process stops.
    Shutdown,
}

impl CloseReason {
    /// Every reason, in order of declaration.
    pub const ALL: [CloseReason; 13] = [
        CloseReason::Disconnected,
        CloseReason::Malformed,
        CloseReason::Oversized,
        CloseReason::Unsupported,
        CloseReason::ProduceFailed,
        CloseReason::Unauthorized,
        CloseReason::Internal,
        CloseReason::Idle,
        CloseReason::NoRequest,
        CloseReason::SlowReader,
        CloseReason::SlowSender,
        CloseReason::Evicted,
        CloseReason::Shutdown,
    ];

    /// The reason as metrics and logs name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Disconnected => "disconnected",
            CloseReason::Malformed => "malformed",
            CloseReason::Oversized => "oversized",
            CloseReason::Unsupported => "unsupported",
            CloseReason::ProduceFailed => "produce_failed",
            CloseReason::Unauthorized => "unauthorized",
            CloseReason::Internal => "internal",
            CloseReason::Idle => "idle",
            CloseReason::NoRequest => "no_request",
            CloseReason::SlowReader => "slow_reader",
            CloseReason::SlowSender => "slow_sender",
            CloseReason::Evicted => "evicted",
            CloseReason::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
