//! Puts batches behind the end of a segment file: past the page cache when they are many.

use std::{
    io::{self, IoSlice},
    path::Path,
};

use tidelog_types::Entry;

use crate::{
    env::{DIRECT_ALIGN, File, read_exact_at, write_all_at},
    file_cache::FileCache,
    read_buffers::ReadBuffer,
};

/// From here on a pass goes past the page cache: writeback of so much would delay the log's syncs.
const DIRECT_BYTES_MIN: u64 = 256 << 10;
/// Bytes of one direct write.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes the entries' bytes at `position`, which is the file's end.
pub(crate) fn write_entries(
    files: &FileCache,
    path: &Path,
    file: &dyn File,
    position: u64,
    entries: &[Entry],
) -> io::Result<()> {
    let bytes: u64 = entries.iter().map(|entry| entry.len() as u64).sum();
    if bytes >= DIRECT_BYTES_MIN
        && let Some(direct) = files.write_direct(path)?
    {
        match write_direct(files, &*direct, file, position, entries) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => files.refuse_direct(),
            written => return written,
        }
    }
    write_buffered(file, position, entries)
}

fn write_buffered(file: &dyn File, position: u64, entries: &[Entry]) -> io::Result<()> {
    let mut slices = Vec::with_capacity(entries.len() * 2);
    for entry in entries {
        slices.push(IoSlice::new(&entry.header));
        slices.push(IoSlice::new(&entry.records));
    }
    write_all_at(file, &mut slices, position)
}

/// Starts with the sector that `position` lies in, whose beginning is written again unchanged. The
/// last sector, of which only a part is known, is left to the page cache: to fill it up and to cut
/// the file afterwards would read it back from the disk, and hold up the next write.
fn write_direct(
    files: &FileCache,
    direct: &dyn File,
    buffered: &dyn File,
    position: u64,
    entries: &[Entry],
) -> io::Result<()> {
    let within = (position % DIRECT_ALIGN as u64) as usize;
    let mut chunk = Chunk::new(files, direct, position - within as u64);
    let mut sector = [0; DIRECT_ALIGN];
    read_exact_at(buffered, &mut sector[..within], position - within as u64)?;
    chunk.add(&sector[..within])?;
    for entry in entries {
        chunk.add(&entry.header)?;
        chunk.add(&entry.records)?;
    }
    let (position, rest) = chunk.finish()?;
    write_all_at(buffered, &mut [IoSlice::new(&rest)], position)
}

/// Bytes on their way to a direct file, gathered where the kernel takes them from.
struct Chunk<'a> {
    file: &'a dyn File,
    buffer: ReadBuffer,
    filled: usize,
    position: u64,
}

impl<'a> Chunk<'a> {
    fn new(files: &FileCache, file: &'a dyn File, position: u64) -> Chunk<'a> {
        Chunk { file, buffer: files.buffers().take(CHUNK_BYTES), filled: 0, position }
    }

    fn add(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let some = bytes.len().min(CHUNK_BYTES - self.filled);
            self.buffer.bytes_mut()[self.filled..][..some].copy_from_slice(&bytes[..some]);
            self.filled += some;
            bytes = &bytes[some..];
            if self.filled == CHUNK_BYTES {
                self.write(CHUNK_BYTES)?;
                self.filled = 0;
            }
        }
        Ok(())
    }

    /// Writes the whole sectors; returns what is left and where it belongs.
    fn finish(mut self) -> io::Result<(u64, Vec<u8>)> {
        let whole = self.filled - self.filled % DIRECT_ALIGN;
        self.write(whole)?;
        Ok((self.position, self.buffer.bytes_mut()[whole..self.filled].to_vec()))
    }

    /// A short write of a direct file ends at a sector border, or the next call refuses.
    fn write(&mut self, bytes: usize) -> io::Result<()> {
        assert!(bytes.is_multiple_of(DIRECT_ALIGN), "only whole sectors go past the page cache");
        let whole = &self.buffer.bytes_mut()[..bytes];
        write_all_at(self.file, &mut [IoSlice::new(whole)], self.position)?;
        self.position += bytes as u64;
        Ok(())
    }
}
