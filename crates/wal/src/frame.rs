//! The bytes of one frame: what happened to one partition, and what was on disk by then.
//!
//! `docs/formats.md` holds the same table for those who read the bytes.

use tidelog_types::{LeaderEpoch, Offset, TopicIdPartition, Uuid};

use crate::{chain::COUNT_END, checksum::crc32c};

/// No log gets there. What claims a sequence from here on is refused: a recovery that believed it
/// would go on in a file that the next one calls impossible.
pub(crate) const SEQUENCE_END: u64 = COUNT_END / 2;
/// Frames start on a multiple of this, in bytes, so that finding the next one is bounded.
pub(crate) const FRAME_ALIGN: usize = 64;
/// Bytes of a frame header; the payload follows.
pub(crate) const FRAME_HEADER_BYTES: usize = 96;

const MAGIC: [u8; 4] = *b"TLFR";
const VERSION: u8 = 1;
const FLAG_GROUP_END: u16 = 1;

mod at {
    pub(super) const EPOCH: usize = 8;
    pub(super) const SEQUENCE: usize = 16;
    pub(super) const TOPIC_ID: usize = 24;
    pub(super) const PARTITION: usize = 40;
    pub(super) const LEADER_EPOCH: usize = 44;
    pub(super) const BASE_OFFSET: usize = 48;
    pub(super) const LAST_OFFSET: usize = 56;
    pub(super) const DURABLE_THROUGH: usize = 64;
    pub(super) const PREVIOUS_SEQUENCE: usize = 72;
    pub(super) const PAYLOAD_BYTES: usize = 80;
    pub(super) const HEADER_CRC: usize = 88;
    pub(super) const PAYLOAD_CRC: usize = 92;
}

/// What a frame does to its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Appends the batch in its payload.
    Append,
    /// Takes back everything from the base offset on.
    Truncate,
    /// Takes everything back and goes on at the base offset.
    Reset,
    /// Nothing: it carries `durable_through`.
    Idle,
}

/// A frame without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    /// The next frame, if any, starts on the next block boundary.
    pub(crate) is_group_end: bool,
    /// Epoch of the file: a frame with another one is not a frame.
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) id: TopicIdPartition,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) base_offset: Offset,
    pub(crate) last_offset: Offset,
    /// The last sequence that was known synced when this was written.
    pub(crate) durable_through: u64,
    /// Sequence of the same partition's frame before this one, 0 if there was none.
    pub(crate) previous_sequence: u64,
    pub(crate) payload_bytes: u32,
}

/// The checksum that a header's payload must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PayloadCrc {
    header_crc: u32,
    payload_crc: u32,
}

impl FrameHeader {
    /// Writes the header. The payload's parts are those that follow it on disk.
    pub(crate) fn encode(&self, payload: &[&[u8]]) -> [u8; FRAME_HEADER_BYTES] {
        let bytes: usize = payload.iter().map(|part| part.len()).sum();
        assert!(bytes == self.payload_bytes as usize, "a frame states its payload's length");
        let mut out = [0; FRAME_HEADER_BYTES];
        assert!(self.durable_through < self.sequence, "a frame vouches for those before it");
        assert!(self.previous_sequence < self.sequence, "a link points back");
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = kind_number(self.kind);
        let flags = if self.is_group_end { FLAG_GROUP_END } else { 0 };
        put(&mut out, 6, flags.to_le_bytes());
        put(&mut out, at::EPOCH, self.epoch.to_le_bytes());
        put(&mut out, at::SEQUENCE, self.sequence.to_le_bytes());
        put(&mut out, at::TOPIC_ID, self.id.topic_id.0);
        put(&mut out, at::PARTITION, self.id.partition.to_le_bytes());
        put(&mut out, at::LEADER_EPOCH, self.leader_epoch.0.to_le_bytes());
        put(&mut out, at::BASE_OFFSET, self.base_offset.0.to_le_bytes());
        put(&mut out, at::LAST_OFFSET, self.last_offset.0.to_le_bytes());
        put(&mut out, at::DURABLE_THROUGH, self.durable_through.to_le_bytes());
        put(&mut out, at::PREVIOUS_SEQUENCE, self.previous_sequence.to_le_bytes());
        put(&mut out, at::PAYLOAD_BYTES, self.payload_bytes.to_le_bytes());
        let header_crc = crc32c(&[&out[..at::HEADER_CRC]]).to_le_bytes();
        put(&mut out, at::HEADER_CRC, header_crc);
        let payload_crc = payload_crc(payload, &header_crc);
        put(&mut out, at::PAYLOAD_CRC, payload_crc.to_le_bytes());
        out
    }

