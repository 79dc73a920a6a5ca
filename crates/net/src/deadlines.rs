//! When a connection is closed for what its client does not do: send, finish or take something.
//!
//! Trickling counts as doing nothing: a request and a reply have to move by so many bytes.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep_until};

use crate::{config::NetConfig, config::milliseconds, service::CloseReason};

/// What a client has to send or to take, in bytes, for it to count as progress.
pub(crate) const PROGRESS_BYTES: u64 = 16 * 1024;
/// Bytes of a request for which it gets a second more to arrive.
const REQUEST_BYTES_PER_SECOND: u64 = 64 * 1024;

/// Deadlines of all connections, `None` where there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    idle: Option<Duration>,
    first_request: Option<Duration>,
    request: Option<Duration>,
    write_stall: Option<Duration>,
    /// Instead of that, once replies have to wait for room.
    write_stall_spent: Duration,
}

impl Timeouts {
    pub fn new(config: &NetConfig) -> Timeouts {
        let write_stall = milliseconds(config.write_stall_ms);
        Timeouts {
            idle: milliseconds(config.idle_ms),
            first_request: milliseconds(config.first_request_ms),
            request: milliseconds(config.request_ms),
            write_stall,
            write_stall_spent: Duration::from_millis(u64::from(config.request_stall_ms))
                .min(write_stall.unwrap_or(Duration::MAX)),
        }
    }
}

/// What a connection is doing, as far as its deadlines depend on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doing {
    /// Nothing of it is being handled or answered.
    pub is_quiet: bool,
    /// The request that is half-sent, by number; `None` between requests.
    pub half_sent: Option<u64>,
    /// What the client sends is read: it need not wait for us.
    pub is_read: bool,
    /// Replies of other connections wait for room.
    pub replies_spent: bool,
}

/// What decides when one connection is closed.
#[derive(Debug)]
pub(crate) struct Deadlines {
    opened: Instant,
    /// When bytes last went either way.
    active: Instant,
    /// Bytes received, and requests that were whole.
    received: u64,
    requests: u64,
    half_sent: Option<HalfSent>,
    /// The client does not take what waits for it.
    write_stalled: Option<Stall>,
    /// What had come when the half-sent request last made progress: its number, and bytes.
    progressed: (u64, u64),
}

/// A request of which bytes are missing.
#[derive(Debug)]
struct HalfSent {
    request: u64,
    /// When it began, or was read again after we had not read.
    since: Instant,
    received_before: u64,
    is_read: bool,
}

/// Since when a client takes too little, and how little.
#[derive(Debug)]
struct Stall {
    since: Instant,
    taken: u64,
}

impl Deadlines {
    pub fn new(now: Instant) -> Deadlines {
        Deadlines {
            opened: now,
            active: now,
            received: 0,
            requests: 0,
            half_sent: None,
            write_stalled: None,
            progressed: (u64::MAX, 0),
        }
    }

    /// The number of the request that comes next, or is half-sent.
    pub fn request(&self) -> u64 {
        self.requests
    }

    /// A request was whole.
    pub fn on_request(&mut self) {
        self.requests += 1;
    }

    /// Bytes were read.
    pub fn on_received(&mut self, now: Instant, bytes: u64) {
        self.active = now;
        self.received += bytes;
    }

    /// Whether the half-sent request has grown by enough to count since this last was true.
    pub fn has_progressed(&mut self) -> bool {
        let (request, received) = self.progressed;
        let progressed = request != self.requests || self.received - received >= PROGRESS_BYTES;
        if progressed {
            self.progressed = (self.requests, self.received);
        }
        progressed
    }

    /// Bytes were written; `blocked` where the client takes no more now.
    pub fn on_written(&mut self, now: Instant, bytes: u64, blocked: bool) {
        if bytes > 0 {
            self.active = now;
        }
        let Some(stall) = self.write_stalled.as_mut().filter(|_| blocked) else {
            self.write_stalled = blocked.then_some(Stall { since: now, taken: 0 });
            return;
        };
        stall.taken += bytes;
        if stall.taken >= PROGRESS_BYTES {
            *stall = Stall { since: now, taken: 0 };
        }
    }

