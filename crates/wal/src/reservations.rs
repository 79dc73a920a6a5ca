//! Bounds what waits in memory: bytes are reserved before they are appended, first come first
//! served. Whoever comes later is let past only where there is room for all in line as well, so
//! that a connection whose turn has come appends all it has, not one request a turn.
//!
//! Two counters share one lock: bytes not yet written (the queue) and bytes not yet in segments
//! (the tail). A reservation is charged to both; the writer releases the first, the spill the
//! second. No task runtime in here: whoever waits leaves a waker.

use std::{
    collections::VecDeque,
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
    /// Oldest first, so that ids ascend.
    line: VecDeque<Waiter>,
    /// What all in line ask for.
    line_bytes: u64,
    refusal: Option<StorageError>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    bytes: u64,
    waker: Waker,
    /// Woken because there is room, and not back yet.
    is_called: bool,
}

impl Budget {
    pub(crate) fn new(queue_bytes_max: u64, tail_bytes_max: u64) -> Arc<Budget> {
        Arc::new(Budget { queue_bytes_max, tail_bytes_max, state: Mutex::default() })
    }

    /// Takes `bytes` if both bounds allow it, those in line served first.
    pub(crate) fn try_reserve(
        self: &Arc<Self>,
        bytes: u64,
    ) -> Result<Option<Reservation>, StorageError> {
        let mut state = self.lock();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        let ahead = state.line_bytes;
        Ok(self.fits(&state, ahead, bytes).then(|| self.grant(&mut state, ahead, bytes)))
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
        let place = ticket.place.as_ref().and_then(|(_, id)| state.place_of(*id));
        let ahead = place.map_or(state.line_bytes, |place| state.bytes_ahead(place));
        if self.fits(&state, ahead, bytes) {
            if let Some(place) = place {
                state.remove(place);
                ticket.place = None;
            }
            return Poll::Ready(Ok(self.grant(&mut state, ahead, bytes)));
        }
        match place {
            Some(place) => state.wait_on(place, bytes, waker),
            None => ticket.place = Some((Arc::clone(self), state.join(bytes, waker))),
        }
        Poll::Pending
    }

