//! The tail cache: a partition's newest batches, as the same entries that are written.
//!
//! The front may be in segments already and is kept for readers that are a little behind; the
//! rest is in the WAL only and must not be forgotten.

use std::collections::VecDeque;

use tidelog_types::{Entry, Offset};

use crate::compaction::cleaner::UnspilledSpan;

/// A batch in memory.
#[derive(Debug, Clone)]
pub(crate) struct TailEntry {
    pub(crate) entry: Entry,
    pub(crate) base: Offset,
    pub(crate) last: Offset,
    /// Sequence of its frame.
    pub(crate) sequence: u64,
}

impl TailEntry {
    pub(crate) fn new(entry: Entry, sequence: u64) -> TailEntry {
        let facts = entry.facts();
        TailEntry { entry, base: facts.base_offset, last: facts.last_offset(), sequence }
    }

    /// Bytes that it is charged with.
    pub(crate) fn bytes(&self) -> u64 {
        self.entry.memory_bytes()
    }
}

/// Batches in order of offset. There may be damaged ranges between them, never overlaps.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    entries: VecDeque<TailEntry>,
    /// How many at the front are in segments too.
    spilled: usize,
}

impl Tail {
    pub(crate) fn push(&mut self, entry: TailEntry) {
        assert!(
            self.entries.back().is_none_or(|back| back.last < entry.base),
            "a batch starts behind the one before"
        );
        self.entries.push_back(entry);
    }

    /// Takes back every batch that reaches to `to` or beyond; returns the bytes, and the base
    /// offset of a batch that `to` lay inside of.
    pub(crate) fn truncate(&mut self, to: Offset) -> (u64, Option<Offset>) {
        let (mut bytes, mut inside) = (0, None);
        while let Some(back) = self.entries.pop_back_if(|back| back.last >= to) {
            bytes += back.bytes();
            inside = (back.base < to).then_some(back.base);
        }
        self.spilled = self.spilled.min(self.entries.len());
        assert!(self.entries.back().is_none_or(|back| back.last < to), "nothing stays beyond");
        (bytes, inside)
    }

    /// Forgets everything; returns the bytes.
    pub(crate) fn clear(&mut self) -> u64 {
        let bytes = self.bytes();
        self.entries.clear();
        self.spilled = 0;
        bytes
    }

    /// Forgets up to `through` what segments hold; returns the bytes.
    pub(crate) fn evict(&mut self, through: Offset) -> u64 {
        let mut bytes = 0;
        while self.spilled > 0
            && let Some(front) = self.entries.pop_front_if(|front| front.last <= through)
        {
            self.spilled -= 1;
            bytes += front.bytes();
        }
        assert!(self.spilled <= self.entries.len(), "only what is spilled was forgotten");
        bytes
    }

    /// Segments now hold everything below `end`.
    pub(crate) fn mark_spilled(&mut self, end: Offset) {
        let spilled = self.entries.partition_point(|entry| entry.base < end);
        assert!(spilled >= self.spilled, "what is in segments stays there");
        self.spilled = spilled;
    }

    /// What is not in segments, oldest first.
    pub(crate) fn unspilled(&self) -> impl Iterator<Item = &TailEntry> {
        self.entries.range(self.spilled..)
    }

    /// The first batch that is not wholly below `offset`, and those behind it; `None` if the
    /// tail starts above `offset`, or holds nothing.
    pub(crate) fn from(&self, offset: Offset) -> Option<impl Iterator<Item = &TailEntry>> {
        self.entries.front().filter(|front| front.base <= offset)?;
        Some(self.entries.range(self.entries.partition_point(|entry| entry.last < offset)..))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TailEntry> {
        self.entries.iter()
    }

    /// Base offset of the first batch.
    pub(crate) fn start(&self) -> Option<Offset> {
        Some(self.entries.front()?.base)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.entries.iter().map(TailEntry::bytes).sum()
    }

    /// How much of it segments do not hold, and how much time that spans.
    pub(crate) fn unspilled_span(&self) -> UnspilledSpan {
        let time = |entry: &TailEntry| entry.entry.facts().max_timestamp;
        let first_ms = self.entries.get(self.spilled).map_or(0, time);
        let last_ms = self.entries.back().map_or(0, time);
        let span_ms = last_ms.saturating_sub(first_ms);
        UnspilledSpan { bytes: self.unspilled_bytes(), span_ms }
    }

    pub(crate) fn unspilled_bytes(&self) -> u64 {
        self.unspilled().map(|entry| entry.entry.len() as u64).sum()
    }
}