    pub fn is_write_stalled(&self) -> bool {
        self.write_stalled.is_some()
    }

    /// When to look again, or why to close the connection now.
    pub fn check(
        &mut self,
        doing: Doing,
        timeouts: &Timeouts,
        now: Instant,
    ) -> Result<Option<Instant>, CloseReason> {
        self.watch_half_sent(doing, now);
        let after = |since: Instant, timeout: Option<_>| timeout.and_then(|t| since.checked_add(t));
        let write_stall = match doing.replies_spent {
            true => Some(timeouts.write_stall_spent),
            false => timeouts.write_stall,
        };
        let first_request = timeouts.first_request.filter(|_| self.requests == 0);
        let idle = timeouts.idle.filter(|_| doing.is_quiet);
        let stalled = self.write_stalled.as_ref();
        let closing = [
            (after(self.opened, first_request), CloseReason::NoRequest),
            (stalled.and_then(|stall| after(stall.since, write_stall)), CloseReason::SlowReader),
            (self.request_due(timeouts.request), CloseReason::SlowSender),
            (after(self.active, idle), CloseReason::Idle),
        ];
        let due = closing.into_iter().filter_map(|(due, reason)| Some((due?, reason)));
        let mut next: Option<Instant> = None;
        for (due, reason) in due {
            if due <= now {
                return Err(reason);
            }
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        Ok(next)
    }

    /// The time in which we do not read is not the client's.
    fn watch_half_sent(&mut self, doing: Doing, now: Instant) {
        let known = self.half_sent.take();
        self.half_sent = doing.half_sent.map(|request| match known {
            Some(known) if known.request == request && known.is_read && doing.is_read => known,
            _ => HalfSent {
                request,
                since: now,
                received_before: self.received,
                is_read: doing.is_read,
            },
        });
    }

    fn request_due(&self, timeout: Option<Duration>) -> Option<Instant> {
        let half_sent = self.half_sent.as_ref().filter(|half_sent| half_sent.is_read)?;
        let received = self.received - half_sent.received_before;
        let more = Duration::from_secs(received / REQUEST_BYTES_PER_SECOND);
        half_sent.since.checked_add(timeout?)?.checked_add(more)
    }
}

/// A connection's only timer.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: Pin<Box<Sleep>>,
    /// The timer wakes the task then. It may be earlier than need be, never later.
    armed: Option<Instant>,
}

impl Alarm {
    pub fn new(now: Instant) -> Alarm {
        Alarm { timer: Box::pin(sleep_until(now.into())), armed: None }
    }

