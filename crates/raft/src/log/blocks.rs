//! Reads old entries back: one block of one file at a time, verified, never the whole log.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use raft::eraftpb::Entry;
use tidelog_wal::chain::{ChainFile, FilePool, block_align};

use super::{
    offsets::{Block, OffsetTable},
    record::{Framed, NotARecord, Record},
};
use crate::handle::lock;

/// Blocks that one look into the table returns at most.
const BLOCKS_MAX: usize = 64;

/// All live entries of a stretch of the log.
#[derive(Debug, Clone)]
pub(crate) struct DecodedBlock {
    /// The entries, without gaps.
    pub(crate) entries: Vec<Entry>,
    /// What it takes in memory, at least: the bytes that the entries are slices of.
    pub(crate) bytes: u64,
}

impl DecodedBlock {
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

/// Reads blocks; clones read the same log.
#[derive(Debug, Clone)]
pub(crate) struct BlockReader {
    pub(crate) group: u32,
    pub(crate) pool: Arc<FilePool>,
    pub(crate) table: Arc<Mutex<OffsetTable>>,
}

impl BlockReader {
    /// The blocks from the one with `low` on, until they hold `bytes_min` or the log ends. What
    /// was read before an error is returned; the error, where the first block meets it.
    ///
    /// # Errors
    /// As [`ColdError`] says.
    pub(crate) fn read(&self, low: u64, bytes_min: u64) -> Result<Vec<DecodedBlock>, ColdError> {
        let blocks = lock(&self.table).blocks(low, BLOCKS_MAX);
        let mut decoded: Vec<DecodedBlock> = Vec::new();
        let mut bytes = 0;
        for block in blocks {
            if bytes >= bytes_min && !decoded.is_empty() {
                break;
            }
            match self.read_block(block) {
                Ok(read) => {
                    bytes += block.length;
                    decoded.push(read);
                }
                Err(error) if decoded.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        if decoded.is_empty() { Err(ColdError::Gone) } else { Ok(decoded) }
    }

    fn read_block(&self, block: Block) -> Result<DecodedBlock, ColdError> {
        let files = self.pool.live_files();
        let file = files.into_iter().find(|file| file.header.number == block.file);
        let file = file.ok_or(ColdError::Gone)?;
        let bytes = file.read(block.position, block.length as usize).map_err(ColdError::Io)?;
        match decode_block(&block, self.group, &Bytes::from(bytes)) {
            Some(entries) => Ok(DecodedBlock { entries, bytes: block.length }),
            // A file that was recycled meanwhile holds something else by right.
            None if self.is_current(&block) => Err(ColdError::Damaged { file, block }),
            None => Err(ColdError::Gone),
        }
    }

    fn is_current(&self, block: &Block) -> bool {
        lock(&self.table).blocks(block.first, 1).first() == Some(block)
    }
}

/// The live entries of a block; `None` where any byte of it is not as written.
fn decode_block(block: &Block, group: u32, bytes: &Bytes) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let framed = match Framed::read(&bytes.slice(at..)) {
            Ok(framed) => framed,
            Err(NotARecord::Zeros) => {
                // The rest of a group's last block: the next group begins on a boundary.
                let position = block.position + at as u64;
                at += (block_align(position + 1) - position) as usize;
                continue;
            }
            Err(NotARecord::Garbage) => return None,
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
    let is_whole = (block.first..block.end).eq(entries.iter().map(|entry| entry.index));
    is_whole.then_some(entries)
}
