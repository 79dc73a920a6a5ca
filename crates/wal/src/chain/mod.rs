//! Numbered, preallocated, zeroed and recycled files, linked from the newest back to the oldest.
//!
//! Partition shards and the Raft log are both written this way; what a group contains is their
//! own business. The contract, from the writer's side:
//!
//! * Everything appended carries a **sequence** that rises without gaps. [`RecoveredChain::resume`]
//!   and [`ChainWriter::roll`] name the first sequence of the file they begin, which is at the
//!   same time the *seal* of the file before: what lies there at or above it is not in the log.
//! * A file's header (number, random epoch, first sequence, predecessor) has a sector of its own
//!   and is durable with the file's first synced group. Every record must carry the file's epoch:
//!   a recycled file is full of old records, and a payload can imitate a record.
//! * A group starts on a 4 KiB boundary and is written by one [`ChainWriter::append`], so nothing
//!   that was synced is ever rewritten.
//! * Recovery always goes on in a fresh file. A lost record whose place were written again could
//!   bring back the stale ones behind it.
//! * [`FilePool::recycle_below`] may be told a sequence only after whatever made the older ones
//!   unnecessary is durable.
//!
//! * Recovery judges only what the disk holds. After a failed sync pages may be clean in memory and
//!   absent on disk, but only in the newest file: a header is written when everything below its
//!   first sequence is durable. So before a byte of the newest file is believed, it is synced and
//!   its pages are forgotten; the others read as they are.
//!
//! A reader that still holds a file while it is recycled sees a foreign epoch, never wrong records.

mod header;
mod pool;
mod recover;
mod writer;

use std::{io::IoSlice, path::PathBuf, sync::Arc};

pub(crate) use header::COUNT_END;
pub use header::{FileHeader, HEADER_BYTES, HeaderError};
pub use pool::FilePool;
pub use recover::{RecoveredChain, recover};
pub use writer::ChainWriter;

use crate::{
    env::{File, read_exact_at, write_all_at},
    error::{Fatal, WalError},
};

/// Groups start on a multiple of this, in bytes; a file's first group follows its header block.
pub const BLOCK_BYTES: u64 = 4096;

/// One chain: a directory of its own.
#[derive(Debug, Clone)]
pub struct ChainConfig {
    /// The directory; created if missing.
    pub dir: PathBuf,
    /// Tells one owner's files from another's.
    pub owner: [u8; 4],
    /// Bytes of one file, header block included.
    pub file_bytes: u64,
    /// Bytes of the file that is created when none is ready at start-up.
    pub first_file_bytes: u64,
    /// Files there may be at once, those kept ready included.
    pub files_max: usize,
    /// Files kept zeroed and ready.
    pub files_ready: usize,
    /// Files kept ready at most: one that is freed beyond is removed, not recycled.
    pub files_recycled_max: usize,
}

/// A file of the chain. Its contents start at [`BLOCK_BYTES`].
#[derive(Debug)]
pub struct ChainFile {
    /// What its header says.
    pub header: FileHeader,
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes, header block included.
    pub bytes: u64,
    /// The file itself.
    pub file: Arc<dyn File>,
}

impl ChainFile {
    /// Reads `bytes` bytes from `position`.
    ///
    /// # Errors
    /// As [`WalError::of`] sorts them.
    pub fn read(&self, position: u64, bytes: usize) -> Result<Vec<u8>, WalError> {
        let mut buffer = vec![0; bytes];
        self.read_into(&mut buffer, position)?;
        Ok(buffer)
    }

    /// Fills `buffer` from `position` on.
    ///
    /// # Errors
    /// As [`WalError::of`] sorts them.
    pub fn read_into(&self, buffer: &mut [u8], position: u64) -> Result<(), WalError> {
        read_exact_at(&*self.file, buffer, position)
            .map_err(|error| WalError::of("cannot read", &self.path, error))
    }

    /// Makes sure that `image`, read before and verified, is what the disk holds at `position`:
    /// syncs, forgets the pages, reads again, writes again what differs. Returns whether anything
    /// did. After [`recover`] there is nothing to do, unless the file was written since.
    ///
    /// # Errors
    /// Any error is fatal.
    pub fn settle(&self, position: u64, image: &[u8]) -> Result<bool, Fatal> {
        let fatal = |what| move |error| Fatal::new(what, &self.path, error);
        self.file.sync().map_err(fatal("cannot sync"))?;
        self.file.drop_cache().map_err(fatal("cannot forget pages of"))?;
        let mut found = vec![0; image.len()];
        let read = read_exact_at(&*self.file, &mut found, position);
        if read.is_ok() && found == image {
            return Ok(false);
        }
        write_all_at(&*self.file, &mut [IoSlice::new(image)], position)
            .map_err(fatal("cannot write"))?;
        self.file.sync().map_err(fatal("cannot sync"))?;
        Ok(true)
    }
}

/// A file that holds nothing needed, ready to be written.
#[derive(Debug)]
pub(crate) struct Blank {
    path: PathBuf,
    bytes: u64,
    file: Arc<dyn File>,
}

impl Blank {
    /// A file whose contents nobody needs any more.
    fn of(file: &ChainFile) -> Blank {
        Blank { path: file.path.clone(), bytes: file.bytes, file: Arc::clone(&file.file) }
    }
}

/// The bytes of a file that is to have `bytes`: whole blocks, one for the header and one more.
#[must_use]
pub fn whole_blocks(bytes: u64) -> u64 {
    (bytes - bytes % BLOCK_BYTES).max(2 * BLOCK_BYTES)
}

/// The next multiple of [`BLOCK_BYTES`], `position` itself if it is one.
#[must_use]
pub fn block_align(position: u64) -> u64 {
    position.next_multiple_of(BLOCK_BYTES)
}