    /// Reads a header of a file with this epoch; `None` if there is none whose checksum holds.
    pub(crate) fn decode(bytes: &[u8], epoch: u64) -> Option<(FrameHeader, PayloadCrc)> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.get(..FRAME_HEADER_BYTES)?.try_into().ok()?;
        // Cheapest first: a search looks at every place of a file.
        if bytes[0..4] != MAGIC || u64_at(bytes, at::EPOCH) != epoch || bytes[4] != VERSION {
            return None;
        }
        let header_crc = u32_at(bytes, at::HEADER_CRC);
        if header_crc != crc32c(&[&bytes[..at::HEADER_CRC]]) {
            return None;
        }
        let header = FrameHeader {
            kind: kind_of(bytes[5])?,
            is_group_end: u16::from_le_bytes(take(bytes, 6)) & FLAG_GROUP_END != 0,
            epoch,
            sequence: u64_at(bytes, at::SEQUENCE),
            id: TopicIdPartition {
                topic_id: Uuid(take(bytes, at::TOPIC_ID)),
                partition: i32::from_le_bytes(take(bytes, at::PARTITION)),
            },
            leader_epoch: LeaderEpoch(i32::from_le_bytes(take(bytes, at::LEADER_EPOCH))),
            base_offset: Offset(i64::from_le_bytes(take(bytes, at::BASE_OFFSET))),
            last_offset: Offset(i64::from_le_bytes(take(bytes, at::LAST_OFFSET))),
            durable_through: u64_at(bytes, at::DURABLE_THROUGH),
            previous_sequence: u64_at(bytes, at::PREVIOUS_SEQUENCE),
            payload_bytes: u32_at(bytes, at::PAYLOAD_BYTES),
        };
        // As they were written: each frame vouches for those before it.
        if header.sequence >= SEQUENCE_END || header.durable_through >= header.sequence {
            return None;
        }
        Some((header, PayloadCrc { header_crc, payload_crc: u32_at(bytes, at::PAYLOAD_CRC) }))
    }

    /// Bytes of the frame with its payload and the padding behind it.
    pub(crate) fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload_bytes as usize)
    }
}

impl PayloadCrc {
    /// Whether these are the bytes that were written.
    pub(crate) fn holds(self, payload: &[u8]) -> bool {
        self.payload_crc == payload_crc(&[payload], &self.header_crc.to_le_bytes())
    }
}

/// Bytes of a frame with a payload of this many bytes, padding included.
pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(FRAME_ALIGN)
}

/// The header's CRC is part of it, so that a payload cannot be found under another header.
fn payload_crc(payload: &[&[u8]], header_crc: &[u8; 4]) -> u32 {
    match payload {
        [] => crc32c(&[header_crc]),
        [one] => crc32c(&[one, header_crc]),
        [one, two] => crc32c(&[one, two, header_crc]),
        _ => unreachable!("a batch is a header and records"),
    }
}

fn kind_number(kind: FrameKind) -> u8 {
    match kind {
        FrameKind::Append => 1,
        FrameKind::Truncate => 2,
        FrameKind::Reset => 3,
        FrameKind::Idle => 4,
    }
}

fn kind_of(number: u8) -> Option<FrameKind> {
    match number {
        1 => Some(FrameKind::Append),
        2 => Some(FrameKind::Truncate),
        3 => Some(FrameKind::Reset),
        4 => Some(FrameKind::Idle),
        _ => None,
    }
}

fn u64_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(take(bytes, at))
}

fn u32_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(take(bytes, at))
}

fn take<const N: usize>(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn put<const N: usize>(bytes: &mut [u8; FRAME_HEADER_BYTES], at: usize, field: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&field);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Append,
            is_group_end: true,
            epoch: 0x1234_5678_9abc_def0,
            sequence: 77,
            id: TopicIdPartition { topic_id: Uuid([9; 16]), partition: 3 },
            leader_epoch: LeaderEpoch(5),
            base_offset: Offset(100),
            last_offset: Offset(109),
            durable_through: 76,
            previous_sequence: 70,
            payload_bytes: 7,
        }
    }

    #[test]
    fn a_frame_reads_back() {
        let bytes = header().encode(&[b"abc", b"defg"]);
        let (read, crc) = FrameHeader::decode(&bytes, header().epoch).expect("just written");
        assert_eq!(read, header());
        assert!(crc.holds(b"abcdefg"));
        assert!(!crc.holds(b"abcdefh"));
        assert_eq!(read.frame_bytes(), 128);
    }

    #[test]
    fn a_frame_of_another_epoch_is_not_a_frame() {
        let bytes = header().encode(&[b"abc", b"defg"]);
        assert_eq!(FrameHeader::decode(&bytes, header().epoch + 1), None);
    }

    #[test]
    fn a_sequence_that_cannot_be_is_no_frame_though_its_checksum_is_right() {
        let whole = header().encode(&[b"abc", b"defg"]);
        let (sequence, last) = (header().sequence, SEQUENCE_END - 1);
        let cases = [
            (at::SEQUENCE, last, true),
            (at::SEQUENCE, SEQUENCE_END, false),
            (at::DURABLE_THROUGH, sequence - 1, true),
            (at::DURABLE_THROUGH, sequence, false),
        ];
        for (place, number, is_frame) in cases {
            let mut bytes = whole;
            bytes[place..place + 8].copy_from_slice(&number.to_le_bytes());
            let crc = crc32c(&[&bytes[..at::HEADER_CRC]]);
            bytes[at::HEADER_CRC..at::HEADER_CRC + 4].copy_from_slice(&crc.to_le_bytes());
            let found = FrameHeader::decode(&bytes, header().epoch);
            assert_eq!(found.is_some(), is_frame, "{number} at {place}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_header_is_seen() {
        let bytes = header().encode(&[b"abc", b"defg"]);
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let seen = match FrameHeader::decode(&flipped, header().epoch) {
                None => true,
                Some((_, crc)) => !crc.holds(b"abcdefg"),
            };
            assert!(seen, "bit {bit}");
        }
    }
}
