//! Puts batches behind the end of a segment file: past the page cache when they are many.

use std::{
    io::{self, IoSlice},
    path::Path,
};

use tidelog_types::Entry;

use crate::{
    env::{DIRECT_ALIGN, File, read_exact_at, write_all_at},
    file_cache::FileCache,
};

/// From here on a pass goes past the page cache: writeback of so much would delay the log's syncs.
const DIRECT_BYTES_MIN: u64 = 256 << 10;
/// Bytes of one direct write.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes the entries' bytes at `position`, which is the file's end. The file is longer for a
/// moment, when the last sector is filled up with zeros, but not when this returns.
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
        match write_direct(&*direct, file, position, entries) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => files.refuse_direct(),
            written => {
                written?;
                return file.set_len(position + bytes);
            }
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

/// Starts with the sector that `position` lies in, whose beginning is written again unchanged.
fn write_direct(
    direct: &dyn File,
    buffered: &dyn File,
    position: u64,
    entries: &[Entry],
) -> io::Result<()> {
    let within = (position % DIRECT_ALIGN as u64) as usize;
    let mut chunk = Chunk::new(direct, position - within as u64);
    let mut sector = [0; DIRECT_ALIGN];
    read_exact_at(buffered, &mut sector[..within], position - within as u64)?;
    chunk.add(&sector[..within])?;
    for entry in entries {
        chunk.add(&entry.header)?;
        chunk.add(&entry.records)?;
    }
    chunk.finish()
}

/// Bytes on their way to a direct file, gathered where the kernel takes them from.
struct Chunk<'a> {
    file: &'a dyn File,
    /// A little longer than needed, so that an aligned part of it is long enough.
    room: Vec<u8>,
    start: usize,
    filled: usize,
    position: u64,
}

impl<'a> Chunk<'a> {
    fn new(file: &'a dyn File, position: u64) -> Chunk<'a> {
        let room = vec![0; CHUNK_BYTES + DIRECT_ALIGN];
        let start = room.as_ptr().align_offset(DIRECT_ALIGN);
        assert!(start < DIRECT_ALIGN, "an aligned byte lies within every {DIRECT_ALIGN}");
        Chunk { file, room, start, filled: 0, position }
    }

    fn add(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let some = bytes.len().min(CHUNK_BYTES - self.filled);
            let at = self.start + self.filled;
            self.room[at..at + some].copy_from_slice(&bytes[..some]);
            self.filled += some;
            bytes = &bytes[some..];
            if self.filled == CHUNK_BYTES {
                self.write()?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let whole = self.filled.next_multiple_of(DIRECT_ALIGN);
        self.room[self.start + self.filled..self.start + whole].fill(0);
        self.filled = whole;
        self.write()
    }

    /// A short write of a direct file ends at a sector border, or the next call refuses.
    fn write(&mut self) -> io::Result<()> {
        let bytes = &self.room[self.start..self.start + self.filled];
        write_all_at(self.file, &mut [IoSlice::new(bytes)], self.position)?;
        self.position += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}
