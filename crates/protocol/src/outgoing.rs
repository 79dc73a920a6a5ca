//! A response on its way out: chunks for vectored writes, record bytes never copied.

use std::{collections::VecDeque, io::IoSlice};

use bytes::Bytes;
use tidelog_types::{BATCH_HEADER_LEN, Entry};

use crate::{ApiKey, header::encode_response_header, wire::Writer};

/// Bytes of a frame's length, which counts what follows it.
const LENGTH_PREFIX_LEN: usize = 4;
/// Length prefix, correlation id and the header's empty tagged fields.
const PREFIX_BYTES_MAX: usize = LENGTH_PREFIX_LEN + 5;

/// Contiguous bytes of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Shared bytes.
    Bytes(Bytes),
    /// The header of a batch, which was patched after it was read.
    Header([u8; BATCH_HEADER_LEN]),
}

impl Chunk {
    /// The bytes themselves.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Chunk::Bytes(bytes) => bytes,
            Chunk::Header(header) => header,
        }
    }
}

/// A whole response frame: length prefix, header and body. Written bytes leave its front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The first chunk stands alone, so that a small reply needs no queue.
    front: Chunk,
    rest: VecDeque<Chunk>,
    /// Bytes of the first chunk that are written.
    position: usize,
    remaining: usize,
}

impl Outgoing {
    /// Bytes still to be written.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// Whether everything is written.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.remaining == 0
    }

    /// Points `slices` at what is to be written next and returns how many were filled.
    pub fn fill_io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        if self.is_done() {
            return 0;
        }
        let front = &self.front.as_slice()[self.position..];
        let chunks = std::iter::once(front).chain(self.rest.iter().map(Chunk::as_slice));
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    /// Drops `count` written bytes.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining, "more was written than there was to write");
        self.remaining -= count;
        self.position += count;
        while self.position >= self.front.as_slice().len() {
            let Some(next) = self.rest.pop_front() else { break };
            self.position -= self.front.as_slice().len();
            self.front = next;
        }
    }

    /// All bytes still to be written, in one piece. For tests and small replies.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.remaining);
        bytes.extend_from_slice(&self.front.as_slice()[self.position..]);
        self.rest.iter().for_each(|chunk| bytes.extend_from_slice(chunk.as_slice()));
        assert_eq!(bytes.len(), self.remaining, "chunks add up to the frame");
        Bytes::from(bytes)
    }

    /// A frame that is begun with [`begin_frame`] and complete.
    pub(crate) fn from_frame(frame: Vec<u8>) -> Outgoing {
        Outgoing::from_parts(frame, Vec::new())
    }

    /// A frame that is begun with [`begin_frame`], with records to be put in at some of its bytes.
    pub(crate) fn from_parts(mut plain: Vec<u8>, inserts: Vec<Insert>) -> Outgoing {
        assert!(plain.len() > LENGTH_PREFIX_LEN, "a frame has a header");
        let inserted: usize = inserts.iter().map(|insert| insert.records.len()).sum();
        let remaining = plain.len() + inserted;
        let length = i32::try_from(remaining - LENGTH_PREFIX_LEN);
        let length = length.expect("a response is far smaller than 2 GiB");
        plain[..LENGTH_PREFIX_LEN].copy_from_slice(&length.to_be_bytes());
        let plain = Bytes::from(plain);
        let Some(first) = inserts.first() else {
            let (front, rest) = (Chunk::Bytes(plain), VecDeque::new());
            return Outgoing { front, rest, position: 0, remaining };
        };
        let front = Chunk::Bytes(plain.slice(..first.position));
        let rest = interleave(&plain, inserts);
        Outgoing { front, rest, position: 0, remaining }
    }
}

/// Record bytes and their place among a frame's other bytes.
pub(crate) struct Insert {
    pub(crate) position: usize,
    pub(crate) records: RecordChunks,
}

/// Batches to be sent, as storage handed them out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RecordChunks {
    /// No records: sent as zero bytes, never as null.
    #[default]
    None,
    /// Batches from the tail of the log.
    Entries(Vec<Entry>),
    /// Whole batches, back to back, from segments.
    Bytes(Vec<Bytes>),
}

impl RecordChunks {
    /// Bytes of all batches.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            RecordChunks::None => 0,
            RecordChunks::Entries(entries) => entries.iter().map(Entry::len).sum(),
            RecordChunks::Bytes(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }

    /// Whether there is no batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push_into(self, chunks: &mut VecDeque<Chunk>) {
        match self {
            RecordChunks::None => {}
            RecordChunks::Entries(entries) => {
                for entry in entries {
                    chunks.push_back(Chunk::Header(entry.header));
                    push_bytes(entry.records, chunks);
                }
            }
            RecordChunks::Bytes(pieces) => {
                pieces.into_iter().for_each(|piece| push_bytes(piece, chunks));
            }
        }
    }
}

/// Starts a response frame of about `body_bytes`: room for the length, then the header.
pub(crate) fn begin_frame(
    api_key: ApiKey,
    version: i16,
    correlation_id: i32,
    body_bytes: usize,
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(PREFIX_BYTES_MAX + body_bytes);
    frame.put_int32(0); // the length, once it is known
    encode_response_header(api_key, version, correlation_id, &mut frame);
    frame
}

/// Everything behind the first insert's place.
fn interleave(plain: &Bytes, inserts: Vec<Insert>) -> VecDeque<Chunk> {
    let mut chunks = VecDeque::new();
    let mut inserts = inserts.into_iter().peekable();
    while let Some(Insert { position, records }) = inserts.next() {
        let end = inserts.peek().map_or(plain.len(), |next| next.position);
        assert!(position <= end, "inserts come in order");
        records.push_into(&mut chunks);
        push_bytes(plain.slice(position..end), &mut chunks);
    }
    chunks
}

/// An empty slice would make a vectored write believe that the peer is gone.
fn push_bytes(bytes: Bytes, chunks: &mut VecDeque<Chunk>) {
    if !bytes.is_empty() {
        chunks.push_back(Chunk::Bytes(bytes));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(filler: u8, records: usize) -> Entry {
        Entry { header: [filler; BATCH_HEADER_LEN], records: vec![filler; records].into() }
    }

    fn frame(inserts: Vec<Insert>) -> Outgoing {
        let mut plain = begin_frame(ApiKey::Fetch, 18, 7, 0);
        plain.extend(0..100);
        Outgoing::from_parts(plain, inserts)
    }

    #[test]
    fn the_prefix_counts_what_follows_it() {
        let records = RecordChunks::Entries(vec![entry(1, 10), entry(2, 0)]);
        let outgoing = frame(vec![Insert { position: 20, records }]);
        let bytes = outgoing.to_bytes();
        assert_eq!(bytes[..9], [0, 0, 0, 237, 0, 0, 0, 7, 0]);
        assert_eq!(bytes.len(), 241);
        assert_eq!(bytes[20..81], [1; 61]);
    }

    #[test]
    fn records_are_not_copied() {
        let piece = Bytes::from(vec![9; 100]);
        let records = RecordChunks::Bytes(vec![piece.clone(), Bytes::new()]);
        let outgoing = frame(vec![Insert { position: 20, records }]);
        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(outgoing.fill_io_slices(&mut slices), 3);
        assert_eq!(slices[1].as_ptr(), piece.as_ptr());
    }

    proptest! {
        #[test]
        fn partial_writes_add_up_to_the_frame(
            sizes in prop::collection::vec((0_usize..40, 0_usize..3), 0..6),
            writes in prop::collection::vec(1_usize..90, 1..10),
            slots in 1_usize..5,
        ) {
            let mut position = 9;
            let inserts = sizes.into_iter().map(|(records, entries)| {
                position += 10;
                let entries = (0..entries).map(|filler| entry(filler as u8, records)).collect();
                Insert { position, records: RecordChunks::Entries(entries) }
            });
            let mut outgoing = frame(inserts.collect());
            let whole = outgoing.to_bytes();
            let mut written = Vec::new();
            for write in writes.into_iter().cycle() {
                if outgoing.is_done() {
                    break;
                }
                let mut slices = vec![IoSlice::new(&[]); slots];
                let filled = outgoing.fill_io_slices(&mut slices);
                prop_assert!(slices[..filled].iter().all(|slice| !slice.is_empty()));
                let offered: Vec<u8> =
                    slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
                let write = write.min(offered.len());
                written.extend_from_slice(&offered[..write]);
                outgoing.advance(write);
                prop_assert_eq!(outgoing.remaining(), whole.len() - written.len());
            }
            prop_assert_eq!(written, whole);
            prop_assert_eq!(outgoing.fill_io_slices(&mut [IoSlice::new(&[])]), 0);
        }
    }
}
