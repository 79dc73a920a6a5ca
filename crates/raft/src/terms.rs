//! Which term an index has, answered without a disk: runs of equal terms.
//!
//! raft-rs asks for terms one index at a time while it looks for a conflict; terms grow along the
//! log and change with elections only, so the runs are few however long the log is.

/// Terms of every index from the truncated one to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TermIndex {
    /// The truncated index; its term is kept so that the entry after it can be matched.
    truncated: u64,
    last: u64,
    /// Where a term begins, and the term; the first run begins at `truncated`.
    runs: Vec<(u64, u64)>,
}

impl TermIndex {
    /// An empty log after `truncated`, which has `term`; (0, 0) for a log that never had entries.
    pub(crate) fn new(truncated: u64, term: u64) -> TermIndex {
        assert!((truncated == 0) == (term == 0), "only index 0 has term 0");
        TermIndex { truncated, last: truncated, runs: vec![(truncated, term)] }
    }

    /// The first index that has an entry.
    pub(crate) fn first(&self) -> u64 {
        self.truncated + 1
    }

    /// The last index; the truncated one where there are no entries.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The truncated index and its term.
    pub(crate) fn truncated(&self) -> (u64, u64) {
        (self.truncated, self.runs[0].1)
    }

    /// The term of an index, `None` outside of truncated..=last.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index < self.truncated || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|(start, _)| *start <= index);
        assert!(after > 0, "the first run begins at the truncated index");
        Some(self.runs[after - 1].1)
    }

    /// Adds one entry, cutting what was there from its index on.
    pub(crate) fn append(&mut self, index: u64, term: u64) {
        assert!(index > self.truncated, "an entry below the start of the log");
        assert!(index <= self.last + 1, "a gap in the log");
        self.cut(index);
        let newest = self.runs[self.runs.len() - 1].1;
        assert!(newest <= term, "terms never fall along a log");
        if newest != term {
            self.runs.push((index, term));
        }
        self.last = index;
    }

    /// Forgets everything from `index` on.
    pub(crate) fn cut(&mut self, index: u64) {
        assert!(index > self.truncated, "the truncated index cannot be cut");
        if index > self.last {
            return;
        }
        let keep = self.runs.partition_point(|(start, _)| *start < index);
        self.runs.truncate(keep.max(1));
        self.last = index - 1;
    }

    /// Forgets everything below `index`, which must be in the log, and truncates there.
    pub(crate) fn truncate_prefix(&mut self, index: u64) {
        let Some(term) = self.term(index) else {
            panic!("index {index} is not in {}..={}", self.truncated, self.last)
        };
        let after = self.runs.partition_point(|(start, _)| *start <= index);
        self.runs.drain(..after - 1);
        self.runs[0] = (index, term);
        self.truncated = index;
    }
}

impl TermIndex {
    /// The truncated index turns out to have another term than was assumed, not a higher one.
    pub(crate) fn correct_truncated(&mut self, term: u64) {
        let (index, assumed) = self.runs[0];
        assert!(term <= assumed, "terms never fall along a log");
        let is_shared = self.runs.get(1).is_none_or(|(start, _)| *start > index + 1);
        self.runs[0].1 = term;
        if is_shared && self.last > index && term != assumed {
            self.runs.insert(1, (index + 1, assumed));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_log_has_term_zero_at_index_zero() {
        let terms = TermIndex::new(0, 0);
        assert_eq!((terms.first(), terms.last()), (1, 0));
        assert_eq!((terms.term(0), terms.term(1)), (Some(0), None));
    }

    #[test]
    fn the_truncated_term_outlives_its_entry() {
        let mut terms = TermIndex::new(0, 0);
        for (index, term) in [(1, 1), (2, 1), (3, 4), (4, 4), (5, 6)] {
            terms.append(index, term);
        }
        terms.truncate_prefix(4);
        assert_eq!(terms.truncated(), (4, 4));
        assert_eq!([3, 4, 5, 6].map(|i| terms.term(i)), [None, Some(4), Some(6), None]);
        terms.cut(5);
        assert_eq!([4, 5].map(|i| terms.term(i)), [Some(4), None]);
    }

    #[test]
    fn a_truncated_term_that_was_assumed_is_corrected_alone() {
        let mut terms = TermIndex::new(4, 7);
        (5..8).for_each(|index| terms.append(index, 7));
        terms.correct_truncated(3);
        assert_eq!([4, 5, 7].map(|i| terms.term(i)), [Some(3), Some(7), Some(7)]);
        terms.correct_truncated(2);
        assert_eq!([4, 5, 7].map(|i| terms.term(i)), [Some(2), Some(7), Some(7)]);
    }

    proptest! {
        /// Appends that cut and prefixes that go, against a plain list.
        #[test]
        fn runs_answer_as_a_list_would(
            steps in prop::collection::vec((0u8..4, 0u64..12, 1u64..5, 0u64..3), 0..60),
        ) {
            let mut terms = TermIndex::new(0, 0);
            let mut list = vec![0u64];
            let mut start = 0usize;
            for (what, back, count, rise) in steps {
                let last = start as u64 + list.len() as u64 - 1;
                if what == 0 {
                    let index = last.saturating_sub(back).max(start as u64);
                    terms.truncate_prefix(index);
                    list.drain(..(index as usize - start));
                    start = index as usize;
                } else {
                    let from = (last + 1).saturating_sub(back).max(start as u64 + 1);
                    list.truncate(from as usize - start);
                    let term = list[list.len() - 1].max(1) + rise;
                    for index in from..from + count {
                        terms.append(index, term);
                        list.push(term);
                    }
                }
                let end = start as u64 + list.len() as u64;
                for index in (start as u64).saturating_sub(1)..=end {
                    let expected = (index as usize)
                        .checked_sub(start).and_then(|i| list.get(i)).copied();
                    prop_assert_eq!(terms.term(index), expected);
                }
            }
        }
    }
}
