//! One file: what is on the disk, and what this process wrote over it and did not sync.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
};

use crate::env::{
    Caching, File, FileSystem as _, Open,
    mem::pages::{PAGE, Pages, parts},
    read_exact_at,
    std::StdFileSystem,
    write_all_at,
};

/// Where synced bytes lie.
#[derive(Debug)]
enum Base {
    /// In a file of the operating system.
    Disk(Arc<dyn File>),
    /// Nowhere that outlives the process: no directory that names the file was synced yet.
    Nameless(Pages),
}

#[derive(Debug)]
pub(super) struct Inode {
    base: Base,
    /// Bytes of the base that still count.
    base_len: u64,
    len: u64,
    held: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Inode {
    pub(super) fn nameless() -> Inode {
        let base = Base::Nameless(Pages::default());
        Inode { base, base_len: 0, len: 0, held: BTreeMap::new() }
    }

    pub(super) fn open(path: &Path) -> io::Result<Inode> {
        let file = StdFileSystem.open(path, Open::Write, Caching::Buffered)?;
        let len = file.len()?;
        Ok(Inode { base: Base::Disk(file), base_len: len, len, held: BTreeMap::new() })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether the disk has all of it.
    pub(super) fn is_clean(&self) -> bool {
        self.held.is_empty() && self.base_len == self.len && matches!(self.base, Base::Disk(_))
    }

    pub(super) fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let there = self.len.saturating_sub(position).min(buffer.len() as u64) as usize;
        for (page, within, part) in parts(position, there) {
            match self.held.get(&page) {
                Some(bytes) => buffer[part].copy_from_slice(&bytes[within]),
                None => {
                    self.read_base(page * PAGE as u64 + within.start as u64, &mut buffer[part])?;
                }
            }
        }
        Ok(there)
    }

    pub(super) fn write(&mut self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut at = position;
        for buffer in buffers {
            for (page, within, part) in parts(at, buffer.len()) {
                if !self.held.contains_key(&page) {
                    let mut bytes = Box::new([0; PAGE]);
                    self.read_base(page * PAGE as u64, &mut bytes[..])?;
                    self.held.insert(page, bytes);
                }
                if let Some(bytes) = self.held.get_mut(&page) {
                    bytes[within].copy_from_slice(&buffer[part]);
                }
            }
            at += buffer.len() as u64;
        }
        self.len = self.len.max(at);
        Ok((at - position) as usize)
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.held.split_off(&len.div_ceil(PAGE as u64));
            if let Some(bytes) = self.held.get_mut(&(len / PAGE as u64)) {
                bytes[(len % PAGE as u64) as usize..].fill(0);
            }
            self.base_len = self.base_len.min(len);
        }
        self.len = len;
    }

    /// Puts everything held on the disk, as far as the file has a place there.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        match &mut self.base {
            Base::Disk(file) => {
                if file.len()? > self.base_len {
                    file.set_len(self.base_len)?;
                }
                for (page, bytes) in held {
                    write_all_at(&**file, &mut [IoSlice::new(&*bytes)], page * PAGE as u64)?;
                }
                file.set_len(self.len)?;
                file.sync()?;
            }
            Base::Nameless(pages) => {
                pages.set_len(self.base_len);
                held.iter().for_each(|(page, bytes)| pages.write(page * PAGE as u64, &**bytes));
                pages.set_len(self.len);
            }
        }
        self.base_len = self.len;
        Ok(())
    }

    /// Gives a file without a place on the disk one: what was synced goes there.
    pub(super) fn settle(&mut self, path: &Path) -> io::Result<()> {
        let Base::Nameless(pages) = &self.base else { return Ok(()) };
        let file = StdFileSystem.open(path, Open::CreateOrOpen, Caching::Buffered)?;
        file.set_len(0)?;
        let mut bytes = [0; PAGE];
        for page in pages.numbers() {
            pages.read(page * PAGE as u64, &mut bytes);
            write_all_at(&*file, &mut [IoSlice::new(&bytes)], page * PAGE as u64)?;
        }
        file.set_len(pages.len())?;
        file.sync()?;
        self.base = Base::Disk(file);
        Ok(())
    }

    /// Zeros behind the base's end.
    fn read_base(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let there = self.base_len.saturating_sub(position).min(buffer.len() as u64) as usize;
        match &self.base {
            Base::Disk(file) => read_exact_at(&**file, &mut buffer[..there], position)?,
            Base::Nameless(pages) => {
                pages.read(position, &mut buffer[..there]);
            }
        }
        buffer[there..].fill(0);
        Ok(())
    }
}
