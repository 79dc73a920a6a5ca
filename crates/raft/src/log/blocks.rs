//! Reads old entries back: one block of one file at a time, verified, never the whole log.

use std::sync::Arc;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::Entry;
use tidelog_wal::chain::{ChainFile, block_align};

use super::{
    LogFiles,
    offsets::Block,
    record::{Framed, Record},
};
use crate::{handle::lock, terms::TermIndex};

/// Blocks that one look into the table returns at most.
const BLOCKS_MAX: usize = 64;

/// All live entries of a stretch of the log.
#[derive(Debug, Clone)]
pub(crate) struct DecodedBlock {
    /// The entries, without gaps.
    entries: Vec<Entry>,
    /// Encoded size of each entry, as raft-rs limits messages.
    sizes: Vec<u32>,
    /// What it takes in memory, at least: the bytes that the entries are slices of.
    pub(crate) bytes: u64,
}

impl DecodedBlock {
    fn new(entries: Vec<Entry>, bytes: u64) -> DecodedBlock {
        assert!(!entries.is_empty(), "a block without entries has no index");
        let sizes = entries.iter().map(Entry::compute_size).collect();
        DecodedBlock { entries, sizes, bytes }
    }

    /// The part of the block that is still in the log, if any.
    pub(crate) fn still_in(mut self, terms: &TermIndex) -> Option<DecodedBlock> {
        let gone = self.entries.iter().take_while(|entry| entry.index < terms.first()).count();
        self.entries.drain(..gone);
        self.sizes.drain(..gone);
        let same = self.entries.iter().take_while(|e| terms.term(e.index) == Some(e.term)).count();
        self.entries.truncate(same);
        self.sizes.truncate(same);
        (same > 0).then_some(self)
    }

    /// Adds the entries of [low, high) to a list as far as they fit into `room` encoded bytes; the
    /// first entry of the list always does. Returns the room that is left, `None` where the list
    /// is full.
    pub(crate) fn copy(
        &self,
        low: u64,
        high: u64,
        mut room: u64,
        list: &mut Vec<Entry>,
    ) -> Option<u64> {
        let (from, to) = (low - self.first(), high.min(self.end()) - self.first());
        let (from, to) = (from as usize, to as usize);
        for at in from..to {
            let size = u64::from(self.sizes[at]);
            if size > room && (at > from || !list.is_empty()) {
                list.extend_from_slice(&self.entries[from..at]);
                return None;
            }
            room = room.saturating_sub(size);
        }
        list.extend_from_slice(&self.entries[from..to]);
        Some(room)
    }

    /// The first index.
    pub(crate) fn first(&self) -> u64 {
        self.entries[0].index
    }

    /// The index after the last one.
    pub(crate) fn end(&self) -> u64 {
        self.first() + self.entries.len() as u64
    }
}

/// Why a block was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ColdError {
    /// The log no longer has it, or has something else there by now: ask again.
    #[error("the log changed while it was read")]
    Gone,
    /// What is there is not what was written.
    #[error("{} is damaged at byte {}", file.path.display(), block.position)]
    Damaged {
        /// The file.
        file: Arc<ChainFile>,
        /// What was read.
        block: Block,
    },
    /// The file system refused.
    #[error("{0}")]
    Io(#[source] tidelog_wal::WalError),
}

