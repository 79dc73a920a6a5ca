//! Appends groups to the newest file of a chain.

use std::{io::IoSlice, sync::Arc};

use super::{BLOCK_BYTES, ChainFile, FilePool, block_align};
use crate::{env::write_all_at, error::Fatal};

static ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

/// The one who writes a chain. Not shared: one thread writes and syncs.
#[derive(Debug)]
pub struct ChainWriter {
    pool: Arc<FilePool>,
    current: Option<Arc<ChainFile>>,
    position: u64,
    is_dirty: bool,
}

impl ChainWriter {
    pub(super) fn new(pool: Arc<FilePool>) -> ChainWriter {
        ChainWriter { pool, current: None, position: 0, is_dirty: false }
    }

    /// Only for [`super::RecoveredChain::resume_in_place`].
    pub(super) fn go_on(&mut self, file: Arc<ChainFile>, position: u64) {
        self.current = Some(file);
        self.position = position;
    }

    /// Epoch of the file being written: every record carries it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.current.as_ref().map_or(0, |file| file.header.epoch)
    }

    /// Bytes that the next group may have in the file being written.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.current.as_ref().map_or(0, |file| file.bytes - self.position)
    }

    /// Bytes of the largest group that any file can hold.
    #[must_use]
    pub fn group_bytes_max(&self) -> u64 {
        self.pool.config().file_bytes - BLOCK_BYTES
    }

    /// Begins a file that has room for a group of `bytes_min` bytes; its first record will have
    /// `first_sequence`. What was written to the one before is synced first. `false`: no file is
    /// ready; nothing changed, try again when one was filled or recycled.
    ///
    /// # Errors
    /// Any error is fatal, whatever its class: the files are preallocated.
    pub fn roll(&mut self, first_sequence: u64, bytes_min: u64) -> Result<bool, Fatal> {
        self.sync()?;
        let epoch = self.pool.random_epoch()?;
        let bytes_min = BLOCK_BYTES + block_align(bytes_min);
        let Some(file) = self.pool.start_file(first_sequence, bytes_min, epoch) else {
            return Ok(false);
        };
        assert!(file.bytes >= bytes_min, "the file has room for the group it is begun for");
        let header = file.header.encode_block(self.pool.config().owner);
        write_all_at(&*file.file, &mut [IoSlice::new(&header)], 0)
            .map_err(|error| Fatal::new("cannot write", &file.path, error))?;
        self.current = Some(file);
        self.position = BLOCK_BYTES;
        self.is_dirty = true;
        Ok(true)
    }

    /// Writes one group of `bytes` bytes, padded with zeros to the next block; returns where it
    /// starts. Durable after [`ChainWriter::sync`].
    ///
    /// # Errors
    /// Any error is fatal: the files are preallocated, so a full disk cannot be the reason.
    pub fn append<'a>(&mut self, mut slices: Vec<IoSlice<'a>>, bytes: u64) -> Result<u64, Fatal> {
        assert!(bytes > 0 && block_align(bytes) <= self.room(), "a group larger than its file");
        let Some(file) = &self.current else { unreachable!("there is room, so there is a file") };
        let position = self.position;
        assert!(position.is_multiple_of(BLOCK_BYTES), "a group starts on a block boundary");
        let padding = (block_align(bytes) - bytes) as usize;
        if padding > 0 {
            slices.push(IoSlice::new(&ZEROS[..padding]));
        }
        self.is_dirty = true;
        write_all_at(&*file.file, &mut slices, position)
            .map_err(|error| Fatal::new("cannot write", &file.path, error))?;
        self.position += block_align(bytes);
        Ok(position)
    }

    /// Makes everything appended durable, the header of a file just begun included.
    ///
    /// # Errors
    /// Any error is fatal: the kernel may have dropped what it could not write.
    pub fn sync(&mut self) -> Result<(), Fatal> {
        let Some(file) = self.current.as_ref().filter(|_| self.is_dirty) else { return Ok(()) };
        file.file.sync().map_err(|error| Fatal::new("cannot sync", &file.path, error))?;
        self.is_dirty = false;
        Ok(())
    }
}
