//! Spoils the files of a machine in memory: bits, stretches, lengths, whole files; and makes
//! checksums right again, so that what lies behind them is reached too.

use std::path::{Path, PathBuf};

use tidelog_wal::{
    checksum::crc32c,
    env::{Caching, FileSystem as _, Open, mem::MemFileSystem, write_all_at},
};

use super::input::Input;

/// Changes that one input may make.
const EDITS_MAX: usize = 24;
const BLOCK: usize = 4096;
const ALIGN: usize = 64;

/// Changes files as the input says until it is spent.
pub fn spoil(fs: &MemFileSystem, input: &mut Input<'_>) {
    for _ in 0..EDITS_MAX {
        let files = fs.files();
        if input.0.is_empty() || files.is_empty() {
            return;
        }
        let kind = input.byte();
        let path = &files[usize::from(input.byte()) % files.len()];
        let mut bytes = fs.contents(path).expect("a file that was listed");
        let place = input.number(3) as usize % (bytes.len() + 1);
        if kind % 8 == 3 {
            fs.remove_file(path).expect("a file that was listed");
            continue;
        }
        change(fs, kind % 8, &files, &mut bytes, place, input);
        if kind & 8 != 0 {
            seal(path, &mut bytes, place);
        }
        replace(fs, path, &bytes);
    }
}

fn change(
    fs: &MemFileSystem,
    kind: u8,
    files: &[PathBuf],
    bytes: &mut Vec<u8>,
    place: usize,
    input: &mut Input<'_>,
) {
    match kind {
        0 => {
            let count = usize::from(input.byte());
            overwrite(bytes, place, input.take(count));
        }
        1 => bytes.truncate(place),
        2 => {
            let count = input.number(2) as usize;
            let end = bytes.len().min(place + count);
            bytes[place..end].fill(0);
        }
        4 => {
            let other = &files[usize::from(input.byte()) % files.len()];
            *bytes = fs.contents(other).expect("a file that was listed");
        }
        5 => {
            let count = input.number(2) as usize;
            let end = bytes.len().min(place + count);
            let moved = bytes[place..end].to_vec();
            let to = input.number(3) as usize % (bytes.len() + 1);
            overwrite(bytes, to, &moved);
        }
        6 => {
            let count = usize::from(input.byte());
            bytes.splice(place..place, input.take(count).iter().copied());
        }
        _ => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << (input.byte() % 8);
            }
        }
    }
}

fn overwrite(bytes: &mut Vec<u8>, place: usize, with: &[u8]) {
    bytes.resize(bytes.len().max(place + with.len()), 0);
    bytes[place..place + with.len()].copy_from_slice(with);
}

fn replace(fs: &MemFileSystem, path: &Path, bytes: &[u8]) {
    let file = fs.open(path, Open::Write, Caching::Buffered).expect("a file that was listed");
    file.set_len(bytes.len() as u64).expect("a disk with room");
    write_all_at(&*file, &mut [std::io::IoSlice::new(bytes)], 0).expect("a disk with room");
    file.sync().expect("a disk that works");
}

/// Makes the checksums right of whatever the format has at this place.
fn seal(path: &Path, bytes: &mut [u8], place: usize) {
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("wal") if place < BLOCK => {
            for copy in [0, BLOCK / 2] {
                seal_little(bytes, copy, 60, copy + 60);
            }
        }
        Some("wal") => seal_record(bytes, place / ALIGN * ALIGN),
        Some("snapshot") if bytes.starts_with(b"TIDERSN1") => {
            seal_little(bytes, 48, bytes.len().saturating_sub(48), 40);
            seal_little(bytes, 0, 44, 44);
        }
        Some("seek") => seal_index(path, bytes, place / 32),
        Some("log") => seal_batch(bytes, place),
        _ => seal_little(bytes, 0, bytes.len().saturating_sub(4), bytes.len().saturating_sub(4)),
    }
}

/// A frame of the WAL or a record of the Raft log: of its header first, or of its payload.
fn seal_record(bytes: &mut [u8], at: usize) {
    let number = |bytes: &[u8], at: usize| {
        let found = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
        found.map_or(0, u32::from_le_bytes) as usize
    };
    match bytes.get(at..at + 4) {
        Some(b"TLFR") => {
            seal_little(bytes, at, 88, at + 88);
            let length = number(bytes, at + 80);
            let payload = bytes.get(at + 96..at.saturating_add(96).saturating_add(length));
            let crc = payload.map(|payload| crc32c(&[payload, &bytes[at + 88..at + 92]]));
            put(bytes, at + 92, crc);
        }
        Some(b"TRL1") => {
            seal_little(bytes, at + 64, number(bytes, at + 12), at + 56);
            seal_little(bytes, at, 60, at + 60);
        }
        _ => {}
    }
}

fn seal_index(path: &Path, bytes: &mut [u8], ordinal: usize) {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let base: i64 = stem.and_then(|stem| stem.parse().ok()).unwrap_or_default();
    let at = ordinal * 32;
    let Some(entry) = bytes.get(at..at + 28).filter(|_| ordinal > 0) else { return };
    let number = (ordinal as u64 - 1).to_be_bytes();
    let crc = crc32c(&[entry, &base.to_be_bytes(), &number]);
    if let Some(place) = bytes.get_mut(at + 28..at + 32) {
        place.copy_from_slice(&crc.to_be_bytes());
    }
}

fn seal_batch(bytes: &mut [u8], at: usize) {
    let Some(length) = bytes.get(at + 8..at + 12).and_then(|four| four.try_into().ok()) else {
        return;
    };
    let end = at.saturating_add(12).saturating_add(u32::from_be_bytes(length) as usize);
    let Some(crc) = bytes.get(at + 21..end).map(|covered| crc32c(&[covered])) else { return };
    bytes[at + 17..at + 21].copy_from_slice(&crc.to_be_bytes());
}

/// Puts the checksum of `length` bytes from `from` where it belongs.
fn seal_little(bytes: &mut [u8], from: usize, length: usize, at: usize) {
    let covered = bytes.get(from..from.saturating_add(length));
    let crc = covered.map(|covered| crc32c(&[covered]));
    put(bytes, at, crc);
}

fn put(bytes: &mut [u8], at: usize, crc: Option<u32>) {
    if let (Some(crc), Some(place)) = (crc, bytes.get_mut(at..at + 4)) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}
