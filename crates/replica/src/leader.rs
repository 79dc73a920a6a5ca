//! What a partition's leader knows about its own replication.

use std::collections::BTreeMap;

use tidelog_types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch};

use crate::{
    error::{EpochError, FetchError},
    isr::{Isr, is_current},
};

/// The leader of one partition in one leader epoch.
///
/// Invariant: `high_watermark <= durable_end_offset <= log_end_offset`, and none of them goes
/// back. A new leader epoch is a new `Leader`.
#[derive(Debug, Clone)]
pub struct Leader {
    me: BrokerId,
    leader_epoch: LeaderEpoch,
    partition_epoch: PartitionEpoch,
    leader_epoch_start_offset: Offset,
    log_end_offset: Offset,
    durable_end_offset: Offset,
    high_watermark: Offset,
    isr: Isr,
    followers: BTreeMap<BrokerId, Follower>,
    min_isr: usize,
}

/// What a leader knows of one follower, from its fetches in this leader epoch alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Follower {
    /// The follower has everything below on its disk.
    log_end_offset: Offset,
}

impl Leader {
    /// A leader at the start of its epoch, with all of its log on disk.
    ///
    /// `high_watermark` is what was last known: a lower bound, and where the log was cut, no
    /// more than its end. With nobody else in the ISR everything on disk is below the high
    /// watermark at once.
    #[must_use]
    pub fn new(
        leader_epoch: LeaderEpoch,
        log_end_offset: Offset,
        high_watermark: Offset,
        isr: &[BrokerId],
        me: BrokerId,
    ) -> Leader {
        assert!(isr.contains(&me), "broker {me} was elected without being in sync");
        let mut leader = Leader {
            me,
            leader_epoch,
            partition_epoch: PartitionEpoch(0),
            leader_epoch_start_offset: log_end_offset,
            log_end_offset,
            durable_end_offset: log_end_offset,
            high_watermark: high_watermark.min(log_end_offset),
            isr: Isr::committed(isr),
            followers: BTreeMap::new(),
            min_isr: 1,
        };
        leader.advance_high_watermark();
        leader
    }

    /// The same leader with records behind the log end that are not on disk yet, as a follower has
    /// them that is elected. Its epoch starts behind them.
    #[must_use]
    pub fn with_undurable_tail(mut self, log_end_offset: Offset) -> Leader {
        self.on_append(log_end_offset);
        self.leader_epoch_start_offset = log_end_offset;
        self
    }

    /// Takes `min.insync.replicas` to heart: no more than there are replicas, as Kafka does, so
    /// that a topic of one replica can be written whatever the setting says. Returns the high
    /// watermark if it may rise now.
    pub fn set_min_isr(&mut self, min_insync_replicas: usize, replicas: usize) -> Option<Offset> {
        self.min_isr = min_insync_replicas.min(replicas).max(1);
        self.advance_high_watermark()
    }

    /// Records were appended; the next one gets `log_end_offset`. Not yet on disk.
    pub fn on_append(&mut self, log_end_offset: Offset) {
        assert!(log_end_offset >= self.log_end_offset, "an append shortened the log");
        self.log_end_offset = log_end_offset;
    }

    /// Everything below `durable_end_offset` is on this broker's disk. Returns the high
    /// watermark if it rose.
    pub fn on_durable(&mut self, durable_end_offset: Offset) -> Option<Offset> {
        assert!(
            durable_end_offset <= self.log_end_offset,
            "{durable_end_offset} is on disk, but the log ends at {}",
            self.log_end_offset
        );
        if durable_end_offset <= self.durable_end_offset {
            return None; // two syncs' news may overtake each other
        }
        self.durable_end_offset = durable_end_offset;
        self.advance_high_watermark()
    }

