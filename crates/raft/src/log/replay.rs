//! What the log says, record by record, in file order: an append at an index cuts what was there.
//!
//! The first file that is still there may begin in the middle of the log. Its first record says
//! where the log ended before it; if a later record truncates at or above that place, nothing is
//! missing, and if none does, the log is damaged.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};

use super::{offsets::OffsetTable, record::Record};
use crate::{entry_cache::EntryCache, terms::TermIndex};

/// A snapshot that is durable, without its contents.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SnapshotMeta {
    /// The last index it includes; 0 for the empty state that every group begins with.
    pub(crate) index: u64,
    /// Its term.
    pub(crate) term: u64,
    /// The group's members at that index.
    pub(crate) conf_state: ConfState,
}

impl SnapshotMeta {
    /// What a snapshot says about itself.
    pub(crate) fn of(snapshot: &Snapshot) -> SnapshotMeta {
        let metadata = snapshot.get_metadata();
        let conf_state = metadata.get_conf_state().clone();
        SnapshotMeta { index: metadata.index, term: metadata.term, conf_state }
    }
}

/// The state of the log so far.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<SnapshotMeta>,
    pub(crate) terms: TermIndex,
    pub(crate) cache: EntryCache,
    pub(crate) table: OffsetTable,
    /// Whether the place where the log begins is known.
    is_anchored: bool,
    /// Entries up to here were in files that are gone, or unreadable.
    missing_through: u64,
    /// The highest index that a record truncated at.
    truncated_through: u64,
}

/// Where a record lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location {
    /// Where it begins in the newest file noted, in bytes.
    pub(crate) position: u64,
    /// Its length, in bytes.
    pub(crate) length: u64,
}

impl Replay {
    /// Nothing read yet; `cache` is an empty window with the bounds to keep, `table` an
    /// empty table.
    pub(crate) fn new(cache: EntryCache, table: OffsetTable) -> Replay {
        Replay {
            hard_state: HardState::default(),
            snapshot: None,
            terms: TermIndex::new(0, 0),
            cache,
            table,
            is_anchored: false,
            missing_through: 0,
            truncated_through: 0,
        }
    }

    /// The rest of a file cannot be read. That is no loss if a later record truncates past it, so
    /// the next file anchors the log anew.
    pub(crate) fn lose_anchor(&mut self) {
        self.is_anchored = false;
    }

    /// Whether the log has a beginning to which the next record can be added.
    pub(crate) fn has_anchor(&self) -> bool {
        self.is_anchored
    }

    /// Applies the next record; an error says why it cannot follow the ones before.
    pub(crate) fn apply(&mut self, record: Record, location: Location) -> Result<(), String> {
        match record {
            Record::LogEnd { index, term } => self.apply_log_end(index, term),
            _ if !self.is_anchored => Err("the log has no beginning".to_owned()),
            Record::Append(entries) => self.apply_append(entries, location),
            Record::HardState(hard_state) => {
                self.hard_state = hard_state;
                Ok(())
            }
            Record::SnapshotMarker { index, term, conf_state } => {
                self.apply_marker(SnapshotMeta { index, term, conf_state });
                Ok(())
            }
            Record::TruncatePrefix { index, term } => self.apply_truncate(index, term),
        }
    }

    /// Whether everything the log needs was there; an error says what is missing.
    pub(crate) fn finish(&self) -> Result<(), String> {
        if self.is_floating() {
            let first = self.truncated_through + 1;
            return Err(format!("entries {first} to {} are missing", self.missing_through));
        }
        let truncated = self.terms.truncated().0;
        match &self.snapshot {
            Some(snapshot) if snapshot.index < truncated => {
                Err(format!("the log begins after {truncated}, its snapshot at {}", snapshot.index))
            }
            Some(_) => Ok(()),
            None if self.is_anchored => Err("no snapshot marker, so no members".to_owned()),
            None => Ok(()),
        }
    }

    fn apply_log_end(&mut self, index: u64, term: u64) -> Result<(), String> {
        if self.is_anchored {
            let ours = (self.terms.last(), self.terms.term(self.terms.last()));
            return match ours == (index, Some(term)) {
                true => Ok(()),
                false => Err(format!("the log ended at {index} of term {term}, not at {}", ours.0)),
            };
        }
        if (index == 0) != (term == 0) {
            return Err(format!("index {index} cannot have term {term}"));
        }
        self.is_anchored = true;
        self.missing_through = index;
        self.begin_after(index, term);
        Ok(())
    }

