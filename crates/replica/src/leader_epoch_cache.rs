//! Where each leader epoch starts in a log (KIP-101, KIP-279).

use tidelog_types::{LeaderEpoch, Offset};

/// The leader epochs that a log's records were written in.
///
/// Invariant: epochs and start offsets both rise from entry to entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderEpochCache {
    entries: Vec<EpochStart>,
}

/// One leader epoch and the offset of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub leader_epoch: LeaderEpoch,
    /// Where it starts.
    pub start_offset: Offset,
}

/// How far a leader epoch reaches in this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The greatest epoch not above the one asked for.
    pub leader_epoch: LeaderEpoch,
    /// The offset after its last record.
    pub end_offset: Offset,
}

impl EpochEnd {
    /// The answer where nothing is known: −1 and −1.
    pub const UNDEFINED: EpochEnd =
        EpochEnd { leader_epoch: LeaderEpoch::NONE, end_offset: Offset(-1) };
}

impl LeaderEpochCache {
    /// Records from `start_offset` on belong to `leader_epoch`. Assigning the latest epoch again
    /// changes nothing. An epoch in which nothing was written is forgotten: otherwise every
    /// restart would leave one behind.
    pub fn assign(&mut self, leader_epoch: LeaderEpoch, start_offset: Offset) {
        assert!(leader_epoch.0 >= 0, "records are written in a real leader epoch");
        if let Some(last) = self.entries.last() {
            assert!(leader_epoch >= last.leader_epoch, "leader epochs went back in one log");
            if leader_epoch == last.leader_epoch {
                return;
            }
            assert!(start_offset >= last.start_offset, "a later epoch starts earlier");
            if start_offset == last.start_offset {
                self.entries.pop();
            }
        }
        self.entries.push(EpochStart { leader_epoch, start_offset });
    }

    /// Where `requested` ends in a log that ends at `log_end_offset`, by Kafka's rules: the
    /// greatest epoch not above the requested one, ending where the next one starts.
    #[must_use]
    pub fn end_offset_for(&self, requested: LeaderEpoch, log_end_offset: Offset) -> EpochEnd {
        let Some(latest) = self.entries.last() else { return EpochEnd::UNDEFINED };
        if requested == latest.leader_epoch {
            return EpochEnd { leader_epoch: requested, end_offset: log_end_offset };
        }
        if requested.0 < 0 {
            return EpochEnd::UNDEFINED;
        }
        let above = self.entries.partition_point(|entry| entry.leader_epoch <= requested);
        let Some(higher) = self.entries.get(above) else { return EpochEnd::UNDEFINED };
        let leader_epoch = match above.checked_sub(1) {
            Some(floor) => self.entries[floor].leader_epoch,
            None => requested,
        };
        EpochEnd { leader_epoch, end_offset: higher.start_offset }
    }

