//! Which segments of a log may be compacted, when that is due, and which become one.
//!
//! Architecture invariant: pure. It is told what the segments hold and what time it is.

use tidelog_types::Offset;

use super::Compaction;

/// Offsets of one segment are written as 32 bits beside its base.
const OFFSETS_MAX: i64 = i32::MAX as i64;

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) base: Offset,
    /// The offset behind it.
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    /// When its first and its newest record were written, in milliseconds since 1970; `None` where
    /// nobody knows, or asked.
    pub(crate) first_ms: Option<i64>,
    pub(crate) newest_ms: Option<i64>,
}

/// How far a log was compacted and may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) log_start: Offset,
    /// Compaction has seen everything below.
    pub(crate) clean_below: Offset,
    /// Nothing above may be compacted: the high watermark, or the last stable offset.
    pub(crate) stable: Offset,
}

/// What of a log is to be compacted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Dirty {
    /// The first offset that compaction has not seen.
    pub(crate) from: Offset,
    /// Where a segment ends that may still be compacted.
    pub(crate) upper: Offset,
    /// Dirty bytes among those that would be read.
    pub(crate) ratio: f64,
    /// It is to be done whatever the ratio: a record waits for too long.
    pub(crate) is_overdue: bool,
}

/// Segments that become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
}

impl Dirty {
    /// Whether it is time.
    pub(crate) fn is_due(&self, limits: &Compaction) -> bool {
        self.is_overdue || self.ratio > limits.min_dirty_ratio
    }
}

/// What of a log is dirty and may be compacted; `pieces` are its segments, the one that is written
/// to included. `None` where nothing is.
pub(crate) fn dirty(
    pieces: &[Piece],
    bounds: &Bounds,
    limits: &Compaction,
    now_ms: i64,
) -> Option<Dirty> {
    let (_, closed) = pieces.split_last()?;
    let from = bounds.clean_below.max(bounds.log_start);
    let is_young = |piece: &Piece| {
        limits.min_lag_ms > 0
            && piece
                .newest_ms
                .is_none_or(|newest| newest > now_ms.saturating_sub(limits.min_lag_ms))
    };
    let may_be =
        |piece: &&Piece| piece.end <= bounds.stable && (piece.end <= from || !is_young(piece));
    let cleanable: Vec<&Piece> = closed.iter().take_while(may_be).collect();
    let upper = cleanable.last()?.end;
    if upper <= from {
        return None;
    }
    let bytes = |is_dirty: bool| -> u64 {
        let of_kind = cleanable.iter().filter(|piece| (piece.end > from) == is_dirty);
        of_kind.map(|piece| piece.bytes).sum()
    };
    let (clean, dirty) = (bytes(false), bytes(true));
    let oldest_ms = cleanable.iter().find(|piece| piece.end > from).and_then(|p| p.first_ms);
    let is_overdue =
        oldest_ms.is_some_and(|oldest_ms| now_ms.saturating_sub(oldest_ms) > limits.max_lag_ms);
    assert!(from < upper, "what is dirty lies in front of where it ends");
    let ratio = dirty as f64 / (clean + dirty).max(1) as f64;
    Some(Dirty { from, upper, ratio, is_overdue })
}

