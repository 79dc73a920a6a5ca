//! The window of recent entries in memory: bounded in bytes and count, but pinned over everything
//! that is not applied yet.
//!
//! The pin is what makes the store safe to ask: raft-rs looks for entries above the applied index
//! from places that cannot wait for a disk, and panics where it gets none.

use std::collections::VecDeque;

use protobuf::Message as _;
use raft::eraftpb::Entry;

/// A stretch of entries that ends at the last index.
#[derive(Debug)]
pub(crate) struct EntryCache {
    entries: VecDeque<Entry>,
    /// Encoded size of each entry and of all before it, as raft-rs limits messages; counted from
    /// an arbitrary start, so that the sum over any stretch is one subtraction.
    encoded_ends: VecDeque<u64>,
    encoded_start: u64,
    /// The index after the last one.
    next: u64,
    bytes: u64,
    bytes_max: u64,
    entries_max: usize,
}

impl EntryCache {
    /// An empty window after `last`.
    pub(crate) fn new(last: u64, bytes_max: u64, entries_max: usize) -> EntryCache {
        EntryCache {
            entries: VecDeque::new(),
            encoded_ends: VecDeque::new(),
            encoded_start: 0,
            next: last + 1,
            bytes: 0,
            bytes_max,
            entries_max,
        }
    }

    /// The first index in memory; the index after the last one where the window is empty.
    pub(crate) fn first(&self) -> u64 {
        self.next - self.entries.len() as u64
    }

    /// Entries in memory.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes that the entries hold.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that the entries above `applied` hold.
    pub(crate) fn bytes_above(&self, applied: u64) -> u64 {
        let above = self.next.saturating_sub(applied + 1).min(self.entries.len() as u64);
        let below = self.entries.len() - above as usize;
        let end = self.encoded_ends.back().copied().unwrap_or(self.encoded_start);
        end - self.encoded_before(below) + above * size_of::<Entry>() as u64
    }

    /// Adds entries, cutting what was there from the first one's index on.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        self.cut(first.index);
        assert!(first.index == self.next, "a gap in the window");
        for entry in entries {
            assert!(entry.index == self.next, "entries out of order");
            let end = self.encoded_ends.back().copied().unwrap_or(self.encoded_start);
            self.encoded_ends.push_back(end + u64::from(entry.compute_size()));
            self.bytes += entry_bytes(entry);
            self.entries.push_back(entry.clone());
            self.next += 1;
        }
    }

    /// Forgets everything from `index` on. Below the window, the window is empty and begins there.
    pub(crate) fn cut(&mut self, index: u64) {
        while self.next > index {
            self.next -= 1;
            if let Some(entry) = self.entries.pop_back() {
                self.encoded_ends.pop_back();
                self.bytes -= entry_bytes(&entry);
            } else {
                self.next = index;
            }
        }
    }

    /// Drops the oldest entries while a bound is exceeded, none above `applied`.
    pub(crate) fn evict(&mut self, applied: u64) {
        while (self.bytes > self.bytes_max || self.entries.len() > self.entries_max)
            && self.first() <= applied
        {
            self.pop_front();
        }
    }

    /// Drops everything up to `index`, which the log no longer has.
    pub(crate) fn drop_through(&mut self, index: u64) {
        while !self.entries.is_empty() && self.first() <= index {
            self.pop_front();
        }
    }

    /// Starts over, empty, after `last`.
    pub(crate) fn reset(&mut self, last: u64) {
        *self = EntryCache::new(last, self.bytes_max, self.entries_max);
    }

    /// The entries of [low, high) up to `max_size` encoded bytes, at least one; `None` where `low`
    /// is older than the window.
    pub(crate) fn slice(&self, low: u64, high: u64, max_size: Option<u64>) -> Option<Vec<Entry>> {
        if low < self.first() {
            return None;
        }
        assert!(low < high && high <= self.next, "a range that the log does not have");
        let from = (low - self.first()) as usize;
        let limit = self.encoded_before(from).saturating_add(max_size.unwrap_or(u64::MAX));
        let fit = self.encoded_ends.partition_point(|end| *end <= limit);
        let to = fit.clamp(from + 1, (high - self.first()) as usize);
        Some(self.entries.range(from..to).cloned().collect())
    }

    /// Encoded size of everything before the entry at `place` in the window.
    fn encoded_before(&self, place: usize) -> u64 {
        match place {
            0 => self.encoded_start,
            _ => self.encoded_ends[place - 1],
        }
    }

    fn pop_front(&mut self) {
        let (Some(entry), Some(end)) = (self.entries.pop_front(), self.encoded_ends.pop_front())
        else {
            panic!("nothing to drop from an empty window")
        };
        self.encoded_start = end;
        self.bytes -= entry_bytes(&entry);
    }
}