    /// The timer is only ever moved forward in time, or set anew once it has fired: a busy
    /// connection touches it a few times a minute.
    pub fn arm(&mut self, next: Option<Instant>, cx: &mut Context<'_>, now: Instant) {
        self.armed = self.armed.filter(|armed| *armed > now);
        let Some(next) = next else { return };
        if self.armed.is_some_and(|armed| armed <= next) {
            return;
        }
        self.timer.as_mut().reset(next.into());
        match self.timer.as_mut().poll(cx) {
            Poll::Pending => self.armed = Some(next),
            Poll::Ready(()) => cx.waker().wake_by_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: Doing =
        Doing { is_quiet: true, half_sent: None, is_read: true, replies_spent: false };
    const HALF_SENT: Doing = Doing { half_sent: Some(0), ..READING };

    struct DeadlinesTest {
        start: Instant,
        timeouts: Timeouts,
        deadlines: Deadlines,
    }

    impl DeadlinesTest {
        fn new(config: NetConfig) -> DeadlinesTest {
            let never = NetConfig { idle_ms: -1, first_request_ms: -1, ..config };
            let start = Instant::now();
            let (timeouts, deadlines) = (Timeouts::new(&never), Deadlines::new(start));
            DeadlinesTest { start, timeouts, deadlines }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// The second at which to look again.
        fn check(&mut self, seconds: u64, doing: Doing) -> Result<Option<u64>, CloseReason> {
            let next = self.deadlines.check(doing, &self.timeouts, self.at(seconds))?;
            Ok(next.map(|next| next.duration_since(self.start).as_secs()))
        }
    }

    #[test]
    fn a_request_that_trickles_is_due_whatever_trickles() {
        let mut test = DeadlinesTest::new(NetConfig { request_ms: 30_000, ..NetConfig::default() });
        for second in 0..30 {
            test.deadlines.on_received(test.at(second), 1);
            assert_eq!(test.check(second, HALF_SENT), Ok(Some(30)));
        }
        assert_eq!(test.check(30, HALF_SENT), Err(CloseReason::SlowSender));
    }

    #[test]
    fn a_large_request_gets_a_second_more_for_each_64_kib() {
        let mut test = DeadlinesTest::new(NetConfig { request_ms: 30_000, ..NetConfig::default() });
        assert_eq!(test.check(0, HALF_SENT), Ok(Some(30)));
        test.deadlines.on_received(test.at(29), 10 << 20);
        assert_eq!(test.check(30, HALF_SENT), Ok(Some(190)));
        test.deadlines.on_request();
        assert_eq!(test.check(190, READING), Ok(None));
        let next = Doing { half_sent: Some(1), ..READING };
        assert_eq!(test.check(191, next), Ok(Some(221)));
    }

    #[test]
    fn the_time_in_which_we_do_not_read_is_not_the_clients() {
        let mut test = DeadlinesTest::new(NetConfig { request_ms: 30_000, ..NetConfig::default() });
        assert_eq!(test.check(0, HALF_SENT), Ok(Some(30)));
        let paused = Doing { is_read: false, ..HALF_SENT };
        assert_eq!(test.check(20, paused), Ok(None));
        assert_eq!(test.check(500, HALF_SENT), Ok(Some(530)));
        assert_eq!(test.check(530, HALF_SENT), Err(CloseReason::SlowSender));
    }

    #[test]
    fn a_reply_that_is_taken_byte_by_byte_is_not_taken() {
        let config = NetConfig { write_stall_ms: 30_000, ..NetConfig::default() };
        let mut test = DeadlinesTest::new(config);
        test.deadlines.on_written(test.start, 1 << 20, true);
        for second in 1..30 {
            test.deadlines.on_written(test.at(second), 1, true);
            assert_eq!(test.check(second, READING), Ok(Some(30)));
        }
        test.deadlines.on_written(test.at(29), PROGRESS_BYTES, true);
        assert_eq!(test.check(30, READING), Ok(Some(59)));
        assert_eq!(test.check(59, READING), Err(CloseReason::SlowReader));
        test.deadlines.on_written(test.at(59), 0, false);
        assert_eq!(test.check(60, READING), Ok(None));
    }

    #[test]
    fn who_takes_nothing_has_less_time_once_others_need_the_room() {
        let config =
            NetConfig { write_stall_ms: 30_000, request_stall_ms: 2000, ..NetConfig::default() };
        let mut test = DeadlinesTest::new(config);
        test.deadlines.on_written(test.start, 1, true);
        let spent = Doing { replies_spent: true, ..READING };
        assert_eq!(test.check(1, spent), Ok(Some(2)));
        assert_eq!(test.check(2, READING), Ok(Some(30)));
        assert_eq!(test.check(2, spent), Err(CloseReason::SlowReader));
    }

    #[test]
    fn progress_is_a_request_that_begins_or_grows_by_16_kib() {
        let mut deadlines = Deadlines::new(Instant::now());
        let mut receive = |bytes| {
            deadlines.on_received(Instant::now(), bytes);
            deadlines.has_progressed()
        };
        let progressed = [10, 1, PROGRESS_BYTES - 2, 1, 1].map(&mut receive);
        assert_eq!(progressed, [true, false, false, true, false]);
        deadlines.on_request();
        assert!(deadlines.has_progressed());
    }
}