    /// Gives back bytes of the queue and of the tail, and wakes those in line who fit.
    pub(crate) fn release(&self, queue_bytes: u64, tail_bytes: u64) {
        let mut state = self.lock();
        assert!(state.queue_bytes >= queue_bytes, "more was released than queued");
        assert!(state.tail_bytes >= tail_bytes, "more was released than in the tail");
        state.queue_bytes -= queue_bytes;
        state.tail_bytes -= tail_bytes;
        let called = self.call(&mut state);
        drop(state);
        called.into_iter().for_each(Waker::wake);
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

    /// Why nobody may reserve now.
    pub(crate) fn refusal(&self) -> Option<StorageError> {
        self.lock().refusal.clone()
    }

    /// What the spill must know to decide whether to run.
    pub(crate) fn pressure(&self) -> Pressure {
        let state = self.lock();
        let waits_for_tail = state
            .line
            .front()
            .is_some_and(|first| !fits(state.tail_bytes, 0, first.bytes, self.tail_bytes_max));
        Pressure { tail_bytes: state.tail_bytes, waits_for_tail }
    }

    /// Bytes not yet written, and bytes not yet in segments.
    pub(crate) fn used(&self) -> (u64, u64) {
        let state = self.lock();
        (state.queue_bytes, state.tail_bytes)
    }

    fn leave(&self, id: u64) {
        let mut state = self.lock();
        let Some(place) = state.place_of(id) else { return };
        state.remove(place);
        let called = self.call(&mut state);
        drop(state);
        called.into_iter().for_each(Waker::wake);
    }

    fn grant(self: &Arc<Self>, state: &mut State, ahead: u64, bytes: u64) -> Reservation {
        assert!(self.fits(state, ahead, bytes), "a reservation is granted when there is room");
        state.queue_bytes += bytes;
        state.tail_bytes += bytes;
        Reservation { budget: Arc::clone(self), bytes }
    }

    /// Those in line for whom there is room now, and who do not know it yet.
    fn call(&self, state: &mut State) -> Vec<Waker> {
        let (mut called, mut ahead) = (Vec::new(), 0);
        for place in 0..state.line.len() {
            let bytes = state.line[place].bytes;
            if !self.fits(state, ahead, bytes) {
                break;
            }
            ahead += bytes;
            let waiter = &mut state.line[place];
            if !std::mem::replace(&mut waiter.is_called, true) {
                called.push(waiter.waker.clone());
            }
        }
        called
    }

    fn fits(&self, state: &State, ahead: u64, bytes: u64) -> bool {
        fits(state.queue_bytes, ahead, bytes, self.queue_bytes_max)
            && fits(state.tail_bytes, ahead, bytes, self.tail_bytes_max)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is impossible short of an assertion, which ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn place_of(&self, id: u64) -> Option<usize> {
        self.line.binary_search_by_key(&id, |waiter| waiter.id).ok()
    }

    fn bytes_ahead(&self, place: usize) -> u64 {
        self.line.iter().take(place).map(|waiter| waiter.bytes).sum()
    }

    fn join(&mut self, bytes: u64, waker: &Waker) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.line.push_back(Waiter { id, bytes, waker: waker.clone(), is_called: false });
        self.line_bytes += bytes;
        id
    }

    fn wait_on(&mut self, place: usize, bytes: u64, waker: &Waker) {
        let waiter = &mut self.line[place];
        self.line_bytes = self.line_bytes - waiter.bytes + bytes;
        waiter.bytes = bytes;
        waiter.waker.clone_from(waker);
        waiter.is_called = false;
    }

    fn remove(&mut self, place: usize) {
        let waiter = self.line.remove(place).expect("a place is within the line");
        self.line_bytes -= waiter.bytes;
    }
}

/// Whether `bytes` more are allowed, behind those in line; more than the whole bound takes it
/// alone.
fn fits(used: u64, ahead: u64, bytes: u64, bound: u64) -> bool {
    let taken = used + ahead;
    taken == 0 || taken + bytes <= bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct BudgetTest {
        budget: Arc<Budget>,
        calls: Arc<Calls>,
    }

    impl BudgetTest {
        fn new(bytes_max: u64) -> BudgetTest {
            BudgetTest { budget: Budget::new(bytes_max, bytes_max), calls: Arc::default() }
        }

        fn poll(&self, ticket: &mut ReserveTicket, bytes: u64) -> Option<Reservation> {
            let waker = Waker::from(Arc::clone(&self.calls));
            match self.budget.poll_reserve(ticket, bytes, &waker) {
                Poll::Ready(reserved) => Some(reserved.expect("not refused")),
                Poll::Pending => None,
            }
        }

        fn take(&self, bytes: u64) -> Option<Reservation> {
            self.budget.try_reserve(bytes).expect("not refused")
        }

        fn calls(&self) -> usize {
            self.calls.0.swap(0, Ordering::SeqCst)
        }
    }

    #[test]
    fn one_release_calls_all_who_fit_once_each() {
        let test = BudgetTest::new(1000);
        let held = test.take(1000);
        let mut tickets: [_; 4] = std::array::from_fn(|_| ReserveTicket::default());
        assert!(tickets.iter_mut().all(|ticket| test.poll(ticket, 300).is_none()));
        drop(held);
        assert_eq!(test.calls(), 3, "the fourth does not fit");
        test.budget.release(0, 0);
        assert_eq!(test.calls(), 0, "they are on their way");
        let [first, second, third, fourth] = &mut tickets;
        let taken = [third, first].map(|ticket| test.poll(ticket, 300));
        assert!(taken.iter().all(Option::is_some), "whoever comes first takes what is his");
        assert!(test.poll(fourth, 300).is_none(), "what is left is the second's");
        assert!(test.poll(second, 300).is_some());
        assert_eq!(test.calls(), 1, "the second let go of it at once");
        assert!(test.poll(fourth, 300).is_some());
    }

    #[test]
    fn who_comes_later_is_let_past_only_where_all_in_line_fit_too() {
        let test = BudgetTest::new(1000);
        let held = (test.take(500), test.take(500));
        let mut large = ReserveTicket::default();
        assert!(test.poll(&mut large, 700).is_none());
        drop(held.0);
        assert!(test.take(10).is_none(), "the large one would wait for ever");
        drop(held.1);
        assert!(test.take(301).is_none());
        let small = test.take(300).expect("there is room for both");
        assert!(test.poll(&mut large, 700).is_some());
        drop(small);
    }

    #[test]
    fn more_than_the_bound_is_granted_alone() {
        let test = BudgetTest::new(1000);
        let held = test.take(1);
        let (mut huge, mut small) = (ReserveTicket::default(), ReserveTicket::default());
        assert!(test.poll(&mut huge, 5000).is_none() && test.poll(&mut small, 1).is_none());
        drop(held);
        assert_eq!(test.calls(), 1);
        let granted = test.poll(&mut huge, 5000).expect("nobody else holds anything");
        assert!(test.poll(&mut small, 1).is_none());
        drop(granted);
        assert!(test.poll(&mut small, 1).is_some());
    }

    #[test]
    fn who_leaves_the_line_lets_the_others_go_on() {
        let test = BudgetTest::new(1000);
        let held = test.take(600);
        let (mut large, mut small) = (ReserveTicket::default(), ReserveTicket::default());
        assert!(test.poll(&mut large, 900).is_none() && test.poll(&mut small, 400).is_none());
        drop(large);
        assert_eq!(test.calls(), 1);
        assert!(test.poll(&mut small, 400).is_some());
        assert_eq!(test.budget.used(), (600, 600));
        drop(held);
    }

    #[test]
    fn a_refusal_reaches_those_in_line_and_ends() {
        let test = BudgetTest::new(1000);
        let held = test.take(1000);
        let mut ticket = ReserveTicket::default();
        assert!(test.poll(&mut ticket, 500).is_none());
        test.budget.refuse(Some(StorageError::Closed));
        assert_eq!(test.calls(), 1);
        let waker = Waker::from(Arc::clone(&test.calls));
        let refused = test.budget.poll_reserve(&mut ticket, 500, &waker).map(|r| r.map(|_| ()));
        assert_eq!(refused, Poll::Ready(Err(StorageError::Closed)));
        test.budget.refuse(None);
        drop(held);
        assert!(test.poll(&mut ticket, 500).is_some());
    }
}
