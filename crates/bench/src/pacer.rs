//! Sends on schedule: tells each connection when its next request is due.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::{
    fd::OwnedFd,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use tokio::io::unix::AsyncFd;

/// When one connection's requests are due.
#[derive(Debug, Default)]
pub(crate) struct Due {
    times: RefCell<VecDeque<Instant>>,
    waker: RefCell<Option<Waker>>,
}

impl Due {
    /// The intended time of the next request that is due.
    pub fn next(&self) -> Option<Instant> {
        self.times.borrow_mut().pop_front()
    }

    /// Requests that are due and not sent.
    pub fn waiting(&self) -> usize {
        self.times.borrow().len()
    }

    pub fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// Deals out `rate` requests a second to connections in turn, from `start` to `end`.
///
/// The runtime's own timer is a millisecond coarse; the kernel's is not.
pub(crate) async fn run_pacer(
    due: Vec<Rc<Due>>,
    rate: f64,
    start: Instant,
    end: Instant,
) -> Result<()> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    #[expect(deprecated, reason = "what it could be misused for, an owned descriptor rules out")]
    let timer = AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
    let mut sent: u64 = 0;
    loop {
        let now = Instant::now();
        let mut intended = start + Duration::from_secs_f64(sent as f64 / rate);
        while intended <= now && intended < end {
            let connection = &due[sent as usize % due.len()];
            connection.times.borrow_mut().push_back(intended);
            connection.wake();
            sent += 1;
            intended = start + Duration::from_secs_f64(sent as f64 / rate);
        }
        wait(&timer, intended.min(end).saturating_duration_since(now)).await?;
        if Instant::now() >= end {
            due.iter().for_each(|connection| connection.wake());
            return Ok(());
        }
    }
}

async fn wait(timer: &AsyncFd<OwnedFd>, pause: Duration) -> Result<()> {
    let it_value = Timespec {
        tv_sec: i64::try_from(pause.as_secs())?,
        tv_nsec: i64::from(pause.subsec_nanos()).max(1), // zero would disarm it
    };
    let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
    let expiry = Itimerspec { it_interval, it_value };
    timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &expiry)?;
    let mut ready = timer.readable().await?;
    let mut expirations = [0; 8];
    match rustix::io::read(timer.get_ref(), &mut expirations) {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
        Err(error) => return Err(error.into()),
    }
    ready.clear_ready();
    Ok(())
}
