//! What each of a partition's segments holds, for whoever decides which are compacted.

use std::{io, sync::Arc};

use tidelog_types::Offset;

use super::{Segment, SegmentReader};
use crate::{compaction::Piece, file_cache::FileCache};

impl SegmentReader {
    /// The segments, the oldest first. Asks the disk for their lengths, and only where it is wanted
    /// for the times of the first and the newest records.
    pub(crate) fn pieces(
        &self,
        files: &FileCache,
        (wants_first, wants_newest): (bool, bool),
    ) -> io::Result<Vec<Piece>> {
        let view = self.view();
        let ends = view.segments.iter().skip(1).map(|segment| segment.base);
        let ends: Vec<Offset> = ends.chain([self.end_offset()]).collect();
        let mut pieces = Vec::with_capacity(ends.len());
        for (segment, end) in view.segments.iter().zip(ends) {
            let first_ms = match wants_first {
                true => first_ms(segment, files, end)?,
                false => None,
            };
            let newest_ms = if wants_newest { segment.newest_ms(files, end)? } else { None };
            let bytes = segment.bytes(files)?;
            pieces.push(Piece { base: segment.base, end, bytes, first_ms, newest_ms });
        }
        Ok(pieces)
    }

    /// Bytes of the segment that is written to. One that cannot be looked at counts for nothing.
    pub(crate) fn last_bytes(&self, files: &FileCache) -> u64 {
        let last = self.view().segments.last().cloned();
        last.and_then(|segment| segment.bytes(files).ok()).unwrap_or(0)
    }
}

/// The greatest timestamp of a segment's first batches, as many as one entry of the index covers.
fn first_ms(segment: &Arc<Segment>, files: &FileCache, end: Offset) -> io::Result<Option<i64>> {
    let first = segment.first_interval(files, end, |_| true)?;
    Ok(first.map(|interval| interval.max_timestamp).filter(|first_ms| *first_ms >= 0))
}
