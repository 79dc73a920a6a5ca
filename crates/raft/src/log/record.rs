//! One record of the Raft log as bytes: a header of 64, the payload, zeros up to the next 64.
//!
//! A record belongs to its file by the file's random epoch, to its place by its sequence, and to
//! itself by two checksums. `durable_through` says which sequences were synced when it was
//! written: that is what tells a torn tail from damage.

use bytes::{Buf as _, BufMut as _, Bytes};
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState};

/// Length of a record's header, and the boundary that records begin at, in bytes.
pub(crate) const RECORD_ALIGN: usize = 64;
/// `TRL1` in a file: the first four bytes of a record.
const MAGIC: u32 = 0x314c_5254;
/// Where the header's own checksum is; it covers everything before.
const HEADER_CRC_AT: usize = 60;
/// Length of an entry's fixed part in an append record.
const ENTRY_HEADER_LEN: usize = 20;

/// What one record says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    /// The log ended here when its next file was begun.
    LogEnd {
        /// The last index.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// Entries, in order; what the log had from the first one's index on is cut.
    Append(Vec<Entry>),
    /// Term, vote and commit index.
    HardState(HardState),
    /// A snapshot file is durable. Where the log does not have its index, the log begins after it.
    SnapshotMarker {
        /// The last index that the snapshot includes.
        index: u64,
        /// Its term.
        term: u64,
        /// The group's members at that index.
        conf_state: ConfState,
    },
    /// The log begins after this index.
    TruncatePrefix {
        /// The truncated index.
        index: u64,
        /// Its term.
        term: u64,
    },
}

/// A record's place in the order of all records, and what it vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The Raft group.
    pub(crate) group: u32,
    /// The random epoch of the file.
    pub(crate) file_epoch: u64,
    /// One more than the record before.
    pub(crate) sequence: u64,
    /// The highest sequence known synced when this was written.
    pub(crate) durable_through: u64,
}

/// A record that was read, still as bytes.
#[derive(Debug, Clone)]
pub(crate) struct Framed {
    pub(crate) place: Place,
    /// Header, payload and padding, in bytes.
    pub(crate) bytes_in_file: usize,
    kind: u8,
    payload: Bytes,
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Record::Append(_) => 1,
            Record::HardState(_) => 2,
            Record::SnapshotMarker { .. } => 3,
            Record::TruncatePrefix { .. } => 4,
            Record::LogEnd { .. } => 5,
        }
    }

    /// Adds the record to a buffer whose length is a multiple of [`RECORD_ALIGN`].
    pub(crate) fn encode(&self, place: Place, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        assert!(start.is_multiple_of(RECORD_ALIGN), "records begin at multiples of 64");
        buffer.resize(start + RECORD_ALIGN, 0);
        self.encode_payload(buffer);
        let payload_at = start + RECORD_ALIGN;
        let length = u32::try_from(buffer.len() - payload_at).expect("a record is below 4 GiB");
        let payload_crc = crc_fast::crc32_iscsi(&buffer[payload_at..]);
        let mut header = Vec::with_capacity(RECORD_ALIGN);
        header.put_u32_le(MAGIC);
        header.put_u32_le(u32::from(self.kind()));
        header.put_u32_le(place.group);
        header.put_u32_le(length);
        header.put_u64_le(place.file_epoch);
        header.put_u64_le(place.sequence);
        header.put_u64_le(place.durable_through);
        header.put_u128_le(0);
        header.put_u32_le(payload_crc);
        assert!(header.len() == HEADER_CRC_AT, "the header's layout is fixed");
        header.put_u32_le(crc_fast::crc32_iscsi(&header));
        buffer[start..payload_at].copy_from_slice(&header);
        buffer.resize(buffer.len().next_multiple_of(RECORD_ALIGN), 0);
    }

    fn encode_payload(&self, buffer: &mut Vec<u8>) {
        match self {
            Record::Append(entries) => encode_entries(entries, buffer),
            Record::HardState(state) => {
                buffer.put_u64_le(state.term);
                buffer.put_u64_le(state.vote);
                buffer.put_u64_le(state.commit);
            }
            Record::SnapshotMarker { index, term, conf_state } => {
                buffer.put_u64_le(*index);
                buffer.put_u64_le(*term);
                let written = conf_state.write_to_vec(buffer);
                assert!(written.is_ok(), "writing to memory cannot fail");
            }
            Record::TruncatePrefix { index, term } | Record::LogEnd { index, term } => {
                buffer.put_u64_le(*index);
                buffer.put_u64_le(*term);
            }
        }
    }

    /// Reads what a framed record says; `None` where its checksums hold but its contents do not
    /// read: an unknown kind, written by a newer version, or a mistake of the writer.
    pub(crate) fn decode(framed: &Framed) -> Option<Record> {
        let mut payload = framed.payload.clone();
        if framed.kind == 1 {
            return decode_entries(payload).map(Record::Append);
        }
        let (first, second) = (payload.try_get_u64_le().ok()?, payload.try_get_u64_le().ok()?);
        let record = match framed.kind {
            2 => {
                let commit = payload.try_get_u64_le().ok()?;
                Record::HardState(HardState {
                    term: first,
                    vote: second,
                    commit,
                    ..HardState::new()
                })
            }
            3 => {
                let conf_state = ConfState::parse_from_carllerche_bytes(&payload).ok()?;
                payload.clear();
                Record::SnapshotMarker { index: first, term: second, conf_state }
            }
            4 => Record::TruncatePrefix { index: first, term: second },
            5 => Record::LogEnd { index: first, term: second },
            _ => return None,
        };
        payload.is_empty().then_some(record)
    }
}