/// Neighbouring segments that begin below `end`, put together as far as one segment may hold them.
pub(crate) fn groups(pieces: &[Piece], end: Offset, segment_bytes: u64) -> Vec<Group> {
    let mut groups: Vec<(Group, u64)> = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.base < end) {
        let fits = |(group, bytes): &&mut (Group, u64)| {
            assert!(group.end == piece.base, "segments follow each other");
            *bytes + piece.bytes <= segment_bytes && piece.end.0 - group.base.0 <= OFFSETS_MAX
        };
        match groups.last_mut().filter(fits) {
            Some((group, bytes)) => {
                group.end = piece.end;
                *bytes += piece.bytes;
            }
            None => groups.push((Group { base: piece.base, end: piece.end }, piece.bytes)),
        }
    }
    groups.into_iter().map(|(group, _)| group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_000_000;

    const LIMITS: Compaction = Compaction {
        min_dirty_ratio: 0.5,
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        delete_retention_ms: 0,
    };

    /// Segments of ten offsets, with these bytes and ages.
    fn pieces(of: &[(u64, i64)]) -> Vec<Piece> {
        let piece = |(n, (bytes, age_ms)): (i64, &(u64, i64))| Piece {
            base: Offset(10 * n),
            end: Offset(10 * n + 10),
            bytes: *bytes,
            first_ms: Some(NOW_MS - age_ms - 5),
            newest_ms: Some(NOW_MS - age_ms),
        };
        (0..).zip(of).map(piece).collect()
    }

    fn bounds(log_start: i64, clean_below: i64, stable: i64) -> Bounds {
        let [log_start, clean_below, stable] = [log_start, clean_below, stable].map(Offset);
        Bounds { log_start, clean_below, stable }
    }

    #[test]
    fn neither_the_active_segment_nor_what_is_not_stable_is_compacted() {
        let four = pieces(&[(100, 0); 4]);
        for (count, bounds, expected) in [
            (4, bounds(0, 0, 40), Some((0, 30))),
            (4, bounds(0, 0, 30), Some((0, 30))),
            (4, bounds(0, 0, 29), Some((0, 20))),
            (4, bounds(0, 0, 9), None),
            (4, bounds(0, 20, 40), Some((20, 30))),
            (4, bounds(0, 25, 40), Some((25, 30))), // a pass ended inside of a segment
            (4, bounds(0, 30, 40), None),
            (4, bounds(12, 0, 40), Some((12, 30))), // the log starts behind what was dirty
            (1, bounds(0, 0, 40), None),
            (0, bounds(0, 0, 0), None),
        ] {
            let found = dirty(&four[..count], &bounds, &LIMITS, NOW_MS);
            assert_eq!(found.map(|d| (d.from.0, d.upper.0)), expected, "{count} {bounds:?}");
        }
    }

    #[test]
    fn a_log_is_due_when_enough_of_it_is_dirty() {
        let pieces = pieces(&[(100, 0), (200, 0), (100, 0), (1000, 0)]);
        for (clean_below, min_dirty_ratio, is_due) in [
            (0, 0.99, true),
            (10, 0.75, false), // 300 of 400
            (10, 0.74, true),
            (20, 0.25, false),
            (20, 0.24, true),
            (20, 0.0, true),
            (0, 1.0, false),
        ] {
            let limits = Compaction { min_dirty_ratio, ..LIMITS };
            let found = dirty(&pieces, &bounds(0, clean_below, 40), &limits, NOW_MS).unwrap();
            assert_eq!(found.is_due(&limits), is_due, "{clean_below} {min_dirty_ratio}");
        }
    }

    #[test]
    fn young_records_wait_and_old_ones_do_not() {
        let pieces = pieces(&[(100, 50), (100, 20), (100, 90), (1000, 0)]);
        let upper = |min_lag_ms, clean_below| {
            let limits = Compaction { min_lag_ms, ..LIMITS };
            dirty(&pieces, &bounds(0, clean_below, 40), &limits, NOW_MS).map(|dirty| dirty.upper.0)
        };
        assert_eq!(upper(0, 0), Some(30));
        assert_eq!(upper(20, 0), Some(30)); // as old as it must be
        assert_eq!(upper(21, 0), Some(10)); // what is behind a young segment waits too
        assert_eq!(upper(51, 0), None);
        assert_eq!(upper(21, 20), Some(30)); // that it is clean already is not undone
        let is_overdue = |max_lag_ms, clean_below| {
            let limits = Compaction { min_dirty_ratio: 1.0, max_lag_ms, ..LIMITS };
            let found = dirty(&pieces, &bounds(0, clean_below, 40), &limits, NOW_MS);
            found.unwrap().is_due(&limits)
        };
        assert!(is_overdue(54, 0) && !is_overdue(55, 0));
        assert!(is_overdue(24, 10) && !is_overdue(25, 10)); // its first dirty record counts
    }

    #[test]
    fn segments_become_one_while_it_may_hold_them() {
        let mut pieces = pieces(&[(60, 0), (40, 0), (1, 0), (99, 0), (500, 0), (0, 0), (0, 0)]);
        let found = |pieces: &[Piece], end| -> Vec<(i64, i64)> {
            let groups = groups(pieces, Offset(end), 100);
            groups.iter().map(|group| (group.base.0, group.end.0)).collect()
        };
        assert_eq!(found(&pieces, 70), [(0, 20), (20, 40), (40, 50), (50, 70)]);
        assert_eq!(found(&pieces, 40), [(0, 20), (20, 40)]);
        assert_eq!(found(&pieces, 31), [(0, 20), (20, 40)]); // the segment that the end lies in too
        pieces[6].end = Offset(50 + OFFSETS_MAX + 1);
        assert_eq!(found(&pieces, 70)[3..], [(50, 60), (60, 50 + OFFSETS_MAX + 1)]);
    }
}
