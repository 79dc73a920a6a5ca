//! Requests that wait for a partition to move, kept in the order in which they can be answered.

use std::{collections::VecDeque, time::Duration};

use tidelog_types::Offset;

/// The requests that wait at one partition. `P` and `F` are whatever the shell needs to answer a
/// produce and a fetch; nothing here looks inside. Times are since any moment the shell likes.
///
/// A wait holds for one leader epoch: when it ends, [`Purgatory::take_all`] gives all of them
/// back, to be answered NOT_LEADER_OR_FOLLOWER before the log is touched.
#[derive(Debug)]
pub struct Purgatory<P, F> {
    /// `acks=1`: answered when the leader has the records on disk.
    pub durable: OffsetWaits<P>,
    /// `acks=all`: answered when every in-sync replica has them on disk.
    pub replicated: OffsetWaits<P>,
    /// Fetches that found too little.
    pub fetches: FetchWaits<F>,
}

impl<P, F> Default for Purgatory<P, F> {
    fn default() -> Self {
        Purgatory {
            durable: OffsetWaits::default(),
            replicated: OffsetWaits::default(),
            fetches: FetchWaits::default(),
        }
    }
}

impl<P, F> Purgatory<P, F> {
    /// Takes out everything that waits.
    pub fn take_all(&mut self) -> (Vec<P>, Vec<F>) {
        let mut produces = self.durable.take_all();
        produces.append(&mut self.replicated.take_all());
        (produces, self.fetches.take_all())
    }

    /// How many requests wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.durable.len() + self.replicated.len() + self.fetches.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Names one wait, so that it can be taken back when its connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Waits for a watermark to reach an offset.
///
/// Invariant: sorted by offset, then by age. Produces arrive in the order of their offsets,
/// except for duplicates, so that adding and taking cost next to nothing.
#[derive(Debug)]
pub struct OffsetWaits<W> {
    waits: VecDeque<OffsetWait<W>>,
    next_ticket: u64,
}

#[derive(Debug)]
struct OffsetWait<W> {
    offset: Offset,
    ticket: Ticket,
    deadline: Duration,
    waiter: W,
}

impl<W> Default for OffsetWaits<W> {
    fn default() -> Self {
        OffsetWaits { waits: VecDeque::new(), next_ticket: 0 }
    }
}

impl<W> OffsetWaits<W> {
    /// Adds a wait for a watermark to reach `offset`: the offset after the request's last record.
    pub fn add(&mut self, offset: Offset, deadline: Duration, waiter: W) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let wait = OffsetWait { offset, ticket, deadline, waiter };
        if self.waits.back().is_none_or(|last| last.offset <= offset) {
            self.waits.push_back(wait);
        } else {
            let place = self.waits.partition_point(|other| other.offset <= offset);
            self.waits.insert(place, wait);
        }
        ticket
    }

    /// Takes the waits that a watermark of `watermark` ends, in the order of their offsets.
    pub fn complete_up_to(&mut self, watermark: Offset) -> Vec<W> {
        let done = self.waits.partition_point(|wait| wait.offset <= watermark);
        let completed = self.waits.drain(..done).map(|wait| wait.waiter).collect();
        assert!(
            self.waits.front().is_none_or(|wait| wait.offset > watermark),
            "a wait was left behind that is over"
        );
        completed
    }

    /// Takes the waits whose deadline is `now` or earlier: REQUEST_TIMED_OUT.
    pub fn expire(&mut self, now: Duration) -> Vec<W> {
        take_where(&mut self.waits, |wait| wait.deadline <= now, |wait| wait.waiter)
    }

    /// Takes back one wait; `None` if it is over.
    pub fn remove(&mut self, offset: Offset, ticket: Ticket) -> Option<W> {
        let key = (offset, ticket);
        let place =
            self.waits.binary_search_by_key(&key, |wait| (wait.offset, wait.ticket)).ok()?;
        Some(self.waits.remove(place)?.waiter)
    }

    /// Takes everything that waits.
    pub fn take_all(&mut self) -> Vec<W> {
        self.waits.drain(..).map(|wait| wait.waiter).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }
}

/// Fetches that wait for records, or for their deadline.
#[derive(Debug)]
pub struct FetchWaits<W> {
    waits: VecDeque<FetchWait<W>>,
    next_ticket: u64,
}

#[derive(Debug)]
struct FetchWait<W> {
    fetch_offset: Offset,
    bytes_missing: u64,
    ticket: Ticket,
    deadline: Duration,
    waiter: W,
}

impl<W> Default for FetchWaits<W> {
    fn default() -> Self {
        FetchWaits { waits: VecDeque::new(), next_ticket: 0 }
    }
}

impl<W> FetchWaits<W> {
    /// Adds a fetch that needs `bytes_missing` more bytes from `fetch_offset` on.
    ///
    /// A fetch of several partitions needs a sum that no partition knows: it waits for 1 byte at
    /// each, adds up when woken, and waits again if that is still too little.
    pub fn add(
        &mut self,
        fetch_offset: Offset,
        bytes_missing: u64,
        deadline: Duration,
        waiter: W,
    ) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let bytes_missing = bytes_missing.max(1);
        self.waits.push_back(FetchWait { fetch_offset, bytes_missing, ticket, deadline, waiter });
        ticket
    }

    /// `bytes` more became readable, and everything below `readable_end` is. Takes the fetches
    /// that have enough now.
    pub fn on_readable(&mut self, readable_end: Offset, bytes: u64) -> Vec<W> {
        for wait in self.waits.iter_mut().filter(|wait| wait.fetch_offset < readable_end) {
            wait.bytes_missing = wait.bytes_missing.saturating_sub(bytes);
        }
        take_where(&mut self.waits, |wait| wait.bytes_missing == 0, |wait| wait.waiter)
    }

    /// Takes the fetches whose deadline is `now` or earlier: they are answered with what is there.
    pub fn expire(&mut self, now: Duration) -> Vec<W> {
        take_where(&mut self.waits, |wait| wait.deadline <= now, |wait| wait.waiter)
    }

    /// Takes back one fetch; `None` if it is over.
    pub fn remove(&mut self, ticket: Ticket) -> Option<W> {
        let place = self.waits.binary_search_by_key(&ticket, |wait| wait.ticket).ok()?;
        Some(self.waits.remove(place)?.waiter)
    }

    /// Takes everything that waits.
    pub fn take_all(&mut self) -> Vec<W> {
        self.waits.drain(..).map(|wait| wait.waiter).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }
}

/// Takes out what `taken` says, and keeps the order of what stays.
fn take_where<T, W>(
    waits: &mut VecDeque<T>,
    taken: impl Fn(&T) -> bool,
    waiter: impl Fn(T) -> W,
) -> Vec<W> {
    if !waits.iter().any(&taken) {
        return Vec::new();
    }
    let (over, stay): (VecDeque<T>, VecDeque<T>) =
        std::mem::take(waits).into_iter().partition(|wait| taken(wait));
    *waits = stay;
    over.into_iter().map(waiter).collect()
}
