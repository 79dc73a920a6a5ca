//! What a request waits on: a counter that reaches zero, and the connection to wake when it does.
//!
//! One allocation or two a request, no channel, no timer, no task. Whoever completes a wait holds
//! no lock while it wakes the connection.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI16, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use tidelog_replica::fetch_session::Slot;
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

/// What a fetch waits on, or the fetches of one session: told of whatever happens at partitions.
#[derive(Debug)]
pub struct FetchWait {
    /// Bytes that became readable since the last look.
    readable_bytes: AtomicU64,
    /// With so many it is worth looking again.
    enough_bytes: AtomicU64,
    /// Something else happened that the client may have to hear of at once.
    is_urgent: AtomicBool,
    /// Where anything happened since the last look.
    changed: Mutex<BTreeSet<Slot>>,
    waker: AtomicWaker,
}

/// Where nobody waits, no number of bytes is worth a look.
const NEVER: u64 = u64::MAX;

impl Default for FetchWait {
    fn default() -> Self {
        FetchWait {
            readable_bytes: AtomicU64::new(0),
            enough_bytes: AtomicU64::new(NEVER),
            is_urgent: AtomicBool::new(false),
            changed: Mutex::default(),
            waker: AtomicWaker::new(),
        }
    }
}

impl FetchWait {
    /// Begins a look at the partitions, and tells where anything happened since the last one.
    /// Whatever happens from now on counts for the wait that may follow.
    pub fn begin_look(&self) -> BTreeSet<Slot> {
        self.enough_bytes.store(NEVER, Ordering::SeqCst);
        self.readable_bytes.store(0, Ordering::SeqCst);
        self.is_urgent.store(false, Ordering::SeqCst);
        mem::take(&mut *self.changed())
    }

    /// The look found too little: `bytes` more are worth another one.
    pub fn wait_for(&self, bytes: u64) {
        self.enough_bytes.store(bytes, Ordering::SeqCst);
    }

    /// Ready once enough became readable, or something happened that the client must hear of.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_over() {
            return Poll::Ready(());
        }
        self.waker.register(context.waker());
        if self.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends the wait, if any. Call with no lock held.
    pub fn interrupt(&self) {
        self.is_urgent.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    fn is_over(&self) -> bool {
        let enough_bytes = self.enough_bytes.load(Ordering::SeqCst);
        self.is_urgent.load(Ordering::SeqCst)
            || self.readable_bytes.load(Ordering::SeqCst) >= enough_bytes
    }

    fn changed(&self) -> MutexGuard<'_, BTreeSet<Slot>> {
        // Nothing panics under this lock.
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One partition's share of a [`FetchWait`].
#[derive(Debug, Clone)]
pub struct FetchWaiter {
    /// The fetch, or the session.
    pub wait: Arc<FetchWait>,
    /// The partition's place in it.
    pub slot: Slot,
}

impl FetchWaiter {
    /// So many bytes more are readable. Whoever looks from now on finds them. Returns whether the
    /// fetch is to be woken.
    #[must_use]
    pub fn on_readable(&self, bytes: u64) -> bool {
        self.wait.changed().insert(self.slot);
        self.wait.readable_bytes.fetch_add(bytes, Ordering::SeqCst);
        self.wait.is_over()
    }

    /// The partition's leader or its log start is another. The fetch is to be woken.
    pub fn on_change(&self) {
        self.wait.changed().insert(self.slot);
        self.wait.is_urgent.store(true, Ordering::SeqCst);
    }

    /// Has the fetch look again, if it waits. Call with no lock held.
    pub fn wake(&self) {
        self.wait.waker.wake();
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
    fn a_fetch_is_woken_once_its_partitions_have_enough_together() {
        let counting = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&counting));
        let mut context = Context::from_waker(&waker);
        let wait = Arc::new(FetchWait::default());
        let waiter = |slot| FetchWaiter { wait: Arc::clone(&wait), slot: Slot(slot) };

        let on_readable = |slot: u32, bytes| {
            let is_enough = waiter(slot).on_readable(bytes);
            if is_enough {
                waiter(slot).wake();
            }
            is_enough
        };
        assert!(!on_readable(4, 100), "before the look, which finds it");
        assert_eq!(wait.begin_look(), BTreeSet::from([Slot(4)]));
        assert!(!on_readable(0, 30), "while it looks elsewhere");
        wait.wait_for(100);
        assert_eq!(wait.poll(&mut context), Poll::Pending);
        assert!(!on_readable(0, 30) && !on_readable(1, 39), "99 bytes are too few");
        assert!(on_readable(1, 1));
        assert_eq!(counting.0.load(Ordering::SeqCst), 1);
        assert_eq!(wait.poll(&mut context), Poll::Ready(()));
        assert_eq!(wait.begin_look(), BTreeSet::from([Slot(0), Slot(1)]));
        assert_eq!(wait.poll(&mut context), Poll::Pending, "nothing is enough while one looks");
    }

    #[test]
    fn what_happened_before_a_fetch_was_polled_is_not_missed() {
        let counting = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&counting));
        let mut context = Context::from_waker(&waker);
        let wait = Arc::new(FetchWait::default());
        let waiter = FetchWaiter { wait: Arc::clone(&wait), slot: Slot(2) };
        let events: [fn(&FetchWaiter); 2] =
            [FetchWaiter::on_change, |waiter| assert!(waiter.on_readable(1))];
        for happens in events {
            wait.begin_look();
            waiter.on_change();
            wait.wait_for(1);
            assert_eq!(wait.poll(&mut context), Poll::Ready(()));
            assert_eq!(wait.begin_look(), BTreeSet::from([Slot(2)]));
            wait.wait_for(1);
            assert_eq!(wait.poll(&mut context), Poll::Pending);
            let before = counting.0.load(Ordering::SeqCst);
            happens(&waiter);
            waiter.wake();
            assert_eq!(counting.0.load(Ordering::SeqCst), before + 1);
            assert_eq!(wait.poll(&mut context), Poll::Ready(()));
        }
    }
}
