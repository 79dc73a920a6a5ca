//! What a request waits on: a counter that reaches zero, and the connection to wake when it does.
//!
//! One allocation or two a request, no channel, no timer, no task. Whoever completes a wait holds
//! no lock while it wakes the connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI16, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use tidelog_types::ErrorCode;

/// One Produce request that waits for its partitions.
#[derive(Debug)]
pub struct ProduceWait {
    /// Partitions that have not answered.
    missing: AtomicUsize,
    /// A Kafka error code for each partition, [`UNANSWERED`] until it is known.
    outcomes: Box<[AtomicI16]>,
    waker: AtomicWaker,
}

/// No Kafka code: the partition has not answered yet.
const UNANSWERED: i16 = i16::MIN;

/// One partition's share of a [`ProduceWait`].
#[derive(Debug)]
pub struct ProduceWaiter {
    /// The request.
    pub wait: Arc<ProduceWait>,
    /// The partition's place in it.
    pub slot: usize,
}

impl ProduceWait {
    /// A wait for so many partitions, each of which is completed exactly once.
    #[must_use]
    pub fn new(partitions: usize) -> Arc<ProduceWait> {
        let outcomes = (0..partitions).map(|_| AtomicI16::new(UNANSWERED)).collect();
        let missing = AtomicUsize::new(partitions);
        Arc::new(ProduceWait { missing, outcomes, waker: AtomicWaker::new() })
    }

    /// Ready once every partition has answered.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_complete() {
            return Poll::Ready(());
        }
        self.waker.register(context.waker());
        if self.is_complete() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether every partition has answered.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.load(Ordering::Acquire) == 0
    }

    /// What one partition answered; REQUEST_TIMED_OUT while it has not.
    #[must_use]
    pub fn outcome(&self, slot: usize) -> ErrorCode {
        match self.outcomes[slot].load(Ordering::Acquire) {
            UNANSWERED => ErrorCode::RequestTimedOut,
            code => ErrorCode::from_wire(code).expect("only codes of ours are stored"),
        }
    }

    fn complete(&self, slot: usize, outcome: ErrorCode) {
        let before = self.outcomes[slot].swap(outcome.code(), Ordering::AcqRel);
        assert_eq!(before, UNANSWERED, "a partition answers once");
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.waker.wake();
        }
    }
}

impl ProduceWaiter {
    /// Tells the request what became of this partition, and wakes it if this was the last.
    /// Call with no lock held.
    pub fn complete(self, outcome: ErrorCode) {
        self.wait.complete(self.slot, outcome);
    }
}

/// One Fetch request that waits for records.
#[derive(Debug, Default)]
pub struct FetchWait {
    fired: AtomicBool,
    waker: AtomicWaker,
}

impl FetchWait {
    /// Ready once enough became readable, or something happened that the client must hear of.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.has_fired() {
            return Poll::Ready(());
        }
        self.waker.register(context.waker());
        if self.has_fired() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends the wait and wakes the connection. Call with no lock held.
    pub fn fire(&self) {
        self.fired.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_produce_request_is_woken_once_by_its_last_partition() {
        let counting = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&counting));
        let mut context = Context::from_waker(&waker);
        let wait = ProduceWait::new(2);
        let waiter = |slot| ProduceWaiter { wait: Arc::clone(&wait), slot };

        assert_eq!(wait.poll(&mut context), Poll::Pending);
        waiter(1).complete(ErrorCode::None);
        assert_eq!((counting.0.load(Ordering::SeqCst), wait.is_complete()), (0, false));
        assert_eq!(wait.outcome(0), ErrorCode::RequestTimedOut);
        waiter(0).complete(ErrorCode::NotLeaderOrFollower);
        assert_eq!((counting.0.load(Ordering::SeqCst), wait.is_complete()), (1, true));
        assert_eq!(wait.poll(&mut context), Poll::Ready(()));
        assert_eq!(wait.outcome(0), ErrorCode::NotLeaderOrFollower);
        assert_eq!(wait.outcome(1), ErrorCode::None);
    }

    #[test]
    fn a_fetch_that_fired_before_it_was_polled_is_not_missed() {
        let counting = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&counting));
        let mut context = Context::from_waker(&waker);
        let wait = FetchWait::default();
        assert_eq!(wait.poll(&mut context), Poll::Pending);
        wait.fire();
        assert_eq!(counting.0.load(Ordering::SeqCst), 1);
        assert_eq!(wait.poll(&mut context), Poll::Ready(()));
        let wait = FetchWait::default();
        wait.fire();
        assert_eq!(wait.poll(&mut context), Poll::Ready(()));
    }
}