impl Framed {
    /// Reads the record at the start of `bytes`, which ends where the file does; `None` where there
    /// is none. Both checksums are verified; group, epoch and sequence are for the caller to judge.
    pub(crate) fn read(bytes: &Bytes) -> Option<Framed> {
        let header = bytes.get(..RECORD_ALIGN)?;
        let field = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let wide = |at: usize| u64::from(field(at)) | u64::from(field(at + 4)) << 32;
        // The magic is looked at first: most of what is asked about is zeros.
        if field(0) != MAGIC {
            return None;
        }
        if field(HEADER_CRC_AT) != crc_fast::crc32_iscsi(&header[..HEADER_CRC_AT]) {
            return None;
        }
        let payload_end = RECORD_ALIGN + field(12) as usize;
        let payload = bytes.get(RECORD_ALIGN..payload_end)?;
        if crc_fast::crc32_iscsi(payload) != field(56) {
            return None;
        }
        let place = Place {
            group: field(8),
            file_epoch: wide(16),
            sequence: wide(24),
            durable_through: wide(32),
        };
        let kind = u8::try_from(field(4)).ok()?;
        let payload = bytes.slice(RECORD_ALIGN..payload_end);
        let bytes_in_file = payload_end.next_multiple_of(RECORD_ALIGN);
        Some(Framed { place, bytes_in_file, kind, payload })
    }
}

/// Bytes that an append record of these entries takes, header and padding included.
pub(crate) fn append_bytes(entries: &[Entry]) -> u64 {
    let payload: usize = entries.iter().map(entry_payload_bytes).sum();
    (RECORD_ALIGN + 16 + payload).next_multiple_of(RECORD_ALIGN) as u64
}

/// Bytes that one entry takes in an append record.
pub(crate) fn entry_payload_bytes(entry: &Entry) -> usize {
    ENTRY_HEADER_LEN + entry.data.len() + entry.context.len()
}

fn encode_entries(entries: &[Entry], buffer: &mut Vec<u8>) {
    assert!(!entries.is_empty(), "an append record has entries");
    buffer.put_u64_le(entries[0].index);
    buffer.put_u64_le(entries.len() as u64);
    for (expected, entry) in (entries[0].index..).zip(entries) {
        assert!(entry.index == expected, "entries of one record follow each other");
        let length = |bytes: &Bytes| u32::try_from(bytes.len()).expect("an entry is below 4 GiB");
        buffer.put_u64_le(entry.term);
        buffer.put_u32_le(entry.entry_type as u32);
        buffer.put_u32_le(length(&entry.data));
        buffer.put_u32_le(length(&entry.context));
        buffer.put_slice(&entry.data);
        buffer.put_slice(&entry.context);
    }
}

