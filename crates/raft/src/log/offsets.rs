//! Where entries lie in the files: a sparse table of positions, so that reading an old entry
//! reads one block of one file and never scans the log.
//!
//! A point says at which position the record with an index begins. Between two points lies a
//! block: every live entry from the first point's index up to the second's is in it, and stale
//! ones that a later append cut, which reading in file order cuts again.

use std::collections::VecDeque;

/// Blocks that a full file has, more or less.
const BLOCKS_A_FILE: u64 = 64;
/// Files' worth of unused bytes that a log may have.
const UNUSED_FILES_MAX: u64 = 2;

/// Where the record that begins with an index is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    index: u64,
    position: u64,
}

#[derive(Debug)]
struct FilePoints {
    number: u64,
    epoch: u64,
    points: Vec<Point>,
    /// Where the last record ends.
    end: u64,
    /// Bytes the file takes on disk.
    bytes_on_disk: u64,
}

/// A stretch of one file that holds all live entries of `first..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// The file's number.
    pub(crate) file: u64,
    /// The file's epoch, which each of its records carries.
    pub(crate) epoch: u64,
    /// Where it begins, in bytes.
    pub(crate) position: u64,
    /// Its length, in bytes.
    pub(crate) length: u64,
    /// The first index in it.
    pub(crate) first: u64,
    /// The index after the last live one in it.
    pub(crate) end: u64,
}

/// Points of every file, oldest first.
#[derive(Debug)]
pub(crate) struct OffsetTable {
    files: VecDeque<FilePoints>,
    /// The index after the last live entry.
    next: u64,
    file_bytes: u64,
    /// Bytes between two points, more or less one record: what one cold read decodes at least.
    block_bytes: u64,
}

impl OffsetTable {
    /// No file yet. `file_bytes` is how large the files will be.
    pub(crate) fn new(file_bytes: u64) -> OffsetTable {
        let block_bytes = (file_bytes / BLOCKS_A_FILE).max(1);
        OffsetTable { files: VecDeque::new(), next: 1, file_bytes, block_bytes }
    }

    /// Most bytes of entries that one record should have, so that blocks stay near their size.
    pub(crate) fn record_bytes_max(&self) -> usize {
        (self.block_bytes / 2) as usize
    }

    /// Begins a new file; what is noted from now on is in it.
    pub(crate) fn begin_file(
        &mut self,
        number: u64,
        epoch: u64,
        position: u64,
        bytes_on_disk: u64,
    ) {
        if let Some(newest) = self.files.back() {
            assert!(newest.number < number, "files are begun in order");
        }
        let file = FilePoints { number, epoch, points: Vec::new(), end: position, bytes_on_disk };
        self.files.push_back(file);
    }

    /// Notes an append record at `position` of the newest file, `length` long, with `count`
    /// entries from `first` on; cuts what the table had from `first` on.
    pub(crate) fn note_append(&mut self, first: u64, count: u64, position: u64, length: u64) {
        let cuts = first < self.next;
        if cuts {
            self.cut(first);
        }
        self.next = first + count;
        let Some(file) = self.files.back_mut() else { panic!("no file was begun") };
        assert!(position >= file.end, "records are noted in file order");
        let due =
            file.points.last().is_none_or(|point| position - point.position >= self.block_bytes);
        if due || cuts {
            file.points.push(Point { index: first, position });
        }
        file.end = position + length;
    }

    /// The log was replaced by a snapshot that ends at `index`: nothing below it is live.
    pub(crate) fn reset(&mut self, index: u64) {
        for file in &mut self.files {
            file.points.clear();
        }
        self.next = index + 1;
    }

    /// The blocks from the one with `low` on; empty where no file has `low`.
    pub(crate) fn blocks(&self, low: u64, blocks_max: usize) -> Vec<Block> {
        if low >= self.next {
            return Vec::new();
        }
        let mut blocks: VecDeque<Block> = VecDeque::new();
        let mut end = self.next;
        for file in self.files.iter().rev() {
            let mut until = file.end;
            for point in file.points.iter().rev() {
                blocks.push_front(Block {
                    file: file.number,
                    epoch: file.epoch,
                    position: point.position,
                    length: until - point.position,
                    first: point.index,
                    end,
                });
                (until, end) = (point.position, point.index);
                if end <= low {
                    return blocks.into_iter().take(blocks_max).collect();
                }
            }
        }
        Vec::new()
    }

    /// Numbers of the oldest files that hold no live entry above `index`; never the newest one.
    pub(crate) fn files_below(&self, index: u64) -> Vec<u64> {
        let mut below = Vec::new();
        for (at, file) in self.files.iter().enumerate().take(self.files.len().saturating_sub(1)) {
            let next_live = self.files.iter().skip(at + 1).find_map(|later| later.points.first());
            let live_end = next_live.map_or(self.next, |point| point.index);
            if !file.points.is_empty() && live_end > index + 1 {
                break;
            }
            below.push(file.number);
        }
        below
    }

    /// Forgets the oldest file, which is deleted.
    pub(crate) fn forget_oldest(&mut self, number: u64) {
        let oldest = self.files.pop_front().map(|file| file.number);
        assert!(oldest == Some(number), "files go oldest first");
    }

    /// Number of the oldest file.
    pub(crate) fn oldest_file(&self) -> Option<u64> {
        self.files.front().map(|file| file.number)
    }

    /// The highest index to truncate at so that the files left take at most `bytes_max`.
    pub(crate) fn truncation_for(&self, bytes_max: u64) -> u64 {
        let mut bytes = 0;
        let mut first_live = self.next;
        for file in self.files.iter().rev() {
            bytes += file.bytes_on_disk;
            if bytes > bytes_max {
                break;
            }
            first_live = file.points.first().map_or(first_live, |point| point.index);
        }
        first_live - 1
    }

    /// Bytes that all files take on disk.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.files.iter().map(|file| file.bytes_on_disk).sum()
    }

    /// Whether the files before the newest one are mostly unused. Every start begins a file, so
    /// that a node that starts often and writes little has many of those.
    pub(crate) fn is_sparse(&self) -> bool {
        let sealed = self.files.iter().rev().skip(1);
        let used: u64 = sealed.clone().map(|file| file.end).sum();
        let unused: u64 = sealed.map(|file| file.bytes_on_disk - file.end).sum();
        unused > UNUSED_FILES_MAX * self.file_bytes && unused > used
    }

    fn cut(&mut self, index: u64) {
        for file in self.files.iter_mut().rev() {
            file.points.retain(|point| point.index < index);
            if !file.points.is_empty() {
                break;
            }
        }
        self.next = self.next.min(index);
    }
}
