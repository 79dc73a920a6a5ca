//! A file's bytes in memory: 4 KiB pages, shared until written, zeros left out.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// Bytes of a page.
pub(in crate::env) const PAGE: usize = 4096;

/// Bytes by position. Pages that were never written read as zeros and take no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::env) struct Pages {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Pages {
    /// Length in bytes.
    pub(in crate::env) fn len(&self) -> u64 {
        self.len
    }

    /// Numbers of the pages that hold anything.
    pub(in crate::env) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.pages.keys().copied()
    }

    /// Reads up to the end; returns how many bytes there were.
    pub(in crate::env) fn read(&self, position: u64, buffer: &mut [u8]) -> usize {
        let there = self.len.saturating_sub(position).min(buffer.len() as u64) as usize;
        for (page, within, part) in parts(position, there) {
            match self.pages.get(&page) {
                Some(bytes) => buffer[part].copy_from_slice(&bytes[within]),
                None => buffer[part].fill(0),
            }
        }
        there
    }

    /// Writes, growing where it ends behind the end.
    pub(in crate::env) fn write(&mut self, position: u64, bytes: &[u8]) {
        for (page, within, part) in parts(position, bytes.len()) {
            let bytes = &bytes[part];
            if !self.pages.contains_key(&page) && bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within].copy_from_slice(bytes);
        }
        self.len = self.len.max(position + bytes.len() as u64);
    }

    /// Cuts or extends with zeros.
    pub(in crate::env) fn set_len(&mut self, len: u64) {
        if len <= self.len {
            self.pages.split_off(&len.div_ceil(PAGE as u64));
            let within = (len % PAGE as u64) as usize;
            if let Some(page) = self.pages.get_mut(&(len / PAGE as u64)) {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    /// Takes one page as `other` has it, lengths aside.
    pub(in crate::env) fn share_page(&mut self, number: u64, other: &Pages) {
        match other.pages.get(&number) {
            Some(page) => self.pages.insert(number, Arc::clone(page)),
            None => self.pages.remove(&number),
        };
    }
}

/// Splits a range of bytes at page borders: page, range within it, range within the whole.
pub(in crate::env) fn parts(
    position: u64,
    len: usize,
) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = position + done as u64;
        let within = (at % PAGE as u64) as usize;
        let some = (PAGE - within).min(len - done);
        let part = (at / PAGE as u64, within..within + some, done..done + some);
        done += some;
        (some > 0).then_some(part)
    })
}
