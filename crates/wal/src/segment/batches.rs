//! Walks batches that a disk gave back, believing nothing.

use std::{io, ops::Range};

use tidelog_types::{
    BATCH_HEADER_LEN, BatchHeader, Offset,
    batch_header::{BATCH_CRC_START, BATCH_OVERHEAD_LEN},
};

use crate::{
    checksum::crc32c,
    env::{File, read_exact_at},
    index::{Interval, chain},
};

/// Bytes read at once while walking.
const WINDOW_BYTES: u64 = 256 << 10;
const MAGIC: i8 = 2;

/// Whether offsets may be missing between a segment's batches: they are where it was compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holes {
    /// Each batch begins where the one before ended.
    None,
    /// It begins there or later.
    Allowed,
}

/// The header of the batch that starts at `bytes` and must begin at `expected`, or later where
/// holes are allowed; `None` if it is no such batch.
pub(crate) fn header_at(
    bytes: &[u8],
    expected: Offset,
    holes: Holes,
) -> Option<(&[u8; BATCH_HEADER_LEN], BatchHeader)> {
    let header = bytes.first_chunk::<BATCH_HEADER_LEN>()?;
    let facts = BatchHeader::decode(header);
    let follows = match holes {
        Holes::None => facts.base_offset == expected,
        Holes::Allowed => facts.base_offset >= expected,
    };
    let lawful = facts.magic == MAGIC
        && follows
        && facts.last_offset_delta >= 0
        && facts.length >= (BATCH_HEADER_LEN - BATCH_OVERHEAD_LEN) as i32;
    lawful.then_some((header, facts))
}

/// Whether any of these whole batches holds a record: compaction leaves some without.
pub(crate) fn hold_records(mut batches: &[u8]) -> bool {
    while let Some(header) = batches.first_chunk::<BATCH_HEADER_LEN>() {
        let facts = BatchHeader::decode(header);
        if facts.records_count > 0 {
            return true;
        }
        batches = &batches[batches.len().min(facts.batch_bytes() as usize)..];
    }
    false
}

/// Whether a batch's bytes are the ones its own checksum was made of.
pub(crate) fn is_whole(batch: &[u8], facts: &BatchHeader) -> bool {
    crc32c(&[&batch[BATCH_CRC_START..]]) == facts.crc
}

/// Where a batch lies in some bytes, and its facts.
pub(crate) type Placed = (Range<usize>, BatchHeader);

/// The batches of an interval; `None` if the headers are not the ones it was made of, or the file
/// ended before the last batch did. Which offsets may be missing, the headers' checksum says.
pub(crate) fn batches_of(bytes: &[u8], interval: &Interval) -> Option<Vec<Placed>> {
    let mut batches = Vec::new();
    let (mut at, mut expected, mut checksum) = (0, interval.base, 0);
    while at < bytes.len() {
        let (header, facts) = header_at(&bytes[at..], expected, Holes::Allowed)?;
        let end = at + facts.batch_bytes() as usize;
        if end > bytes.len() {
            return None;
        }
        batches.push((at..end, facts));
        checksum = chain(checksum, header);
        expected = facts.next_offset();
        at = end;
    }
    let same = at as u64 == interval.bytes
        && expected == interval.next
        && checksum == interval.headers_checksum;
    same.then_some(batches)
}

/// Why a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At the offset where it was to end.
    Upper,
    /// In front of a batch that holds the offset where it was to end, but begins before it; or of
    /// a hole that does.
    Inside,
    /// In front of bytes that are no batch, or the end of the file.
    NoBatch,
}

/// What a walk found.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Intervals of full size.
    pub(crate) complete: Vec<Interval>,
    /// The one behind them.
    pub(crate) open: Interval,
    pub(crate) stop: Stop,
}

impl Walk {
    /// Makes an interval of what is left, however small.
    pub(crate) fn close(&mut self) {
        if self.open.bytes > 0 {
            self.complete.push(self.open);
            self.open = self.open.following();
        }
    }
}

/// Walks batches from `start` (which may hold batches already) to the offset `upper`, looking at
/// no byte from `limit` on.
pub(crate) fn walk(
    file: &dyn File,
    start: Interval,
    upper: Offset,
    limit: u64,
    interval_bytes: u32,
    holes: Holes,
) -> io::Result<Walk> {
    let mut found = Walk { complete: Vec::new(), open: start, stop: Stop::Upper };
    let mut window = Window { file, limit, start: 0, bytes: Vec::new() };
    while found.open.next < upper {
        let at = found.open.end_position();
        let Some((header, facts)) = header_at(window.header(at)?, found.open.next, holes) else {
            found.stop = Stop::NoBatch;
            break;
        };
        if at + facts.batch_bytes() as u64 > limit {
            found.stop = Stop::NoBatch;
            break;
        }
        if facts.next_offset() > upper {
            found.stop = Stop::Inside;
            break;
        }
        found.open.add(header, &facts);
        if found.open.bytes >= u64::from(interval_bytes) {
            found.complete.push(found.open);
            found.open = found.open.following();
        }
    }
    Ok(found)
}

/// Part of a file, read ahead.
struct Window<'a> {
    file: &'a dyn File,
    limit: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The bytes from `position`: a whole header, or less at the limit.
    fn header(&mut self, position: u64) -> io::Result<&[u8]> {
        let wanted = (position + BATCH_HEADER_LEN as u64).min(self.limit);
        if position < self.start || wanted > self.start + self.bytes.len() as u64 {
            let len = self.limit.saturating_sub(position).min(WINDOW_BYTES);
            self.bytes.resize(len as usize, 0);
            self.start = position;
            read_exact_at(self.file, &mut self.bytes, position)?;
        }
        Ok(&self.bytes[(position - self.start) as usize..])
    }
}
