//! One connection's replies: in the order of their requests, written many at a time.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tidelog_protocol::outgoing::Outgoing;
use tokio::net::TcpStream;

use crate::service::{CloseReason, PendingReply, Phase, Reply};

/// Slices handed to one write.
const SLICES_MAX: usize = 128;
/// Slots kept by a connection that has nothing to answer.
const IDLE_SLOTS: usize = 16;

/// What waits to be written, oldest first.
#[derive(Default)]
pub(crate) struct Replies {
    slots: VecDeque<Slot>,
    /// Slots at the front that are complete, and their bytes.
    front: usize,
    front_bytes: usize,
    /// Bytes of all complete replies, those behind a pending one included.
    output_bytes: usize,
    /// Request bytes that pending replies stand for.
    request_bytes: u64,
    /// The first pending reply has our waker and nothing has happened since.
    registered: bool,
}

enum Slot {
    Ready(Outgoing, Timed),
    Pending { reply: Box<dyn PendingReply>, request: Taken },
    Close(CloseReason),
}

/// A request that was handled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub timed: Timed,
    /// The frame, and what handling it cost.
    pub bytes: u64,
}

/// A request in one of its phases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timed {
    pub api_key: i16,
    /// When the phase began.
    pub since: Instant,
}

/// Told of each phase that ends, with the request's API key.
pub(crate) type Spent<'a> = &'a dyn Fn(i16, Phase, Duration);

impl Timed {
    /// Ends a phase; the next one begins.
    pub fn end(&mut self, phase: Phase, now: Instant, spent: Spent<'_>) {
        spent(self.api_key, phase, now.saturating_duration_since(self.since));
        self.since = now;
    }
}

/// How far the front of the queue has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// All that is complete was moved to the front, or as much as may wait for the client.
    Writable,
    /// Behind what is complete the connection ends.
    Closing(CloseReason),
}

/// What a write achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub bytes: usize,
    /// The client takes no more now; the task is woken when it does.
    pub blocked: bool,
}

impl Replies {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    pub fn request_bytes(&self) -> u64 {
        self.request_bytes
    }

    /// Whether something is complete and not yet written.
    pub fn writable(&self) -> bool {
        self.front > 0
    }

    /// Appends the answer to a request.
    pub fn push(&mut self, reply: Reply, request: Taken) {
        let slot = match reply {
            Reply::Ready(outgoing) => {
                self.output_bytes += outgoing.remaining();
                Slot::Ready(outgoing, request.timed)
            }
            Reply::Pending(reply) => {
                self.request_bytes += request.bytes;
                Slot::Pending { reply, request }
            }
        };
        self.slots.push_back(slot);
    }

    /// Ends the connection behind everything that was pushed before.
    pub fn push_close(&mut self, reason: CloseReason) {
        self.slots.push_back(Slot::Close(reason));
    }

    /// A wake-up may have been for the first pending reply: look at it again.
    pub fn woken(&mut self) {
        self.registered = false;
    }

    /// Tells all pending replies that the process stops.
    pub fn hurry(&mut self) {
        for slot in &mut self.slots {
            if let Slot::Pending { reply, .. } = slot {
                reply.hurry();
            }
        }
    }

    /// Moves what is complete to the front until `bytes_max` wait there.
    pub fn complete(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        bytes_max: usize,
        spent: Spent<'_>,
    ) -> Front {
        while self.front_bytes < bytes_max {
            let Some(slot) = self.slots.get_mut(self.front) else { break };
            let bytes = match slot {
                Slot::Ready(outgoing, _) => outgoing.remaining(),
                Slot::Close(reason) => return Front::Closing(*reason),
                Slot::Pending { .. } if self.registered => break,
                Slot::Pending { reply, request } => {
                    let Poll::Ready(answer) = poll_pending(reply.as_mut(), cx, now) else {
                        self.registered = true;
                        break;
                    };
                    self.request_bytes -= request.bytes;
                    match answer {
                        Ok(outgoing) => {
                            let bytes = outgoing.remaining();
                            self.output_bytes += bytes;
                            request.timed.end(Phase::Wait, now, spent);
                            *slot = Slot::Ready(outgoing, request.timed);
                            bytes
                        }
                        Err(reason) => {
                            *slot = Slot::Close(reason);
                            return Front::Closing(reason);
                        }
                    }
                }
            };
            self.front += 1;
            self.front_bytes += bytes;
        }
        Front::Writable
    }

    /// When the first pending reply gives up waiting. A reply that was already told so and still
    /// waits has no deadline any more.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.slots.get(self.front) {
            Some(Slot::Pending { reply, .. }) => reply.deadline().filter(|due| *due > now),
            _ => None,
        }
    }

    /// Writes the front of the queue, many replies in one call, until it is empty or the client
    /// takes no more.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub fn flush(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
        spent: Spent<'_>,
    ) -> io::Result<Written> {
        let mut written = Written { bytes: 0, blocked: false };
        while self.front > 0 && !written.blocked {
            match self.write(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.advance(count, Instant::now(), spent);
                    written.bytes += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match socket.poll_write_ready(cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => written.blocked = true,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.slots.is_empty() && self.slots.capacity() > 4 * IDLE_SLOTS {
            self.slots.shrink_to(IDLE_SLOTS);
        }
        Ok(written)
    }

    fn write(&self, socket: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut filled = 0;
        for slot in self.slots.iter().take(self.front) {
            let Slot::Ready(outgoing, _) = slot else { unreachable!("the front is complete") };
            filled += outgoing.fill_io_slices(&mut slices[filled..]);
            if filled == SLICES_MAX {
                break;
            }
        }
        socket.try_write_vectored(&slices[..filled])
    }

    /// Drops `count` written bytes and the replies that they end.
    fn advance(&mut self, count: usize, now: Instant, spent: Spent<'_>) {
        assert!(count <= self.front_bytes, "more was written than there was to write");
        self.front_bytes -= count;
        self.output_bytes -= count;
        let mut left = count;
        while self.front > 0 {
            let Some(Slot::Ready(outgoing, timed)) = self.slots.front_mut() else {
                unreachable!("the front is complete")
            };
            let step = left.min(outgoing.remaining());
            outgoing.advance(step);
            left -= step;
            if !outgoing.is_done() {
                break;
            }
            timed.end(Phase::Write, now, spent);
            self.slots.pop_front();
            self.front -= 1;
        }
        assert!(left == 0, "written bytes belong to replies");
    }
}

fn poll_pending(
    reply: &mut dyn PendingReply,
    cx: &mut Context<'_>,
    now: Instant,
) -> Poll<Result<Outgoing, CloseReason>> {
    let polled = reply.poll_reply(cx);
    let due = polled.is_pending() && reply.deadline().is_some_and(|deadline| deadline <= now);
    if due { reply.expire() } else { polled }
}