impl LogFiles {
    /// The blocks with the entries of [low, high), until they hold `bytes_min`. What was read
    /// before an error is returned; the error, where the first block meets it.
    ///
    /// # Errors
    /// As [`ColdError`] says.
    pub(crate) fn read(
        &self,
        low: u64,
        high: u64,
        bytes_min: u64,
    ) -> Result<Vec<DecodedBlock>, ColdError> {
        let blocks = wanted(lock(&self.table).blocks(low, BLOCKS_MAX), high, bytes_min);
        self.announce(&blocks);
        let mut decoded: Vec<DecodedBlock> = Vec::with_capacity(blocks.len());
        for block in blocks {
            match self.read_block(block) {
                Ok(read) => decoded.push(read),
                Err(error) if decoded.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        if decoded.is_empty() { Err(ColdError::Gone) } else { Ok(decoded) }
    }

    /// Has the disk asked for all of them at once: one after the other, each would wait for it.
    fn announce(&self, blocks: &[Block]) {
        for file in self.pool.live_files() {
            let here = || blocks.iter().filter(|block| block.file == file.header.number);
            if let (Some(first), Some(last)) = (here().next(), here().next_back()) {
                let end = last.position + last.length;
                file.file.will_read(first.position, end - first.position);
            }
        }
    }

    fn read_block(&self, block: Block) -> Result<DecodedBlock, ColdError> {
        let files = self.pool.live_files();
        let file = files.into_iter().find(|file| file.header.number == block.file);
        let file = file.ok_or(ColdError::Gone)?;
        let bytes = file.read(block.position, block.length as usize).map_err(ColdError::Io)?;
        match decode_block(&block, self.group, &Bytes::from(bytes)) {
            Some(entries) => Ok(DecodedBlock::new(entries, block.length)),
            // A file that was recycled meanwhile holds something else by right.
            None if self.is_current(&block) => Err(ColdError::Damaged { file, block }),
            None => Err(ColdError::Gone),
        }
    }

    fn is_current(&self, block: &Block) -> bool {
        lock(&self.table).blocks(block.first, 1).first() == Some(block)
    }
}

/// As many of the blocks, at least one, as hold [.., high) or `bytes_min` bytes.
fn wanted(mut blocks: Vec<Block>, high: u64, bytes_min: u64) -> Vec<Block> {
    let mut bytes = 0;
    let is_enough = |block: &Block| {
        let is_enough = bytes >= bytes_min || block.first >= high;
        bytes += block.length;
        is_enough
    };
    let count = blocks.iter().position(is_enough).unwrap_or(blocks.len());
    blocks.truncate(count.max(1));
    blocks
}

/// The live entries of a block; `None` where any byte of it is not as written.
fn decode_block(block: &Block, group: u32, bytes: &Bytes) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some(framed) = Framed::read(&bytes.slice(at..)) else {
            // Behind a group's last record is padding; the next group begins on a boundary. If it
            // was no padding, the entries will not be whole.
            let position = block.position + at as u64;
            at += (block_align(position + 1) - position) as usize;
            continue;
        };
        if framed.place.group != group || framed.place.file_epoch != block.epoch {
            return None;
        }
        at += framed.bytes_in_file;
        if let Record::Append(appended) = Record::decode(&framed)? {
            let keep = appended[0].index.checked_sub(block.first)?;
            entries.truncate(keep as usize);
            entries.extend(appended);
        }
    }
    entries.truncate((block.end - block.first) as usize);
    let is_whole = block.first < block.end
        && (block.first..block.end).eq(entries.iter().map(|entry| entry.index));
    is_whole.then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_blocks_are_read_than_are_wanted_and_at_least_one() {
        // Ten entries and 100 bytes each, from index 1 on.
        let block = |n: u64| Block {
            file: 1,
            epoch: 7,
            position: 4096 + n * 100,
            length: 100,
            first: 1 + n * 10,
            end: 11 + n * 10,
        };
        let blocks: Vec<Block> = (0..6).map(block).collect();
        for (high, bytes_min, count) in [
            (1000, 0, 1),
            (1000, 1, 1),
            (1000, 100, 1),
            (1000, 101, 2),
            (1000, 9999, 6),
            (31, 9999, 3),
            (30, 9999, 3),
            (32, 9999, 4),
            (5, 9999, 1),
        ] {
            let found = wanted(blocks.clone(), high, bytes_min);
            assert_eq!(found, blocks[..count], "below {high}, {bytes_min} bytes");
        }
        assert_eq!(wanted(Vec::new(), 9, 9), []);
    }
}
