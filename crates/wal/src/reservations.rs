//! Bounds what waits in memory: bytes are reserved before they are appended, first come first
//! served.
//!
//! Two counters share one lock: bytes not yet written (the queue) and bytes not yet in segments
//! (the tail). A reservation is charged to both; the writer releases the first, the spill the
//! second. No task runtime in here: whoever waits leaves a waker.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use crate::error::StorageError;

/// Bytes that may be appended without waiting. What is not used is given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    /// Bytes left.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hands `bytes` over to the queue and the tail, which release them. An append that takes
    /// more than was reserved is charged all the same: the bytes are in memory.
    pub(crate) fn take(&mut self, bytes: u64) {
        let reserved = bytes.min(self.bytes);
        self.bytes -= reserved;
        if bytes > reserved {
            self.budget.charge(bytes - reserved);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.release(self.bytes, self.bytes);
        }
    }
}

/// One waiter's place in the line. Kept by the caller from poll to poll; dropping it leaves.
#[derive(Debug, Default)]
pub struct ReserveTicket {
    place: Option<(Arc<Budget>, u64)>,
}

impl Drop for ReserveTicket {
    fn drop(&mut self) {
        if let Some((budget, id)) = self.place.take() {
            budget.leave(id);
        }
    }
}

/// Who is short of what, for the spill to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Bytes charged to the tail.
    pub(crate) tail_bytes: u64,
    /// Whether somebody waits for the tail to shrink.
    pub(crate) waits_for_tail: bool,
}

/// The two bounds and those who wait for them.
#[derive(Debug)]
pub(crate) struct Budget {
    queue_bytes_max: u64,
    tail_bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue_bytes: u64,
    tail_bytes: u64,
    next_id: u64,
    line: VecDeque<Waiter>,
    refusal: Option<StorageError>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    bytes: u64,
    waker: Waker,
}

impl Budget {
    pub(crate) fn new(queue_bytes_max: u64, tail_bytes_max: u64) -> Arc<Budget> {
        Arc::new(Budget { queue_bytes_max, tail_bytes_max, state: Mutex::default() })
    }

    /// Takes `bytes` if nobody waits and both bounds allow it.
    pub(crate) fn try_reserve(
        self: &Arc<Self>,
        bytes: u64,
    ) -> Result<Option<Reservation>, StorageError> {
        let mut state = self.lock();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        if !state.line.is_empty() || !self.fits(&state, bytes) {
            return Ok(None);
        }
        Ok(Some(self.grant(&mut state, bytes)))
    }

    /// Takes `bytes`, or waits in line for them.
    pub(crate) fn poll_reserve(
        self: &Arc<Self>,
        ticket: &mut ReserveTicket,
        bytes: u64,
        waker: &Waker,
    ) -> Poll<Result<Reservation, StorageError>> {
        let mut state = self.lock();
        if let Some(refusal) = &state.refusal {
            return Poll::Ready(Err(refusal.clone()));
        }
        let id = match &ticket.place {
            Some((_, id)) => *id,
            None if state.line.is_empty() && self.fits(&state, bytes) => {
                return Poll::Ready(Ok(self.grant(&mut state, bytes)));
            }
            None => {
                let id = state.next_id;
                state.next_id += 1;
                state.line.push_back(Waiter { id, bytes, waker: waker.clone() });
                ticket.place = Some((Arc::clone(self), id));
                return Poll::Pending;
            }
        };
        let is_first = state.line.front().is_some_and(|first| first.id == id);
        if is_first && self.fits(&state, bytes) {
            state.line.pop_front();
            ticket.place = None;
            let reservation = self.grant(&mut state, bytes);
            let next = self.next_to_wake(&state);
            drop(state);
            wake(next);
            return Poll::Ready(Ok(reservation));
        }
        if let Some(waiter) = state.line.iter_mut().find(|waiter| waiter.id == id) {
            waiter.bytes = bytes;
            waiter.waker.clone_from(waker);
        }
        Poll::Pending
    }

    /// Gives back bytes of the queue and of the tail, and wakes the first in line if it fits.
    pub(crate) fn release(&self, queue_bytes: u64, tail_bytes: u64) {
        let mut state = self.lock();
        assert!(state.queue_bytes >= queue_bytes, "more was released than queued");
        assert!(state.tail_bytes >= tail_bytes, "more was released than in the tail");
        state.queue_bytes -= queue_bytes;
        state.tail_bytes -= tail_bytes;
        let next = self.next_to_wake(&state);
        drop(state);
        wake(next);
    }

    /// Charges bytes that are in memory whether the bounds allow them or not.
    pub(crate) fn charge(&self, bytes: u64) {
        let mut state = self.lock();
        state.queue_bytes += bytes;
        state.tail_bytes += bytes;
    }

    /// Charges recovered bytes, which are in the WAL but not in segments.
    pub(crate) fn charge_tail(&self, bytes: u64) {
        self.lock().tail_bytes += bytes;
    }

    /// From now on everybody gets this error, those in line first; `None` ends it.
    pub(crate) fn refuse(&self, refusal: Option<StorageError>) {
        let mut state = self.lock();
        state.refusal = refusal;
        let wakers: Vec<Waker> = state.line.iter().map(|waiter| waiter.waker.clone()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// What the spill must know to decide whether to run.
    pub(crate) fn pressure(&self) -> Pressure {
        let state = self.lock();
        let waits_for_tail = state
            .line
            .front()
            .is_some_and(|first| !fits(state.tail_bytes, first.bytes, self.tail_bytes_max));
        Pressure { tail_bytes: state.tail_bytes, waits_for_tail }
    }

    /// Bytes not yet written, and bytes not yet in segments.
    pub(crate) fn used(&self) -> (u64, u64) {
        let state = self.lock();
        (state.queue_bytes, state.tail_bytes)
    }

    fn leave(&self, id: u64) {
        let mut state = self.lock();
        state.line.retain(|waiter| waiter.id != id);
        let next = self.next_to_wake(&state);
        drop(state);
        wake(next);
    }

    fn grant(self: &Arc<Self>, state: &mut State, bytes: u64) -> Reservation {
        assert!(self.fits(state, bytes), "a reservation is granted when there is room");
        state.queue_bytes += bytes;
        state.tail_bytes += bytes;
        Reservation { budget: Arc::clone(self), bytes }
    }

    fn fits(&self, state: &State, bytes: u64) -> bool {
        fits(state.queue_bytes, bytes, self.queue_bytes_max)
            && fits(state.tail_bytes, bytes, self.tail_bytes_max)
    }

    fn next_to_wake(&self, state: &State) -> Option<Waker> {
        let first = state.line.front()?;
        self.fits(state, first.bytes).then(|| first.waker.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is impossible short of an assertion, which ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `bytes` more are allowed; more than the whole bound takes it alone.
fn fits(used: u64, bytes: u64, bound: u64) -> bool {
    used == 0 || used + bytes <= bound
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What a full disk answers.
pub(crate) fn disk_full(free: u64, path: PathBuf) -> StorageError {
    StorageError::DiskFull { free, path }
}
