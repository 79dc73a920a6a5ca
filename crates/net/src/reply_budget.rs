//! The bound on bytes of replies, shared by all connections of a process.
//!
//! A reply that needs much memory asks for room before it takes any, and holds on to nothing while
//! it waits, so that one can always go on. What is complete and not yet taken by its client is
//! charged too. The fuller it gets the less one reply is given, so a few clients that do not read
//! leave something for all others.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use prometheus::IntGauge;

use crate::registry::lock;

/// With less than this free, in bytes, replies wait.
pub(crate) const REPLY_BYTES_MIN: u64 = 1 << 20;
/// One reply is given at most this part of what is free.
const SHARE: u64 = 4;

/// The bound, and what is held of it.
#[derive(Debug)]
pub struct ReplyBudget {
    bound: u64,
    used: AtomicU64,
    gauge: IntGauge,
    /// Replies that wait for room, by connection: each has one at most, its next.
    waiting: Mutex<BTreeMap<u64, Waker>>,
    anyone_waits: AtomicBool,
}

impl ReplyBudget {
    /// A bound of so many bytes (`queued.max.response.bytes`). `gauge` shows what is held.
    pub(crate) fn new(bound: u64, gauge: IntGauge) -> Arc<ReplyBudget> {
        assert!(bound >= SHARE * REPLY_BYTES_MIN, "a reply fits into its share of the bound");
        Arc::new(ReplyBudget {
            bound,
            used: AtomicU64::new(0),
            gauge,
            waiting: Mutex::default(),
            anyone_waits: AtomicBool::new(false),
        })
    }

    /// A bound for whoever has no listener.
    #[must_use]
    pub fn unshared(bound: u64) -> Arc<ReplyBudget> {
        let gauge = IntGauge::new("unshared", "Shown nowhere.").expect("a lawful name");
        ReplyBudget::new(bound, gauge)
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    /// Whether replies have to wait.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.free_of(self.used()) < REPLY_BYTES_MIN
    }

    fn free_of(&self, used: u64) -> u64 {
        self.bound.saturating_sub(used)
    }

    /// Wakes who waits once an eighth is free, so that few releases wake many.
    fn relieve(&self) {
        if self.free_of(self.used()) >= self.bound / 8 {
            self.anyone_waits.store(false, Ordering::SeqCst);
            let woken = std::mem::take(&mut *lock(&self.waiting));
            woken.into_values().for_each(Waker::wake);
        }
    }
}

/// What one reply, or one connection's complete replies, hold of a [`ReplyBudget`]. Given back when
/// dropped.
#[derive(Debug)]
pub struct ReplyRoom {
    budget: Arc<ReplyBudget>,
    connection: u64,
    held: u64,
    waits: bool,
}

impl ReplyRoom {
    /// Holds nothing yet. `connection` is the id of the connection that is answered.
    #[must_use]
    pub fn new(budget: &Arc<ReplyBudget>, connection: u64) -> ReplyRoom {
        ReplyRoom { budget: Arc::clone(budget), connection, held: 0, waits: false }
    }

    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Takes room for up to `bytes` more and says how much that is; `None` where so little is free
    /// that the reply has to wait, or do without.
    pub fn take(&mut self, bytes: u64) -> Option<u64> {
        let mut taken = None;
        let budget = &self.budget;
        let take = |used| {
            let free = budget.free_of(used);
            let share = bytes.min((free / SHARE).max(REPLY_BYTES_MIN));
            taken = (share <= free).then_some(share);
            taken.map(|share| used + share)
        };
        let exchanged = budget.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        let taken = taken.filter(|_| exchanged.is_ok())?;
        self.held += taken;
        budget.gauge.add(taken.cast_signed());
        Some(taken)
    }

    /// Has the next reply of this connection woken when it is worth asking again. False where it
    /// is so already.
    pub fn wait(&mut self, waker: &Waker) -> bool {
        lock(&self.budget.waiting).insert(self.connection, waker.clone());
        self.waits = true;
        self.budget.anyone_waits.store(true, Ordering::SeqCst);
        self.budget.is_spent()
    }

    /// Says how many bytes are really held: as much as was taken, less, or more where a reply that
    /// is sent whole turned out larger than its room.
    pub fn settle(&mut self, held: u64) {
        if held == self.held {
            return;
        }
        let budget = &self.budget;
        if held > self.held {
            budget.used.fetch_add(held - self.held, Ordering::SeqCst);
        } else {
            let before = budget.used.fetch_sub(self.held - held, Ordering::SeqCst);
            assert!(before >= self.held - held, "more was given back than was taken");
        }
        budget.gauge.add(held.cast_signed() - self.held.cast_signed());
        self.held = held;
        if budget.anyone_waits.load(Ordering::SeqCst) {
            budget.relieve();
        }
    }
}

impl Drop for ReplyRoom {
    fn drop(&mut self) {
        if self.waits {
            lock(&self.budget.waiting).remove(&self.connection);
        }
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::AtomicUsize, task::Wake};

    const MIB: u64 = 1 << 20;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_fuller_it_is_the_less_one_reply_gets_until_none_gets_any() {
        let budget = ReplyBudget::unshared(16 * MIB);
        let mut rooms: Vec<_> = (0..20).map(|id| ReplyRoom::new(&budget, id)).collect();
        let taken: Vec<_> = rooms.iter_mut().map_while(|room| room.take(55 * MIB)).collect();
        assert!(taken.is_sorted_by(|a, b| a >= b), "{taken:?}");
        assert_eq!((taken[0], taken.last()), (4 * MIB, Some(&MIB)));
        assert!(taken.len() >= 8 && budget.is_spent(), "{taken:?}");
        assert_eq!(budget.used(), taken.iter().sum::<u64>());
        drop(rooms);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_reply_that_waits_holds_nothing_and_is_woken_by_those_that_do() {
        let budget = ReplyBudget::unshared(16 * MIB);
        let mut full = ReplyRoom::new(&budget, 1);
        full.settle(17 * MIB);
        let counting = Arc::new(Counting::default());
        let mut waiting = ReplyRoom::new(&budget, 2);
        assert_eq!((waiting.take(1), waiting.held()), (None, 0));
        assert!(waiting.wait(&Waker::from(Arc::clone(&counting))), "there is nothing yet");
        full.settle(15 * MIB);
        assert_eq!(counting.0.load(Ordering::SeqCst), 0, "an eighth is not free yet");
        drop(full);
        assert_eq!(counting.0.load(Ordering::SeqCst), 1);
        assert_eq!(waiting.take(MIB), Some(MIB));
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let budget = ReplyBudget::unshared(16 * MIB);
        let mut waiting = ReplyRoom::new(&budget, 2);
        let _ = waiting.wait(Waker::noop());
        drop(waiting);
        assert!(lock(&budget.waiting).is_empty());
    }
}
