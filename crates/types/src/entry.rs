//! A batch on its way from a socket to the log and back: a header that can be patched, records
//! that are never copied.

use bytes::Bytes;

use crate::{BATCH_HEADER_LEN, BatchHeader, LeaderEpoch, Offset, batch_header::patch_place};

/// Bytes of memory that an entry takes beside its batch, in the queue, in the cache and in the
/// allocator; measured with batches of one record of 100 bytes.
const ACCOUNT_BYTES: usize = 256;

/// One record batch. The records stay a slice of what was read; the header is our own copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The batch's 61 header bytes.
    pub header: [u8; BATCH_HEADER_LEN],
    /// Everything behind them.
    pub records: Bytes,
}

impl Entry {
    /// The header's facts.
    #[must_use]
    pub fn facts(&self) -> BatchHeader {
        BatchHeader::decode(&self.header)
    }

    /// Bytes of the whole batch.
    #[must_use]
    pub fn len(&self) -> usize {
        BATCH_HEADER_LEN + self.records.len()
    }

    /// Bytes that the entry is charged with while it waits or is cached: the batch, and what it
    /// takes to keep account of it. Without the latter, small batches would take several times
    /// the memory that the bounds allow.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        Entry::memory_bytes_of(self.len())
    }

    /// What an entry of a batch of so many bytes is charged with.
    #[must_use]
    pub fn memory_bytes_of(batch_bytes: usize) -> u64 {
        (batch_bytes + ACCOUNT_BYTES) as u64
    }

    /// Never: a batch has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Gives the batch its place in a log; its CRC stays as it is.
    pub fn place(&mut self, base: Offset, epoch: LeaderEpoch) {
        patch_place(&mut self.header, base, epoch);
    }
}