    /// A follower fetches from `fetch_offset`, so it has everything below on its disk. Returns
    /// the high watermark if it rose.
    ///
    /// # Errors
    /// A peer's mistake changes nothing here and must not stop this broker.
    pub fn on_fetch(
        &mut self,
        follower: BrokerId,
        leader_epoch: LeaderEpoch,
        fetch_offset: Offset,
    ) -> Result<Option<Offset>, FetchError> {
        self.check_leader_epoch(leader_epoch)?;
        if follower == self.me {
            return Err(FetchError::NotAFollower { follower });
        }
        if fetch_offset > self.log_end_offset {
            let log_end_offset = self.log_end_offset;
            return Err(FetchError::OffsetOutOfRange { follower, fetch_offset, log_end_offset });
        }
        let held =
            self.followers.entry(follower).or_insert(Follower { log_end_offset: fetch_offset });
        // A retried fetch may overtake a newer one.
        held.log_end_offset = held.log_end_offset.max(fetch_offset);
        Ok(self.advance_high_watermark())
    }

    /// Whether a follower may ask to join the ISR: it has reached the high watermark and the
    /// start of this leader epoch, in this leader epoch.
    #[must_use]
    pub fn may_join(&self, follower: BrokerId) -> bool {
        let floor = self.high_watermark.max(self.leader_epoch_start_offset);
        self.followers.get(&follower).is_some_and(|held| held.log_end_offset >= floor)
    }

    /// Counts `follower` as a member from now on and returns the ISR to ask the controller for.
    /// `None` if it may not join, is a member, or a change is under way.
    pub fn propose_expand(&mut self, follower: BrokerId) -> Option<Vec<BrokerId>> {
        if !self.may_join(follower) {
            return None;
        }
        self.isr = self.isr.expand(follower)?;
        Some(self.isr.proposed())
    }

    /// Returns the ISR to ask the controller for when `out_of_sync` are to go; they count until
    /// it agrees. `None` if none of them is a member or a change is under way.
    pub fn propose_shrink(&mut self, out_of_sync: &[BrokerId]) -> Option<Vec<BrokerId>> {
        assert!(!out_of_sync.contains(&self.me), "a leader never leaves its own ISR");
        self.isr = self.isr.shrink(out_of_sync)?;
        Some(self.isr.proposed())
    }

    /// The controller's word on the ISR, asked for or not. Older news is ignored. Returns the
    /// high watermark if it rose.
    pub fn on_isr(
        &mut self,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
        isr: &[BrokerId],
    ) -> Option<Offset> {
        if leader_epoch != self.leader_epoch || !is_current(self.partition_epoch, partition_epoch) {
            return None;
        }
        assert!(isr.contains(&self.me), "the controller took the leader out of the ISR");
        self.partition_epoch = partition_epoch;
        self.isr = Isr::committed(isr);
        self.advance_high_watermark()
    }

    /// The controller refused the change for good: the ISR is what it was.
    pub fn on_isr_refused(&mut self) -> Option<Offset> {
        self.isr = Isr::committed(self.isr.confirmed());
        self.advance_high_watermark()
    }

    /// Whether a sender's leader epoch is this leader's; [`LeaderEpoch::NONE`] always is.
    ///
    /// # Errors
    /// Says whether the sender or this broker is behind.
    pub fn check_leader_epoch(&self, requested: LeaderEpoch) -> Result<(), EpochError> {
        let current = self.leader_epoch;
        if requested == LeaderEpoch::NONE || requested == current {
            Ok(())
        } else if requested < current {
            Err(EpochError::Fenced { requested, current })
        } else {
            Err(EpochError::Unknown { requested, current })
        }
    }

    /// Whether too few replicas are in sync for `acks=all`: NOT_ENOUGH_REPLICAS.
    #[must_use]
    pub fn is_under_min_isr(&self) -> bool {
        self.isr.confirmed().len() < self.min_isr
    }

