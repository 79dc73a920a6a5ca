//! A segment's sparse index: what one entry says of the batches it covers, and its bytes.
//!
//! Pure. An entry covers an *interval*: neighbouring batches of at least `index.interval.bytes`
//! together. It finds an offset and a timestamp, and it keeps a checksum over the batches' headers,
//! because a batch's own checksum covers neither its offset nor its leader epoch, and because a
//! write that the disk lost leaves older batches behind that are valid in themselves.

use tidelog_types::{BATCH_HEADER_LEN, BatchHeader, Offset};

use crate::checksum::crc32c;

/// Bytes of an entry and of the file's header.
pub(crate) const ENTRY_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"TLix";
const VERSION: u16 = 1;

/// Neighbouring batches of one segment. Where it was compacted, offsets may be missing in front of
/// each: they belong to the interval of the batch behind them, so that intervals leave no gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    /// First offset.
    pub(crate) base: Offset,
    /// The offset after the last.
    pub(crate) next: Offset,
    /// Where the first batch starts, in bytes.
    pub(crate) position: u64,
    /// Bytes of all its batches.
    pub(crate) bytes: u64,
    /// Checksum over its batches' headers, each one chained to the one before.
    pub(crate) headers_checksum: u32,
    /// Greatest timestamp of the segment's batches up to the end of this interval.
    pub(crate) max_timestamp: i64,
}

impl Interval {
    /// The first interval of a segment, without a batch yet.
    pub(crate) fn first(base: Offset) -> Interval {
        let headers_checksum = 0;
        Interval {
            base,
            next: base,
            position: 0,
            bytes: 0,
            headers_checksum,
            max_timestamp: i64::MIN,
        }
    }

    /// The one behind this, without a batch yet.
    pub(crate) fn following(&self) -> Interval {
        Interval {
            base: self.next,
            position: self.end_position(),
            bytes: 0,
            headers_checksum: 0,
            ..*self
        }
    }

    /// Where the bytes behind it start.
    pub(crate) fn end_position(&self) -> u64 {
        self.position + self.bytes
    }

    /// Takes in the next batch.
    pub(crate) fn add(&mut self, header: &[u8; BATCH_HEADER_LEN], facts: &BatchHeader) {
        assert!(facts.base_offset >= self.next, "batches follow each other");
        self.next = facts.next_offset();
        self.bytes += facts.batch_bytes() as u64;
        self.headers_checksum = chain(self.headers_checksum, header);
        // A batch that compaction emptied has a time and no record of it.
        if facts.records_count > 0 {
            self.max_timestamp = self.max_timestamp.max(facts.max_timestamp);
        }
    }

    /// The entry's bytes; `ordinal` counts the segment's entries from 0.
    pub(crate) fn encode(&self, segment_base: Offset, ordinal: u64) -> [u8; ENTRY_BYTES] {
        let relative = |offset: Offset| (offset.0 - segment_base.0) as u32;
        assert!(self.end_position() <= u64::from(u32::MAX), "a segment outgrew its index");
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0..4].copy_from_slice(&relative(self.base).to_be_bytes());
        bytes[4..8].copy_from_slice(&relative(self.next).to_be_bytes());
        bytes[8..12].copy_from_slice(&(self.position as u32).to_be_bytes());
        bytes[12..16].copy_from_slice(&(self.bytes as u32).to_be_bytes());
        bytes[16..24].copy_from_slice(&self.max_timestamp.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.headers_checksum.to_be_bytes());
        let checksum = entry_checksum(&bytes, segment_base, ordinal);
        bytes[28..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Reads an entry; `None` for bytes that are not this entry of this segment.
    pub(crate) fn decode(
        bytes: &[u8; ENTRY_BYTES],
        segment_base: Offset,
        ordinal: u64,
    ) -> Option<Interval> {
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if word(28) != entry_checksum(bytes, segment_base, ordinal) {
            return None;
        }
        let max_timestamp = (u64::from(word(16)) << 32 | u64::from(word(20))) as i64;
        Some(Interval {
            base: segment_base.plus(i64::from(word(0))),
            next: segment_base.plus(i64::from(word(4))),
            position: u64::from(word(8)),
            bytes: u64::from(word(12)),
            headers_checksum: word(24),
            max_timestamp,
        })
    }
}

/// What stands in front of the entries: magic, version, the segment's base offset, a checksum.
pub(crate) fn file_header(segment_base: Offset) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_be_bytes());
    bytes[8..16].copy_from_slice(&segment_base.0.to_be_bytes());
    let checksum = crc32c(&[&bytes[..28]]);
    bytes[28..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Whether a whole header says that the entries are not of this version. A damaged one says
/// nothing: entries answer for themselves.
pub(crate) fn is_foreign(header: &[u8; ENTRY_BYTES]) -> bool {
    let is_whole = crc32c(&[&header[..28]]).to_be_bytes() == header[28..];
    is_whole && (header[..4] != MAGIC || header[4..6] != VERSION.to_be_bytes())
}

/// Where entry number `ordinal` starts in the file, in bytes.
pub(crate) fn entry_position(ordinal: u64) -> u64 {
    (ordinal + 1) * ENTRY_BYTES as u64
}

/// Whole entries in a file of this length.
pub(crate) fn entries_in(file_bytes: u64) -> u64 {
    (file_bytes / ENTRY_BYTES as u64).saturating_sub(1)
}

/// Goes on with a checksum over headers.
pub(crate) fn chain(so_far: u32, header: &[u8; BATCH_HEADER_LEN]) -> u32 {
    // One slice: the checksum of several is made in a slower way.
    let mut bytes = [0; 4 + BATCH_HEADER_LEN];
    bytes[..4].copy_from_slice(&so_far.to_be_bytes());
    bytes[4..].copy_from_slice(header);
    crc32c(&[&bytes])
}

/// Covers the entry's place too, so that an entry that strayed is not an entry.
fn entry_checksum(entry: &[u8; ENTRY_BYTES], segment_base: Offset, ordinal: u64) -> u32 {
    crc32c(&[&entry[..28], &segment_base.0.to_be_bytes(), &ordinal.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval() -> Interval {
        Interval {
            base: Offset(1007),
            next: Offset(1010),
            position: 70,
            bytes: 4100,
            headers_checksum: 0xdead_beef,
            max_timestamp: -5,
        }
    }

    #[test]
    fn an_entry_reads_back_in_its_place_only() {
        let bytes = interval().encode(Offset(1000), 3);
        assert_eq!(Interval::decode(&bytes, Offset(1000), 3), Some(interval()));
        assert_eq!(Interval::decode(&bytes, Offset(1000), 4), None);
        assert_eq!(Interval::decode(&bytes, Offset(999), 3), None);
    }

    #[test]
    fn only_a_whole_header_of_another_version_is_foreign() {
        let ours = file_header(Offset(7));
        let mut damaged = ours;
        damaged[5] = 2;
        let mut later = damaged;
        later[28..].copy_from_slice(&crc32c(&[&damaged[..28]]).to_be_bytes());
        assert_eq!([ours, damaged, later].map(|header| is_foreign(&header)), [false, false, true]);
    }

    #[test]
    fn an_entry_with_any_bit_flipped_is_refused() {
        let bytes = interval().encode(Offset(1000), 3);
        for bit in 0..ENTRY_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Interval::decode(&flipped, Offset(1000), 3), None, "bit {bit}");
        }
    }
}
