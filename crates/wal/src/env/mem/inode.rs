//! One file as the page cache has it and as the disk has it.

use std::{collections::BTreeMap, io};

use super::{
    pages::{PAGE, Pages, parts},
    rng::Rng,
};

/// Bytes that a disk writes in one piece.
const GRANULE: usize = 512;

/// A file's two contents, and which granules of the first the second still waits for.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    cache: Pages,
    disk: Pages,
    /// Page number → one bit for each of its granules.
    dirty: BTreeMap<u64, u8>,
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.cache.len()
    }

    pub(super) fn read(&self, position: u64, buffer: &mut [u8]) -> usize {
        self.cache.read(position, buffer)
    }

    /// Reads past the cache: what is clean comes from the disk, whatever the cache says.
    pub(super) fn read_direct(&self, position: u64, buffer: &mut [u8]) -> usize {
        let there = self.cache.read(position, buffer);
        for (page, within, part) in parts(position, there) {
            let clean = !self.dirty.get(&page).copied().unwrap_or(0);
            for granule in within.start / GRANULE..within.end.div_ceil(GRANULE) {
                if clean & 1 << granule != 0 {
                    let start = (granule * GRANULE).max(within.start);
                    let end = ((granule + 1) * GRANULE).min(within.end);
                    let at = part.start + start - within.start;
                    let target = &mut buffer[at..at + end - start];
                    target.fill(0);
                    self.disk.read(page * PAGE as u64 + start as u64, target);
                }
            }
        }
        there
    }

    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        self.cache.write(position, bytes);
        self.mark(position, bytes.len());
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let old = self.cache.len();
        self.cache.set_len(len);
        self.mark(len.min(old), old.saturating_sub(len) as usize);
    }

    /// What the disk holds now.
    pub(super) fn on_disk(&self) -> &Pages {
        &self.disk
    }

    /// Changes a byte in memory and on disk alike, as a failing medium does.
    pub(super) fn flip(&mut self, position: u64, bit: u8) {
        for content in [&mut self.cache, &mut self.disk] {
            let mut byte = [0];
            if content.read(position, &mut byte) == 1 {
                content.write(position, &[byte[0] ^ 1 << (bit % 8)]);
            }
        }
    }

    pub(super) fn sync(&mut self) {
        for (page, granules) in std::mem::take(&mut self.dirty) {
            if granules == u8::MAX {
                self.disk.share_page(page, &self.cache);
            } else {
                each_granule(page, granules, |at| copy(&self.cache, &mut self.disk, at, GRANULE));
            }
        }
        self.disk.set_len(self.cache.len());
    }

    /// A sync that fails: some of it reached the disk, and the cache holds all of it for clean.
    pub(super) fn sync_in_vain(&mut self, rng: &mut Rng) -> io::Result<()> {
        self.settle(rng);
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    /// The power fails: each unsynced granule is on the disk or not, as is the new length.
    pub(super) fn lose_power(&mut self, rng: &mut Rng) {
        self.settle(rng);
        self.cache = self.disk.clone();
    }

    /// Forgets the clean pages that `which` picks, so that they read as the disk has them.
    pub(super) fn forget(&mut self, mut which: impl FnMut() -> bool) {
        let numbers: std::collections::BTreeSet<u64> =
            self.cache.numbers().chain(self.disk.numbers()).collect();
        let len = self.cache.len();
        for page in numbers.into_iter().filter(|page| page * (PAGE as u64) < len) {
            if !self.dirty.contains_key(&page) && which() {
                self.cache.share_page(page, &self.disk);
            }
        }
        self.cache.set_len(len);
    }

    fn settle(&mut self, rng: &mut Rng) {
        let (old, new) = (self.disk.len(), self.cache.len());
        if self.dirty.is_empty() && old == new {
            return;
        }
        let mode = rng.below(6);
        for (page, granules) in std::mem::take(&mut self.dirty) {
            each_granule(page, granules, |at| self.settle_granule(at, mode, rng));
        }
        self.disk.set_len(match (mode, rng.below(4)) {
            (0, _) | (_, 0) => old,
            (1, _) | (_, 1 | 2) => new,
            _ => old.min(new) + rng.below(old.abs_diff(new) + 1),
        });
    }

    fn settle_granule(&mut self, at: u64, mode: u64, rng: &mut Rng) {
        let fate = match mode {
            0 => 0,
            1 => 4,
            _ => rng.below(10),
        };
        match fate {
            0..4 => {}
            4..8 => copy(&self.cache, &mut self.disk, at, GRANULE),
            8 => copy(&self.cache, &mut self.disk, at, rng.below(GRANULE as u64) as usize),
            _ => self.garble(at, rng),
        }
    }

    /// Bytes that were changing become anything. Bytes rewritten unchanged stay what they were:
    /// that much we assume of a disk.
    fn garble(&mut self, at: u64, rng: &mut Rng) {
        let (mut old, mut new) = ([0; GRANULE], [0; GRANULE]);
        self.disk.read(at, &mut old);
        self.cache.read(at, &mut new);
        for (old, new) in old.iter_mut().zip(new).filter(|(old, new)| *old != new) {
            *old = new ^ rng.next() as u8;
        }
        self.disk.write(at, &old);
    }

    fn mark(&mut self, position: u64, len: usize) {
        for (page, within, _) in parts(position, len) {
            let granules = self.dirty.entry(page).or_default();
            for granule in within.start / GRANULE..within.end.div_ceil(GRANULE) {
                *granules |= 1 << granule;
            }
        }
    }
}

fn each_granule(page: u64, granules: u8, mut act: impl FnMut(u64)) {
    for granule in (0..8).filter(|granule| granules & 1 << granule != 0) {
        act(page * PAGE as u64 + granule * GRANULE as u64);
    }
}

fn copy(from: &Pages, to: &mut Pages, at: u64, len: usize) {
    let mut bytes = [0; GRANULE];
    from.read(at, &mut bytes);
    to.write(at, &bytes[..len]);
}
