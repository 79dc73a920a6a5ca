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

/// A whole response frame: length prefix, header and body. Written bytes are dropped from its front.
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