    /// The epoch that the record at `offset` was written in.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let above = self.entries.partition_point(|entry| entry.start_offset <= offset);
        Some(self.entries[above.checked_sub(1)?].leader_epoch)
    }

    /// The latest epoch.
    #[must_use]
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.leader_epoch)
    }

    /// Forgets epochs that start at or past a new log end.
    pub fn truncate_from_end(&mut self, log_end_offset: Offset) {
        self.entries.retain(|entry| entry.start_offset < log_end_offset);
    }

    /// Forgets epochs that end at or below a new log start; the one that reaches over it starts
    /// there now.
    pub fn truncate_from_start(&mut self, log_start_offset: Offset) {
        let above = self.entries.partition_point(|entry| entry.start_offset <= log_start_offset);
        let Some(floor) = above.checked_sub(1) else { return };
        self.entries.drain(..floor);
        self.entries[0].start_offset = log_start_offset;
        assert!(
            self.entries.is_sorted_by(|a, b| a.start_offset < b.start_offset),
            "epochs start one after the other"
        );
    }

    /// All epochs, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// Takes over entries that were stored, if they rise as they must.
    pub(crate) fn from_entries(entries: Vec<EpochStart>) -> Option<LeaderEpochCache> {
        let rises = |a: &EpochStart, b: &EpochStart| {
            a.leader_epoch < b.leader_epoch && a.start_offset < b.start_offset
        };
        let starts_right = entries.first().is_none_or(|e| e.leader_epoch.0 >= 0);
        (starts_right && entries.is_sorted_by(rises)).then_some(LeaderEpochCache { entries })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cache(entries: &[(i32, i64)]) -> LeaderEpochCache {
        let mut cache = LeaderEpochCache::default();
        for (epoch, start) in entries {
            cache.assign(LeaderEpoch(*epoch), Offset(*start));
        }
        cache
    }

    fn entries(cache: &LeaderEpochCache) -> Vec<(i32, i64)> {
        cache.entries().iter().map(|e| (e.leader_epoch.0, e.start_offset.0)).collect()
    }

    #[test]
    fn an_epoch_without_records_leaves_no_trace() {
        for (assigned, kept) in [
            (&[(0, 0), (1, 0), (2, 0)][..], &[(2, 0)][..]),
            (&[(0, 0), (1, 5), (1, 7)], &[(0, 0), (1, 5)]),
            (&[(0, 0), (3, 5), (4, 5), (9, 8)], &[(0, 0), (4, 5), (9, 8)]),
        ] {
            assert_eq!(entries(&cache(assigned)), kept);
        }
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts() {
        let cache = cache(&[(2, 10), (4, 20), (7, 30)]);
        let end =
            |epoch, end| EpochEnd { leader_epoch: LeaderEpoch(epoch), end_offset: Offset(end) };
        for (requested, expected) in [
            (-1, EpochEnd::UNDEFINED),
            (0, end(0, 10)),
            (2, end(2, 20)),
            (3, end(2, 20)),
            (4, end(4, 30)),
            (6, end(4, 30)),
            (7, end(7, 99)),
            (8, EpochEnd::UNDEFINED),
        ] {
            let found = cache.end_offset_for(LeaderEpoch(requested), Offset(99));
            assert_eq!(found, expected, "{requested}");
        }
        let nothing = LeaderEpochCache::default();
        assert_eq!(nothing.end_offset_for(LeaderEpoch(0), Offset(0)), EpochEnd::UNDEFINED);
    }

    /// What happens to a log.
    #[derive(Debug, Clone)]
    enum Step {
        Elect(i32),
        Append(usize),
        TruncateFromEnd(prop::sample::Index),
        TruncateFromStart(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (1..3_i32).prop_map(Step::Elect),
            4 => (1..5_usize).prop_map(Step::Append),
            1 => any::<prop::sample::Index>().prop_map(Step::TruncateFromEnd),
            1 => any::<prop::sample::Index>().prop_map(Step::TruncateFromStart),
        ]
    }

    proptest! {
        /// The model is the log itself: the epoch of each record.
        #[test]
        fn the_cache_says_what_the_log_says(steps in prop::collection::vec(step(), 1..60)) {
            let (mut cache, mut log, mut start, mut epoch) =
                (LeaderEpochCache::default(), Vec::new(), 0_usize, 0);
            for step in steps {
                match step {
                    Step::Elect(more) => epoch += more,
                    Step::Append(count) => {
                        cache.assign(LeaderEpoch(epoch), Offset(log.len() as i64));
                        log.extend(std::iter::repeat_n(epoch, count));
                    }
                    Step::TruncateFromEnd(place) => {
                        log.truncate(start + place.index(log.len() - start + 1));
                        cache.truncate_from_end(Offset(log.len() as i64));
                    }
                    Step::TruncateFromStart(place) => {
                        start += place.index(log.len() - start + 1);
                        cache.truncate_from_start(Offset(start as i64));
                    }
                }
                for (offset, epoch) in log.iter().enumerate().skip(start) {
                    let found = cache.epoch_of(Offset(offset as i64));
                    prop_assert_eq!(found, Some(LeaderEpoch(*epoch)), "{}", offset);
                    let end = log.iter().rposition(|other| other == epoch).unwrap() + 1;
                    let found = cache.end_offset_for(LeaderEpoch(*epoch), Offset(log.len() as i64));
                    prop_assert_eq!(found.end_offset, Offset(end as i64));
                }
                let stored = cache.entries().to_vec();
                prop_assert_eq!(LeaderEpochCache::from_entries(stored), Some(cache.clone()));
            }
        }
    }
}
