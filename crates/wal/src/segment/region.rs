//! Part of a segment file in memory, read past the page cache when it is large and new to us.

use std::io;

use bytes::Bytes;

use super::file::Segment;
use crate::{
    env::{DIRECT_ALIGN, File},
    file_cache::{FileCache, FileId},
    index::Interval,
};

/// From here on a read goes through a buffer that is used again and, if it is the first of these
/// bytes, past the page cache.
const LARGE_BYTES_MIN: usize = 256 << 10;

/// Bytes of a segment file, as the disk gave them.
#[derive(Debug)]
pub(crate) struct Region {
    log_id: FileId,
    /// Where they start in the file.
    pub(crate) start: u64,
    /// Fewer than asked for where the file ends too early.
    pub(crate) bytes: Bytes,
}

impl Region {
    /// Reads the intervals' bytes.
    pub(crate) fn read(
        files: &FileCache,
        segment: &Segment,
        intervals: &[Interval],
    ) -> io::Result<Region> {
        let start = intervals[0].position;
        let len: u64 = intervals.iter().map(|interval| interval.bytes).sum();
        let file = files.read(segment.log_id, &segment.log)?;
        let len = match len >= LARGE_BYTES_MIN as u64 {
            true => bytes_there(&*file, start, len)?,
            false => len,
        } as usize;
        let bytes = match len >= LARGE_BYTES_MIN {
            true => read_large(files, segment, start, len)?,
            false => {
                let mut bytes = vec![0; len];
                let read = read_up_to(&*file, &mut bytes, start)?;
                bytes.truncate(read);
                bytes.into()
            }
        };
        Ok(Region { log_id: segment.log_id, start, bytes })
    }

    /// Whether so many bytes are worth reading before anybody asked for them: the kernel reads
    /// ahead of small reads by itself.
    pub(crate) fn is_large(intervals: &[Interval]) -> bool {
        let bytes: u64 = intervals.iter().map(|interval| interval.bytes).sum();
        bytes >= LARGE_BYTES_MIN as u64
    }

    /// The first of the intervals, as many as lie in this region.
    pub(crate) fn covered<'a>(
        &self,
        segment: &Segment,
        intervals: &'a [Interval],
    ) -> &'a [Interval] {
        let first = intervals.first();
        if self.log_id != segment.log_id || first.is_none_or(|first| first.position < self.start) {
            return &[];
        }
        let end = self.start + self.bytes.len() as u64;
        &intervals[..intervals.partition_point(|interval| interval.end_position() <= end)]
    }

    /// The bytes of an interval and what is behind it.
    pub(crate) fn from(&self, interval: &Interval) -> (usize, &[u8]) {
        let at = ((interval.position - self.start) as usize).min(self.bytes.len());
        (at, &self.bytes[at..])
    }
}

/// How many of `len` bytes the file has. An index entry may say anything, and memory is taken for
/// what it says.
fn bytes_there(file: &dyn File, start: u64, len: u64) -> io::Result<u64> {
    Ok(file.len()?.saturating_sub(start).min(len))
}

/// A first read of many bytes is a consumer that catches up: what it reads once would only drive
/// other pages out, and taking it through them costs more than the disk. Who reads it again is
/// not alone, and fills the page cache for the next.
fn read_large(files: &FileCache, segment: &Segment, start: u64, len: usize) -> io::Result<Bytes> {
    let within = (start % DIRECT_ALIGN as u64) as usize;
    let aligned = (within + len).next_multiple_of(DIRECT_ALIGN);
    let mut buffer = files.buffers().take(aligned);
    let mut read = 0;
    if segment.note_scan(start, start + len as u64)
        && let Some(direct) = files.read_direct(segment.log_id, &segment.log)?
    {
        read = match direct.read_at(buffer.bytes_mut(), start - within as u64) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                files.refuse_direct();
                0
            }
            read => read?,
        };
    }
    // What a direct read left, if anything, need not begin on a border.
    if read < within + len {
        let file = files.read(segment.log_id, &segment.log)?;
        let rest = &mut buffer.bytes_mut()[read..within + len];
        read += read_up_to(&*file, rest, start - within as u64 + read as u64)?;
    }
    Ok(buffer.freeze().slice(within.min(read)..read.min(within + len)))
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(file: &dyn File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], position + done as u64)? {
            0 => break,
            some => done += some,
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::env::{Caching, FileSystem as _, Open, mem::MemFileSystem};

    #[test]
    fn no_memory_is_taken_for_bytes_that_a_file_has_not() {
        let fs = MemFileSystem::new();
        let file = fs.open(Path::new("/file"), Open::CreateNew, Caching::Buffered).unwrap();
        file.set_len(100).unwrap();
        let cases = [(0, 100, 100), (40, 3 << 30, 60), (100, 1, 0), (4 << 30, 3 << 30, 0)];
        for (start, len, there) in cases {
            assert_eq!(bytes_there(&*file, start, len).unwrap(), there, "{len} from {start}");
        }
    }
}
