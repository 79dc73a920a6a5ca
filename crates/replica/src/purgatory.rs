//! Requests that wait for a partition to move, kept in the order in which they can be answered.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tidelog_types::Offset;

/// The requests that wait at one partition. `P` and `F` are whatever the shell needs to answer a
/// produce and a fetch; nothing here looks inside. Times are since any moment the shell likes.
///
/// A wait holds for one leader epoch: when it ends, [`Purgatory::take_all`] gives all of them
/// back: produces to be answered NOT_LEADER_OR_FOLLOWER before the log is touched, fetches to look
/// again.
#[derive(Debug)]
pub struct Purgatory<P, F> {
    /// `acks=1`: answered when the leader has the records on disk.
    pub durable: OffsetWaits<P>,
    /// `acks=all`: answered when every in-sync replica has them on disk.
    pub replicated: OffsetWaits<P>,
    /// Fetches that found too little, and fetch sessions between their requests.
    pub fetches: Watchers<F>,
}

impl<P, F> Default for Purgatory<P, F> {
    fn default() -> Self {
        Purgatory {
            durable: OffsetWaits::default(),
            replicated: OffsetWaits::default(),
            fetches: Watchers::default(),
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
        if !self.waits.iter().any(|wait| wait.deadline <= now) {
            return Vec::new();
        }
        let waits = std::mem::take(&mut self.waits);
        let (over, waiting): (VecDeque<_>, VecDeque<_>) =
            waits.into_iter().partition(|wait| wait.deadline <= now);
        self.waits = waiting;
        over.into_iter().map(|wait| wait.waiter).collect()
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

/// Who is told of whatever happens to a partition, again and again: fetches that wait there, and
/// fetch sessions that have it.
#[derive(Debug)]
pub struct Watchers<W> {
    watchers: BTreeMap<Ticket, W>,
    next_ticket: u64,
}

impl<W> Default for Watchers<W> {
    fn default() -> Self {
        Watchers { watchers: BTreeMap::new(), next_ticket: 0 }
    }
}

impl<W> Watchers<W> {
    /// Adds one.
    pub fn add(&mut self, watcher: W) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let before = self.watchers.insert(ticket, watcher);
        assert!(before.is_none(), "a ticket is given once");
        ticket
    }

    /// Whoever is to be told.
    pub fn iter(&self) -> impl Iterator<Item = &W> {
        self.watchers.values()
    }

    /// Takes back one; `None` if it was taken out before.
    pub fn remove(&mut self, ticket: Ticket) -> Option<W> {
        self.watchers.remove(&ticket)
    }

    /// Takes out all.
    pub fn take_all(&mut self) -> Vec<W> {
        std::mem::take(&mut self.watchers).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn produces_are_answered_in_the_order_of_their_offsets() {
        let mut waits = OffsetWaits::default();
        for (offset, name) in [(5, "a"), (8, "b"), (5, "a again"), (9, "c")] {
            waits.add(Offset(offset), at(1), name);
        }
        assert_eq!(waits.complete_up_to(Offset(4)), [] as [&str; 0]);
        assert_eq!(waits.complete_up_to(Offset(8)), ["a", "a again", "b"]);
        assert_eq!(waits.take_all(), ["c"]);
    }

    #[test]
    fn a_wait_that_nobody_wants_any_more_is_taken_back_once() {
        let mut purgatory: Purgatory<&str, &str> = Purgatory::default();
        let kept = purgatory.durable.add(Offset(3), at(1), "kept");
        let produce = purgatory.durable.add(Offset(3), at(1), "gone");
        let fetch = purgatory.fetches.add("gone too");
        purgatory.fetches.add("watches");
        purgatory.replicated.add(Offset(3), at(1), "replicated");
        assert_eq!(purgatory.durable.remove(Offset(3), produce), Some("gone"));
        assert_eq!(purgatory.durable.remove(Offset(3), produce), None);
        assert_eq!(purgatory.fetches.remove(fetch), Some("gone too"));
        assert_eq!(purgatory.fetches.remove(fetch), None);
        assert!(purgatory.fetches.iter().eq(&["watches"]));
        assert_eq!(purgatory.take_all(), (vec!["kept", "replicated"], vec!["watches"]));
        assert_eq!(purgatory.durable.remove(Offset(3), kept), None);
    }

    /// What happens to waits for an offset.
    #[derive(Debug, Clone)]
    enum Step {
        Add(i64, u64),
        Complete(i64),
        Expire(u64),
        Remove(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0..20_i64, 0..20_u64).prop_map(|(offset, deadline)| Step::Add(offset, deadline)),
            1 => (0..20_i64).prop_map(Step::Complete),
            1 => (0..20_u64).prop_map(Step::Expire),
            1 => any::<prop::sample::Index>().prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn every_wait_is_over_once_and_in_order(steps in prop::collection::vec(step(), 1..80)) {
            let mut waits = OffsetWaits::default();
            // Offset, age, deadline, ticket: sorted, so by offset, then by age.
            let mut model: Vec<(i64, usize, u64, Ticket)> = Vec::new();
            for (age, step) in steps.into_iter().enumerate() {
                let (taken, over): (Vec<usize>, Vec<usize>) = match step {
                    Step::Add(offset, deadline) => {
                        let ticket = waits.add(Offset(offset), at(deadline), age);
                        model.push((offset, age, deadline, ticket));
                        model.sort_unstable();
                        continue;
                    }
                    Step::Complete(to) => (
                        waits.complete_up_to(Offset(to)),
                        model.extract_if(.., |wait| wait.0 <= to).map(|wait| wait.1).collect(),
                    ),
                    Step::Expire(now) => (
                        waits.expire(at(now)),
                        model.extract_if(.., |wait| wait.2 <= now).map(|wait| wait.1).collect(),
                    ),
                    Step::Remove(_) if model.is_empty() => continue,
                    Step::Remove(place) => {
                        let wait = model.remove(place.index(model.len()));
                        (waits.remove(Offset(wait.0), wait.3).into_iter().collect(), vec![wait.1])
                    }
                };
                prop_assert_eq!(taken, over);
                prop_assert_eq!(waits.len(), model.len());
            }
        }
    }
}