    fn apply_append(&mut self, entries: Vec<Entry>, location: Location) -> Result<(), String> {
        let (first, count) = (entries[0].index, entries.len() as u64);
        if first <= self.terms.truncated().0 && self.is_floating() {
            // What was there had been cut before its file went; the term before is not known yet.
            self.missing_through = first - 1;
            let assumed = if first > 1 { entries[0].term } else { 0 };
            self.begin_after(first - 1, assumed);
        }
        if first <= self.terms.truncated().0 || first > self.terms.last() + 1 {
            let (truncated, last) = (self.terms.truncated().0, self.terms.last());
            return Err(format!("entry {first} does not follow {truncated}..={last}"));
        }
        let mut before = self.terms.term(first - 1).unwrap_or(u64::MAX);
        for entry in &entries {
            if entry.term < before {
                return Err(format!("entry {} has a lower term than the one before", entry.index));
            }
            before = entry.term;
        }
        entries.iter().for_each(|entry| self.terms.append(entry.index, entry.term));
        self.cache.append(&entries);
        self.cache.evict(self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index));
        self.table.note_append(first, count, location.position, location.length);
        Ok(())
    }

    fn apply_marker(&mut self, snapshot: SnapshotMeta) {
        let is_ahead = snapshot.index > self.terms.truncated().0;
        if is_ahead && self.terms.term(snapshot.index) != Some(snapshot.term) {
            self.truncated_through = self.truncated_through.max(snapshot.index);
            self.begin_after(snapshot.index, snapshot.term);
        }
        self.snapshot = Some(snapshot);
    }

    fn apply_truncate(&mut self, index: u64, term: u64) -> Result<(), String> {
        self.truncated_through = self.truncated_through.max(index);
        let (truncated, assumed) = self.terms.truncated();
        if index < truncated {
            return Ok(());
        }
        if index == truncated && term <= assumed {
            self.terms.correct_truncated(term);
            return Ok(());
        }
        if self.terms.term(index) != Some(term) {
            return Err(format!(
                "the log is truncated at {index} of term {term}, which it has not"
            ));
        }
        self.terms.truncate_prefix(index);
        self.cache.drop_through(index);
        Ok(())
    }

    /// Whether the log so far begins where a file did and not where it was truncated.
    fn is_floating(&self) -> bool {
        self.missing_through > self.truncated_through
    }

    fn begin_after(&mut self, index: u64, term: u64) {
        self.terms = TermIndex::new(index, term);
        self.cache.reset(index);
        self.table.reset(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Record {
        Record::Append(range.map(|index| Entry { index, term, ..Entry::default() }).collect())
    }

    fn marker(index: u64, term: u64) -> Record {
        Record::SnapshotMarker { index, term, conf_state: ConfState::default() }
    }

    /// Plays records of one file and returns (truncated, last) or what was wrong.
    fn play(records: Vec<Record>) -> Result<(u64, u64), String> {
        let mut replay =
            Replay::new(EntryCache::new(0, u64::MAX, usize::MAX), OffsetTable::new(1 << 20));
        replay.table.begin_file(1, 1, 4096, 1 << 20);
        let mut position = 4096;
        for record in records {
            replay.apply(record, Location { position, length: 64 })?;
            position += 64;
        }
        replay.finish()?;
        Ok((replay.terms.truncated().0, replay.terms.last()))
    }

    #[test]
    fn records_count_in_file_order_and_the_newest_append_wins() {
        let begin = || vec![Record::LogEnd { index: 0, term: 0 }, marker(0, 0)];
        let truncate = |index, term| Record::TruncatePrefix { index, term };
        let cases = [
            (vec![entries(1..=5, 1)], Ok((0, 5))),
            (vec![entries(1..=5, 1), entries(3..=3, 2)], Ok((0, 3))),
            (vec![entries(1..=5, 1), marker(4, 1), truncate(3, 1)], Ok((3, 5))),
            (vec![entries(1..=5, 1), marker(9, 2)], Ok((9, 9))),
            (vec![entries(1..=5, 1), marker(4, 2)], Ok((4, 4))),
            (vec![entries(1..=5, 2), entries(6..=6, 1)], Err("a lower term than the one before")),
            (vec![entries(2..=5, 1)], Err("entry 2 does not follow 0..=0")),
            (vec![entries(1..=5, 1), truncate(3, 1)], Err("its snapshot at 0")),
            (vec![entries(1..=5, 1), truncate(7, 1)], Err("which it has not")),
        ];
        for (more, expected) in cases {
            let told = format!("{more:?}");
            match (play(begin().into_iter().chain(more).collect()), expected) {
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
                (got, expected) => assert_eq!(got, expected.map_err(str::to_owned), "{told}"),
            }
        }
    }

    #[test]
    fn a_log_that_begins_in_the_middle_needs_a_truncation_past_what_is_gone() {
        let begin = || vec![Record::LogEnd { index: 100, term: 4 }, marker(90, 4)];
        let more = vec![entries(101..=110, 4)];
        let without: Vec<Record> = begin().into_iter().chain(more.clone()).collect();
        assert_eq!(play(without), Err("entries 1 to 100 are missing".to_owned()));
        let truncated = vec![marker(105, 4), Record::TruncatePrefix { index: 104, term: 4 }];
        let with: Vec<Record> = begin().into_iter().chain(more).chain(truncated).collect();
        assert_eq!(play(with), Ok((104, 110)));
    }

    #[test]
    fn a_tail_that_was_cut_after_its_file_began_is_not_missing() {
        // The file before had entries up to 100; 98 to 100 were cut, then all below 98 went.
        let begin =
            vec![Record::LogEnd { index: 100, term: 4 }, marker(90, 3), entries(98..=99, 5)];
        let truncate =
            |index, term| [marker(index, term), Record::TruncatePrefix { index, term }].into_iter();
        let floating: Vec<Record> = begin.clone();
        assert_eq!(play(floating), Err("entries 1 to 97 are missing".to_owned()));
        let before: Vec<Record> = begin.clone().into_iter().chain(truncate(97, 3)).collect();
        assert_eq!(play(before), Ok((97, 99)));
        let within: Vec<Record> = begin.into_iter().chain(truncate(98, 5)).collect();
        assert_eq!(play(within), Ok((98, 99)));
    }
}
