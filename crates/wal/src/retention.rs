//! Which of a log's oldest segments need not be kept.
//!
//! Architecture invariant: pure. It is told what the segments hold and what time it is, and says
//! where the log may start. What is kept too long costs space; what goes too early is lost: where
//! something is not known, the segment stays, and with it all behind it.

use tidelog_types::Offset;

/// A segment. The last one stands for what is in memory only as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The offset behind it.
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    /// When its newest record was written, in milliseconds since 1970; `None` if nobody knows.
    pub(crate) newest_ms: Option<i64>,
}

/// What a topic asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Milliseconds that records are kept; negative for ever. `retention.ms`
    pub(crate) retention_ms: i64,
    /// Bytes that are kept; negative for all. `retention.bytes`
    pub(crate) retention_bytes: i64,
}

impl Limits {
    /// Whether anything may ever go.
    pub(crate) fn are_any(&self) -> bool {
        self.retention_ms >= 0 || self.retention_bytes >= 0
    }
}

/// The offset behind the last segment that may go; `None` if all stay. As in Kafka, a segment goes
/// when the log without it still has `retention.bytes`, or when its newest record is older than
/// `retention.ms`; none that reaches above the high watermark goes; and one whose records are of
/// the future stays until that is past.
///
/// # Errors
/// As the pieces', which are asked for one after the other and no further than needed.
pub(crate) fn removable_below<E>(
    pieces: impl IntoIterator<Item = Result<Piece, E>>,
    total_bytes: u64,
    high_watermark: Offset,
    limits: Limits,
    now_ms: i64,
) -> Result<Option<Offset>, E> {
    let mut end = None;
    let mut beyond = i128::from(total_bytes) - i128::from(limits.retention_bytes);
    for piece in pieces {
        let piece = piece?;
        let is_spare = limits.retention_bytes >= 0 && beyond >= i128::from(piece.bytes);
        let is_old = limits.retention_ms >= 0
            && piece.newest_ms.is_some_and(|newest_ms| {
                i128::from(now_ms) - i128::from(newest_ms) > i128::from(limits.retention_ms)
            });
        if piece.end > high_watermark || piece.bytes == 0 || !(is_spare || is_old) {
            break;
        }
        assert!(end.is_none_or(|end| end < piece.end), "segments follow each other");
        beyond -= i128::from(piece.bytes);
        end = Some(piece.end);
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const NOW_MS: i64 = 1_000_000;

    /// Segments of ten offsets and 100 bytes each.
    fn pieces(newest: &[Option<i64>]) -> Vec<Piece> {
        let piece = |(n, newest_ms): (i64, &Option<i64>)| Piece {
            end: Offset(10 * n),
            bytes: 100,
            newest_ms: *newest_ms,
        };
        (1..).zip(newest).map(piece).collect()
    }

    fn removable(newest: &[Option<i64>], high_watermark: i64, limits: (i64, i64)) -> Option<i64> {
        let pieces = pieces(newest);
        let total = pieces.iter().map(|piece| piece.bytes).sum();
        let limits = Limits { retention_ms: limits.0, retention_bytes: limits.1 };
        let pieces = pieces.into_iter().map(Ok::<_, Infallible>);
        let Ok(end) = removable_below(pieces, total, Offset(high_watermark), limits, NOW_MS);
        end.map(|end| end.0)
    }

    #[test]
    fn segments_go_once_their_newest_record_is_older_than_the_time() {
        let old = Some(NOW_MS - 101);
        let young = Some(NOW_MS - 100);
        for (newest, expected) in [
            (&[old, old, young][..], Some(20)),
            (&[old, old, old], Some(30)), // the last one too
            (&[young, old], None),        // never out of order
            (&[old, None, old], Some(10)),
            (&[Some(NOW_MS + 5), old], None), // of the future
            (&[Some(i64::MIN)], Some(10)),
            (&[], None),
        ] {
            assert_eq!(removable(newest, 1000, (100, -1)), expected, "{newest:?}");
            assert_eq!(removable(newest, 1000, (-1, -1)), None, "{newest:?}");
        }
        assert_eq!(removable(&[Some(NOW_MS - 1)], 1000, (0, -1)), Some(10));
        assert_eq!(removable(&[Some(NOW_MS)], 1000, (0, -1)), None);
    }

    #[test]
    fn segments_go_while_the_others_have_the_bytes() {
        let newest = [None; 4];
        let kept = [
            (-1, None),
            (400, None),
            (399, None),
            (301, None),
            (300, Some(10)),
            (299, Some(10)),
            (101, Some(20)),
            (100, Some(30)),
            (1, Some(30)),
            (0, Some(40)),
        ];
        for (retention_bytes, expected) in kept {
            assert_eq!(removable(&newest, 1000, (-1, retention_bytes)), expected);
        }
    }

    #[test]
    fn what_was_removed_for_its_age_counts_as_removed_bytes() {
        let newest = [Some(0), Some(NOW_MS), Some(NOW_MS)];
        assert_eq!(removable(&newest, 1000, (100, 200)), Some(10));
        assert_eq!(removable(&newest, 1000, (100, 199)), Some(10));
        assert_eq!(removable(&newest, 1000, (100, 100)), Some(20));
    }

    #[test]
    fn nothing_above_the_high_watermark_goes() {
        let old = [Some(0); 3];
        for (high_watermark, expected) in
            [(30, Some(30)), (29, Some(20)), (10, Some(10)), (9, None)]
        {
            assert_eq!(removable(&old, high_watermark, (100, 0)), expected);
        }
    }

    #[test]
    fn no_segment_is_asked_for_that_does_not_matter() {
        let mut asked = 0;
        let pieces = pieces(&[Some(NOW_MS); 9]).into_iter().map(|piece| {
            asked += 1;
            Ok::<_, Infallible>(piece)
        });
        let limits = Limits { retention_ms: 100, retention_bytes: -1 };
        let Ok(end) = removable_below(pieces, 900, Offset(90), limits, NOW_MS);
        assert_eq!((end, asked), (None, 1));
    }
}