/// The entries as slices of the payload: reading copies nothing.
fn decode_entries(mut payload: Bytes) -> Option<Vec<Entry>> {
    let first = payload.try_get_u64_le().ok()?;
    let count = payload.try_get_u64_le().ok()?;
    let most = (payload.len() / ENTRY_HEADER_LEN) as u64;
    if count == 0 || count > most || first == 0 {
        return None;
    }
    let mut entries = Vec::with_capacity(count as usize);
    for index in (first..).take(count as usize) {
        entries.push(decode_entry(index, &mut payload)?);
    }
    payload.is_empty().then_some(entries)
}

fn decode_entry(index: u64, payload: &mut Bytes) -> Option<Entry> {
    let term = payload.try_get_u64_le().ok()?;
    let entry_type = match payload.try_get_u32_le().ok()? {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => return None,
    };
    let data_len = payload.try_get_u32_le().ok()? as usize;
    let context_len = payload.try_get_u32_le().ok()? as usize;
    if payload.len() < data_len.checked_add(context_len)? {
        return None;
    }
    let (data, context) = (payload.split_to(data_len), payload.split_to(context_len));
    Some(Entry { entry_type, term, index, data, context, ..Entry::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Record> {
        let entry = |index, data: &'static [u8], context: &'static [u8]| Entry {
            index,
            term: 3,
            data: data.into(),
            context: context.into(),
            ..Entry::default()
        };
        let mut change = entry(9, b"change", b"why");
        change.entry_type = EntryType::EntryConfChangeV2;
        vec![
            Record::LogEnd { index: 6, term: 2 },
            Record::Append(vec![entry(7, b"", b""), entry(8, &[1; 200], b""), change]),
            Record::HardState(HardState { term: 3, vote: 2, commit: 8, ..HardState::new() }),
            Record::SnapshotMarker {
                index: 8,
                term: 3,
                conf_state: ConfState { voters: vec![1, 2, 3], ..ConfState::default() },
            },
            Record::TruncatePrefix { index: 4, term: 1 },
        ]
    }

    fn place(sequence: u64) -> Place {
        Place { group: 0, file_epoch: 0xfeed, sequence, durable_through: sequence - 1 }
    }

    #[test]
    fn every_record_reads_back_as_written() {
        for (sequence, record) in (1..).zip(examples()) {
            let mut buffer = Vec::new();
            record.encode(place(sequence), &mut buffer);
            let framed = Framed::read(&Bytes::from(buffer.clone())).expect("a record");
            assert_eq!(framed.place, place(sequence));
            assert_eq!(framed.bytes_in_file, buffer.len());
            assert_eq!(Record::decode(&framed), Some(record));
        }
    }

    #[test]
    fn the_size_of_an_append_is_known_before_it_is_written() {
        let Record::Append(entries) = &examples()[1] else { panic!("the second example") };
        let mut buffer = Vec::new();
        Record::Append(entries.clone()).encode(place(1), &mut buffer);
        assert_eq!(append_bytes(entries), buffer.len() as u64);
    }

    #[test]
    fn no_flipped_bit_reads_as_a_record() {
        for record in examples() {
            let mut buffer = Vec::new();
            record.encode(place(1), &mut buffer);
            let length =
                Framed::read(&Bytes::from(buffer.clone())).expect("a record").payload.len();
            for bit in 0..(RECORD_ALIGN + length) * 8 {
                let mut flipped = buffer.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let read = Framed::read(&Bytes::from(flipped));
                assert!(read.is_none(), "bit {bit}");
            }
        }
    }

    #[test]
    fn payloads_that_lie_are_no_records() {
        let good = examples();
        let mut buffer = Vec::new();
        good[1].encode(place(1), &mut buffer);
        let framed = Framed::read(&Bytes::from(buffer)).expect("a record");
        for length in 0..framed.payload.len() {
            let short = Framed { payload: framed.payload.slice(..length), ..framed.clone() };
            assert_eq!(Record::decode(&short), None, "{length} bytes");
        }
        let unknown = Framed { kind: 99, ..framed };
        assert_eq!(Record::decode(&unknown), None);
    }
}