/// What an entry costs in memory.
pub(crate) fn entry_bytes(entry: &Entry) -> u64 {
    (size_of::<Entry>() + entry.data.len() + entry.context.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::RangeInclusive<u64>, data_bytes: usize) -> Vec<Entry> {
        let entry =
            |index| Entry { index, term: 1, data: vec![7; data_bytes].into(), ..Entry::default() };
        range.map(entry).collect()
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|e| e.index).collect()
    }

    #[test]
    fn what_is_not_applied_stays_however_small_the_bounds_are() {
        let mut cache = EntryCache::new(0, 0, 1);
        cache.append(&entries(1..=10, 8));
        cache.evict(0);
        assert_eq!((cache.first(), cache.len()), (1, 10));
        cache.evict(7);
        assert_eq!((cache.first(), cache.len()), (8, 3));
        cache.evict(10);
        assert_eq!((cache.first(), cache.len(), cache.bytes()), (11, 0, 0));
    }

    #[test]
    fn both_bounds_hold_over_what_is_applied() {
        let entry = entry_bytes(&entries(1..=1, 8)[0]);
        for (bytes_max, entries_max, first) in [(entry * 3, 100, 8), (u64::MAX, 4, 7)] {
            let mut cache = EntryCache::new(0, bytes_max, entries_max);
            cache.append(&entries(1..=10, 8));
            cache.evict(10);
            assert_eq!(cache.first(), first);
            assert_eq!(cache.bytes(), entry * (11 - first));
        }
    }

    #[test]
    fn an_append_cuts_what_was_there_even_below_the_window() {
        let mut cache = EntryCache::new(0, u64::MAX, 4);
        cache.append(&entries(1..=10, 8));
        cache.evict(10);
        cache.append(&entries(9..=9, 8));
        assert_eq!(indexes(&cache.slice(7, 10, None).expect("in memory")), [7, 8, 9]);
        cache.append(&entries(3..=4, 8));
        assert_eq!((cache.first(), cache.len()), (3, 2));
        assert_eq!(cache.slice(2, 4, None), None);
    }

    #[test]
    fn a_slice_is_limited_as_raft_limits_it_and_never_empty() {
        let mut cache = EntryCache::new(0, u64::MAX, usize::MAX);
        cache.append(&entries(1..=9, 8));
        cache.append(&entries(10..=10, 5000));
        cache.evict(10);
        cache.drop_through(2);
        for low in 3..=10 {
            for max_size in (0..200).chain([4096, 6000]) {
                let mut expected: Vec<Entry> = entries(low..=9, 8);
                expected.extend(entries(10..=10, 5000));
                raft::util::limit_size(&mut expected, Some(max_size));
                assert_eq!(cache.slice(low, 11, Some(max_size)), Some(expected));
            }
        }
    }

    #[test]
    fn bytes_above_counts_only_what_is_not_applied() {
        let mut cache = EntryCache::new(0, u64::MAX, usize::MAX);
        cache.append(&entries(1..=4, 100));
        let entry = &entries(1..=1, 100)[0];
        let one = u64::from(entry.compute_size()) + size_of::<Entry>() as u64;
        assert_eq!([0, 2, 4].map(|i| cache.bytes_above(i)), [4 * one, 2 * one, 0]);
    }
}