    /// Whether "latest" must not be told yet: after an election the high watermark is not to be
    /// trusted until it reaches the start of the leader's epoch (OFFSET_NOT_AVAILABLE).
    #[must_use]
    pub fn is_high_watermark_settled(&self) -> bool {
        self.high_watermark >= self.leader_epoch_start_offset
    }

    /// First offset not yet on all in-sync replicas.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// First offset that a read_committed fetch must not see. The high watermark, for as long as
    /// no transaction can be open.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        self.high_watermark
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.log_end_offset
    }

    /// Everything below is on this broker's disk.
    #[must_use]
    pub fn durable_end_offset(&self) -> Offset {
        self.durable_end_offset
    }

    /// The epoch it leads in.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Where its epoch starts: the log end offset at its election.
    #[must_use]
    pub fn leader_epoch_start_offset(&self) -> Offset {
        self.leader_epoch_start_offset
    }

    /// The in-sync replicas, settled or about to change.
    #[must_use]
    pub fn isr(&self) -> &Isr {
        &self.isr
    }

    /// The high watermark is the least durable log end offset over the maximal ISR, once enough
    /// replicas are in sync (KIP-966). A member that has not fetched in this epoch holds it.
    fn advance_high_watermark(&mut self) -> Option<Offset> {
        if self.is_under_min_isr() {
            return None;
        }
        let slowest = self.isr.maximal_isr().map(|member| self.durable_end_of(member)).min();
        let slowest = slowest.expect("the leader is in its own ISR");
        assert!(slowest <= self.log_end_offset, "a follower acknowledged what we never wrote");
        if slowest <= self.high_watermark {
            return None;
        }
        self.high_watermark = slowest;
        Some(slowest)
    }

    fn durable_end_of(&self, member: BrokerId) -> Offset {
        if member == self.me {
            return self.durable_end_offset;
        }
        self.followers.get(&member).map_or(Offset::ZERO, |held| held.log_end_offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ME: BrokerId = BrokerId(1);
    const B: BrokerId = BrokerId(2);
    const C: BrokerId = BrokerId(3);
    const EPOCH: LeaderEpoch = LeaderEpoch(5);

    fn leader(isr: &[BrokerId]) -> Leader {
        Leader::new(EPOCH, Offset(10), Offset(4), isr, ME)
    }

    #[test]
    fn a_leader_alone_in_sync_has_its_whole_disk_below_the_high_watermark() {
        let mut leader = leader(&[ME]);
        assert_eq!(leader.high_watermark(), Offset(10));
        leader.on_append(Offset(20));
        for (durable, risen) in [(10, None), (15, Some(15)), (12, None), (20, Some(20))] {
            assert_eq!(leader.on_durable(Offset(durable)), risen.map(Offset), "{durable}");
        }
        assert_eq!(leader.last_stable_offset(), Offset(20));
    }

    #[test]
    fn high_watermark_waits_for_the_slowest_in_sync_follower() {
        let mut leader = leader(&[ME, B, C]);
        assert_eq!(leader.high_watermark(), Offset(4));
        for (follower, fetch_offset, risen) in
            [(B, 10, None), (C, 7, Some(7)), (C, 5, None), (C, 10, Some(10))]
        {
            let fetched = leader.on_fetch(follower, EPOCH, Offset(fetch_offset));
            assert_eq!(fetched, Ok(risen.map(Offset)), "{follower} {fetch_offset}");
        }
    }

    #[test]
    fn the_leaders_own_disk_counts_as_a_followers_does() {
        let mut leader = leader(&[ME, B]);
        leader.on_append(Offset(30));
        assert_eq!(leader.on_fetch(B, EPOCH, Offset(30)), Ok(Some(Offset(10))));
        assert_eq!(leader.on_durable(Offset(25)), Some(Offset(25)));
    }

    #[test]
    fn a_followers_mistake_is_told_and_changes_nothing() {
        let mut leader = leader(&[ME, B]);
        let (old, new) = (LeaderEpoch(4), LeaderEpoch(6));
        let fenced = EpochError::Fenced { requested: old, current: EPOCH };
        let unknown = EpochError::Unknown { requested: new, current: EPOCH };
        let past_the_end = FetchError::OffsetOutOfRange {
            follower: B,
            fetch_offset: Offset(11),
            log_end_offset: Offset(10),
        };
        for (follower, epoch, fetch_offset, error) in [
            (B, old, 10, fenced.into()),
            (B, new, 10, unknown.into()),
            (B, EPOCH, 11, past_the_end),
            (ME, EPOCH, 10, FetchError::NotAFollower { follower: ME }),
        ] {
            assert_eq!(leader.on_fetch(follower, epoch, Offset(fetch_offset)), Err(error));
        }
        assert_eq!(leader.high_watermark(), Offset(4));
        assert_eq!(leader.check_leader_epoch(LeaderEpoch::NONE), Ok(()));
    }

    #[test]
    fn a_member_counts_from_when_it_may_join_until_it_has_surely_left() {
        let mut leader = leader(&[ME]);
        leader.on_append(Offset(20));
        assert_eq!(leader.on_fetch(B, EPOCH, Offset(9)), Ok(None));
        assert_eq!(leader.propose_expand(B), None); // below the start of this leader epoch
        assert_eq!(leader.on_fetch(B, EPOCH, Offset(10)), Ok(None));
        assert_eq!(leader.propose_expand(B), Some(vec![ME, B]));
        assert_eq!(leader.on_durable(Offset(20)), None); // B counts before the controller agrees
        assert_eq!(leader.on_isr(EPOCH, PartitionEpoch(1), &[ME, B]), None);
        assert_eq!(leader.propose_shrink(&[B]), Some(vec![ME]));
        assert_eq!(leader.on_append(Offset(21)), ());
        assert_eq!(leader.high_watermark(), Offset(10)); // and after it was asked to let B go
        assert_eq!(leader.on_isr(EPOCH, PartitionEpoch(0), &[ME]), None); // overtaken news
        assert_eq!(leader.on_isr(LeaderEpoch(4), PartitionEpoch(2), &[ME]), None);
        assert_eq!(leader.on_isr(EPOCH, PartitionEpoch(2), &[ME]), Some(Offset(20)));
    }

    #[test]
    fn too_few_in_sync_stop_the_high_watermark_but_one_replica_is_always_enough() {
        let mut leader = leader(&[ME]);
        leader.on_append(Offset(20));
        assert_eq!(leader.set_min_isr(2, 3), None);
        assert!(leader.is_under_min_isr());
        assert_eq!(leader.on_durable(Offset(20)), None);
        assert_eq!(leader.set_min_isr(2, 1), Some(Offset(20)));
        assert!(!leader.is_under_min_isr());
    }

    #[test]
    fn after_an_election_latest_is_told_once_the_epochs_start_is_reached() {
        let mut leader = leader(&[ME, B]);
        assert!(!leader.is_high_watermark_settled());
        assert_eq!(leader.on_fetch(B, EPOCH, Offset(10)), Ok(Some(Offset(10))));
        assert!(leader.is_high_watermark_settled());
    }

    #[test]
    fn an_epoch_starts_behind_what_its_leader_had_not_synced_when_elected() {
        let mut leader = leader(&[ME]).with_undurable_tail(Offset(15));
        assert_eq!(leader.leader_epoch_start_offset(), Offset(15));
        assert!(!leader.is_high_watermark_settled());
        assert_eq!(leader.on_durable(Offset(15)), Some(Offset(15)));
        assert!(leader.is_high_watermark_settled());
    }

    #[test]
    fn what_was_cut_from_the_log_is_cut_from_the_high_watermark() {
        let leader = Leader::new(EPOCH, Offset(3), Offset(4), &[ME, B], ME);
        assert_eq!(leader.high_watermark(), Offset(3));
    }

    /// Something that a leader is told.
    #[derive(Debug, Clone)]
    enum Told {
        Append(i64),
        Durable(i64),
        Fetch(i32, i64),
        Expand(i32),
        Shrink(i32),
        Confirm,
        Refuse,
    }

    fn told() -> impl Strategy<Value = Told> {
        prop_oneof![
            (1..5_i64).prop_map(Told::Append),
            (0..5_i64).prop_map(Told::Durable),
            (2..5_i32, 0..6_i64).prop_map(|(id, behind)| Told::Fetch(id, behind)),
            (2..5_i32).prop_map(Told::Expand),
            (2..5_i32).prop_map(Told::Shrink),
            Just(Told::Confirm),
            Just(Told::Refuse),
        ]
    }

    /// What the leader should know, kept as simply as can be.
    struct Model {
        held: BTreeMap<BrokerId, i64>,
        /// Everybody whom the controller may have in its ISR now.
        maximal: BTreeSet<BrokerId>,
        log_end: i64,
        high_watermark: i64,
        partition_epoch: i32,
    }

    impl Model {
        fn tell(&mut self, leader: &mut Leader, told: Told) {
            match told {
                Told::Append(count) => {
                    self.log_end += count;
                    leader.on_append(Offset(self.log_end));
                }
                Told::Durable(behind) => {
                    let durable = (self.log_end - behind).max(0);
                    leader.on_durable(Offset(durable));
                    self.hold(ME, durable);
                }
                Told::Fetch(id, behind) => {
                    let fetch_offset = (self.log_end - behind).max(0);
                    leader.on_fetch(BrokerId(id), EPOCH, Offset(fetch_offset)).expect("lawful");
                    self.hold(BrokerId(id), fetch_offset);
                }
                Told::Expand(id) => {
                    if leader.propose_expand(BrokerId(id)).is_some() {
                        self.maximal.insert(BrokerId(id));
                    }
                }
                Told::Shrink(id) => {
                    let _ = leader.propose_shrink(&[BrokerId(id)]); // counts until it is confirmed
                }
                Told::Confirm => {
                    let agreed = leader.isr().proposed();
                    self.maximal = agreed.iter().copied().collect();
                    self.partition_epoch += 1;
                    leader.on_isr(EPOCH, PartitionEpoch(self.partition_epoch), &agreed);
                }
                Told::Refuse => {
                    self.maximal = leader.isr().confirmed().iter().copied().collect();
                    leader.on_isr_refused();
                }
            }
        }

        fn hold(&mut self, id: BrokerId, offset: i64) {
            let held = self.held.entry(id).or_insert(0);
            *held = (*held).max(offset);
        }

        fn least(&self) -> i64 {
            self.maximal.iter().map(|id| self.held.get(id).copied().unwrap_or(0)).min().unwrap()
        }
    }

    proptest! {
        #[test]
        fn high_watermark_is_the_least_over_the_maximal_isr_and_never_goes_back(
            others in prop::collection::btree_set(2..5_i32, 0..3),
            tale in prop::collection::vec(told(), 1..60),
        ) {
            let isr: BTreeSet<_> = others.into_iter().map(BrokerId).chain([ME]).collect();
            let members: Vec<_> = isr.iter().copied().collect();
            let mut leader = Leader::new(EPOCH, Offset(10), Offset(4), &members, ME);
            let mut model = Model {
                held: BTreeMap::from([(ME, 10)]),
                maximal: isr,
                log_end: 10,
                high_watermark: 4,
                partition_epoch: 0,
            };
            model.high_watermark = model.high_watermark.max(model.least());
            prop_assert_eq!(leader.high_watermark(), Offset(model.high_watermark));
            for told in tale {
                model.tell(&mut leader, told.clone());
                model.high_watermark = model.high_watermark.max(model.least());
                let expected = Offset(model.high_watermark);
                prop_assert_eq!(leader.high_watermark(), expected, "{:?}", told);
            }
        }
    }
}
