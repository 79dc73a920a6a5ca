//! Which entries go into which segment. Pure.

use tidelog_types::{BatchHeader, Entry, Offset};

/// Entries for one segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run<'a> {
    /// The base offset of the segment to begin for them; `None` to go on with the last one.
    pub(crate) begins: Option<Offset>,
    /// At least one.
    pub(crate) entries: &'a [Entry],
}

/// The segment that is written to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Active {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    /// The greatest timestamp of its first batch, where that is known and one.
    pub(crate) first_timestamp_ms: Option<i64>,
}

impl Active {
    /// An empty segment that this batch will be the first of.
    fn begun_by(batch: &BatchHeader) -> Active {
        let (base, end) = (batch.base_offset, batch.base_offset);
        let first_timestamp_ms = timestamp_of(batch);
        Active { base, end, bytes: 0, first_timestamp_ms }
    }
}

/// A batch's greatest timestamp, if its records have any.
pub(crate) fn timestamp_of(batch: &BatchHeader) -> Option<i64> {
    Some(batch.max_timestamp).filter(|timestamp_ms| *timestamp_ms >= 0)
}

/// Where a segment ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) segment_bytes: u64,
    pub(crate) segment_ms: i64,
    pub(crate) segment_jitter_ms: i64,
    /// Another number for each partition, so that they do not all begin segments at one time.
    pub(crate) seed: u64,
}

impl Limits {
    /// Milliseconds of records that the segment of this base offset may span.
    fn span_ms(&self, base: Offset) -> i64 {
        let jitter_max = self.segment_jitter_ms.min(self.segment_ms);
        if jitter_max <= 0 {
            return self.segment_ms;
        }
        // SplitMix64: the same segment ends at the same time however often it is asked.
        let mut mixed = self.seed ^ (base.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let jitter = (mixed ^ (mixed >> 31)) % jitter_max as u64;
        self.segment_ms - jitter as i64
    }

    /// Whether a segment has room for a batch: time is the records' own, as in Kafka.
    fn allows(&self, active: &Active, batch: &BatchHeader) -> bool {
        let is_late = active.first_timestamp_ms.is_some_and(|first| {
            batch.max_timestamp.saturating_sub(first) > self.span_ms(active.base)
        });
        active.end == batch.base_offset
            && active.bytes + batch.batch_bytes() as u64 <= self.segment_bytes
            && batch.last_offset().0 - active.base.0 <= i64::from(i32::MAX)
            && !is_late
    }
}

/// Splits entries where a segment would grow beyond its bytes or its time, where an offset would
/// lie too far from the segment's base for Kafka's tools, and where offsets are missing.
pub(crate) fn runs<'a>(
    active: Option<Active>,
    entries: &'a [Entry],
    limits: &Limits,
) -> Vec<Run<'a>> {
    let mut runs = Vec::new();
    let mut active = active;
    let (mut start, mut begins) = (0, None);
    for (at, entry) in entries.iter().enumerate() {
        let facts = entry.facts();
        let fits = active.is_some_and(|active| limits.allows(&active, &facts));
        if !fits {
            if at > start {
                runs.push(Run { begins, entries: &entries[start..at] });
            }
            (start, begins) = (at, Some(facts.base_offset));
        }
        let before = active.filter(|_| fits).unwrap_or_else(|| Active::begun_by(&facts));
        let bytes = before.bytes + entry.len() as u64;
        active = Some(Active { end: facts.next_offset(), bytes, ..before });
    }
    if start < entries.len() {
        runs.push(Run { begins, entries: &entries[start..] });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::tests::batch;

    const LIMITS: Limits =
        Limits { segment_bytes: 1 << 20, segment_ms: 100, segment_jitter_ms: 0, seed: 7 };

    /// The base offsets of the segments that batches of these timestamps begin.
    fn begun(active: Option<Active>, timestamps: &[i64], limits: &Limits) -> Vec<i64> {
        let at = |(base, timestamp): (i64, &i64)| batch(base, 1, 10, 0, *timestamp);
        let entries: Vec<Entry> = (50..).zip(timestamps).map(at).collect();
        runs(active, &entries, limits).iter().filter_map(|run| Some(run.begins?.0)).collect()
    }

    #[test]
    fn a_segment_ends_when_its_records_span_more_than_segment_ms() {
        let active = |first_timestamp_ms| {
            Some(Active { base: Offset(0), end: Offset(50), bytes: 10, first_timestamp_ms })
        };
        for (active, timestamps, expected) in [
            (None, &[1000, 1100, 1101, 1201, 1202][..], &[50, 52, 54][..]),
            (active(Some(900)), &[1000, 1001], &[51]),
            (active(Some(899)), &[1000, 1001], &[50]),
            (active(None), &[1000, 9999], &[]), // nobody knows when it began
            (None, &[-1, 9999], &[50]),         // its first records have no time
            (None, &[1000, 10, 1100], &[50]),   // time that goes back ends nothing
            (None, &[i64::MIN, i64::MAX, 0], &[50]),
        ] {
            assert_eq!(begun(active, timestamps, &LIMITS), expected, "{active:?} {timestamps:?}");
        }
    }

    #[test]
    fn jitter_ends_segments_earlier_and_each_at_a_time_of_its_own() {
        let limits = Limits { segment_ms: 1000, segment_jitter_ms: 400, ..LIMITS };
        let spans: std::collections::BTreeSet<i64> =
            (0..200).map(|base| limits.span_ms(Offset(base))).collect();
        assert!(spans.iter().all(|span| (601..=1000).contains(span)), "{spans:?}");
        assert!(spans.len() > 100, "{spans:?}");
        let huge = Limits { segment_ms: 10, segment_jitter_ms: i64::MAX, ..LIMITS };
        assert!((0..100).all(|base| (1..=10).contains(&huge.span_ms(Offset(base)))));
    }
}
